"""What palscope does, as tasks: each takes a hooked model and gives numbers, tables and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from nnsight import NNsight

from palscope._circuits.build import run_graph
from palscope._circuits.groups import position_groups
from palscope._features.effects import feature_effects
from palscope._features.rows import RowReader
from palscope._hooks import HookedAudioModel
from palscope._models.scoring import batched_choice_logprobs, generate_answers, prompt_batch
from palscope._routing import Level
from palscope.audio import Waveform
from palscope.circuits import (
    CircuitRuns,
    circuit_of,
    eap_ig,
    exact_effects,
    feature_shares,
    firing_features,
    pair_graph,
)
from palscope.evaluation._ranking import ChoiceQuestion, ModelAnswerer, rankings
from palscope.features import spliced
from palscope.interventions import (
    Add,
    Address,
    Change,
    Knockout,
    Mean,
    Noise,
    Patch,
    Resample,
    Scale,
    Sound,
    Text,
    Zero,
    intervene,
)
from palscope.interventions._address import SITES
from palscope.interventions._cells import run_cells
from palscope.measures import (
    attention_mass,
    clip_sets,
    pathway_mass,
    seconds_set,
    set_mass,
)
from palscope.measures._attribution import attribution_patching, integrated_gradients
from palscope.measures._cost_model import forward_costs
from palscope.measures._faithfulness import deletion_insertion, equal_windows
from palscope.measures._grids import layers_by_places, sites_by_places, steps, streams_by_layers
from palscope.measures._head_effects import head_effects, shortest_window
from palscope.measures._key_writes import attention_writes, offered_logits, written_by_pathway
from palscope.measures._knockout import (
    attention_knockout,
    audio_to_audio,
    generated_knockout,
    text_to_audio,
    text_to_text,
)
from palscope.measures._leakage import leakage
from palscope.measures._logit_lens import logit_lens
from palscope.measures._masking import pathway_masking
from palscope.measures._metrics import Answers
from palscope.measures._patching import activation_patching, input_patching
from palscope.measures._profile import attention_profile
from palscope.pairs import Pair
from palscope.pairs._pair import Segment
from tests.features.spliced import random_at
from tests.hooks.conftest import noise

QUESTION = "which sound was it"
SECONDS = 0.8
SOUND = Sound(0.2, 0.5)

Task = Callable[[HookedAudioModel], Any]
TASKS: dict[str, Task] = {}


def task(function: Task) -> Task:
    TASKS[function.__name__] = function
    return function


def clean(model: HookedAudioModel) -> dict[str, Any]:
    return model.inputs(QUESTION, noise(SECONDS))


def corrupt(model: HookedAudioModel) -> dict[str, Any]:
    return model.inputs(QUESTION, noise(SECONDS, 1))


def rows(model: HookedAudioModel) -> dict[str, Any]:
    """Rows of one clip, of two, and of none, padded."""
    asked = [((noise(0.5),), "was it"), ((noise(0.7, 1), noise(0.3, 2)), QUESTION), ((), "A or B")]
    return prompt_batch(model.processor, asked, model.model.device)


def answers_of(model: HookedAudioModel) -> Answers:
    return Answers.of(model.processor, "A", "B")


@task
@torch.no_grad()
def a_batch(model: HookedAudioModel) -> Any:
    """And a word more."""
    out = model.model(**rows(model), use_cache=True)
    word = torch.full((3, 1), 4, device=model.model.device)
    return out.logits, model.model(input_ids=word, past_key_values=out.past_key_values).logits


@task
@torch.no_grad()
def everything_cached(model: HookedAudioModel) -> Any:
    logits, cache = model.run_with_cache(rows(model))
    return [logits, *(cache[name] for name in sorted(cache.keys()))]


@task
def answers(model: HookedAudioModel) -> Any:
    asked = [([noise(0.4)], QUESTION), ([noise(0.6), noise(0.3)], "A or B")]
    return generate_answers(model.model, model.processor, asked, 3)


@task
def choices_of_a_batch(model: HookedAudioModel) -> Any:
    asked = [([noise(0.4)], QUESTION, ["A", "B was it"]), ([noise(0.6)], "A or B", ["it"])]
    return batched_choice_logprobs(model.model, model.processor, asked)


@task
@torch.no_grad()
def a_question_more(model: HookedAudioModel) -> Any:
    """Clips encoded once, and a cache that goes on."""
    inputs = clean(model)
    audio = model.encode_audio(inputs)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")} | {"audio": audio}
    twice = [model.model(**given, use_cache=True) for _ in range(2)]
    more = torch.tensor([[3, 4, 5]], device=model.model.device)
    later = model.model(input_ids=more, past_key_values=twice[1].past_key_values)
    return [each.logits for each in (*twice, later)]


@task
def masses(model: HookedAudioModel) -> Any:
    inputs = rows(model)
    return [
        attention_mass(model, inputs),
        attention_mass(model, inputs, queries="text"),
        pathway_mass(model, inputs, queries="text"),
    ]


@task
def masses_of_sets(model: HookedAudioModel) -> Any:
    inputs = rows(model)
    layout = model.layout(inputs)
    made = {
        **clip_sets(layout),
        "early": seconds_set(layout, 0.0, 0.2),
        "beginnings": layout.token < 2,
        "of the host": torch.ones(layout.stream.shape, dtype=torch.bool),
    }
    return set_mass(model, inputs, made)


@task
def masses_of_patterns_that_are_heard(model: HookedAudioModel) -> Any:
    inputs = clean(model)
    hook = [("blocks.2.attn.hook_pattern", lambda pattern, hook: pattern * 1.0)]
    with model.hooks(fwd_hooks=hook):
        return attention_mass(model, inputs), pathway_mass(model, inputs)


@task
def the_lens(model: HookedAudioModel) -> Any:
    return logit_lens(model, rows(model), answers=["A", "B"], top_k=2)


@task
def what_keys_write(model: HookedAudioModel) -> Any:
    inputs = clean(model)
    found = [each.written for each in attention_writes(model, inputs)]
    tables = [measure(model, inputs, top_k=2) for measure in (offered_logits, written_by_pathway)]
    return [*found, *tables]


@task
@torch.no_grad()
def every_site(model: HookedAudioModel) -> Any:
    inputs = clean(model)
    return [patched(model, inputs, address, Zero()) for address in addresses(model)]


@task
@torch.no_grad()
def through_dictionaries(model: HookedAudioModel) -> Any:
    """On the CPU, as they are trained: rows go there and back."""
    inputs, middle = clean(model), "blocks.1.hook_resid_post"
    with spliced(model, random_at("audio_blocks.0.hook_out", 16), random_at(middle, 32)):
        places = [Address("feature", SOUND, at="audio_blocks.0.hook_out", features=(0, 3))]
        places += [Address("feature_error", at=middle), Address("feature", at=middle)]
        return [patched(model, inputs, place, Zero()) for place in places]


@task
@torch.no_grad()
def every_change(model: HookedAudioModel) -> Any:
    inputs, other = clean(model), corrupt(model)
    state, output = Address("resid_pre", Text(), layers=(0, 3)), Address("encoder_output", SOUND)
    found: list[Any] = []
    for address, width in ((state, 32), (output, 32)):
        changes = [Scale(2.0), Noise(0.5), Add(torch.ones(width)), Resample(other), Mean([other])]
        found += [patched(model, inputs, address, change) for change in changes]
    heads = Address("head_output", Text(), layers=(3,), heads=(0, 3))
    return [*found, patched(model, inputs, heads, Resample(other))]


@task
def rows_of_a_data_set(model: HookedAudioModel) -> Any:
    """Of the encoder, the connector, a layer and heads, of two clips at once."""
    sites = [Address("encoder_neurons"), Address("connector_output")]
    sites.append(Address("pattern", queries=Text()))
    reader = RowReader(model, [*sites, Address("resid_post", Text(), (2,))])
    asked = [(Waveform(noise(s, 3), 16_000, "noise"), "what is heard?") for s in (0.5, 0.8)]
    found = reader(asked)
    return [(rows.values, rows.seconds) for each in found for rows in each.values()]


def patched(model: HookedAudioModel, inputs: Any, address: Address, change: Change) -> Any:
    with intervene(model, inputs, [Patch(address, change)]):
        return model(inputs, logits_to_keep=1)


def addresses(model: HookedAudioModel) -> Iterator[Address]:
    """One or two of every site that the model's route has."""
    route = model.current_route
    held = any(route.layers(stream.name, Level.KEYS) for stream in route.streams)
    for name, site in SITES.items():
        # Of encoder–decoders; of dictionaries that are spliced in.
        elsewhere = name == "waveform" or name.startswith(("cross_", "feature"))
        if elsewhere or (name in ("audio_k", "audio_v") and not held):
            continue
        yield Address(name, Text() if site.tokens == "any" else SOUND)
        if site.heads:
            tokens = Text() if site.tokens == "any" else SOUND
            yield Address(name, tokens, heads=(0, 1))
    yield Address("pattern", SOUND, layers=(1, 2))


@task
@torch.no_grad()
def decoding_under_interventions(model: HookedAudioModel) -> Any:
    inputs = clean(model)
    acting = [
        Knockout(Address("pattern", Sound(), queries=Text(), layers=(1, 2))),
        Patch(Address("resid_post", Text(), layers=(0, 3)), Scale(1.1)),
    ]
    with intervene(model, inputs, acting):
        return model.model.generate(**inputs, max_new_tokens=3, do_sample=False, pad_token_id=0)


@task
def cells(model: HookedAudioModel) -> Any:
    """Cells that begin late, and some that run whole."""
    inputs, taken = clean(model), corrupt(model)
    grid = [
        *layers_by_places(model.current_route, steps(SECONDS, 0.4), [(0,), (3,)]),
        *sites_by_places({"early": SOUND}, sites=("mel", "connector_output")),
    ]
    made: list[Any] = [[Patch(each, Resample(taken)) for each in cell.addresses] for cell in grid]
    made += [
        [],
        [Knockout(Address("pattern", Sound(), queries=Text(-1), layers=(1,)))],
        [Knockout(Address("pattern", Sound(), queries=Text(), layers=(2,), heads=(1,)))],
        [Patch(Address("mlp_out", Text(-1)), Zero())],
    ]
    return run_cells(model, inputs, made)


@task
def patching(model: HookedAudioModel) -> Any:
    cells = streams_by_layers(model.current_route, [(0, 3)])
    table = activation_patching(
        model, clean(model), corrupt(model), cells, answers=answers_of(model)
    )
    heard = input_patching(
        model,
        QUESTION,
        *(Waveform(noise(SECONDS, seed), 16_000, "a clip") for seed in (0, 1)),
        sites_by_places({"early": SOUND}, sites=("waveform",)),
        answers=answers_of(model),
    )
    return table, heard


@task
def knockouts(model: HookedAudioModel) -> Any:
    inputs, asked = clean(model), answers_of(model)
    edges = [
        *text_to_audio(model.current_route, segments={"early": SOUND}),
        *audio_to_audio(model, inputs),
        text_to_text(model, inputs, 2, answers=asked, reader="text", seed=0),
    ]
    return [
        attention_knockout(model, inputs, edges, [range(1, 4)], answers=asked),
        generated_knockout(model, inputs, [range(4)], answer="A B"),
    ]


@task
def masked(model: HookedAudioModel) -> Any:
    return pathway_masking(model, clean(model), ["A", "B was"], "A")


@task
def attributions(model: HookedAudioModel) -> Any:
    inner = [Address("resid_pre", Text()), Address("audio_state", SOUND)]
    outer = [Address("mel"), Address("encoder_output"), Address("connector_output")]
    given = dict(clean=clean(model), corrupt=corrupt(model), answers=answers_of(model))
    return [
        attribution_patching(model, addresses=inner + outer, **given),
        integrated_gradients(model, addresses=outer, steps=2, batch_size=3, **given),
    ]


@task
def effects_of_heads(model: HookedAudioModel) -> Any:
    asked: dict[str, Any] = {"answers": answers_of(model), "sounds": [Sound(0.1, 0.4)]}
    return [
        head_effects(model, clean(model), checked=3, **asked).sort_values(["layer", "head"]),
        shortest_window(model, clean(model), **asked),
    ]


@task
def effects_of_features(model: HookedAudioModel) -> Any:
    asked: dict[str, Any] = {"answers": answers_of(model), "tokens": SOUND, "checked": 3}
    with spliced(model, random_at("audio_blocks.0.hook_out", 16)):
        table = feature_effects(model, clean(model), Resample(corrupt(model)), **asked)
    return table.fillna({"feature": -1}).sort_values("feature")


@task
def circuits(model: HookedAudioModel) -> Any:
    """Scores of edges, exact effects of some, and a run of every third."""
    given = clean(model), corrupt(model)
    answers = answers_of(model)
    layout = model.layout(answers.behind(given[0]))
    graph = run_graph(model, layout, position_groups(layout, seconds=0.4))
    scores = eap_ig(model, *given, graph, answers=answers, steps=2)
    some = np.arange(0, graph.n_edges, 3)
    runs = CircuitRuns(model, *given, graph, answers=answers)
    exact = exact_effects(model, *given, graph, answers=answers, edges=some[::15].tolist())
    part = runs.metric(circuit_of(graph, some))
    return scores, np.array([part]), exact.total, exact.direct


@task
def circuits_of_features(model: HookedAudioModel) -> Any:
    """The same with latents as nodes, in the encoder and of a network."""
    mlp = random_at("blocks.1.hook_mlp_out", 32, streams=["text", "frames", "summary"])
    sounds = (Waveform(noise(SECONDS, seed), 16_000, "a clip") for seed in (0, 1))
    whole = (Segment("sound", 0.0, SECONDS, True),)
    pair = Pair("noises", "noise", QUESTION, *sounds, "A", "B", whole)
    encoder = random_at("audio_blocks.1.hook_out", 16)
    latents = firing_features(model, [pair], encoder, mlp, seconds=0.4, most=6)
    graph = pair_graph(model, pair, seconds=0.4, features=latents)
    runs: Any = {"clean": clean(model), "corrupt": corrupt(model), "answers": answers_of(model)}
    runs["graph"] = graph
    scores = eap_ig(model, **runs, steps=2)
    exact = exact_effects(model, **runs, edges=np.arange(0, graph.n_edges, 97).tolist())
    shares = feature_shares(CircuitRuns(model, **runs), scores, counts=(1,))
    return scores, exact.total, shares.drop(columns="hook_point").to_numpy(dtype=float)


@task
def deletion(model: HookedAudioModel) -> Any:
    clip, silence = (
        Waveform(samples, 16_000, "a clip")
        for samples in (noise(SECONDS), np.zeros(round(SECONDS * 16_000), dtype=np.float32))
    )
    windows = equal_windows(SECONDS, 2)
    return deletion_insertion(
        model, QUESTION, clip, silence, windows, {"back": [1, 0]}, answers=answers_of(model)
    )


@task
def leaking(model: HookedAudioModel) -> Any:
    return leakage(model, Waveform(noise(SECONDS), 16_000, "a clip"), 0.4, 0.48)


@task
def profiles(model: HookedAudioModel) -> Any:
    return attention_profile(model, clean(model), seconds=SECONDS, step=0.4)


@task
def a_stream(model: HookedAudioModel) -> Any:
    samples = noise(1.3)
    found: list[Any] = []
    for offload in (False, True):
        with model.audio_stream(offload=offload) as stream:
            stream.feed(samples[:9_000])
            stream.feed(samples[9_000:])
            with stream.asking(QUESTION) as asked:
                found += [attention_mass(model, asked)]
            found += [stream.ask(QUESTION, 3)]
    return found


@task
def training(model: HookedAudioModel) -> Any:
    """Two steps of AdamW on connector and decoder; the weights are put back."""
    inner: Any = model.model
    batch = rows(model)
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    optimizer = torch.optim.AdamW(inner.parameters(), lr=1e-2)
    inner.train()
    losses: list[Any] = []
    for _ in range(2):
        loss = inner(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(inner.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    inner.eval()
    inner.load_state_dict(before)
    return losses


@task
@torch.no_grad()
def tokens_alone_and_losses(model: HookedAudioModel) -> Any:
    """As TransformerLens's tools call it."""
    inputs = clean(model)
    with model.attach_clips(inputs):
        logits = model(inputs["input_ids"])
    losses = [model(inputs, return_type="loss", loss_per_token=each) for each in (False, True)]
    return [logits, *losses, model.to_tokens("which sound")]


@task
@torch.no_grad()
def through_nnsight(model: HookedAudioModel) -> Any:
    view = NNsight(model.model)
    with view.trace(**clean(model)):
        state = view.audio_taps[0].state.output.save()
        logits = view.output.logits.save()
    return state, logits


@task
def costs(model: HookedAudioModel) -> Any:
    inputs = clean(model)
    return forward_costs(model.model, model.layout(inputs))


@task
def evaluation(model: HookedAudioModel) -> Any:
    answerer = ModelAnswerer(model.model, model.processor, max_new_tokens=2)
    asked = [ChoiceQuestion([noise(0.4, seed)], QUESTION, ["A", "B"]) for seed in range(2)]
    return [each.logprobs for each in rankings(answerer, asked)], answerer.answer(asked)
