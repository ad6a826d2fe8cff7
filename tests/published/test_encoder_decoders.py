"""Every encoder–decoder does under palscope what its class does by itself.

The oracle is the plain class: its logits, its patterns, its generation; and for what it has no
switch for (a layer without its cross-attention, edges that are cut) a plain hook on its modules.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from nnsight import NNsight
from torch import Tensor
from transformers import AutoProcessor, GenerationMixin

import palscope
from palscope._models.scoring import continued, greedy_tokens, prompt_batch
from palscope._routing import CROSSED, FULL, Route
from palscope._routing.depths import rerouted_depths
from palscope._routing.layout import FILLER
from palscope._verify.own import own_prompt
from palscope.audio._waveform import Waveform
from palscope.errors import (
    AudioError,
    CheckpointError,
    HookError,
    PalscopeError,
    PromptError,
    RouteError,
)
from palscope.interventions import (
    Address,
    Filler,
    Knockout,
    Patch,
    Resample,
    Sound,
    Text,
    Zero,
    capture,
    intervene,
    run_cells,
)
from palscope.interventions._cells import run_cells_plainly
from palscope.measures import (
    Answers,
    _head_effects,
    activation_patching,
    attention_mass,
    by_pathway,
    head_effects,
    logit_lens,
    pathway_mass,
)
from palscope.measures._knockout import through_fillers
from palscope.measures._patching import GridCell
from tests.fake_hub import serving
from tests.published.contract import RATE, noise
from tests.published.folders.build import about, hub_folder

CLIP = Waveform(noise(1.3), RATE, "noise")
WORDS = (72, 105, 33)
"""Ids of some words behind the prompt."""


@dataclass(frozen=True)
class Case:
    """What classes differ in.

    Attributes:
        heard: what the plain class calls what it hears.
        step: seconds of a token.
        frames: tokens of the clips, of 1.3 and 0.7 s.
        window: tokens that are crossed, whatever the clip's length; None for the clip's alone.
        full: seconds of a clip without filling.
        also: hook points that the other classes lack.
        refused: prompts that are, and why.
    """

    name: str
    heard: str
    step: float
    frames: tuple[int, int]
    window: int | None
    full: float
    also: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    def tokens(self, start: float, end: float) -> slice:
        """Those that overlap some seconds."""
        return slice(math.floor(round(start / self.step, 6)), math.ceil(round(end / self.step, 6)))


CASES = (
    Case(
        "whisper",
        "input_features",
        0.02,
        (65, 35),
        1500,
        30.0,
        ("pos_embed.hook_out",),
        (("<|de|><|transcribe|>", "English alone"),),
    ),
    Case("moonshine", "input_values", 0.024, (52, 27), None, 1.3),
)


class Opened:
    """A tiny model under palscope, and the plain class with the same weights."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.tiny: Any = importlib.import_module(f"tests.published.tiny.{case.name}")
        self.plain: Any = self.tiny.model()
        self.hooked = palscope.load(self.tiny.model(), processor=self.tiny.processor())
        self.clips = [noise(1.3), noise(0.7, 1)]
        prompts = prompt_batch(self.hooked.processor, [((clip,), "") for clip in self.clips])
        self.prompts: dict[str, Tensor] = prompts
        self.batch = self._behind(prompts)
        self.one = self._behind({name: each[:1] for name, each in prompts.items()})
        layout = self.hooked.layout(self.one)
        self.words = int((layout.stream[0] == -1).sum())
        self.audio = self.one["input_ids"].shape[1] - self.words
        own = self.tiny.processor().feature_extractor
        self.heard = [
            torch.as_tensor(own(clip, sampling_rate=RATE, return_tensors="pt")[case.heard])
            for clip in self.clips
        ]

    @staticmethod
    def _behind(prompts: dict[str, Tensor]) -> dict[str, Tensor]:
        words = torch.tensor(WORDS).expand(len(prompts["input_ids"]), -1)
        ids = torch.cat([prompts["input_ids"], words], 1)
        mask = torch.cat([prompts["attention_mask"], torch.ones_like(words)], 1)
        return prompts | {"input_ids": ids, "attention_mask": mask}

    @torch.no_grad()
    def plain_run(self, row: int = 0, **kwargs: Any) -> Any:
        """The plain class on one clip, as its own processor makes it, and the words."""
        given = {self.case.heard: self.heard[row]}
        return self.plain(
            **given,
            decoder_input_ids=self.batch["input_ids"][row : row + 1, self.audio :],
            **kwargs,
        )

    def plain_answer(self, row: int, **chosen: Any) -> Tensor:
        """By transformers' own method, which Whisper's class puts its windows around."""
        start = self.prompts["input_ids"][row : row + 1, self.audio :]
        given: Any = {self.case.heard: self.heard[row], "decoder_input_ids": start, **chosen}
        return cast(Any, GenerationMixin).generate(self.plain, **given)[0]

    @torch.no_grad()
    def logits(self, batch: dict[str, Tensor] | None = None) -> Tensor:
        """The hooked model's, of words."""
        return self.hooked(self.one if batch is None else batch)[:, self.audio :]

    @property
    def layers(self) -> Any:
        return self.plain.model.decoder.layers

    @contextmanager
    def without_cross(self, *layers: int) -> Generator[None, None, None]:
        """Within, the plain class's `layers` add nothing of their second attention."""

        def nothing(_module: Any, _args: Any, out: Any) -> Any:
            return (torch.zeros_like(out[0]), *out[1:])

        handles = [self.layers[i].encoder_attn.register_forward_hook(nothing) for i in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def masked(self, layer: int, seen: Callable[[Tensor], None]) -> Generator[None, None, None]:
        """Within, `seen` edits `[heads, queries, keys]` of what a plain layer's cross sees."""

        def before(_module: Any, args: Any, kwargs: Any) -> Any:
            state = args[0] if args else kwargs["hidden_states"]
            mask = torch.ones(4, state.shape[1], self.audio, dtype=torch.bool)
            seen(mask)
            return args, {**kwargs, "attention_mask": mask[None]}

        module = self.layers[layer].encoder_attn
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def opened(request: Any) -> Opened:
    return Opened(request.param)


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-5)


def differs(got: Tensor, other: Tensor) -> None:
    assert (got - other).abs().max() > 1e-2


# -- the plain class ------------------------------------------------------------------------------


def test_without_listeners_logits_are_those_of_the_plain_class_to_the_bit(opened: Opened) -> None:
    assert torch.equal(opened.logits(), opened.plain_run().logits)


def test_a_batch_is_its_rows(opened: Opened) -> None:
    got = opened.logits(opened.batch)
    for row in range(2):
        close(got[row], opened.plain_run(row).logits[0])
    close(got[:1], opened.logits())
    differs(got[1], got[0])  # another sound gives other words


def test_padded_prompts_of_different_length_are_each_as_alone(opened: Opened) -> None:
    longer = opened.hooked.processor.chat("") + "Hi!"
    texts = [longer, opened.hooked.processor.chat("")]
    batch = dict(opened.hooked.processor(texts, opened.clips, sampling_rate=RATE))
    assert not bool(batch["attention_mask"].all())
    with torch.no_grad():
        got = opened.hooked(batch, logits_to_keep=1)
        for row, text in enumerate(texts):
            alone = opened.hooked.processor(text, opened.clips[row], sampling_rate=RATE)
            close(got[row], opened.hooked(dict(alone), logits_to_keep=1)[0])


def test_bfloat16_is_the_plain_class_s(opened: Opened) -> None:
    half = palscope.load(opened.tiny.model().bfloat16(), processor=opened.tiny.processor())
    plain = opened.tiny.model().bfloat16()
    with torch.no_grad():
        wanted = plain(
            **{opened.case.heard: opened.heard[0].bfloat16()},
            decoder_input_ids=opened.one["input_ids"][:, opened.audio :],
        ).logits
        assert torch.equal(half(opened.one)[:, opened.audio :], wanted)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_the_plain_class_s_with_its_own_settings(opened: Opened, beams: int) -> None:
    settings = opened.plain.generation_config
    chosen: Any = {
        "max_new_tokens": 5,
        "num_beams": beams,
        "suppress_tokens": settings.suppress_tokens,
        "begin_suppress_tokens": settings.begin_suppress_tokens,
    }
    got = opened.hooked.model.generate(**opened.prompts, **chosen)
    for row in range(2):
        assert torch.equal(got[row, opened.audio :], opened.plain_answer(row, **chosen))
    uncached = opened.hooked.model.generate(**opened.prompts, **chosen, use_cache=False)
    assert torch.equal(got, uncached)


def test_penalties_look_up_no_word_for_sound(opened: Opened) -> None:
    chosen: Any = {"max_new_tokens": 4, "repetition_penalty": 1.7}
    got = opened.hooked.model.generate(**opened.prompts, **chosen)
    for row in range(2):
        alone = opened.plain_answer(row, suppress_tokens=None, begin_suppress_tokens=None, **chosen)
        assert torch.equal(got[row, opened.audio :], alone)


@torch.no_grad()
def test_cached_decoding_goes_on_from_the_prompt(opened: Opened) -> None:
    first = opened.hooked.model(**opened.prompts, use_cache=True)
    assert set(first.cache.crossed) == set(range(len(opened.layers)))
    words = torch.tensor(WORDS).expand(2, -1)
    behind = opened.hooked.model(input_ids=words, cache=first.cache).logits
    close(behind, opened.logits(opened.batch)[:, -len(WORDS) :])


# -- hooks ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_patterns_are_those_that_the_plain_class_gives(opened: Opened) -> None:
    opened.plain.set_attn_implementation("eager")
    run = opened.plain_run(output_attentions=True, output_hidden_states=True)
    opened.plain.set_attn_implementation("sdpa")
    _, cache = opened.hooked.run_with_cache(opened.one)
    for layer in range(len(opened.layers)):
        close(cache[f"blocks.{layer}.attn.hook_pattern"], run.decoder_attentions[layer])
        close(cache[f"blocks.{layer}.cross_attn.hook_pattern"], run.cross_attentions[layer])
        close(cache[f"blocks.{layer}.hook_resid_pre"], run.decoder_hidden_states[layer])


@torch.no_grad()
def test_a_hook_that_returns_its_input_changes_no_bit_and_an_edit_changes_words(
    opened: Opened,
) -> None:
    hooked = opened.hooked
    plain = opened.logits()
    for name in (
        "blocks.1.cross_attn.hook_audio_state",
        "blocks.1.cross_attn.hook_audio_k",
        "blocks.1.cross_attn.hook_z",
        "blocks.1.hook_cross_attn_out",
        "blocks.0.hook_resid_mid",
        "audio_input_frames.hook_in",
        *opened.case.also,
    ):
        same = hooked.run_with_hooks(opened.one, fwd_hooks=[(name, lambda x, hook: x)])
        assert torch.equal(same[:, opened.audio :], plain), name
        turned = hooked.run_with_hooks(opened.one, fwd_hooks=[(name, lambda x, hook: x.flip(-1))])
        differs(turned[:, opened.audio :], plain)
    for name in ("blocks.1.cross_attn.hook_pattern", "blocks.1.attn.hook_attn_scores"):
        same = hooked.run_with_hooks(opened.one, fwd_hooks=[(name, lambda x, hook: x)])
        close(same[:, opened.audio :], plain)
        turned = hooked.run_with_hooks(opened.one, fwd_hooks=[(name, lambda x, hook: x.flip(-1))])
        differs(turned[:, opened.audio :], plain)


def test_what_no_call_reaches_is_refused(opened: Opened) -> None:
    with pytest.raises(HookError, match="never passes"):
        opened.hooked.hook_point("blocks.0.cross_attn.k.hook_out")
    with opened.hooked.route(Route.crossed(3, [0, 2])):
        for name in ("hook_audio_k", "hook_pattern"):
            with pytest.raises(HookError, match=r"layers that do: \[0, 2\]"):
                opened.hooked.hook_point(f"blocks.1.cross_attn.{name}")


# -- routes ---------------------------------------------------------------------------------------


def test_the_route_prints_and_one_that_changes_nothing_changes_no_bit(opened: Opened) -> None:
    route = opened.hooked.current_route
    assert str(route).startswith("frames XXX\n") and "attention of their own" in str(route)
    with opened.hooked.route(Route.crossed(len(opened.layers))):
        assert torch.equal(opened.logits(), opened.plain_run().logits)


@pytest.mark.parametrize("absent", [(1,), (0, 1, 2)])
def test_an_absent_layer_skips_its_cross_attention(opened: Opened, absent: tuple[int, ...]) -> None:
    with opened.hooked.route(opened.hooked.current_route.mute("frames", absent)):
        got = opened.logits()
    with opened.without_cross(*absent):
        wanted = opened.plain_run().logits
    close(got, wanted)
    differs(got, opened.logits())


def test_routes_without_weights_are_refused(opened: Opened) -> None:
    hooked = opened.hooked
    for route in (
        Route.plits(3),
        Route.lal(3),
        hooked.current_route.with_cell("frames", [1], FULL),
    ):
        with pytest.raises(RouteError, match="cross-attention"):
            hooked.set_route(route)


def test_decoders_of_one_attention_refuse_to_cross(qwen2: Any) -> None:
    with pytest.raises(RouteError, match="no cross-attention"):
        qwen2.set_route(Route.plits(3).with_cell("frames", [1], CROSSED))


# -- layout and measures --------------------------------------------------------------------------


def test_tokens_behind_the_clip_are_a_group_of_their_own(opened: Opened) -> None:
    layout = opened.hooked.layout(opened.one)
    case, (frames, _) = opened.case, opened.case.frames
    assert int((layout.stream[0] == 0).sum()) == frames  # 1.3 s
    filling = 0 if case.window is None else case.window - frames
    assert int((layout.stream[0] == FILLER).sum()) == filling
    last = [(frames - 1) * case.step, frames * case.step]
    assert layout.seconds[0][frames - 1].tolist() == pytest.approx(last)
    assert list(layout.pathways) == ["text", *["filler"] * (filling > 0), "frames"]


def test_masses_of_words_and_of_sound_sum_to_one_each(opened: Opened) -> None:
    table: Any = attention_mass(opened.hooked, opened.batch, queries=(-1, -3))
    words = table["pathway"] == "text"
    for part in (table[words], table[~words]):
        sums = part.groupby(["row", "query", "layer", "head"])["mass"].sum()
        assert len(sums) == 2 * 2 * 3 * 4
        np.testing.assert_allclose(sums, 1, atol=1e-5)
    opened.plain.set_attn_implementation("eager")
    runs = [opened.plain_run(row, output_attentions=True) for row in range(2)]
    opened.plain.set_attn_implementation("sdpa")
    found = by_pathway(table).set_index(["row", "query", "layer", "head", "pathway"])["mass"]
    summed: Any = pathway_mass(opened.hooked, opened.batch, queries=(-1, -3))
    again = summed.set_index(["row", "query", "layer", "head", "pathway"])["mass"]
    last = opened.batch["input_ids"].shape[1] - 1
    for row, frames in enumerate(opened.case.frames):
        for layer in range(3):
            wanted = runs[row].cross_attentions[layer][0, :, -1]
            for head in range(4):
                at = (row, last, layer, head)
                want = float(wanted[head, :frames].sum())
                assert found[(*at, "frames")] == pytest.approx(want, abs=1e-5)
                if opened.case.window is not None:
                    assert found[(*at, "filler")] == pytest.approx(1 - want, abs=1e-5)
                assert again[(*at, "frames")] == pytest.approx(want, abs=1e-5)
                assert again[(*at, "text")] == pytest.approx(1, abs=1e-5)


def test_masses_are_read_where_patterns_are_edited(opened: Opened) -> None:
    def even(pattern: Tensor, hook: Any) -> Tensor:
        return torch.full_like(pattern, 1 / pattern.shape[-1])

    opened.hooked.add_hook("blocks.1.cross_attn.hook_pattern", even)
    try:
        table: Any = pathway_mass(opened.hooked, opened.one)
    finally:
        opened.hooked.reset_hooks()
    frames = table[(table["pathway"] == "frames") & (table["layer"] == 1)]["mass"]
    share = 1 if opened.case.window is None else opened.case.frames[0] / opened.case.window
    np.testing.assert_allclose(frames, share, atol=1e-6)


# -- interventions --------------------------------------------------------------------------------


def test_a_knockout_of_seconds_is_a_mask_of_their_keys(opened: Opened) -> None:
    cut = Knockout(Address("pattern", Sound(0.4, 0.9), layers=(1,), heads=(0, 3)))
    with intervene(opened.hooked, opened.one, [cut]):
        got = opened.logits()

    def seen(mask: Tensor) -> None:
        mask[[0, 3], :, opened.case.tokens(0.4, 0.9)] = False

    with opened.masked(1, seen):
        wanted = opened.plain_run().logits
    close(got, wanted)
    differs(got, opened.logits())


def test_a_head_cut_off_from_all_sound_writes_nothing(opened: Opened) -> None:
    heard = [Sound(), Filler()] if opened.case.window is not None else [Sound()]
    everything = [Address("pattern", what, (2,), (1,)) for what in heard]
    with intervene(opened.hooked, opened.one, [Knockout(each) for each in everything]):
        got = opened.logits()
        table: Any = pathway_mass(opened.hooked, opened.one)
    head = table[(table["layer"] == 2) & (table["head"] == 1)].set_index("pathway")["mass"]
    assert (head.drop("text") == 0).all()
    silent = Patch(Address("cross_head_output", Text(), (2,), (1,)), Zero())
    with intervene(opened.hooked, opened.one, [silent]):
        close(got, opened.logits())
    differs(got, opened.logits())


def test_a_knockout_holds_in_every_decoding_step(opened: Opened) -> None:
    prompt = {name: each[:1] for name, each in opened.prompts.items()}
    chosen: Any = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with intervene(opened.hooked, prompt, [Knockout(Address("pattern", Sound(0.2, 1.1)))]):
        got = opened.hooked.model.generate(**prompt, **chosen)[0, opened.audio :]

    def seen(mask: Tensor) -> None:
        mask[..., opened.case.tokens(0.2, 1.1)] = False

    ids = prompt["input_ids"][:, opened.audio :]
    with ExitStack() as stack, torch.no_grad():
        for layer in range(3):
            stack.enter_context(opened.masked(layer, seen))
        for _ in range(4):
            heard = {opened.case.heard: opened.heard[0]}
            run = opened.plain(**heard, decoder_input_ids=ids)
            ids = torch.cat([ids, run.logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(got, ids[0])


@pytest.mark.parametrize(
    "sites",
    [["audio_state"], ["audio_k", "audio_v"], ["encoder_output"], ["connector_output"]],
    ids=" ".join,
)
def test_values_of_all_seconds_and_the_filling_make_the_source_run(
    opened: Opened, sites: list[Any]
) -> None:
    # A clip that fills its window has no filling; its sound alone makes the run.
    clips = [noise(opened.case.full, seed) for seed in (5, 6)]
    source, target = (opened.hooked.inputs("", clip) for clip in clips)
    patches = [Patch(Address(site), Resample(source)) for site in sites]
    found = run_cells(opened.hooked, target, [patches, []])
    with torch.no_grad():
        close(found[0], opened.hooked(source, logits_to_keep=1)[0, -1])
    differs(found[1], found[0])


def test_cells_that_share_passes_give_what_each_gives_alone(opened: Opened) -> None:
    one, other = opened.one, opened.hooked.inputs("", noise(1.3, 9))
    other = continued(other, WORDS)
    where = Sound(0.3, 0.8)
    cells = [
        [],
        [Patch(Address("audio_v", where, (1,)), Zero())],
        [Patch(Address("audio_state", where, (0, 2)), Resample(other))],
        [Patch(Address("encoder_output", where), Resample(other))],
        [Patch(Address("cross_out", Text(-2), (1,)), Zero())],
        [Patch(Address("resid_post", Text(-1), (0,)), Resample(other))],
        [Knockout(Address("pattern", where, (2,)))],
        [Knockout(Address("pattern", where, (0, 1), (2,)))],
    ]
    together = run_cells(opened.hooked, one, cells)
    alone = run_cells_plainly(opened.hooked, one, cells)
    close(together, alone)
    for number in range(1, len(cells)):
        assert (together[number] - together[0]).abs().max() > 1e-3, number


def test_heads_effects_find_the_heads_that_cuts_find(opened: Opened) -> None:
    answers = Answers((), 5, 6)
    table: Any = head_effects(
        opened.hooked, opened.one, answers=answers, sounds=(Sound(0.2, 1.1),), checked=12
    )
    assert table["effect"].notna().all() and len(table) == 12
    first = table.iloc[0]
    cut = Address("pattern", Sound(0.2, 1.1), (int(first["layer"]),), (int(first["head"]),))
    with torch.no_grad():
        plain = opened.logits()[0, -1]
        with intervene(opened.hooked, opened.one, [Knockout(cut)]):
            got = opened.logits()[0, -1]
    change = (got[5] - got[6]) - (plain[5] - plain[6])
    assert first["effect"] == pytest.approx(float(change), abs=1e-4)


def test_what_a_cut_changes_in_a_head_s_output_is_computed(
    opened: Opened, monkeypatch: Any
) -> None:
    changes: list[Tensor] = []
    own = _head_effects.output_change
    monkeypatch.setattr(
        _head_effects,
        "output_change",
        lambda *given, **named: changes.append(own(*given, **named)) or changes[-1],
    )
    head_effects(opened.hooked, opened.one, answers=Answers((), 5, 6), checked=0)
    assert len(changes) == 3
    address = Address("cross_head_output", Text(), layers=(1,))
    (plain,) = capture(opened.hooked, opened.one, address).values.values()
    with intervene(opened.hooked, opened.one, [Knockout(Address("pattern", Sound(), (1,), (2,)))]):
        (cut,) = capture(opened.hooked, opened.one, address).values.values()
    torch.testing.assert_close(changes[1][2], (cut - plain)[:, 2], atol=2e-5, rtol=1e-4)


def test_the_lens_ends_in_the_model_s_own_logits(opened: Opened) -> None:
    table: Any = logit_lens(opened.hooked, opened.one, tokens=[-1], answers=[5, 6], top_k=0)
    assert len(table) == 2 * 4
    wanted = opened.logits()[0, -1].log_softmax(-1)
    last = table[(table["layer"] == 2) & (table["site"] == "resid_post")].set_index("id")
    for entry in (5, 6):
        assert last.loc[entry, "logprob"] == pytest.approx(float(wanted[entry]), abs=1e-4)


def test_all_audio_patched_is_the_source_run(opened: Opened) -> None:
    clean, corrupt = (opened.hooked.inputs("", noise(0.7, seed)) for seed in (5, 6))
    cells = [GridCell((Address("audio_state", Sound(0.1, 0.4), (1,)),), {"layer": 1})]
    table: Any = activation_patching(
        opened.hooked, clean, corrupt, cells, answers=Answers((), 5, 6)
    )
    measured = table.set_index("run")["logit_diff"]
    assert abs(measured["source"] - measured["target"]) > 1e-2
    assert measured["full"] == pytest.approx(measured["source"], abs=1e-4)
    assert measured["self"] == pytest.approx(measured["target"], abs=1e-4)


def test_depths_of_a_checkpoint_that_crosses(opened: Opened) -> None:
    found = rerouted_depths(opened.hooked.current_route)
    shown = {each.name: tuple(each.route.layers("frames")) for each in found}
    assert shown["crossed 0-2"] == (0, 1, 2) and shown["crossed 1-2"] == (1, 2)
    assert {each.family for each in found} >= {
        "crossed, first layers",
        "crossed, from a layer upwards",
        "crossed, window of 1",
    }
    for each in found:
        opened.hooked.model.check_route(each.route)


# -- bad input, and files -------------------------------------------------------------------------


def test_what_is_not_heard_is_refused_in_one_sentence(opened: Opened) -> None:
    hooked = opened.hooked
    if opened.case.window is not None:
        with pytest.raises(AudioError, match="30 s at most"):
            hooked.inputs("", np.zeros(31 * RATE, dtype=np.float32))
    with pytest.raises(PromptError, match="answers no question"):
        hooked.ask("Which digit is spoken?", opened.clips[0])
    with pytest.raises(PromptError, match="2 clips"):
        hooked.inputs("", *opened.clips)
    for prompt, why in opened.case.refused:
        with pytest.raises(PromptError, match=why):
            hooked.ask(prompt, opened.clips[0])
    with pytest.raises(PromptError, match="positions for 40"):
        hooked(continued(opened.one, [65] * 40))
    late = Knockout(Address("pattern", Sound(1.0, 2.0)))
    with pytest.raises(PalscopeError, match="lies outside"), intervene(hooked, opened.one, [late]):
        hooked(opened.one)


@torch.no_grad()
def test_a_folder_as_the_hub_has_it(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, folder = about(opened.case.name), hub_folder(opened.case.name, tmp_path / "repository")
    with serving(tmp_path / "cache", monkeypatch, {known["repository"]: {"main": folder}}):
        hooked = palscope.load(known["repository"])
    own = own_prompt(AutoProcessor.from_pretrained(folder), hooked.model.family, ([CLIP], ""))
    inputs = hooked.inputs("", CLIP)
    words = inputs["input_ids"].shape[1] - len(own.ids)
    assert torch.equal(inputs["input_ids"][0, words:], own.ids)
    plain: Any = type(opened.plain).from_pretrained(folder).eval()
    assert torch.equal(hooked(inputs)[:, words:], plain(**own.made).logits)
    processor, settings = hooked.processor, known["generation_config"]
    assert processor.turn_end == processor.tokenizer.convert_tokens_to_ids(known["turn_end"])
    # Greedy is the likeliest word, whatever the folder says; by choice it is as the folder says.
    likeliest = int(plain(**own.made).logits[0, -1].argmax())
    got = greedy_tokens(hooked.model, processor, inputs, 1)[0].tolist()
    assert got == [likeliest]
    assert ("suppress_tokens" in hooked.model.generation_set_aside) == (
        "suppress_tokens" in settings
    )


def test_another_checkpoint_s_tokenizer_is_refused(opened: Opened) -> None:
    larger, start = opened.tiny.processor(), opened.plain.config.decoder_start_token_id
    larger.tokenizer.add_tokens(["<|one more|>"])
    with pytest.raises(CheckpointError, match=r"its vocabulary has \d+ words, the model's \d+"):
        palscope.load(opened.tiny.model(), processor=larger)
    if opened.case.name == "whisper":
        model = opened.tiny.model()
        model.config.decoder_start_token_id = start + 1
        with pytest.raises(CheckpointError, match="the model begins with"):
            palscope.load(model, processor=opened.tiny.processor())


@torch.no_grad()
def test_a_saved_folder_opens_again(opened: Opened, tmp_path: Path) -> None:
    opened.hooked.model.save_pretrained(tmp_path)
    opened.tiny.processor().save_pretrained(tmp_path)
    again = palscope.load(tmp_path)
    assert again.processor.audio_token_id == opened.hooked.processor.audio_token_id
    assert torch.equal(again(opened.one)[:, opened.audio :], opened.plain_run().logits)


def test_the_loss_is_over_words_that_words_predict(opened: Opened) -> None:
    words = opened.one["input_ids"]
    got = opened.hooked(opened.one, return_type="loss")
    logits = opened.plain_run().logits[0, :-1].log_softmax(-1)
    wanted = -logits.gather(1, words[0, opened.audio + 1 :, None]).mean()
    torch.testing.assert_close(got, wanted)


def test_a_query_that_does_not_run_is_refused(opened: Opened) -> None:
    for column in (0, opened.audio - 1):  # of the clip, of the silence behind it
        with pytest.raises(PromptError, match="runs in no layer"):
            attention_mass(opened.hooked, opened.one, queries=(column,))
    edges = through_fillers(opened.hooked, opened.one)
    silence = [{"queries": "text", "pathway": "filler"}] if opened.case.window is not None else []
    assert [each.labels for each in edges] == silence


def test_nnsight_traces_it(opened: Opened) -> None:
    traced = NNsight(opened.hooked.model)
    with traced.trace(**opened.one):
        made = traced.audio_taps[1].k.output.save()
        logits = traced.output.logits.save()
    assert made.shape == (1, opened.audio, 4, 8)
    assert torch.equal(logits[:, opened.audio :], opened.plain_run().logits)
