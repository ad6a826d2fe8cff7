"""The Q-Former: transformers' own on each clip or window alone, whatever else is in the batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Blip2QFormerModel

from palscope._connectors import FramePool, QFormer, QFormerConfig
from palscope.audio._timegrid import TimeGrid
from palscope.encoders._base import EncoderTokens
from palscope.errors import PalscopeError
from tests.connectors.sources import COARSE, FINE, PATCHES, WHOLE, alone, outputs, resample

TINY = QFormerConfig(latents=3, width=16, layers=3, heads=2, feed_forward=24)


def made(*sources: EncoderTokens, seed: int = 0, **changes: Any) -> QFormer:
    """With weights large enough that attention is far from uniform."""
    torch.manual_seed(seed)
    qformer = QFormer(sources, replace(TINY, **changes)).eval()
    with torch.no_grad():
        for weight in qformer.parameters():
            weight.normal_(std=0.4)
    return qformer


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("window_s", [None, 0.4, 0.06])
@torch.no_grad()
def test_each_window_is_transformers_q_former_on_its_tokens_alone(
    window_s: float | None, every: int
) -> None:
    qformer = made(FINE, window_s=window_s, cross_attention_every=every)
    plain = Blip2QFormerModel(qformer.model.config).eval()
    plain.load_state_dict(qformer.model.state_dict())
    batch = outputs([FINE], [0.93, 1.5])
    frames = resample(qformer, batch)
    states, lengths = batch[0]
    for clip, length in enumerate(lengths.tolist()):
        size = length if window_s is None else round(window_s / 0.02)
        windows = [states[clip, i : min(i + size, length)] for i in range(0, length, size)]
        wanted = [
            plain(qformer.latents[None], encoder_hidden_states=window[None]).last_hidden_state[0]
            for window in windows
        ]
        count = qformer.tokens(length)
        assert count == 3 * len(windows) == qformer.grid.tokens(length * 0.02)
        torch.testing.assert_close(frames[clip, :count], torch.cat(wanted), rtol=1e-4, atol=1e-5)
        assert not frames[clip, count:].any()


@pytest.mark.parametrize("window_s", [None, 0.32])
@torch.no_grad()
def test_several_encoders_stand_behind_each_other_in_a_window(window_s: float | None) -> None:
    sources = [PATCHES, COARSE, WHOLE]
    qformer = made(*sources, window_s=window_s)
    batch = outputs(sources, [1.0])
    frames = resample(qformer, batch)
    states = [each[0][0] for each in batch]
    count = 1 if window_s is None else math.ceil(1.0 / window_s)
    for window in range(count):
        start, end = (0.0, 9.0) if window_s is None else (0.32 * window, 0.32 * (window + 1))
        keys: list[torch.Tensor] = []
        for number, source in enumerate(sources):
            spans = [source.grid.span(i) for i in range(len(states[number]))]
            own = [i for i, (a, b) in enumerate(spans) if min(b, end) - max(a, start) > 1e-6]
            keys.append(qformer.entries[number](states[number][own]))
        wanted = qformer.model(
            qformer.latents[None],
            encoder_hidden_states=torch.cat(keys)[None],
            encoder_attention_mask=torch.ones(1, 1, 1, sum(map(len, keys)), dtype=torch.bool),
        ).last_hidden_state[0]
        got = frames[0, 3 * window : 3 * window + 3]
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window_s", [None, 0.32])
@torch.no_grad()
def test_a_clip_gives_the_same_in_a_batch_with_longer_ones(window_s: float | None) -> None:
    qformer = made(PATCHES, COARSE, window_s=window_s)
    batch = outputs([PATCHES, COARSE], [0.5, 2.1, 0.01])
    frames = resample(qformer, batch)
    for clip in range(3):
        own = resample(qformer, alone(batch, clip))
        torch.testing.assert_close(frames[clip, : own.shape[1]], own[0], rtol=1e-4, atol=1e-5)
        assert not frames[clip, own.shape[1] :].any()


@torch.no_grad()
def test_tokens_without_time_are_read_as_a_whole() -> None:
    """An image's patches, all of which stand for all of it."""
    patches = EncoderTokens(5, TimeGrid(math.inf, per_step=9))
    batch = outputs([patches], [1.0, 1.0])
    assert batch[0].states.shape == (2, 9, 5)
    qformer = made(patches)
    wanted = qformer.model(
        qformer.latents.expand(2, -1, -1),
        encoder_hidden_states=batch[0].states,
        encoder_attention_mask=torch.ones(2, 1, 1, 9, dtype=torch.bool),
    ).last_hidden_state
    torch.testing.assert_close(resample(qformer, batch), wanted, rtol=1e-4, atol=1e-5)
    pooled = resample(FramePool([patches], 3, "mean"), batch)
    torch.testing.assert_close(pooled[0, 1], batch[0].states[0, 3:6].mean(0))
    assert pooled.shape[1] == FramePool([patches], 3, "mean").grid.tokens(1.0) == 3


@torch.no_grad()
def test_whatever_attention_the_model_is_set_to_gives_the_same() -> None:
    qformer = made(FINE, window_s=0.4)
    batch = outputs([FINE], [0.93, 1.5])
    before = resample(qformer, batch)
    cast: Any = qformer.model
    cast.set_attn_implementation("eager")
    torch.testing.assert_close(resample(qformer, batch), before, rtol=1e-4, atol=1e-5)


def test_a_listener_sees_the_pattern_and_changes_no_more_than_rounding() -> None:
    qformer = made(FINE, window_s=0.4)
    batch = outputs([FINE], [0.93, 1.5])
    before = resample(qformer, batch)
    patterns: list[torch.Tensor] = []
    taps: list[Any] = [attention.pattern for attention in qformer.attentions]
    handles = [tap.register_forward_hook(lambda *call: patterns.append(call[2])) for tap in taps]
    heard = resample(qformer, batch)
    torch.testing.assert_close(heard, before, rtol=1e-4, atol=1e-5)
    assert [tuple(pattern.shape) for pattern in patterns] == [(8, 2, 3, 20)] * 3
    (reads, *_) = qformer.reads([47])
    assert reads.token[2].tolist() == [40, 41, 42, 43, 44, 45, 46, *[-1] * 13]
    for pattern in patterns:
        sums = pattern.sum(-1).view(2, 4, 2, 3)
        torch.testing.assert_close(sums[0, :3], torch.ones(3, 2, 3))
        torch.testing.assert_close(sums[1], torch.ones(4, 2, 3))
        assert not sums[0, 3].any()  # a window behind the clip's end
        assert not pattern[2, ..., 7:].any()  # padding in a short one
    for handle in handles:
        handle.remove()
    resample(qformer, batch)
    assert len(patterns) == 3


def test_gradients_reach_every_parameter_and_are_finite_beside_padding() -> None:
    qformer = made(PATCHES, COARSE, window_s=0.32).train()
    resample(qformer, outputs([PATCHES, COARSE], [0.5, 2.1])).square().sum().backward()
    for name, weight in qformer.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        if not name.endswith("key.bias"):  # moves all of a query's scores alike
            assert weight.grad.any(), name


def test_a_window_of_no_whole_number_of_steps_is_refused() -> None:
    for window_s in (0.05, 0.01, 0.0, math.inf, math.nan):
        with pytest.raises(PalscopeError, match=r"window_s is .* step every 0.02 s"):
            made(FINE, window_s=window_s)
