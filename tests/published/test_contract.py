"""Every published class does under palscope what it does by itself.

What `palscope verify` tells anyone of a model is asked of all classes in `tests/verify`. Here the
same checks are made of batches with padding, with two clips and with none, and in double precision;
and what only a test can do: other routes, saved and damaged files.
"""

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
from palscope._models.scoring import end_tokens
from palscope._published.adapters import has_adapters
from palscope._routing import Route
from palscope._verify import Result, checks
from palscope._verify.clicks import clicks, in_time
from palscope._verify.hooks import edits_of_nothing, hooked_run, hooks_fire, offered
from palscope._verify.plain import greedy
from palscope._verify.results import compared
from palscope._verify.tolerance import PER_LAYER, rounding
from palscope.audio import Waveform
from palscope.errors import AudioError, CheckpointError
from palscope.interventions import (
    Address,
    Knockout,
    Patch,
    Sound,
    Text,
    Zero,
    capture,
    intervene,
)
from palscope.measures import _head_effects, head_effects
from palscope.measures._metrics import Answers
from tests.double import CLOSE, Double, has_experts
from tests.published.contract import CASES, RATE, WORDS, Opened, noise

CLOSEST = CLOSE["rtol"]
"""Share of the logits' spread that they may lie apart."""


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


def holds(*results: Result) -> None:
    for result in results:
        assert result.verdict == "ok", result


# -- prompts and clips ----------------------------------------------------------------------------


def test_prompts_are_those_of_the_class_s_own_processor(opened: Opened) -> None:
    clips = [noise(1.3), noise(0.7)]
    for counts in opened.case.own_batches:
        rows = [(clips[:count], WORDS[count]) for count in counts]
        wanted = opened.own(rows)
        processor = opened.hooked.processor
        texts = [processor.chat(question, len(heard)) for heard, question in rows]
        heard = [clip for row, _ in rows for clip in row]
        got = processor(texts, heard or None, sampling_rate=RATE)
        place = opened.family.audio_token_id
        holds(checks.prompt(got["input_ids"], wanted["input_ids"], place))
        assert torch.equal(got["attention_mask"], wanted["attention_mask"])


def test_tokens_are_counted_as_the_class_counts_them(opened: Opened) -> None:
    family, processor = opened.family, opened.hooked.processor
    sweep = np.arange(0.1, min(family.longest, 45.0), 6.1713)
    for seconds in (*sweep, *opened.case.counted):
        clip = noise(seconds)
        wanted = opened.own([([clip], WORDS[0])])["input_ids"]
        text = processor.chat(WORDS[0])
        got = processor(text, clip, sampling_rate=RATE)
        holds(checks.prompt(got["input_ids"], wanted, family.audio_token_id))
        count = int((got["input_ids"] == family.audio_token_id).sum())
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


def test_a_burst_changes_the_token_that_stands_for_its_second(opened: Opened) -> None:
    seconds = opened.case.long or max(opened.case.seconds)
    found = clicks(opened.hooked, seconds, WORDS[0], opened.case.phase)
    assert sum(click.shares_seconds for click in found) >= opened.case.hits, found
    holds(in_time(found, opened.case.hits))


# -- the plain class ------------------------------------------------------------------------------


def test_logits_are_those_of_the_plain_class(opened: Opened) -> None:
    real = opened.batch["attention_mask"].bool()
    assert not bool(real.all())
    assert opened.wanted[real].std() > 0.1
    holds(compared("logits", opened.logits[real], opened.wanted[real], CLOSEST, "the class's"))


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
    place = opened.family.audio_token_id
    three: Any = {"max_new_tokens": 3, "min_new_tokens": 3}
    end = end_tokens(opened.hooked.model, opened.hooked.processor)
    got, _ = greedy(opened.hooked.model, opened.batch, end, place, **three)
    for rows, given in opened.given():
        given.pop("position_ids", None)
        wanted, logits = greedy(opened.plain, given, end, place, **three)
        assert wanted.shape == (len(wanted), 3)
        for mine, its, by in zip(got[rows], wanted, logits, strict=True):
            holds(checks.answer(mine.tolist(), its.tolist(), by, 0.0))


# -- hooks ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_hook_fires_where_sound_is_frozen_too(opened: Opened) -> None:
    hooked, one = opened.hooked, opened.asked(0)
    with hooked.route(hooked.current_route.frozen_from(1)):
        plain = hooked(one)
        run = hooked_run(hooked, one)
        holds(hooks_fire(run, plain, CLOSEST), edits_of_nothing(hooked, one, run, plain))
        assert any(name.endswith("hook_audio_k") for name in run.names)
    names = offered(hooked)
    ahead = {name.split(".")[0] for name in names if name.startswith("audio_")}
    places = {*opened.family.components(), "input_frames"}
    assert places <= {name.removeprefix("audio_") for name in ahead}
    assert not any(name.endswith("hook_audio_k") for name in names)


@torch.no_grad()
def test_hooks_before_the_decoder_change_what_it_hears(opened: Opened) -> None:
    hooked, both = opened.hooked, opened.asked(0, 2)
    plain = hooked(both)
    layers = [f"audio_{layer.name}.hook_out" for layer in opened.family.tower_layers()]
    for name in (*layers, f"audio_{opened.family.projector}.hook_in", "audio_input_frames.hook_in"):
        turned = hooked.run_with_hooks(
            both, fwd_hooks=[(name, lambda tensor, hook: tensor.flip(-1))]
        )
        assert (turned - plain)[0, -1].abs().max() > 20 * opened.case.atol, name
        close(turned[1], plain[1])  # the row without sound


# -- routes ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_route_that_changes_nothing_changes_no_bit(opened: Opened) -> None:
    with opened.hooked.route(Route.plits(len(opened.layers))):
        assert torch.equal(logits_of(opened), opened.logits)


@torch.no_grad()
def test_frozen_sound_is_the_plain_class_with_its_sound_put_back(opened: Opened) -> None:
    two = opened.asked(1)
    text = opened.is_text_of(two)
    plain = opened.plain_logits(1)[text]
    for layer in (0, len(opened.layers) - 1):
        wanted = opened.plain_logits(1, around=functools.partial(opened.frozen, layer))[text]
        with opened.hooked.route(opened.hooked.current_route.frozen_from(layer)):
            close(logits_of(opened, two)[text], wanted)
        if layer == 0:
            assert (wanted - plain).abs().max() > 20 * opened.case.atol


@torch.no_grad()
def test_muted_sound_is_sound_that_nothing_reads(opened: Opened) -> None:
    hooked, text = opened.hooked, opened.is_text_of(opened.batch)
    wanted = opened.plain_logits(deaf=True)
    assert (wanted - opened.wanted)[text].abs().max() > 20 * opened.case.atol
    with hooked.route(hooked.current_route.mute("frames")):
        close(logits_of(opened)[text], wanted[text])


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


def test_heads_outputs_change_as_a_cut_changes_them(opened: Opened, monkeypatch: Any) -> None:
    model = opened.hooked
    inputs = model.inputs(WORDS[1], Waveform(noise(1.3), RATE, "noise"))
    changes: list[Tensor] = []
    own = _head_effects.output_change
    monkeypatch.setattr(
        _head_effects,
        "output_change",
        lambda *given, **named: changes.append(own(*given, **named)) or changes[-1],
    )
    answers = Answers((), 5, 6)
    table: Any = head_effects(model, inputs, answers=answers, checked=1)
    layers = sorted(set(table.dropna(subset=["mass"])["layer"]))
    assert len(changes) == len(layers) > 0 and table["effect"].abs().max() > 0
    layer, head = layers[-1], model.cfg.n_heads - 1
    address = Address("head_output", Text(), layers=(layer,))
    (plain,) = capture(model, inputs, address).values.values()
    with intervene(model, inputs, [Knockout(Address("pattern", Sound(), (layer,), (head,)))]):
        (cut,) = capture(model, inputs, address).values.values()
    # The pattern is read in single precision.
    torch.testing.assert_close(
        changes[-1][head].double(), (cut - plain)[:, head], atol=2e-6, rtol=1e-4
    )
