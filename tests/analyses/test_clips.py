"""The logit lens, leakage and pathway masking of labelled clips, on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tests import tiny


def test_lens(analyse: Callable[..., Path], manifest: Path) -> None:
    out = analyse("logit_lens", "--audio", manifest, "--only", "sound0.wav", "sound1.wav")
    table = pd.read_parquet(out / "logit_lens.parquet")
    assert table["clip"].unique().tolist() == ["sound0.wav", "sound1.wav"]
    places: Any = table.groupby("place")["depth"].agg(lambda depths: sorted(set(depths)))
    assert places.to_dict() == {
        "last token": list(range(tiny.LAYERS + 1)),
        "summary": list(range(tiny.LAYERS + 1)),
        "written by frames": [1, 3],
        "written by summary": list(range(1, tiny.LAYERS + 1)),
    }
    assert table["chance"].nunique() == 1 and table["leads"].between(0, 1).all()
    starts = pd.read_csv(out / "readable_from.csv")
    assert set(starts["place"]) == set(table["place"])


def test_the_lens_reads_a_stream_as_far_as_it_runs(
    analyse: Callable[..., Path], manifest: Path
) -> None:
    """A summary that runs in the first layer alone, and is only read from there on."""
    given = ("--audio", manifest, "--only", "sound0.wav", "--route", "frames:.4,summary/3:F1k3")
    table = pd.read_parquet(analyse("logit_lens", *given) / "logit_lens.parquet")
    summary = table[table["place"] == "summary"]
    assert sorted(summary["depth"]) == [0, 1]


def test_leakage(analyse: Callable[..., Path], manifest: Path, capsys: Any) -> None:
    out = analyse("leakage", "--audio", manifest, "--windows", 2)
    said = capsys.readouterr().out
    assert "0 of 10 window(s) moved the clip's loudest bin" in said and "5 clip(s) measured" in said
    table = pd.read_parquet(out / "leakage.parquet")
    windows: Any = table.groupby("clip")["window_s"].agg(lambda starts: sorted(set(starts)))
    assert windows.tolist() == [[0.1, 0.2]] * 5
    leaked = pd.read_csv(out / "leaked_by_depth.csv")
    assert leaked["n"].eq(5).all() and leaked["mean"].between(0, 1).all()
    mel = leaked[leaked["site"] == "mel"]["mean"].item()
    assert mel < leaked[leaked["site"] == "encoder_output"]["mean"].item()
    widths = pd.read_csv(out / "widths.csv")
    assert set(widths["width"]) == {"within50_s", "within90_s", "half_maximum_s", "reach_s"}


def test_masking(analyse: Callable[..., Path], manifest: Path) -> None:
    out = analyse("pathway_masking", "--audio", manifest, "--n", 2)
    table = pd.read_parquet(out / "masking.parquet")
    assert [len(rows) for _, rows in table.groupby("clip")] == [8] * 4
    assert set(table["masked"]) == {"nothing", "frames", "summary", "frames + summary"}
    assert set(table["answer"]) == {"dog", "rain", "six", "two"}
    scores: Any = pd.read_csv(out / "scores.csv").set_index(["domain", "way", "masked"])
    for way in ("knockout", "reroute"):
        for masked in set(table["masked"]):
            rows = table[(table["way"] == way) & (table["masked"] == masked)]
            assert scores.loc[("all", way, masked), "accuracy"] == rows["correct"].mean()
    assert set(scores.index.get_level_values("domain")) == {"sound", "speech", "all"}
    assert len(pd.read_csv(out / "contrasts.csv")) == 6


def test_one_way_of_masking_alone(analyse: Callable[..., Path], manifest: Path) -> None:
    out = analyse("pathway_masking", "--audio", manifest, "--n", 1, "--way", "reroute")
    assert set(pd.read_parquet(out / "masking.parquet")["way"]) == {"reroute"}
    assert not (out / "accuracy.png").exists() and (out / "masked.png").is_file()  # of two clips
