"""What stops a model where nobody speaks: found where it was planted, and counted by hand."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any
from weakref import ref

import numpy as np
import pandas as pd
import pytest

from palscope.analyses import Results, Work
from tests.analyses.conftest import open_script

pytestmark = pytest.mark.slow

nonspeech = open_script("nonspeech")

LAYERS, HEADS, WIDTH = 3, 2, 8
PLANTED_LAYER, PLANTED_HEAD = 1, (2, 0)


@pytest.fixture(scope="module")
def options() -> Any:
    return nonspeech.NonspeechOptions(model="none", n=2, strings=4, noises=1, doses=(0.0, 1.0))


@pytest.fixture(scope="module")
def planted(options: Any) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(LAYERS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def work(options: Any, planted: np.ndarray) -> Any:
    """Tables as measured of a model in which one layer's direction and one head stop it."""
    base = np.random.default_rng(1).normal(size=(LAYERS, WIDTH)).astype(np.float32)
    clips = nonspeech.clips_of(options)

    def of_clip(table: str, clip: Any) -> pd.DataFrame:
        # What is chosen must not know the other half: there it is the other way round.
        speech = (clip.group == nonspeech.SPEECH) != clip.held_out
        if table == "states":
            values = base + planted * speech
            found = [{"layer": i, "state": values[i]} for i in range(LAYERS)]
        elif table == "search":
            found = [
                {
                    "layer": i,
                    "dose": 1.0,
                    "stops": (i != 0) != clip.held_out,
                    "same": (i == PLANTED_LAYER) != clip.held_out,
                }
                for i in range(LAYERS)
            ]
        else:
            found = [
                {
                    "cut": "head",
                    "layer": i,
                    "head": j,
                    "stops": ((i, j) != (0, 0)) != clip.held_out,
                    "same": ((i, j) == PLANTED_HEAD) != clip.held_out,
                }
                for i in range(LAYERS)
                for j in range(HEADS)
            ]
        return pd.DataFrame(found).assign(kind=clip.group, held_out=clip.held_out)

    def whole(table: str) -> pd.DataFrame:
        return pd.concat([of_clip(table, clip) for clip in clips])

    model: Any = object()
    return Work(model, model, options, lambda table, name: whole(table), whole)


def test_every_kind_is_in_both_halves_and_noise_is_as_loud_as_it_says(
    options: Any,
) -> None:
    clips = nonspeech.clips_of(options)
    kinds = {clip.group for clip in clips}
    assert kinds == {"sound", "music", "silence", "white noise", "pink noise", nonspeech.SPEECH}
    for kind in kinds - {"silence"}:  # of which there is but one
        assert {clip.held_out for clip in clips if clip.group == kind} == {False, True}
    for clip in clips:
        if "noise" in clip.group:
            level = next(each for each in nonspeech.LEVELS_DB if f"{each} dB" in clip.name)
            loud = 20 * np.log10(np.sqrt(np.mean(clip.clip.samples**2)))
            assert loud == pytest.approx(level, abs=0.01)
    white, pink = (
        next(np.abs(np.fft.rfft(c.clip.samples)) ** 2 for c in clips if c.group == f"{k} noise")
        for k in ("white", "pink")
    )
    # Of pink noise every octave has as much.
    octaves = [(500, 1000), (1000, 2000), (2000, 4000)]
    power = [[each[5 * low : 5 * high].sum() for low, high in octaves] for each in (white, pink)]
    assert np.array(power[0]) / power[0][0] == pytest.approx([1, 2, 4], rel=0.15)
    assert np.array(power[1]) / power[1][0] == pytest.approx([1, 1, 1], rel=0.15)


def test_the_planted_direction_layer_and_head_are_found(work: Any, planted: np.ndarray) -> None:
    found = nonspeech.directions(work)
    for layer in range(LAYERS):
        np.testing.assert_allclose(found[layer].numpy(), planted[layer], atol=1e-6)
    # Elsewhere other clips stop as often, but strings lose their first word.
    assert nonspeech.chosen(work) == (PLANTED_LAYER, PLANTED_HEAD)


def test_what_was_found_keeps_no_run_alive(work: Any) -> None:
    other = replace(work, whole=lambda table: work.whole(table))
    assert nonspeech.directions(other) is nonspeech.directions(other)
    gone = ref(other)
    del other
    gc.collect()
    assert gone() is None


def results(**tables: pd.DataFrame) -> Any:
    clip: Any = type("Clip", (), {"name": "all"})
    stored = {name: {"all": lambda table=table: table} for name, table in tables.items()}
    options: Any = None
    return Results(options, "m", "", [clip], "clips", stored)


def test_rates_count_clips_with_words_and_those_that_the_rule_leaves() -> None:
    table = pd.DataFrame(
        {
            "kind": ["sound"] * 4 + [nonspeech.SPEECH],
            "settings": "published",
            "words": [0, 1, 3, 7, 2],
            "dropped": [True, True, False, False, False],
            "no_speech": 0.7,
            "logprob": -1.0,
            "error": [np.nan] * 4 + [0.5],
        }
    )
    found = nonspeech.rates(results(transcripts=table)).set_index("kind")
    assert found.loc["sound", ["rate", "left", "n", "words"]].tolist() == [0.75, 0.5, 4, 2.0]
    assert found.loc["sound", "low"] == pytest.approx(0.3006, abs=1e-4)  # Wilson
    assert found.loc[nonspeech.SPEECH, "error"] == 0.5


def test_doses_tell_rate_damage_and_loss_apart() -> None:
    table = pd.DataFrame(
        {
            "by": "head",
            "dose": [1.0] * 6,
            "place": "head 0.2",
            "kind": ["sound", "sound", "silence"] + 3 * [nonspeech.SPEECH],
            "words": [0, 2, 1, 0, 3, 4],
            "error": [np.nan] * 3 + [1.0, 0.0, 0.5],
        }
    )
    found = nonspeech.doses(results(steered=table)).set_index("what")["value"]
    assert found.to_dict() == pytest.approx({"rate": 2 / 3, "error": 0.5, "lost": 1 / 3})
