"""Every published class does under palscope what it does by itself."""

from __future__ import annotations

import functools
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import palscope
from palscope import measures
from palscope.errors import AudioError, CheckpointError
from palscope.interventions import Address, Filler, Knockout, Patch, Sound, Zero, intervene
from palscope.published.adapters import has_adapters
from palscope.routing import Route
from tests.double import CLOSE, Double, has_experts
from tests.published.contract import CASES, RATE, WORDS, Opened, noise
from tests.tolerance import PER_LAYER, rounding

MADE_FROM = ("hook_scale", "hook_normalized")
"""TransformerLens makes a norm's output anew of what a hook returns there, and warns of it."""


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Generator[None, None, None]:
    with Double():
        yield


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def opened(request: Any) -> Opened:
    return Opened(request.param)


@torch.no_grad()
def logits_of(opened: Opened, batch: dict[str, Tensor] | None = None) -> Tensor:
    return opened.hooked(opened.batch if batch is None else batch)


def close(got: Tensor, wanted: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(got, wanted, **(tolerance or CLOSE))


# -- prompts and clips ----------------------------------------------------------------------------


def test_prompts_are_those_of_the_class_s_own_processor(opened: Opened) -> None:
    clips = [noise(1.3), noise(0.7)]
    for counts in opened.case.own_batches:
        rows = [(clips[:count], WORDS[count]) for count in counts]
        wanted = opened.case.own(opened.own_processor, rows)
        processor = opened.hooked.processor
        texts = [processor.chat(question, len(heard)) for heard, question in rows]
        heard = [clip for row, _ in rows for clip in row]
        got = processor(texts, heard or None, sampling_rate=RATE)
        assert torch.equal(got["input_ids"], wanted["input_ids"])
        assert torch.equal(got["attention_mask"], wanted["attention_mask"])


def test_tokens_are_counted_as_the_class_counts_them(opened: Opened) -> None:
    family, processor = opened.family, opened.hooked.processor
    sweep = np.arange(0.1, min(family.longest, 45.0), 3.7137)
    for seconds in (*sweep, *opened.case.counted):
        clip = noise(seconds)
        wanted = opened.case.own(opened.own_processor, [([clip], WORDS[0])])["input_ids"]
        text = processor.chat(WORDS[0])
        got = processor(text, clip, sampling_rate=RATE)
        count = int((got["input_ids"] == family.audio_token_id).sum())
        assert count == int((wanted == family.audio_token_id).sum()), seconds
        [frames] = got["feature_lengths"].tolist()
        assert count == family.tokens(frames)
        # Every token stands for some sound, and none for sound after the clip's last token.
        edges = opened.hooked.layout(got).seconds[got["input_ids"] == family.audio_token_id]
        assert bool((edges[:, 0] < edges[:, 1]).all())
        assert edges[-1, 1] <= family.seconds(frames) + 1e-6


def test_clips_that_are_not_heard_are_refused(opened: Opened) -> None:
    processor, case = opened.hooked.processor, opened.case
    if case.too_short is not None:
        with pytest.raises(AudioError, match="no token"):
            processor(processor.chat("?"), noise(case.too_short), sampling_rate=RATE)
    if case.longest is not None:
        assert opened.family.longest == case.longest
    if opened.family.longest < float("inf"):
        silence = np.zeros(round((opened.family.longest + 0.1) * RATE), dtype=np.float32)
        with pytest.raises(AudioError, match="at most"):
            processor(processor.chat("?"), silence, sampling_rate=RATE)


@torch.no_grad()
def test_a_burst_changes_the_token_that_stands_for_its_second(opened: Opened) -> None:
    seconds = opened.case.long or max(opened.case.seconds)
    quiet = noise(seconds) * 0.2
    hooked = opened.hooked
    inputs = hooked.inputs(WORDS[0], quiet)
    spans = hooked.layout(inputs).seconds[inputs["input_ids"] == opened.family.audio_token_id]
    before = hooked.encode_audio(inputs).streams["frames"][0]
    hits = 0
    for share in (0.07, 0.31, 0.52, 0.78, 0.96):
        of_it = (spans[:, 0] <= share * seconds) & (spans[:, 1] > share * seconds)
        held = int(of_it.nonzero()[0])
        start, end = spans[held].tolist()
        middle = start + opened.case.phase * (end - start)
        first = round((middle - 0.005) * RATE)
        clip = quiet.copy()
        clip[first : first + RATE // 100] += 5 * noise(0.01, seed=1)
        after = hooked.encode_audio(hooked.inputs(WORDS[0], clip)).streams["frames"][0]
        changed = int((after - before).norm(dim=1).argmax())
        hits += torch.equal(spans[changed], spans[held])  # tokens may share their seconds
    assert hits >= opened.case.hits


# -- the plain class ------------------------------------------------------------------------------


def test_logits_are_those_of_the_plain_class(opened: Opened) -> None:
    real = opened.batch["attention_mask"].bool()
    assert not bool(real.all())
    wanted = opened.plain_logits()[real]
    assert wanted.std() > 0.1
    close(logits_of(opened)[real], wanted)


@torch.no_grad()
def test_a_long_clip_is_heard_as_the_plain_class_hears_it(opened: Opened) -> None:
    if opened.case.long is None:
        pytest.skip("the class hears a clip at once")
    got = logits_of(opened, opened.asked(3))
    close(got, opened.plain_logits(3))


def test_another_sound_gives_other_logits(opened: Opened) -> None:
    first = noise(opened.case.seconds[0], seed=7)
    other = opened.hooked.inputs(WORDS[0], first)
    same = opened.hooked.inputs(WORDS[0], opened.rows[0][0][0])
    assert torch.equal(other["input_ids"], same["input_ids"])
    change = logits_of(opened, other)[:, -1] - logits_of(opened, same)[:, -1]
    assert change.abs().max() > 100 * opened.case.atol


@torch.no_grad()
def test_greedy_decoding_gives_the_plain_class_s_words(opened: Opened) -> None:
    asked: Any = {
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "do_sample": False,
        "suppress_tokens": [opened.family.audio_token_id],
    }
    got = opened.hooked.model.generate(**opened.batch, **asked)[:, -6:]
    for rows, given in opened.given():
        given.pop("position_ids", None)
        wanted = opened.plain.generate(**given, **asked)[:, -6:]
        assert torch.equal(got[rows], wanted)


# -- hooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True], ids=["published", "frozen"])
@torch.no_grad()
def test_every_hook_fires_and_one_that_returns_its_input_changes_no_bit(
    opened: Opened, frozen: bool
) -> None:
    hooked = opened.hooked
    route = hooked.current_route
    with hooked.route(route.frozen_from(1) if frozen else route):
        offered = [
            name
            for name, point in hooked.hook_dict.items()
            if hooked.can_fire(name) and hooked._gated_hook_reason(point.name or name) is None
        ]
        plain = hooked(opened.batch)
        # Raises when one stays silent.
        seen = hooked.run_with_hooks(opened.batch, fwd_hooks=[(n, _look) for n in offered])
        edited = [name for name in offered if not name.endswith(MADE_FROM)]
        back = hooked.run_with_hooks(opened.batch, fwd_hooks=[(n, _copy) for n in edited])
        ahead = [name for name in offered if name.startswith("audio_")]
        heard = hooked.run_with_hooks(opened.batch, fwd_hooks=[(n, _copy) for n in ahead])
    assert torch.equal(back, seen)
    close(seen, plain)
    assert torch.equal(heard, plain)
    places = {*opened.family.components(), "input_frames"}
    assert places <= {name.split(".")[0].removeprefix("audio_") for name in ahead}
    assert any(name.endswith("hook_audio_k") for name in offered) == frozen


def _look(_tensor: Tensor, hook: Any) -> None:
    del hook


def _copy(tensor: Any, hook: Any) -> Any:
    del hook
    return tensor.clone() if isinstance(tensor, Tensor) else tensor


@torch.no_grad()
def test_hooks_before_the_decoder_change_what_it_hears(opened: Opened) -> None:
    hooked = opened.hooked
    plain = hooked(opened.batch)
    layers = [f"audio_{layer.name}.hook_out" for layer in opened.family.tower_layers()]
    for name in (*layers, f"audio_{opened.family.projector}.hook_in", "audio_input_frames.hook_in"):
        turned = hooked.run_with_hooks(
            opened.batch, fwd_hooks=[(name, lambda tensor, hook: tensor.flip(-1))]
        )
        assert (turned - plain)[:2, -1].abs().amax(1).min() > 20 * opened.case.atol, name
        close(turned[2], plain[2])  # the row without sound


# -- routes ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_route_that_changes_nothing_changes_no_bit(opened: Opened) -> None:
    plain = logits_of(opened)
    with opened.hooked.route(Route.plits(len(opened.layers))):
        assert torch.equal(logits_of(opened), plain)


@torch.no_grad()
def test_frozen_sound_is_the_plain_class_with_its_sound_put_back(opened: Opened) -> None:
    text = opened.is_text_of(opened.batch)
    plain = opened.plain_logits()[text]
    count = len(opened.layers)
    for layer in sorted({0, 1, count - 1}):
        wanted = opened.plain_logits(around=functools.partial(opened.frozen, layer))[text]
        with opened.hooked.route(opened.hooked.current_route.frozen_from(layer)):
            close(logits_of(opened)[text], wanted)
        if layer == 0:
            assert (wanted - plain).abs().max() > 20 * opened.case.atol


@torch.no_grad()
def test_muted_sound_is_sound_that_nothing_reads(opened: Opened) -> None:
    hooked, text = opened.hooked, opened.is_text_of(opened.batch)
    wanted = opened.plain_logits(deaf=True)[text]
    assert (wanted - opened.plain_logits()[text]).abs().max() > 20 * opened.case.atol
    with hooked.route(hooked.current_route.mute("frames")):
        close(logits_of(opened)[text], wanted)
    one = opened.asked(0)
    cut = [Knockout(Address("pattern", Sound()))]
    if "filler" in hooked.layout(one).pathways:  # which reads sound, and is read
        cut.append(Knockout(Address("pattern", Sound(), queries=Filler())))
    with intervene(hooked, one, cut):
        text = opened.is_text_of(one)
        close(logits_of(opened, one)[text], opened.plain_logits(0, deaf=True)[text])


# -- interventions and measures -------------------------------------------------------------------


@torch.no_grad()
def test_a_patch_in_seconds_is_one_of_the_columns_that_stand_for_them(opened: Opened) -> None:
    hooked, one = opened.hooked, opened.asked(0)
    spans, text = hooked.layout(one).seconds, opened.is_text_of(one)
    held = (spans[..., 0] < 0.9 - 1e-6) & (spans[..., 1] > 0.4 + 1e-6)
    assert 1 < int(held.sum()) < int((~text).sum())
    patch = Patch(Address("resid_pre", Sound(0.4, 0.9), layers=(1,)), Zero())
    with intervene(hooked, one, [patch]):
        got = logits_of(opened, one)[text]
    with opened.entering(1, lambda states: states.masked_fill(held[..., None], 0.0)):
        wanted = opened.plain_logits(0)[text]
    close(got, wanted)
    assert (wanted - opened.plain_logits(0)[text]).abs().max() > 20 * opened.case.atol


@torch.no_grad()
def test_attention_mass_is_the_plain_class_s_attention(opened: Opened) -> None:
    one = opened.asked(0)
    table: Any = measures.attention_mass(opened.hooked, one)
    masses = table.groupby(["layer", "head"])["mass"].sum()
    np.testing.assert_allclose(masses, 1, **CLOSE)
    if not opened.case.attentions:
        return
    [(_, given)] = opened.given(0)
    opened.plain.set_attn_implementation("eager")
    try:
        found = opened.plain(**given, output_attentions=True).attentions
    finally:
        opened.plain.set_attn_implementation("sdpa")
    assert len(found) == len(opened.layers)
    for layer, weights in enumerate(found):
        mine = table[table["layer"] == layer].pivot(index="head", columns="key", values="mass")
        np.testing.assert_allclose(mine.to_numpy(), weights[0, :, -1], **CLOSE)


# -- files ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_folder_opens_again_and_a_missing_tensor_is_refused(
    opened: Opened, tmp_path: Path
) -> None:
    save = opened.case.save
    opened.family.save(opened.plain, tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    if save is None:
        return
    save(opened.own_processor, tmp_path)
    plain_experts = {"experts_implementation": "eager"} if has_experts(opened.plain) else {}
    again = palscope.load(tmp_path, **plain_experts)
    inputs = again.inputs(WORDS[0], *opened.rows[0][0])
    wanted = opened.hooked.inputs(WORDS[0], *opened.rows[0][0])
    assert all(torch.equal(inputs[name], wanted[name]) for name in wanted)
    # Tables of angles are made anew, and so rounded to single precision on one side alone.
    logits = logits_of(opened, wanted)
    layers = len(opened.layers) + len(opened.family.tower_layers())
    close(again(inputs), logits, **rounding(PER_LAYER * layers, float(logits.abs().max())))
    shard = next(iter(sorted(tmp_path.glob("*.safetensors"))))
    tensors = load_file(shard)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing"):
        palscope.load(tmp_path)


def test_a_hooked_model_saves_what_the_plain_one_saves(opened: Opened, tmp_path: Path) -> None:
    model = opened.hooked.model
    if has_adapters(opened.plain):
        with pytest.raises(CheckpointError, match="before"):
            model.save_pretrained(tmp_path / "hooked")
        return
    opened.family.save(opened.plain, tmp_path / "plain")
    model.save_pretrained(tmp_path / "hooked")
    plain, hooked = (load_file(tmp_path / n / "model.safetensors") for n in ("plain", "hooked"))
    assert plain.keys() == hooked.keys()
    assert all(torch.equal(plain[name], hooked[name]) for name in plain)
