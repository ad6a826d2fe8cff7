"""Every encoder and resampler on one pretended device: no fault, and the CPU's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from palscope._connectors import ConnectorConfig, LFSTConfig, ProjectorConfig, QFormerConfig
from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope.datasets._examples import Example
from palscope.encoders import Encoder
from palscope.interventions import Address, Patch, Scale, Sound, intervene
from palscope.measures import connector_attention
from palscope.training._trainer import measure_features
from tests import tiny
from tests.connectors.systems import SMALL, put_together, sslam_and_clap, whisper
from tests.devices.placed import CPU, ONE, put, same
from tests.devices.tasks import QUESTION, noise, rows
from tests.encoders import small

PATH = "language_model.model"
RESAMPLERS: dict[str, tuple[Encoder, QFormerConfig | LFSTConfig]] = {
    "Q-Former": (whisper(), QFormerConfig(latents=2, **SMALL)),
    "Q-Former in windows": (whisper(), QFormerConfig(latents=2, window_s=0.64, **SMALL)),
    "LFST": (sslam_and_clap(), LFSTConfig(**SMALL)),
}


def on_encoder(kind: str, where: str) -> list[Any]:
    """Logits of a batch, and of a clip whose features and first layer are edited."""
    model, processor = small.whole(small.encoder(kind))
    put(model, where, PATH)
    example = Example([noise(0.7)], QUESTION, "A", "sound", [], [])
    found: list[Any] = [*measure_features(model, processor, [example], 1)]
    model.connector.standardise(*found)
    hooked = HookedAudioModel(model, processor)
    with torch.no_grad():
        found.append(hooked(rows(hooked)))
        inputs = hooked.inputs(QUESTION, noise(0.7))
        for site in ("encoder_block", "encoder_output"):
            place = Address(site, Sound(0.0, 0.2), layers=(0,) if site == "encoder_block" else None)
            with intervene(hooked, inputs, [Patch(place, Scale(2.0))]):
                found.append(hooked(inputs, logits_to_keep=1))
    return [each.cpu() for each in found]


def on_resampler(name: str, where: str) -> list[Any]:
    """What latents read, and logits."""
    encoder, resampler = RESAMPLERS[name]
    connector = ConnectorConfig.for_route(
        Route.lal(tiny.LAYERS), layers=ProjectorConfig(8), resampler=resampler
    )
    model, processor = put_together(encoder, Route.lal(tiny.LAYERS), connector)
    put(model, where, PATH)
    hooked = HookedAudioModel(model, processor)
    inputs = hooked.inputs(QUESTION, noise(1.1))
    with torch.no_grad():
        return [connector_attention(hooked, inputs), hooked(inputs).cpu()]


@pytest.mark.parametrize("kind", [kind for kind in small.CONFIGS if "vision" not in kind])
def test_an_encoder(kind: str) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        expected = on_encoder(kind, CPU)
    for found, wanted in zip(on_encoder(kind, ONE), expected, strict=True):
        same(found, wanted)


@pytest.mark.parametrize("name", RESAMPLERS)
def test_a_resampler(name: str) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        expected = on_resampler(name, CPU)
    for found, wanted in zip(on_resampler(name, ONE), expected, strict=True):
        same(found, wanted)
