"""Which second of sound a latent reads: weights that make it read one planted burst, and sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope._connectors import ConnectorConfig, LFSTConfig, ProjectorConfig, QFormerConfig
from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope.encoders import Several
from palscope.errors import PalscopeError
from palscope.interventions import Address, Patch, Scale, Sound, intervene
from palscope.measures import connector_attention
from tests import tiny
from tests.connectors.systems import SMALL, PatchConfig, Patches, made, noise, put_together, whisper

QUESTION = "which sound was it"
KEYS = ["row", "clip", "layer", "head", "latent"]


def burst(seconds: float, start: float, hertz: float) -> np.ndarray:
    """A tone of 100 ms in quiet noise."""
    samples = 0.001 * noise(seconds)
    times = np.arange(1600) / 16_000
    first = int(start * 16_000)
    samples[first : first + 1600] += (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
    return samples


def reads_loudest(resampler: QFormerConfig | LFSTConfig) -> HookedAudioModel:
    """A model whose latents read, of the patch encoder, the patch of the highest mean log-mel."""
    patches = Patches(PatchConfig())
    several = isinstance(resampler, LFSTConfig)
    encoder = Several.of(patches, whisper()) if several else patches
    route = Route.lal(tiny.LAYERS)
    connector = ConnectorConfig.for_route(route, layers=ProjectorConfig(8), resampler=resampler)
    model, processor = put_together(encoder, route, connector)
    with torch.no_grad():
        patches.patch.weight.zero_()
        patches.patch.bias.zero_()
        patches.patch.weight[0] = 1 / patches.patch.in_features
        for attention in model.connector.pool.attentions:
            part: Any = attention
            part.query.weight.zero_()
            part.query.bias.fill_(1.0)
            part.key.weight.zero_()
            part.key.weight[:, 0] = 100.0
    return HookedAudioModel(model, processor)


RESAMPLERS = {
    "of the clip": QFormerConfig(latents=2, **SMALL),
    "in windows": QFormerConfig(latents=2, window_s=0.64, **SMALL),
    "LFST": LFSTConfig(**SMALL),
}


@pytest.mark.parametrize(("hertz", "band"), [(300.0, (0.0, 2000.0)), (6000.0, (2000.0, 8000.0))])
@pytest.mark.parametrize("name", RESAMPLERS)
def test_a_latent_that_reads_a_burst_is_shown_at_its_seconds_and_hertz(
    name: str, hertz: float, band: tuple[float, float]
) -> None:
    hooked = reads_loudest(RESAMPLERS[name])
    inputs = hooked.inputs(QUESTION, burst(2.2, 1.3, hertz))  # inside of 1.28 to 1.44 s
    table: Any = connector_attention(hooked, inputs)
    table = table[table["encoder"] == "test-patches"]
    reach = {"of the clip": (0.0, 2.2), "in windows": (1.28, 1.92), "LFST": (0.9, 1.8)}[name]
    middle = (table["latent_start_s"] + table["latent_end_s"]) / 2
    near = table[middle.between(*reach)]
    assert len(near)
    loudest = near.loc[near.groupby(KEYS)["mass"].idxmax()]
    assert (loudest["mass"] > 0.95).all()
    assert set(zip(loudest["start_s"], loudest["end_s"], strict=True)) == {(1.28, 1.44)}
    assert set(zip(loudest["low_hz"], loudest["high_hz"], strict=True)) == {band}
    far = table[~middle.between(*reach)]
    assert not ((far["start_s"] <= 1.3) & (far["end_s"] >= 1.4)).any()


@pytest.mark.parametrize("name", ["Q-Former of two", "LFST", "Q-Former"])
def test_masses_sum_to_one_over_what_each_latent_can_read(name: str) -> None:
    hooked = HookedAudioModel(*made(name, Route.lal(tiny.LAYERS)))
    processor = hooked.processor
    texts = [processor.chat(QUESTION), processor.chat(QUESTION, clips=2)]
    clips = [noise(0.5), noise(2.05, 1), noise(0.3, 2)]
    inputs = dict(processor(texts, clips, sampling_rate=16_000))
    table = connector_attention(hooked, inputs)
    np.testing.assert_allclose(table.groupby(KEYS)["mass"].sum(), 1, atol=1e-5)
    assert not table.duplicated([*KEYS, "encoder", "token"]).any()
    assert (table["end_s"] > table["start_s"]).all()
    assert table.groupby(["row", "clip"])["end_s"].max().tolist() == pytest.approx([0.5, 2.05, 0.3])
    overlap = table["start_s"].lt(table["latent_end_s"] + 0.34) & table["end_s"].gt(
        table["latent_start_s"] - 0.34
    )
    assert overlap.all()  # half of a region of 0.96 s less half of a step of 0.32 s
    alone: list[pd.DataFrame] = []
    for row, clip, samples in zip((0, 1, 1), (0, 0, 1), clips, strict=True):
        own = connector_attention(hooked, hooked.inputs(QUESTION, samples))
        alone.append(own.assign(row=row, clip=clip))
    pd.testing.assert_frame_equal(table, pd.concat(alone, ignore_index=True), atol=1e-5, rtol=1e-3)


def test_what_is_set_before_the_decoder_holds_in_the_measure() -> None:
    hooked = reads_loudest(RESAMPLERS["LFST"])
    inputs = hooked.inputs(QUESTION, burst(2.2, 1.3, 6000.0))
    before: Any = connector_attention(hooked, inputs)
    # The quiet's log-mel is below zero: turned over, it is the loudest there is.
    address = Address("encoder_output", Sound(0.5, 0.6))
    with intervene(hooked, inputs, [Patch(address, Scale(-9.0))]):
        after: Any = connector_attention(hooked, inputs)
    moved = (before["mass"] - after["mass"]).abs().gt(1e-3) & before["encoder"].eq("test-patches")
    read = after[moved & after["mass"].gt(0.9)]
    assert len(read) and set(read["start_s"]) == {0.48}


def test_what_has_no_connector_attention_is_refused(pal: Any) -> None:
    with pytest.raises(PalscopeError, match="pools encoder tokens, and has no attention"):
        connector_attention(pal, pal.inputs(QUESTION, noise(0.5)))
    hooked = HookedAudioModel(*made("LFST", Route.lal(tiny.LAYERS)))
    inputs = hooked.inputs(QUESTION, noise(0.5))
    given = {"input_ids": inputs["input_ids"], "audio": hooked.encode_audio(inputs)}
    with pytest.raises(PalscopeError, match=r"not encoded ones \(audio=\)"):
        connector_attention(hooked, given)
    with torch.no_grad():
        attention: Any = hooked.model.connector.pool.attentions[0]
        attention.query.weight.fill_(torch.nan)
    with pytest.raises(
        PalscopeError, match=r"not finite: connector\.pool\.[\w.]*attention\.query\.weight"
    ):
        connector_attention(hooked, inputs)
