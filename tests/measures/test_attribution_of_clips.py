"""Attribution in a prompt of several clips, against gradients taken by hand, without hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._models.clips import AudioClips
from palscope._routing import Route
from palscope.interventions import Address, Sound
from palscope.measures._attribution import attribution_patching
from palscope.measures._metrics import Answers
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise

SECONDS = (0.7, 0.4)
ANSWERS = Answers((), 5, 6)
FRAMES = {0.7: 7, 0.4: 4}


@pytest.fixture(scope="module")
def model() -> HookedAudioModel:
    return make_hooked(vocabulary.tokenizer(), Route.pal(tiny.LAYERS, [0, 2]))


def inputs(model: HookedAudioModel, seed: int) -> dict[str, Tensor]:
    clips = [noise(seconds, seed + number) for number, seconds in enumerate(SECONDS)]
    return model.inputs("which is louder?", *clips)


def by_hand(model: HookedAudioModel, clean: Any, corrupt: Any) -> dict[str, Tensor]:
    """Gradient in the corrupt run times the difference, by site, of each clip's tokens."""
    inner: Any = model.model
    lengths = corrupt["feature_lengths"]

    def states(source: Tensor) -> dict[str, Any]:
        encoded = inner.encoder(source, lengths)
        # Frames are read by their projectors and by the summary: the site is what the former read.
        streams = {name: x.clone() for name, x in inner.connector((encoded,)).items()}
        return {"mel": source, "encoder_output": encoded.states, **streams}

    with torch.no_grad():
        there = states(clean["input_features"])
    here = states(corrupt["input_features"].clone().requires_grad_(True))
    for each in here.values():
        each.retain_grad()
    streams = {name: here[name] for name in ("frames", "summary")}
    frames = tuple(FRAMES[seconds] for seconds in SECONDS)
    audio = AudioClips(streams, frames, SECONDS, (0, 1), reused=False)
    ids = {name: corrupt[name] for name in ("input_ids", "attention_mask")}
    logits = inner(**ids, audio=audio).logits[0, -1].double()
    (logits[ANSWERS.clean] - logits[ANSWERS.corrupt]).backward()
    products = {name: (each.grad * (there[name] - each)).detach() for name, each in here.items()}
    products["mel"] = products["mel"].transpose(1, 2)
    return products


@pytest.mark.parametrize("clip", [0, 1])
def test_each_clip_has_its_own_attribution(model: HookedAudioModel, clip: int) -> None:
    clean, corrupt = inputs(model, 0), inputs(model, 10)
    wanted = by_hand(model, clean, corrupt)
    sites: Any = ("mel", "encoder_output", "connector_output", "audio_state")
    addresses = [Address(site, Sound(clip=clip)) for site in sites]
    table: Any = attribution_patching(model, clean, corrupt, addresses, answers=ANSWERS)
    assert (table["clip"] == clip).all()
    counts = {"mel": 100, "encoder_output": 50, "frames": 10, "summary": 10 / 3}
    streams = {"mel": "mel frames", "encoder_output": "encoder tokens"}
    for name, rate in counts.items():
        stream = streams.get(name, name)
        site = name if name in streams else "connector_output"
        mine = table[(table["site"] == site) & (table["stream"] == stream)]
        got = mine.groupby("token")["attribution"].sum()
        count = int(np.ceil(SECONDS[clip] * rate - 1e-6))
        assert got.index.tolist() == list(range(count))
        scale = wanted[name].sum(-1).abs().max().item()
        np.testing.assert_allclose(got, wanted[name][clip, :count].sum(-1), atol=1e-4 * scale)
        assert wanted[name][1 - clip].abs().max() > 0
        edges = mine.drop_duplicates("token")
        np.testing.assert_allclose(edges["start_s"], np.arange(count) / rate, atol=1e-6)
        assert edges["end_s"].iloc[-1] == pytest.approx(SECONDS[clip])
