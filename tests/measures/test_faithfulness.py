"""The checks of attributions know a right one from a wrong one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope._hooks import HookedAudioModel
from palscope.audio import Waveform
from palscope.errors import AudioError, PalscopeError
from palscope.interventions import Address, Sound, edit_waveform
from palscope.measures._attribution import attribution_patching
from palscope.measures._faithfulness import (
    against_chance,
    agreement,
    areas,
    beside_patching,
    by_window,
    curve_bands,
    deletion_insertion,
    equal_windows,
)
from palscope.measures._metrics import Answers
from palscope.measures._patching import GridCell, activation_patching
from tests.hooks.conftest import noise
from tests.planted import WORDS, Planted, plant

ANSWERS = Answers((), WORDS.index("A"), WORDS.index("B"))


# -- against exact patching -----------------------------------------------------------------------


def test_cells_stand_beside_their_patching() -> None:
    planted = plant("summary")
    runs = {
        "clean": planted.inputs("A", 5, nuisance=1),
        "corrupt": planted.inputs("B", 5, nuisance=2),
    }
    cells = [
        GridCell(
            (Address("audio_state", Sound(start, start + 0.3, "summary"), (layer,)),),
            {"layer": layer, "start_s": start},
        )
        for layer in range(4)
        for start in (0.0, 0.3, 0.6)
    ]
    patching = activation_patching(planted.model, **runs, cells=cells, answers=ANSWERS)
    table = attribution_patching(
        planted.model, **runs, addresses=[Address("audio_state")], answers=ANSWERS
    )
    beside = beside_patching(patching, table, cells)
    assert list(beside) == ["layer", "start_s", "effect", "attribution"]
    # The summary's token of 0.3 to 0.6 s is carried to layer 1, where it is read.
    planted_here = (beside["start_s"] == 0.3) & (beside["layer"] <= 1)
    assert (beside.loc[planted_here, ["effect", "attribution"]] > 15).all(axis=None)
    assert (beside.loc[~planted_here, ["effect", "attribution"]].abs() < 1e-5).all(axis=None)
    assert agreement(beside.assign(pair="one"))["pearson"].item() > 0.99
    some = beside_patching(patching, table, cells, only=[cells[5], cells[1]])
    pd.testing.assert_frame_equal(some, beside.iloc[[5, 1]].reset_index(drop=True))
    with pytest.raises(PalscopeError, match="12 cells were patched, but 11"):
        beside_patching(patching, table, cells[1:])
    logprob = beside_patching(patching, table, cells, metric="logprob")
    assert not np.allclose(logprob["effect"], beside["effect"])


def made(pairs: int = 6, noise: float = 0.0, factor: float = 2.0, seed: int = 0) -> pd.DataFrame:
    """Cells whose effect is `factor` times the attribution, and noise."""
    rng = np.random.default_rng(seed)
    attribution = rng.normal(size=pairs * 10)
    return pd.DataFrame(
        {
            "pair": np.repeat([f"pair {i}" for i in range(pairs)], 10),
            "layer": np.tile([0, 1], pairs * 5),
            "attribution": attribution,
            "effect": factor * attribution + noise * rng.normal(size=pairs * 10),
        }
    )


def test_agreement_of_what_agrees() -> None:
    row = agreement(made()).iloc[0]
    assert (row["cells"], row["pairs"]) == (60, 6)
    for name in ("pearson", "spearman", "pearson_pair", "spearman_pair"):
        assert row[name] == pytest.approx(1)
    assert np.isnan(row["spearman_low"]) and row["spearman_values"].numbers == pytest.approx(
        (1,) * 6
    )
    assert row["slope"] == pytest.approx(2) and row["sign"] == 1
    assert row["size"] == pytest.approx(made()["effect"].abs().mean())
    opposite = agreement(made(factor=-1)).iloc[0]
    assert opposite["pearson"] == pytest.approx(-1) and opposite["sign"] == 0


def test_agreement_is_the_correlation_with_an_interval_over_pairs() -> None:
    table = made(pairs=20, noise=2.0)
    row = agreement(table).iloc[0]
    assert row["pearson"] == pytest.approx(table["attribution"].corr(table["effect"]))
    ranks = table[["attribution", "effect"]].rank()
    assert row["spearman"] == pytest.approx(ranks["attribution"].corr(ranks["effect"]))
    assert row["spearman_low"] < row["spearman"] < row["spearman_high"] < 1
    within = [part["attribution"].corr(part["effect"]) for _, part in table.groupby("pair")]
    assert row["pearson_pair"] == pytest.approx(np.median(within))
    # Pairs are what is sampled, not cells: where all are alike, nothing is known of another.
    same = made(pairs=1, noise=2.0)
    alike = pd.concat([same.assign(pair=str(i)) for i in range(20)])
    assert np.isnan(agreement(alike).iloc[0]["spearman_low"])


def test_agreement_keeps_groups_apart_and_says_where_it_knows_nothing() -> None:
    table = made()
    table.loc[table["layer"] == 1, "effect"] *= -1
    rows = agreement(table, ["layer"]).set_index("layer")
    assert rows["pearson"].to_dict() == pytest.approx({0: 1, 1: -1})
    still = agreement(made().assign(attribution=0.0)).iloc[0]
    assert np.isnan(still["pearson"]) and np.isnan(still["slope"]) and still["sign"] == 0
    one = agreement(made(pairs=1)).iloc[0]
    assert one["pearson"] == pytest.approx(1) and np.isnan(one["spearman_low"])
    assert np.isnan(agreement(made(pairs=1)[:2])["pearson"]).all()


# -- deletion and insertion -----------------------------------------------------------------------


def test_windows_share_tokens_by_their_seconds() -> None:
    table = pd.DataFrame(
        {
            "start_s": [0.0, 0.3, np.nan],
            "end_s": [0.3, 0.4, np.nan],
            "attribution": [3.0, 5.0, 100.0],
        }
    )
    windows = equal_windows(0.4, 4)
    assert [window.end for window in windows] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(by_window(table, windows), [1, 1, 1, 5])
    np.testing.assert_allclose(by_window(table, equal_windows(0.4, 2)), [2, 6])
    assert by_window(table, [Sound(0.25)]) == pytest.approx([5.5])


QUESTION = "what is it?"
TINY_ANSWERS = Answers((7,), 11, 12)


def clip(seed: int) -> Waveform:
    return Waveform(noise(0.6, seed), 16_000, f"noise {seed}")


def answered(model: HookedAudioModel, sound: Waveform) -> float:
    inputs = TINY_ANSWERS.behind(model.inputs(QUESTION, sound.samples))
    with torch.no_grad():
        return float(model(inputs)[0, -1].log_softmax(-1)[TINY_ANSWERS.clean])


def test_sound_is_taken_away_and_put_in(pal: HookedAudioModel) -> None:
    windows = equal_windows(0.6, 3)
    table = deletion_insertion(
        pal,
        QUESTION,
        clip(0),
        clip(1),
        windows,
        {"one": [2, 0, 1], "two": [0, 1, 2]},
        answers=TINY_ANSWERS,
        batch_size=3,
    )
    assert len(table) == 2 * 2 * 4
    found = table.set_index(["order", "curve", "step"])["logprob"]
    whole, empty = answered(pal, clip(0)), answered(pal, clip(1))
    assert abs(whole - empty) > 1e-3
    without_last = answered(pal, edit_waveform(clip(0), windows[2], clip(1)))
    only_last = answered(pal, edit_waveform(clip(1), windows[2], clip(0)))
    for curve, values in {
        "deletion": [whole, without_last, None, empty],
        "insertion": [empty, only_last, None, whole],
    }.items():
        for step, value in enumerate(values):
            if value is not None:
                assert found["one", curve, step] == pytest.approx(value, abs=1e-4)
    # What is left after two of three deletions is what one insertion of the third brings.
    assert found["one", "deletion", 2] != pytest.approx(only_last, abs=1e-4)
    assert found["two", "deletion", 2] == pytest.approx(only_last, abs=1e-4)
    assert table.loc[table["step"] == 1, "share"].to_numpy() == pytest.approx(1 / 3)


def test_what_cannot_be_replaced_is_refused(pal: HookedAudioModel) -> None:
    told: dict[str, Any] = {"answers": TINY_ANSWERS, "windows": equal_windows(0.6, 2)}
    with pytest.raises(PalscopeError, match="permutation"):
        deletion_insertion(pal, QUESTION, clip(0), clip(1), orders={"x": [0, 0]}, **told)
    longer = Waveform(noise(0.5), 16_000, "shorter")
    with pytest.raises(AudioError):
        deletion_insertion(pal, QUESTION, clip(0), longer, orders={"x": [0, 1]}, **told)


def test_the_right_order_is_better_than_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted event is in one window: an order that begins there must win, the reverse lose."""
    planted = plant("lal")
    sounds = coded(planted, monkeypatch)
    windows = equal_windows(1.2, 12)
    rng = np.random.default_rng(0)
    tables: list[pd.DataFrame] = []
    for at in (2, 5, 9):
        right = [at, *(i for i in range(12) if i != at)]
        orders = {"right": right, "reverse": right[::-1]}
        orders |= {f"random {i}": rng.permutation(12).tolist() for i in range(5)}
        table = deletion_insertion(
            planted.model, "", sounds("A", at), sounds("B", at), windows, orders, answers=ANSWERS
        )
        tables.append(table.assign(pair=str(at)))
    curves = pd.concat(tables, ignore_index=True)
    assert curves["logprob"].agg(["min", "max"]).tolist() == pytest.approx([-15, 0], abs=1)
    gains = against_chance(areas(curves)).set_index(["order", "curve"])
    for curve in ("deletion", "insertion"):
        assert min(gains.loc[("right", curve), "values"].numbers) > 3
        assert max(gains.loc[("reverse", curve), "values"].numbers) < -3
    areas_of = areas(curves).set_index(["pair", "order", "curve"])["area"]
    drop = areas_of["5", "right", "insertion"]
    # All of the answer is there from the first of twelve steps.
    assert drop == pytest.approx(curves["logprob"].min() * (0.5 / 12), rel=1e-2)


def coded(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Waveforms that stand for planted prompts: the sample's value is the class, 0 for nothing."""
    values = {"A": 0.5, "B": -0.5}

    def sound(event: str, at: int) -> Waveform:
        samples = np.zeros(12 * 1600, dtype=np.float32)
        samples[at * 1600 : (at + 1) * 1600] = values[event]
        return Waveform(samples, 16_000, event)

    def inputs(question: str, sound: Waveform) -> Any:
        events = np.asarray(sound.samples).reshape(12, 1600).mean(1)
        (places,) = events.nonzero()
        which = {value: name for name, value in values.items()}
        if len(places):
            return planted.inputs(which[float(events[places[0]])], int(places[0]))
        return planted.inputs(None, 0)

    monkeypatch.setattr(planted.model, "inputs", inputs)
    return sound


def test_areas_gains_and_bands_are_counted_right() -> None:
    """By hand: an order that falls at once, one that falls slowly, and two random ones between."""
    levels = {"good": 0.0, "random 0": 2.0, "random 1": 4.0}
    rows = [
        {"pair": pair, "order": order, "curve": curve, "share": share, "logprob": value}
        for pair, shift in (("p", 0.0), ("q", 1.0))
        for order, level in levels.items()
        for curve in ("deletion", "insertion")
        for share, value in ((0.0, 4.0 + shift), (0.5, level + shift), (1.0, 0.0 + shift))
    ]
    table = pd.DataFrame(rows)[::-1]  # in any order
    area = areas(table).set_index(["pair", "order", "curve"])["area"]
    assert area["p", "good", "deletion"] == pytest.approx(1.0)
    assert area["q", "random 1", "insertion"] == pytest.approx(4.0)
    gain = against_chance(areas(table)).set_index(["order", "curve"])
    assert gain.loc[("good", "deletion"), "gain"] == pytest.approx(1.5)
    assert gain.loc[("good", "insertion"), "gain"] == pytest.approx(-1.5)
    assert set(gain.index.get_level_values(0)) == {"good"} and (gain["n"] == 2).all()
    bands = curve_bands(table).set_index(["order", "curve", "share"])
    middle = bands.loc[("random", "deletion", 0.5)]
    assert middle["mean"] == pytest.approx(3.5) and middle["n"] == 2
    assert np.isnan(middle["high"]) and middle["values"].numbers == (3.0, 4.0)
    with pytest.raises(PalscopeError, match="random"):
        against_chance(areas(table[table["order"] == "good"]))
