"""Encoders from outside of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope.audio import TimeGrid
from palscope.encoders import (
    ClipFeatures,
    Encoder,
    EncoderConfig,
    EncoderOutput,
    WhisperEncoder,
    WhisperEncoderConfig,
    build_encoder,
    encoder_config,
    register_encoder,
)
from palscope.errors import CheckpointError, PalscopeError
from palscope.interventions import Address, resolve
from tests.encoders import small


@dataclass(frozen=True)
class LoudnessConfig(EncoderConfig):
    kind: ClassVar[str] = "loudness"
    sample_rate: ClassVar[int] = 8_000

    bands: int = 4

    def features(self, samples: np.ndarray) -> ClipFeatures:
        frames = np.resize(samples, (-(-len(samples) // 80), 80))
        values = np.abs(frames.reshape(len(frames), self.bands, -1)).mean(-1).T
        return ClipFeatures(torch.from_numpy(values.astype(np.float32)), len(frames))


class Loudness(Encoder[LoudnessConfig]):
    def __init__(self, config: LoudnessConfig) -> None:
        super().__init__(config)
        self.out = nn.Linear(config.bands, 3)

    @property
    def width(self) -> int:
        return 3

    @property
    def grid(self) -> TimeGrid:
        return TimeGrid(0.01)

    @property
    def window(self) -> int:
        return 1000

    @property
    def bins(self) -> int:
        return self.config.bands

    def forward(self, features: Any, lengths: Any) -> EncoderOutput:
        states = self.out(features.transpose(1, 2))
        inside = torch.arange(states.shape[1]) < lengths[:, None]
        return EncoderOutput(torch.where(inside[..., None], states, 0), lengths)


def test_one_of_ones_own_is_used_saved_loaded_and_hooked(tmp_path: Any) -> None:
    register_encoder(LoudnessConfig, Loudness)
    register_encoder(LoudnessConfig, Loudness)  # again: nothing changes
    torch.manual_seed(0)
    made = build_encoder(encoder_config({"kind": "loudness", "bands": 4}))
    model, processor = small.whole(made)
    samples = np.random.default_rng(0).normal(size=4_000).astype(np.float32)
    batch = dict(processor(processor.chat("what"), samples, sampling_rate=8_000))
    assert batch["feature_lengths"].tolist() == [50]
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    back = PalscopeForConditionalGeneration.from_pretrained(tmp_path)
    again = dict(
        PalscopeProcessor.from_pretrained(tmp_path)(
            processor.chat("what"), samples, sampling_rate=8_000
        )
    )
    with torch.no_grad():
        assert torch.equal(back(**again).logits, model(**batch).logits)
    hooked = small.hooked(made)
    with torch.no_grad():
        torch.testing.assert_close(hooked(batch)[0, -1], model(**batch).logits[0, -1])
    for site in ("encoder_block", "encoder_neurons", "mel"):  # it names no parts to listen to
        with pytest.raises(PalscopeError):
            resolve(hooked, batch, Address(site))
    assert resolve(hooked, batch, Address("encoder_output")).covered["tokens"].tolist() == [50]


def test_a_kind_that_is_taken() -> None:
    with pytest.raises(CheckpointError, match=r"'whisper' is taken by .*WhisperEncoder"):
        register_encoder(type("Mine", (WhisperEncoderConfig,), {}), WhisperEncoder)


def test_a_kind_that_is_not_there() -> None:
    with pytest.raises(CheckpointError, match="register_encoder"):
        encoder_config({"kind": "sonar"})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"conv_stride": (5, 2, 2, 2, 2, 2, 3)}, "a token every 480 samples and windows of 3001"),
        (
            {"conv_stride": (5, 2, 2, 2, 2, 2, 1), "conv_kernel": (10,) * 6},
            r"have \[6, 7\] entries",
        ),
        ({"conv_stride": (5,) * 7}, "a token every 78125 samples"),
        ({"layers": (13,)}, "expected one or more different numbers from 0 to 12"),
    ],
)
def test_an_encoder_of_samples_whose_tokens_are_no_whole_frames(
    changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        encoder_config({"kind": "hubert", "window_frames": 3001, **changed})
