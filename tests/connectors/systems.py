"""Tiny models with every resampler, of one encoder or two, and their processors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import WhisperFeatureExtractor

from palscope._connectors import ConnectorConfig, LFSTConfig, ProjectorConfig, QFormerConfig
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._routing import Route
from palscope.audio._mel import log_mel
from palscope.audio._timegrid import TimeGrid
from palscope.encoders import (
    ClipFeatures,
    Encoder,
    EncoderConfig,
    Several,
    WhisperEncoderConfig,
    build_encoder,
    register_encoder,
)
from palscope.encoders._base import WindowedEncoder
from palscope.encoders._registry import encoder_kinds
from tests import planted, tiny
from tests.encoders import small

STEP, ROWS, BINS = 16, 2, 8
"""Feature frames, tokens and mel bins of a step of the tiny patch encoder."""


@dataclass(frozen=True)
class PatchConfig(EncoderConfig):
    """Patches of log-mel, each mapped to `d_model`."""

    kind: ClassVar[str] = "test-patches"
    d_model: int = 12

    def features(self, samples: Any) -> ClipFeatures:
        """Whisper's log-mel of eight bins."""
        mel = log_mel(samples, WhisperFeatureExtractor(feature_size=BINS))
        return ClipFeatures(mel, mel.shape[1])


class Patches(WindowedEncoder[PatchConfig]):
    """Two bands of frequency every 160 ms, each patch by itself."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__(config)
        self.patch = nn.Linear(STEP * BINS // ROWS, config.d_model)

    @property
    def width(self) -> int:
        return self.config.d_model

    @property
    def grid(self) -> TimeGrid:
        return TimeGrid(0.01 * STEP, ROWS, hz=(0.0, 2000.0, 8000.0))

    @property
    def window(self) -> int:
        return 64 * STEP

    @property
    def bins(self) -> int:
        return BINS

    def encode_window(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        inside = torch.arange(features.shape[2]) < lengths[:, None]
        features = torch.where(inside[:, None], features, 0.0)
        features = nn.functional.pad(features, (0, -features.shape[2] % STEP))
        patches = features.unflatten(1, (ROWS, -1)).unflatten(3, (-1, STEP))
        return self.patch(patches.permute(0, 3, 1, 2, 4).flatten(3)).flatten(1, 2)


if PatchConfig.kind not in encoder_kinds():
    register_encoder(PatchConfig, Patches)


def whisper(positions: int = 1500) -> Encoder:
    """As in `tiny`; `positions` of 20 ms make a window."""
    return build_encoder(
        WhisperEncoderConfig(
            d_model=16,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=24,
            num_mel_bins=BINS,
            max_source_positions=positions,
            layers=(1, 2),
        )
    )


def brief() -> Encoder:
    """A window is a second."""
    return whisper(50)


def two() -> Encoder:
    return Several.of(Patches(PatchConfig()), whisper())


def sslam_and_clap() -> Encoder:
    """The paper's pair, tiny."""
    return Several.of(small.encoder("sslam"), small.encoder("clap"))


SMALL: dict[str, Any] = {"width": 16, "heads": 2, "feed_forward": 24}
SYSTEMS: dict[str, tuple[Any, QFormerConfig | LFSTConfig | None]] = {
    "pool": (whisper, None),
    "pool of two": (two, None),
    "Q-Former": (whisper, QFormerConfig(latents=4, **SMALL)),
    "Q-Former in windows": (brief, QFormerConfig(latents=2, window_s=0.4, **SMALL)),
    "Q-Former of two": (two, QFormerConfig(latents=2, window_s=0.32, **SMALL)),
    "LFST": (two, LFSTConfig(**SMALL)),
    "LFST of SSLAM and CLAP": (sslam_and_clap, LFSTConfig(**SMALL)),
}
"""Encoder and resampler by name."""

ROUTES = {
    "plits": Route.plits(tiny.LAYERS),
    "lal": Route.lal(tiny.LAYERS),
    "pal": Route.pal(tiny.LAYERS, [0, 2]),
}


def encoder_of(name: str) -> Encoder:
    """The system's encoder; weights are larger than usual, so that sounds differ."""
    torch.manual_seed(1)
    encoder = SYSTEMS[name][0]()
    if SYSTEMS[name][0] is sslam_and_clap:
        return encoder
    with torch.no_grad():
        for weight_name, weight in encoder.named_parameters():
            if weight.ndim > 1 and "embed_positions" not in weight_name:
                weight.normal_(std=0.3)
    return encoder


def connector_of(name: str, route: Route) -> ConnectorConfig:
    """Just the projectors that the route needs."""
    resampler = SYSTEMS[name][1]
    patches = name == "pool of two"  # of which two make a frame
    return ConnectorConfig.for_route(
        route,
        inputs=ProjectorConfig(16),
        layers=ProjectorConfig(16),
        summary_width=12,
        resampler=resampler,
        **({"frames_per_token": 2} if patches else {}),
    )


def put_together(
    encoder: Encoder, route: Route, connector: ConnectorConfig
) -> tuple[PalscopeForConditionalGeneration, PalscopeProcessor]:
    """A tiny decoder with this encoder and a fresh connector, and the processor."""
    processor = PalscopeProcessor.for_grid(
        encoder.feature_extractor(),
        planted.small_tokenizer(),
        connector.frame_grid(encoder.emits),
        route.streams,
    )
    language_model = tiny.decoder(vocab_size=len(planted.WORDS))
    torch.manual_seed(2)
    model = PalscopeForConditionalGeneration.from_parts(
        language_model, encoder, route, connector, audio_token_id=processor.audio_token_id
    )
    return model.eval(), processor


def made(name: str, route: Route) -> tuple[PalscopeForConditionalGeneration, PalscopeProcessor]:
    """The system's model on `route`, and its processor."""
    model, processor = put_together(encoder_of(name), route, connector_of(name, route))
    with torch.no_grad():  # attention far from uniform
        for weight in model.connector.pool.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model, processor


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=int(seconds * 16_000))
    return (0.1 * samples).astype(np.float32)
