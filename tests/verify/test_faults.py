"""A planted fault of each kind is found by the check of that name, which passes without it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
from torch import nn

from palscope._hooks import HookedAudioModel
from palscope._hooks import hooked as blocks
from palscope._models.cache import AudioCache
from palscope._models.recording import LayerAttention
from palscope._published import PublishedAudioModel, PublishedProcessor
from palscope._verify import Result, checks
from palscope._verify.plain import Recorded, record, weights_of
from palscope._verify.reading import masses
from palscope._verify.run import QUESTION, CheckList
from palscope.errors import HookError
from palscope.interventions._knockout import EdgeCuts
from tests.published.conftest import qwen2 as qwen2
from tests.published.tiny import qwen2_audio
from tests.verify.conftest import CLIP, sides_of_tiny

Check = Callable[[str], Result]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return record(sides_of_tiny("qwen2_audio").plain(((CLIP,), QUESTION)))


@pytest.fixture
def check(qwen2: HookedAudioModel, recorded: Recorded) -> Generator[Check, None, None]:
    """The result of the check of a name, made anew."""

    def one(name: str) -> Result:
        made = CheckList(sides_of_tiny("qwen2_audio"), qwen2, recorded, CLIP).checks()[name]()
        assert made.name == name
        return made

    with torch.no_grad():
        yield one
    qwen2.reset_hooks()


def fails(check: Check, name: str) -> str:
    result = check(name)
    assert result.verdict == "FAILED", result
    return result.says


def scaled(by: float) -> Any:
    return lambda tensor, hook: by * tensor


def test_another_prompt(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = PublishedProcessor.chat
    monkeypatch.setattr(PublishedProcessor, "chat", lambda *a, **k: chat(*a, **k) + "\n")
    assert "[123]" in fails(check, "prompt")
    monkeypatch.setattr(PublishedProcessor, "chat", lambda *a, **k: chat(*a, **k)[:-1] + " ")
    assert fails(check, "prompt").startswith("1 of 123 ids differ")


def test_a_token_too_few_of_sound(
    check: Check, monkeypatch: pytest.MonkeyPatch, qwen2: HookedAudioModel
) -> None:
    family = type(qwen2.processor.family)
    tokens = family.tokens
    monkeypatch.setattr(family, "tokens", lambda self, frames: tokens(self, frames) - 1)
    assert "74 of sound; its own processor makes [123], 75 of sound" in fails(check, "prompt")


def test_another_weight(check: Check, qwen2: HookedAudioModel) -> None:
    weight: Any = qwen2.blocks[1].attn.q.original_component.weight
    kept = weight[0, 0].clone()
    weight[0, 0] *= 1 + 1e-6
    try:
        assert "1 of 78 tensors differ" in fails(check, "weights")
    finally:
        weight[0, 0] = kept
    assert check("weights").verdict == "ok"


def test_another_dtype(recorded: Recorded) -> None:
    half = checks.weights(weights_of(qwen2_audio.model().bfloat16()), recorded.weights)
    assert half.verdict == "FAILED" and "torch.bfloat16" in half.says
    fewer = dict(list(recorded.weights.items())[:-1])
    assert "missing" in checks.weights(fewer, recorded.weights).says


@pytest.mark.parametrize("place", ["blocks.1.hook_in", "blocks.1.attn.v.hook_out"])
def test_a_wrong_scale(check: Check, qwen2: HookedAudioModel, place: str) -> None:
    qwen2.add_hook(place, scaled(1 + 1e-4))
    assert "rounding may do" in fails(check, "logits")


def test_one_column_that_is_wrong(check: Check, recorded: Recorded, qwen2: Any) -> None:
    def last(tensor: Any, hook: Any) -> Any:
        tensor[:, -1] *= 1.001
        return tensor

    qwen2.add_hook("blocks.1.hook_in", last)
    made = check("logits")
    assert made.verdict == "FAILED"
    assert made.numbers["worst_column"] == len(recorded.logits) - 1


def test_another_answer(check: Check, recorded: Recorded, qwen2: Any) -> None:
    settings = qwen2.model.generation_config
    settings.begin_suppress_tokens = [recorded.answer[0]]
    try:
        assert "token 1 of" in fails(check, "answer")
    finally:
        settings.begin_suppress_tokens = None
    assert check("answer").verdict == "ok"


def test_a_tie_is_no_other_answer_and_a_shorter_one_is() -> None:
    logits = torch.zeros(2, 8)
    logits[:, 3], logits[:, 4] = 2.0, 2.0 - 1e-6
    assert checks.answer([3, 4], [3, 3], logits, 1e-5).verdict == "ok"
    assert checks.answer([3, 4], [3, 3], logits, 1e-8).verdict == "FAILED"
    assert checks.answer([3, 3, 3], [3, 3], logits, 1e-5).verdict == "FAILED"
    assert checks.answer([3, 5], [3, 3], logits, 1e-5).verdict == "FAILED"


def test_tokens_that_stand_for_other_seconds(
    check: Check, monkeypatch: pytest.MonkeyPatch, qwen2: HookedAudioModel
) -> None:
    layout = qwen2.layout

    def turned(inputs: Any) -> Any:
        found = layout(inputs)
        return dataclasses.replace(found, seconds=3.0 - found.seconds.flip(-1))

    monkeypatch.setattr(qwen2, "layout", turned)
    assert "steps off" in fails(check, "click")

    def late(inputs: Any) -> Any:
        found = layout(inputs)
        return dataclasses.replace(found, seconds=found.seconds - 0.08)

    monkeypatch.setattr(qwen2, "layout", late)
    assert "steps off: [-2, -2" in fails(check, "click")


def test_a_hook_that_never_fires(
    check: Check, monkeypatch: pytest.MonkeyPatch, qwen2: HookedAudioModel
) -> None:
    monkeypatch.setitem(qwen2.blocks[1].attn._modules, "hook_rot_q", nn.Identity())
    with pytest.raises(HookError, match="hook_rot_q"):  # the model notices it itself
        check("hooks")
    monkeypatch.setattr(blocks, "require_fired", lambda missing: None)  # and if it did not
    assert "1 of 219 do not fire: blocks.1.attn.hook_rot_q" in fails(check, "hooks")


def test_a_run_with_hooks_that_computes_something_else(check: Check, qwen2: Any) -> None:
    # Attention step by step alone has scores.
    point = qwen2.blocks[1].attn.hook_attn_scores
    handle = point.register_forward_hook(lambda module, args, out: 1.01 * out)
    try:
        assert "rounding may do" in fails(check, "hooks")
    finally:
        handle.remove()


def test_an_edit_of_nothing_that_changes_bits(check: Check, qwen2: HookedAudioModel) -> None:
    class Half:
        def convert(self, value: Any) -> Any:
            return value

        def revert(self, value: Any) -> Any:
            return value.bfloat16().float()

    for name in ("blocks.1.hook_out", "audio_conv1.hook_out"):
        point: Any = qwen2.hook_dict[name]
        point.hook_conversion = Half()
        try:
            assert "move logits by up to" in fails(check, "edits")
        finally:
            point.hook_conversion = None
    assert check("edits").verdict == "ok"


def test_masses_of_another_softmax(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = LayerAttention.weights
    monkeypatch.setattr(
        LayerAttention,
        "weights",
        lambda self, *a: weights(dataclasses.replace(self, scaling=0.3), *a),
    )
    assert "of its own attention" in fails(check, "masses")
    monkeypatch.setattr(LayerAttention, "weights", lambda self, *a: 1.0001 * weights(self, *a))
    assert "expected" in fails(check, "masses")


def test_masses_of_fewer_layers(qwen2: HookedAudioModel, recorded: Recorded) -> None:
    own: Any = recorded.attention
    inputs = qwen2.inputs(QUESTION, CLIP)
    assert masses(qwen2, inputs, own[:-1], 1.0).verdict == "FAILED"
    narrow = [weights[:, :-1] for weights in own]
    assert masses(qwen2, inputs, narrow, 1.0).verdict == "FAILED"


def test_a_knockout_that_is_off_by_one(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    among = EdgeCuts._among

    def shifted(self: Any, columns: Any, wanted: Any, onwards: bool) -> Any:
        return among(self, columns, wanted + 1, onwards)

    monkeypatch.setattr(EdgeCuts, "_among", shifted)
    assert "rounding may do" in fails(check, "knockout")


def test_a_knockout_that_does_nothing(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EdgeCuts, "__call__", lambda *_: None)
    monkeypatch.setattr(EdgeCuts, "check", lambda _: None)  # which notices it, too
    assert "rounding may do" in fails(check, "knockout")


def test_where_sound_changes_nothing_a_knockout_is_not_told_from_none(
    check: Check, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, qwen2: HookedAudioModel
) -> None:
    for layer in range(len(qwen2.blocks)):
        qwen2.add_hook(f"blocks.{layer}.attn.hook_pattern", _deaf(qwen2))
    deaf: Any = recorded.deaf
    inputs = qwen2.inputs(QUESTION, CLIP)
    same = dataclasses.replace(recorded, deaf=(qwen2(inputs)[0], deaf[1]))
    made = CheckList(sides_of_tiny("qwen2_audio"), qwen2, same, CLIP).checks()["knockout"]()
    assert made.verdict == "not checked", made


def _deaf(hooked: HookedAudioModel) -> Any:
    layout = hooked.layout(hooked.inputs(QUESTION, CLIP))
    sound = layout.stream[0] >= 0

    def hook(pattern: Any, hook: Any) -> Any:
        kept = pattern * ~(sound[None, None, None, :] & ~sound[None, None, :, None])
        return kept / kept.sum(-1, keepdim=True)

    return hook


def test_padding_that_is_read(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = checks.side_by_side

    def shifted(*args: Any) -> Any:
        made = batch(*args)
        mask = made["attention_mask"]
        mask[:, 1:-1] = mask[:, 2:].clone()
        return made

    monkeypatch.setattr(checks, "side_by_side", shifted)
    assert "[124, 264] logits, but [123, 264]" in fails(check, "batch")


def test_a_clip_that_hears_its_neighbour(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = PublishedAudioModel._encode

    def mixed(self: Any, features: Any, lengths: Any) -> Any:
        return encode(self, features + 1e-4 * features.mean(0) * (len(lengths) > 1), lengths)

    monkeypatch.setattr(PublishedAudioModel, "_encode", mixed)
    assert "rounding may do" in fails(check, "batch")


def test_a_cache_that_holds_something_else(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    update = AudioCache.update

    def scaled_values(self: Any, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        keys, values = update(self, keys, values, *args, **kwargs)
        return keys, values * (1.001 if keys.shape[2] > 123 else 1.0)

    monkeypatch.setattr(AudioCache, "update", scaled_values)
    assert "rounding may do" in fails(check, "cache")


def test_devices_that_differ(qwen2: HookedAudioModel, recorded: Recorded) -> None:
    inputs = qwen2.inputs(QUESTION, CLIP)
    assert checks.devices(qwen2, inputs, recorded.logits, recorded.limits).verdict == "ok"
    wrong = recorded.logits * (1 + 1e-4)
    assert checks.devices(qwen2, inputs, wrong, recorded.limits).verdict == "FAILED"
    assert checks.memory(2**21, 2**20, "the class").says == (
        "2 MiB a pass beside the weights, 1 MiB of the class"
    )
