"""A tiny checkpoint, clips of different lengths, and their activations at several sites."""

from __future__ import annotations

from pathlib import Path

import pytest

import palscope
from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope.audio import load_audio
from palscope.features import ActivationStore, LabelledClip, collect_activations
from palscope.interventions import Address, Text
from tests import tiny
from tests.dashboards.conftest import saved
from tests.hooks.conftest import noise

SECONDS = (0.5, 1.31, 0.27, 0.9, 2.0, 0.33, 0.61, 1.0, 0.45, 0.8)
SITES = (
    Address("encoder_block", layers=(0,)),
    Address("encoder_output"),
    Address("connector_output"),
    Address("audio_state", layers=(0,)),
    Address("resid_post", layers=(2,)),
    Address("head_output", layers=(1,), heads=(1, 3)),
    Address("mlp_out", layers=(1,)),
    Address("pattern", queries=Text(-1)),
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Route.pal(tiny.LAYERS, [0, 2]), tmp_path_factory.mktemp("pal"))


@pytest.fixture(scope="session")
def model(folder: Path) -> HookedAudioModel:
    return palscope.load(folder)


@pytest.fixture(scope="session")
def clips() -> list[LabelledClip]:
    """Ten clips of noise, every second one "b"; the last two are of another split."""
    return [
        LabelledClip(
            f"clip {number}",
            load_audio(noise(seconds, number), native_rate=16_000),
            label="ab"[number % 2],
            domain="noise",
            split="train" if number < 8 else "validation",
            question="which digit is spoken first?" if number % 3 else "what?",
            seconds=seconds,
        )
        for number, seconds in enumerate(SECONDS)
    ]


@pytest.fixture(scope="session")
def store(
    model: HookedAudioModel, clips: list[LabelledClip], tmp_path_factory: pytest.TempPathFactory
) -> ActivationStore:
    """All sites, eight clips at once, in three shards."""
    out = tmp_path_factory.mktemp("store") / "run"
    return collect_activations(model, clips, SITES, out, batch_size=8, shard_clips=4)
