"""Activation patching of pairs, on a tiny model that answers them by chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.analyses import analysis_of, main
from palscope.interventions import Resample
from palscope.measures import _grids as grids

SITES = {"waveform", "encoder_output", "connector_output", "audio_state"}
PLACES = ["first digit", "silence", "second digit"]
TWO = ("--kind", "first_digit", "--n", 2, "--all-pairs")


def test_sites_and_sound_stand_side_by_side(analyse: Callable[..., Path]) -> None:
    out = analyse("activation_patching", *TWO)
    answers = pd.read_parquet(out / "answers.parquet")
    assert answers["side"].tolist() == ["clean", "corrupt"] * 2
    assert not answers["right"].any() and answers["answer"].str.len().min() > 0
    table = pd.read_parquet(out / "patching.parquet")
    assert table["pair"].nunique() == 2 and set(table["kind"]) == {"first_digit"}
    assert not table.duplicated(["pair", "run", *grids.LABELS]).any()
    effects: Any = pd.read_csv(out / "effects.csv")
    for run in ("patch", "other"):
        rows = effects[effects["run"] == run]
        assert set(rows["site"]) == SITES and len(rows) == len(SITES) * len(PLACES)
    patch = effects[effects["run"] == "patch"].set_index(["site", "place"])["effect"]
    # Only the first digit differs, so swapping its sound is swapping the clip.
    np.testing.assert_allclose([patch["waveform", p] for p in PLACES], [1, 0, 0], atol=1e-3)
    controls = pd.read_csv(out / "controls.csv")
    assert controls["control"].tolist() == ["self", "full"] and controls["worst"].max() < 1e-3


@pytest.mark.parametrize(
    ("grid", "more", "rows", "figures"),
    [
        # Four layers; frames stand in two of them, the text and the summary in all.
        ("layers", ["--width", 1], 4 * 5, 2),
        ("layers", ["--width", 1, "--stream", "frames", "--site", "audio_kv"], 2 * 3, 2),
        ("layers", ["--width", 2, "--layers", "from", "--step", 0.6], None, 2),
        ("streams", ["--width", 2], 2 * 2, 2),
        ("heads", ["--direction", "noising", "--metric", "kl"], 4 * 4, 1),
    ],
)
def test_other_grids(
    analyse: Callable[..., Path], grid: str, more: list[object], rows: int | None, figures: int
) -> None:
    one = ("--kind", "first_digit", "--n", 1, "--all-pairs", "--grid", grid)
    out = analyse("activation_patching", *one, *more)
    effects: Any = pd.read_csv(out / "effects.csv")
    patch = effects[effects["run"] == "patch"]
    assert len(patch) == len(effects[effects["run"] == "other"]) == (rows or len(patch))
    assert patch["effect"].abs().max() > 1e-3
    assert len([*out.glob(f"{grid}_first_digit*.png")]) == figures
    direction = {"noising" if "noising" in more else "denoising"}
    assert set(pd.read_parquet(out / "patching.parquet")["direction"]) == direction


def test_a_result_whose_controls_fail_is_not_shown(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patching that adds a little noise to what it puts in is caught by the self-patch."""
    prepared = Resample.prepared

    def broken(self: Any, model: Any, address: Any) -> Any:
        change = prepared(self, model, address)
        for value in change.captured.values.values():
            value += 0.05
        return change

    monkeypatch.setattr(Resample, "prepared", broken)
    said = refused("activation_patching", *TWO)
    assert "control" in said and "not shown" in said
    out = tmp_path / "refused"
    assert not (out / "effects.csv").exists() and not list(out.glob("*.png"))
    assert not json.loads((out / "run.json").read_text(encoding="utf-8"))["finished"]


@pytest.mark.parametrize(("right", "counted"), [([1, 1, 1, 0], 1), ([0, 1, 1, 0], 0)])
def test_pairs_that_are_not_answered_right_are_left_out(
    right: list[int], counted: int, checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    analysis, given = analysis_of("activation_patching"), iter(right)
    patched, answered = analysis.tables

    def told(work: Any, items: Any) -> Any:
        yield pd.DataFrame({"side": ["clean", "corrupt"], "right": [next(given), next(given)]})

    analysis = replace(analysis, tables=[patched, replace(answered, measure=told)])
    words = ["--model", checkpoint, *TWO[:-1], "--grid", "streams", "--out", tmp_path / "run"]
    assert main(analysis, words=[*map(str, words)]) == (0 if counted else 2)
    said = capsys.readouterr()
    assert f"{counted} of 2 pair(s) answered right" in said.out
    if counted:
        assert set(pd.read_csv(tmp_path / "run" / "effects.csv")["n"]) == {1}
    else:
        assert "answers no pair right" in said.err


def test_pairs_of_one_s_own(
    analyse: Callable[..., Path], refused: Callable[..., str], own_pairs: Path
) -> None:
    table = own_pairs.read_text(encoding="utf-8")
    table = table.replace(",one,two", ",one,").replace(",two,three", ",two,")
    own_pairs.with_name("unknown.csv").write_text(table, encoding="utf-8")
    given = ("--pairs", own_pairs.with_name("unknown.csv"), "--all-pairs")
    assert "logprob" in refused("activation_patching", *given)  # no corrupt answer, no difference
    out = analyse("activation_patching", *given, "--metric", "logprob")
    places = set(pd.read_csv(out / "effects.csv")["place"])
    assert {"clip", "before", "changed", "after"} <= places or {"before", "changed"} <= places
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert list(record["data"]) == [str(own_pairs.with_name("unknown.csv"))]
