"""The command `analyses/activation_patching.py`, on a tiny checkpoint and the bundled pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from palscope.audio._bundled import CLIPS_FOLDER
from palscope.interventions import Resample
from palscope.measures import _grids as grids
from palscope.pairs import bundled_pairs
from tests.analyses.conftest import call, open_script

SITES = {"waveform", "encoder_output", "connector_output", "audio_state"}
PLACES = ["first digit", "silence", "second digit"]


@pytest.fixture
def script() -> Any:
    return open_script("activation_patching")


@pytest.fixture
def command(script: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*arguments: object) -> int:
        return call(script, monkeypatch, "--model", checkpoint, *arguments)

    return run


def two_digits(out: Path) -> list[object]:
    """Two bundled pairs. An untrained model answers them by chance, so all count."""
    return ["--kind", "first_digit", "--n", 2, "--all-pairs", "--out", out]


def test_sites_and_sound_stand_side_by_side(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command(*two_digits(out)) == 0
    said = capsys.readouterr().out
    assert "of 2 pairs are answered right" in said and str(out) in said
    answers = pd.read_parquet(out / "answers.parquet")
    assert answers["side"].tolist() == ["clean", "corrupt"] * 2
    assert not answers["right"].any() and answers["answer"].str.len().min() > 0
    table = pd.read_parquet(out / "patching.parquet")
    assert set(table["pair"]) == {p.name for p in bundled_pairs() if p.kind == "first_digit"} & set(
        table["pair"]
    )
    assert table["pair"].nunique() == 2 and set(table["kind"]) == {"first_digit"}
    assert not table.duplicated(["pair", "run", *grids.LABELS]).any()
    effects: Any = pd.read_csv(out / "effects.csv")
    for run in ("patch", "other"):
        rows = effects[effects["run"] == run]
        assert set(rows["site"]) == SITES and len(rows) == len(SITES) * len(PLACES)
    patch = effects[effects["run"] == "patch"].set_index(["site", "place"])["effect"]
    # Only the first digit differs, so swapping its sound is swapping the clip.
    np.testing.assert_allclose([patch["waveform", p] for p in PLACES], [1, 0, 0], atol=1e-3)
    runs = effects.set_index("run")["effect"]
    assert runs["self"] == pytest.approx(0, abs=1e-3)
    assert runs["full"] == pytest.approx(1, abs=1e-3)
    for ending in ("html", "png", "svg", "csv"):
        assert (out / f"sites_first_digit.{ending}").stat().st_size > 100
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["finished"] and [c["control"] for c in record["controls"]] == ["self", "full"]
    assert record["pairs"]["first_digit"]["pairs"] == 2


@pytest.mark.parametrize(
    ("grid", "more", "rows", "figures"),
    [
        # Four layers; frames stand in two of them, the text and the summary in all.
        ("layers", ["--width", 1], 4 * 5, ["", "_lines"]),
        (
            "layers",
            ["--width", 1, "--stream", "frames", "--site", "audio_kv"],
            2 * 3,
            ["", "_lines"],
        ),
        ("layers", ["--width", 2, "--layers", "from", "--step", 0.6], None, ["", "_lines"]),
        ("streams", ["--width", 2], 2 * 2, ["", "_lines"]),
        ("heads", ["--direction", "noising", "--metric", "kl"], 4 * 4, [""]),
    ],
)
def test_other_grids(
    command: Any, tmp_path: Path, grid: str, more: list[object], rows: int | None, figures: Any
) -> None:
    out = tmp_path / "out"
    arguments = ["--kind", "first_digit", "--n", 1, "--all-pairs", "--out", out]
    assert command(*arguments, "--grid", grid, *more) == 0
    effects: Any = pd.read_csv(out / "effects.csv")
    patch = effects[effects["run"] == "patch"]
    assert len(patch) == len(effects[effects["run"] == "other"])
    if rows is not None:
        assert len(patch) == rows
    assert patch["effect"].abs().max() > 1e-3
    for figure in figures:
        assert (out / f"{grid}_first_digit{figure}.png").is_file()
    if "noising" in more:
        assert set(pd.read_parquet(out / "patching.parquet")["direction"]) == {"noising"}


def test_a_run_goes_on_where_it_was(
    command: Any, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    measured: list[str] = []
    patched = script.patched

    def counted(model: Any, pair: Any, given: Any) -> Any:
        if measured:
            raise KeyboardInterrupt
        measured.append(pair.name)
        return patched(model, pair, given)

    monkeypatch.setattr(script, "patched", counted)
    assert command(*two_digits(out)) == 130
    assert not (out / "effects.csv").exists()
    assert command(*two_digits(out)) == 2  # a run stands there
    monkeypatch.setattr(script, "patched", lambda *a: measured.append(a[1].name) or patched(*a))
    assert command(*two_digits(out), "--resume") == 0
    assert len(measured) == len(set(measured)) == 2
    fresh = tmp_path / "fresh"
    assert command(*two_digits(fresh)) == 0
    assert (out / "patching.parquet").read_bytes() == (fresh / "patching.parquet").read_bytes()


def test_a_result_whose_controls_fail_is_not_shown(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Patching that adds a little noise to what it puts in is caught by the self-patch."""
    out = tmp_path / "out"
    prepared = Resample.prepared

    def broken(self: Any, model: Any, address: Any) -> Any:
        change = prepared(self, model, address)
        for value in change.captured.values.values():
            value += 0.05
        return change

    monkeypatch.setattr(Resample, "prepared", broken)
    assert command(*two_digits(out)) == 2
    said = capsys.readouterr()
    assert "control" in said.err and "not shown" in said.err
    assert not (out / "effects.csv").exists() and not list(out.glob("*.png"))
    assert not json.loads((out / "run.json").read_text(encoding="utf-8"))["finished"]


def test_pairs_that_are_not_answered_right_are_left_out(
    command: Any, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = [a for a in two_digits(tmp_path / "one") if a != "--all-pairs"]

    def answers(right: list[bool]) -> Any:
        given = iter(right)
        return lambda *_: pd.DataFrame(
            {"side": ["clean", "corrupt"], "right": [next(given), next(given)]}
        )

    monkeypatch.setattr(script, "greedy_answers", answers([True, True, True, False]))
    assert command(*arguments) == 0
    effects = pd.read_csv(tmp_path / "one" / "effects.csv")
    assert set(effects["n"]) == {1}
    assert "1 of 2 pairs" in capsys.readouterr().out
    monkeypatch.setattr(script, "greedy_answers", answers([False, True, True, False]))
    assert command(*arguments[:-1], tmp_path / "none") == 2
    assert "answers no pair right" in capsys.readouterr().err


def test_pairs_of_a_manifest_and_of_files(command: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "manifest"
    manifest = ["--manifest", CLIPS_FOLDER / "clips.csv", "--kind", "digit", "--n", 1]
    assert command(*manifest, "--step", 0.3, "--all-pairs", "--out", out) == 0
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert list(record["data"]) == [str(CLIPS_FOLDER / "clips.csv")]
    effects: Any = pd.read_csv(out / "effects.csv")
    assert "0.00 to 0.30 s" in set(effects["place"])
    rng = np.random.default_rng(0)
    for name in ("clean", "corrupt"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.normal(size=16_000), 16_000)
    pairs = tmp_path / "pairs.csv"
    columns = "clean,corrupt,question,clean_answer,corrupt_answer,start_s,end_s\n"
    pairs.write_text(columns + "clean.wav,corrupt.wav,what?,dog,,0.2,0.6\n", encoding="utf-8")
    own = ["--pairs", pairs, "--all-pairs"]
    assert command(*own, "--out", tmp_path / "logit") == 2  # no corrupt answer, no difference
    assert "logprob" in capsys.readouterr().err
    assert command(*own, "--metric", "logprob", "--out", tmp_path / "own") == 0
    effects = pd.read_csv(tmp_path / "own" / "effects.csv")
    assert {"before", "changed", "after"} <= set(effects["place"])
    assert not (tmp_path / "own" / "moved.csv").exists()


def test_wrong_arguments(command: Any, tmp_path: Path, capsys: Any) -> None:
    out = ["--out", tmp_path / "out"]
    assert command("--kind", "sound_order", *out) == 2
    assert "--manifest" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("--n", 0, *out)
