"""Every measure on a published model: against the plain class, or by what must hold of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope._verify.tolerance import PER_LAYER, rounding
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.interventions import Address, Sound
from palscope.measures._attention_mass import attention_mass
from palscope.measures._attribution import (
    attribution_patching,
    completeness,
    integrated_gradients,
)
from palscope.measures._connector_attention import connector_attention
from palscope.measures._cost import prefill, prefill_costs
from palscope.measures._cost_model import forward_costs
from palscope.measures._faithfulness import beside_patching, deletion_insertion, equal_windows
from palscope.measures._grids import layers_by_places, sites_by_places, steps
from palscope.measures._key_writes import attention_writes
from palscope.measures._knockout import attention_knockout, text_to_audio
from palscope.measures._leakage import leakage, receptive_field
from palscope.measures._logit_lens import logit_lens
from palscope.measures._masking import masked_choices
from palscope.measures._metrics import Answers
from palscope.measures._patching import activation_patching, check_controls
from tests.published.conftest import noise
from tests.published.tiny import qwen2_audio

QUESTION = "what is it?"
SECONDS = 0.8
LAYERS = 3
ANSWERS = Answers((), 127, 32)
"""Two entries that the two sounds of `runs` move apart."""


@pytest.fixture(scope="module")
def runs(qwen2: HookedAudioModel) -> dict[str, dict[str, Tensor]]:
    sounds = {"clean": noise(SECONDS), "corrupt": noise(SECONDS, 1)}
    return {name: qwen2.inputs(QUESTION, clip) for name, clip in sounds.items()}


@pytest.fixture(scope="module")
def plain() -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Patterns and residual streams of the plain class's layers, and its last logits."""
    model, processor = qwen2_audio.model(), qwen2_audio.processor()
    model.set_attn_implementation("eager")
    content = [{"type": "audio"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = processor(text=text, audio=[noise(SECONDS)], sampling_rate=16_000, return_tensors="pt")
    patterns: list[Tensor] = []
    states: list[Tensor] = []
    decoder: Any = model.model.language_model
    for layer in decoder.layers:
        layer.self_attn.register_forward_hook(lambda _, __, out: patterns.append(out[1][0]))
        layer.register_forward_hook(
            lambda _, __, out: states.append(out if isinstance(out, Tensor) else out[0])
        )
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
        lens = [model.lm_head(decoder.norm(state))[0] for state in states]
    return patterns, lens, logits


def test_attention_mass_is_the_plain_classs_pattern(
    qwen2: HookedAudioModel, runs: Any, plain: Any
) -> None:
    table = attention_mass(qwen2, runs["clean"])
    assert table["layer"].nunique() == LAYERS
    groups: Any = table.groupby(["layer", "head"])
    for (layer, head), group in groups:
        own = plain[0][layer][head, -1, group["key"].tolist()]
        # Shares of one, behind two layers of the tower.
        np.testing.assert_allclose(group["mass"], own, **rounding(PER_LAYER * (layer + 3), 1.0))
    sound = table[table["pathway"] == "frames"]
    spans = sound[["start_s", "end_s"]].drop_duplicates().to_numpy()
    np.testing.assert_allclose(spans[:, 0], np.arange(20) * 0.04, atol=1e-6)


def test_the_lens_unembeds_the_plain_classs_states(
    qwen2: HookedAudioModel, runs: Any, plain: Any
) -> None:
    """Of audio positions too: they run in every layer."""
    table = logit_lens(qwen2, runs["clean"], answers=[97], top_k=1)
    after = table[(table["site"] == "resid_post") & (table["id"] == 97)]
    columns = runs["clean"]["input_ids"].shape[1]
    assert len(after) == LAYERS * columns and (after["pathway"] == "frames").sum() == 20 * LAYERS
    for layer, rows in after.groupby("layer"):
        own = plain[1][layer][rows["column"].tolist(), 97]
        np.testing.assert_allclose(rows["logit"], own, atol=1e-4)


def test_what_keys_write_adds_up_to_what_attention_writes(
    qwen2: HookedAudioModel, runs: Any
) -> None:
    with torch.no_grad():
        _, cache = qwen2.run_with_cache(runs["clean"])
    layers = 0
    for writes in attention_writes(qwen2, runs["clean"]):
        added = cache[f"blocks.{writes.layer}.hook_attn_out"][0, -1]
        torch.testing.assert_close(writes.written.sum((0, 1)), added, atol=1e-5, rtol=1e-5)
        layers += 1
    assert layers == LAYERS


def test_sound_that_no_text_reads_might_as_well_be_absent(
    qwen2: HookedAudioModel, runs: Any
) -> None:
    """Knockout of all edges, and the route without sound, which never computes it."""
    (table,) = masked_choices(qwen2, runs["clean"], [["a dog", "rain"]])
    value = table.set_index(["way", "masked", "choice"])["logprob"]
    for choice in ("a dog", "rain"):
        knocked, rerouted = (value[way, "frames", choice] for way in ("knockout", "reroute"))
        assert knocked == pytest.approx(rerouted, abs=1e-4)
        assert knocked != pytest.approx(value["knockout", "nothing", choice], abs=1e-2)
    edges = text_to_audio(qwen2.current_route, readers=["text"])
    cut = attention_knockout(qwen2, runs["clean"], edges, [range(LAYERS)], answers=ANSWERS)
    with torch.no_grad(), qwen2.route(qwen2.current_route.mute("frames")):
        silent = qwen2(runs["clean"], logits_to_keep=1)[0, -1].log_softmax(-1)[ANSWERS.clean]
    assert cut[cut["run"] == "cut"]["logprob"].item() == pytest.approx(float(silent), abs=1e-4)


def test_a_grid_of_patches_passes_its_controls(qwen2: HookedAudioModel, runs: Any) -> None:
    places = steps(SECONDS, 0.4)
    cells = [
        *sites_by_places(places, sites=("mel", "encoder_output", "connector_output")),
        *layers_by_places(qwen2.current_route, places, [(layer,) for layer in range(LAYERS)]),
    ]
    assert len(cells) == (3 + LAYERS) * 2
    table = activation_patching(qwen2, **runs, cells=cells, answers=ANSWERS)
    check_controls(table.assign(pair="one"))
    effects = table[table["run"] == "patch"].set_index(["site", "place"])["logit_diff"]
    target = table[table["run"] == "target"]["logit_diff"].item()
    assert ((effects - target).abs() > 1e-3).all()
    # What enters the projector leaves it, token by token.
    of = effects.loc["encoder_output"], effects.loc["connector_output"]
    np.testing.assert_allclose(*of, atol=1e-4)


def test_integrated_gradients_account_for_the_whole_difference(
    qwen2: HookedAudioModel, runs: Any
) -> None:
    addresses = [Address("mel"), Address("encoder_block", layers=(1,)), Address("encoder_output")]
    found = integrated_gradients(
        qwen2, **runs, addresses=addresses, answers=ANSWERS, steps=4, batch_size=6
    )
    complete = completeness(found)
    assert (complete["difference"].abs() > 0.2).all()
    assert (complete["error"] < 1e-3).all(), complete
    mel = found[found["site"] == "mel"]
    assert len(mel) == 80 * 128 and mel["end_s"].max() == pytest.approx(SECONDS)
    tokens = found[found["site"] == "encoder_output"]
    assert len(tokens) == 20 and tokens["end_s"].max() == pytest.approx(SECONDS)


def test_attributions_stand_beside_exact_patching(qwen2: HookedAudioModel, runs: Any) -> None:
    cells = sites_by_places(steps(SECONDS, 0.2), sites=("encoder_output",))
    near = {name: dict(each) for name, each in runs.items()}
    features = "input_features"  # a small step, along which the gradient hardly turns
    step = near["clean"][features] - near["corrupt"][features]
    near["corrupt"][features] = near["clean"][features] - 1e-2 * step
    patched = activation_patching(qwen2, **near, cells=cells, answers=ANSWERS)
    found = attribution_patching(
        qwen2, **near, addresses=[Address("encoder_output")], answers=ANSWERS
    )
    beside = beside_patching(patched, found, cells)
    np.testing.assert_allclose(beside["attribution"], beside["effect"], rtol=0.15, atol=1e-3)


def test_deletion_and_insertion_begin_and_end_where_each_other_ends_and_begins(
    qwen2: HookedAudioModel,
) -> None:
    clip, silence = (
        Waveform(samples, 16_000, "a clip")
        for samples in (noise(SECONDS), np.zeros(round(SECONDS * 16_000), dtype=np.float32))
    )
    windows = equal_windows(SECONDS, 2)
    table = deletion_insertion(
        qwen2, QUESTION, clip, silence, windows, {"back": [1, 0]}, answers=ANSWERS
    )
    curves = table.set_index(["curve", "step"])["logprob"]
    assert curves["deletion", 0] == pytest.approx(curves["insertion", 2], abs=1e-5)
    assert curves["deletion", 2] == pytest.approx(curves["insertion", 0], abs=1e-5)
    assert curves["deletion", 0] != pytest.approx(curves["deletion", 2], abs=1e-2)


def test_leakage_is_local_below_the_tower_and_everywhere_above(qwen2: HookedAudioModel) -> None:
    table = leakage(qwen2, Waveform(noise(SECONDS), 16_000, "a clip"), 0.4, 0.48)
    sites = list(dict.fromkeys(zip(table["site"], table["layer"], strict=True)))
    assert sites == [
        *(("mel", -1), ("encoder_input", -1), ("encoder_block", 0), ("encoder_block", 1)),
        *(("encoder_output", -1), ("connector_output", -1)),
        *(("resid_post", layer) for layer in range(LAYERS)),
    ]
    still = table["floor_moved_db"].abs().max() < 1e-3
    moved = table[table["change"] > 0].groupby(["site", "layer"])
    if still:
        assert moved.get_group(("encoder_input", -1))["beyond_s"].max() < 0.06
    assert len(moved.get_group(("encoder_block", 1))) == 40
    most = table.loc[table.groupby("site")["change"].idxmax()].set_index("site")
    assert most.loc["encoder_input", "overlaps"]
    assert len(receptive_field(table)) == len(sites)


def test_frozen_routes_are_timed(qwen2: HookedAudioModel, runs: Any) -> None:
    routes = {"plits": Route.plits(LAYERS), "frozen": Route.plits(LAYERS).frozen_from(1)}
    calls = {name: prefill(qwen2.model, runs["clean"], route) for name, route in routes.items()}
    table = prefill_costs(calls, "plits", repeats=1)
    assert (table["prefill_s"] > 0).all() and (table["cache_ratio"] == 1).all()


@pytest.mark.parametrize(
    ("measure", "about"),
    [
        (lambda model, runs: connector_attention(model, runs["clean"]), "palscope's own"),
        (lambda model, runs: forward_costs(model.model, model.layout(runs["clean"])), "time a"),
        (lambda model, runs: model.audio_stream(), "hears a clip as a whole"),
        (
            lambda model, runs: attention_knockout(
                model,
                runs["clean"],
                text_to_audio(Route.pal(LAYERS, [0])),
                [range(LAYERS)],
                answers=ANSWERS,
            ),
            "no stream 'summary'",
        ),
    ],
)
def test_what_a_published_model_cannot_do_is_said(
    qwen2: HookedAudioModel, runs: Any, measure: Any, about: str
) -> None:
    with pytest.raises(PalscopeError, match=about):
        measure(qwen2, runs)


def test_seconds_past_the_clip_are_refused(qwen2: HookedAudioModel, runs: Any) -> None:
    cells = sites_by_places({"late": Sound(1.0, 1.2)}, sites=("encoder_output",))
    with pytest.raises(PalscopeError, match="outside of clip 0"):
        activation_patching(qwen2, **runs, cells=cells, answers=ANSWERS)
