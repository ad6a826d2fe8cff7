"""Leakage: the convolutions' field alone where the encoder cannot spread, all where it can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope.audio import Waveform
from palscope.errors import AudioError, PalscopeError
from palscope.measures._leakage import (
    changed_window,
    leakage,
    leakage_profile,
    receptive_field,
)
from tests import tiny
from tests.hooks.conftest import noise
from tests.planted import planted_ear, small_processor

START, END = 0.50, 0.51


@pytest.fixture(scope="module")
def sound() -> Waveform:
    """A second of noise whose loudest moment is its end, far from the window."""
    samples = noise(1.0)
    samples[-1600:] *= 3
    return Waveform(samples, 16_000, "noise")


@pytest.fixture(scope="module")
def ear() -> HookedAudioModel:
    return planted_ear()


@pytest.fixture(scope="module")
def table(ear: HookedAudioModel, sound: Waveform) -> Any:
    return leakage(ear, sound, START, END)


def moved(table: Any, site: str, layer: int = -1, stream: str = "") -> list[int]:
    at = table[(table["site"] == site) & (table["layer"] == layer) & (table["stream"] == stream)]
    assert len(at)
    return at.loc[at["change"] > 0, "token"].tolist()


def test_an_ear_without_attention_moves_the_tokens_that_hear_the_window_and_no_other(
    table: Any,
) -> None:
    # Mel frame i hears 0.01 i ± 0.0125 s, a token 0.02 i ± 0.0325 s.
    assert moved(table, "mel") == [49, 50, 51, 52]
    for site, layer in (("encoder_input", -1), ("encoder_block", 0), ("encoder_block", 1)):
        assert moved(table, site, layer) == [24, 25, 26, 27]
    assert moved(table, "encoder_output") == [24, 25, 26, 27]
    assert moved(table, "connector_output", stream="frames") == [4, 5]  # five tokens each
    assert moved(table, "connector_output", stream="summary") == [1]
    for layer in (0, 2):
        assert moved(table, "audio_state", layer, "frames") == [4, 5]
    for layer in range(tiny.LAYERS):  # the decoder is causal: nothing moves before
        assert moved(table, "resid_post", layer, "summary") == [1, 2, 3]
    assert table["floor_moved_db"].eq(0).all()


def test_depths_are_in_order_and_tokens_have_their_seconds(table: Any) -> None:
    depths = table.drop_duplicates("depth")
    assert depths["depth"].tolist() == list(range(len(depths)))
    assert depths["site"].tolist()[:6] == [
        *("mel", "encoder_input", "encoder_block", "encoder_block"),
        *("encoder_output", "connector_output"),
    ]
    tokens = table[table["depth"] == 1].set_index("token")
    assert len(tokens) == 50
    assert tokens.loc[25, ["token_start_s", "token_end_s"]].tolist() == [0.5, 0.52]
    assert tokens.loc[25, "offset_s"] == pytest.approx(0.51 - 0.505)
    assert tokens.loc[25, "beyond_s"] == pytest.approx(0.01) and tokens.loc[25, "overlaps"]
    assert tokens.loc[24, "beyond_s"] == pytest.approx(0.02) and not tokens.loc[24, "overlaps"]
    assert tokens.loc[49, "token_end_s"] == 1.0
    frames = table[(table["site"] == "connector_output") & (table["stream"] == "frames")]
    assert frames["token_start_s"].tolist() == pytest.approx(np.arange(10) / 10)


def test_the_field_of_the_planted_ear_has_a_known_width(table: Any) -> None:
    field = receptive_field(table).set_index("depth")
    tokens = field.loc[1]  # 24 to 27 move: 0.48 to 0.56 s, and the window ends at 0.51
    assert tokens["reach_s"] == pytest.approx(0.05)
    assert 0 < tokens["within50_s"] <= tokens["within90_s"] <= 0.05
    assert 0 < tokens["leaked"] < 1 and tokens["inside"] > tokens["outside"] > 0
    assert field.loc[6, "stream"] == "summary" and field.loc[6, "leaked"] == 0


def test_full_attention_spreads_to_every_token(sound: Waveform) -> None:
    route = Route.pal(tiny.LAYERS, [0, 2])
    processor = small_processor(8, [stream.ratio for stream in route.streams])
    model = tiny.model(route, vocab_size=11)
    model.config.audio_token_id = processor.audio_token_id
    table: Any = leakage(HookedAudioModel(model, processor), sound, START, END)
    assert moved(table, "encoder_input") == [24, 25, 26, 27]
    assert moved(table, "encoder_block", 0) == list(range(50))
    assert moved(table, "audio_state", 0, "frames") == list(range(10))
    field = receptive_field(table).set_index("depth")
    assert field.loc[4, "reach_s"] == pytest.approx(START)  # to the clip's start
    assert field.loc[4, "leaked"] > field.loc[1, "leaked"]


def test_a_window_that_holds_the_loudest_bin_moves_the_floor_and_all_that_lies_on_it(
    ear: HookedAudioModel,
) -> None:
    """The first half is silent: its bins stand 80 dB below the loudest."""
    samples = np.concatenate([np.zeros(8000, np.float32), noise(0.5)])
    samples[12_800:14_400] *= 10
    quiet, loud = (
        leakage(ear, Waveform(samples, 16_000, "noise"), *window, how="silence")
        for window in ((0.6, 0.7), (0.8, 0.9))
    )
    assert quiet["floor_moved_db"].eq(0).all() and loud["floor_moved_db"].between(-25, -15).all()
    far = [0, 1, 2, 3, 4]
    assert not set(far) & set(moved(quiet, "mel")) and set(far) <= set(moved(loud, "mel"))


def test_the_half_maximum_ends_at_the_first_gap() -> None:
    change = [0.9, 0.1, 0.6, 1.0, 0.5, 0.4, 0.8]
    starts = np.arange(7) / 10
    table = pd.DataFrame(
        {
            **{"depth": 0, "site": "mel", "layer": -1, "stream": "", "token": range(7)},
            **{"token_start_s": starts, "token_end_s": starts + 0.1},
            "offset_s": starts - 0.3,
            "beyond_s": np.maximum(0, np.abs(starts - 0.3)).round(6),
            "overlaps": np.arange(7) == 3,
            "change": change,
            "floor_moved_db": 0.0,
        }
    )
    field = receptive_field(table).iloc[0]
    assert field["half_maximum_s"] == pytest.approx(0.1)
    assert field["within50_s"] == pytest.approx(0.2)  # 1.0 + 0.6 + 0.5 + 0.1 + 0.4 of 4.3
    assert field["within90_s"] == pytest.approx(0.3)
    assert field["inside"] == 1 and field["leaked"] == pytest.approx(3.3 / 4.3)


def test_noise_is_as_loud_as_what_it_replaces(sound: Waveform) -> None:
    changed = changed_window(sound, 0.2, 0.6)
    part = slice(3200, 9600)
    rms = [np.sqrt(np.mean(x.samples[part] ** 2)) for x in (sound, changed)]
    assert rms[1] == pytest.approx(rms[0], rel=0.05)
    same = changed.samples == sound.samples
    assert same[: part.start].all() and same[part.stop :].all() and not same[part].any()
    again = changed_window(sound, 0.2, 0.6)
    assert np.array_equal(changed.samples, again.samples)
    assert not np.array_equal(changed.samples, changed_window(sound, 0.2, 0.6, seed=1).samples)
    silent = changed_window(sound, 0.2, 0.6, how="silence")
    assert not silent.samples[part].any() and changed.samples.dtype == np.float32


def test_widths_hold_half_and_nine_tenths_of_the_change() -> None:
    # Ten tokens on one side of the window, each a tenth of a second further off and as much moved.
    number = np.arange(10)
    tokens = pd.DataFrame(
        {
            "depth": 1,
            "site": "encoder_block",
            "layer": 0,
            "stream": "",
            "offset_s": 0.1 * number,
            "beyond_s": 0.1 * number,
            "overlaps": number == 0,
            "change": 1.0,
            "floor_moved_db": 0.0,
        }
    )
    field = receptive_field(tokens.iloc[::-1]).iloc[0]
    assert field["within50_s"] == pytest.approx(0.4)
    assert field["within90_s"] == pytest.approx(0.8)
    assert field["leaked"] == pytest.approx(0.9)
    assert field["half_maximum_s"] == pytest.approx(0.9) and field["reach_s"] == pytest.approx(0.9)
    alone = receptive_field(tokens[:1]).iloc[0]  # a clip of one token
    assert (alone["inside"], alone["leaked"], alone["within90_s"]) == (1.0, 0.0, 0.0)


def test_windows_that_cannot_be_changed_are_refused(ear: HookedAudioModel, sound: Waveform) -> None:
    for window in ((0.5, 0.5), (0.9, 1.1), (-0.1, 0.2)):
        with pytest.raises(PalscopeError, match=r"is empty|outside of noise|starts at 0"):
            leakage(ear, sound, *window)
    silence = Waveform(np.zeros(16_000, np.float32), 16_000, "nothing")
    with pytest.raises(AudioError, match="silent already"):
        leakage(ear, silence, 0.2, 0.3)
    long = Waveform(noise(31), 16_000, "long")
    with pytest.raises(AudioError, match="cut the clip"):
        leakage(ear, long, 0.2, 0.3)


def test_a_profile_is_relative_to_the_window_and_in_steps_of_time(table: Any) -> None:
    profile = leakage_profile(table, step=0.1)
    mel = profile[profile["depth"] == 0].set_index("offset_s")["relative"]
    assert mel.index.tolist() == pytest.approx(np.arange(-5, 6) / 10)
    tokens = table[table["depth"] == 0].set_index("token")["change"]
    near = tokens[46:56].mean()  # middles from -0.05 to 0.05 s around 0.505
    assert mel[0.0] == pytest.approx(near / tokens[50], rel=0.2) and mel.drop(0.0).max() == 0
    frames = profile[(profile["site"] == "connector_output") & (profile["stream"] == "frames")]
    assert frames.set_index("offset_s")["relative"].max() == pytest.approx(1)
    summary = profile[(profile["site"] == "connector_output") & (profile["stream"] == "summary")]
    assert np.diff(summary["offset_s"]) == pytest.approx([0.3] * (len(summary) - 1))


def test_a_change_below_the_floor_moves_nothing_and_has_no_width(ear: HookedAudioModel) -> None:
    samples = noise(1.0)
    samples[:8000] *= 1e-7  # 140 dB below the rest
    table: Any = leakage(ear, Waveform(samples, 16_000, "noise"), 0.1, 0.2)
    assert table["change"].eq(0).all()
    field = receptive_field(table)
    assert field[["leaked", "within50_s", "within90_s"]].isna().all(axis=None)
    assert field[["inside", "half_maximum_s", "reach_s"]].eq(0).all(axis=None)
