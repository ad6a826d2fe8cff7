"""The paper's experiments, carried out on small models: trained, asked, timed, drawn, gone on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.analyses.conftest import call, open_script
from tests.training import small

ALIKE = {"connector": {"inputs": {"hidden": 16}, "layers": {"hidden": 16}}}


@pytest.fixture
def trial(tmp_path: Path) -> tuple[Path, Path]:
    """An experiment of three systems and two stages, and data with labels and questions."""
    (tmp_path / "data").mkdir()
    questions = pd.read_csv(small.write_questions(tmp_path / "data", each=3))
    rows = questions.assign(label=questions["answer"], audio=questions["path"])
    heldout = rows[rows["path"].str.contains("2")].assign(split="validation")
    data = tmp_path / "data" / "rows.csv"
    pd.concat([rows[~rows["path"].str.contains("2")], heldout]).to_csv(data, index=False)
    content = small.recipe(small.write_bases(tmp_path), steps=2, log_every=2)
    small.write_recipe(tmp_path / "shared.yaml", content)
    (tmp_path / "second.yaml").write_text("stages: {second: {train: {llm: whole}}}")
    experiment: dict[str, Any] = {
        "title": "Small",
        "claim": "none",
        "scales": {
            "here": {
                "recipe": str(tmp_path / "shared.yaml"),
                "seeds": [0, 1],
                "baseline": "PAL",
                "systems": {
                    "PAL": {"under": {"summary masked": "frames:P.3,summary/3:.4"}},
                    "LAL": {"changes": {"route": "lal"}},
                    "PAL, decoder trained": {"pieces": "second"},
                },
            }
        },
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(experiment, sort_keys=False))
    return file, data


@pytest.mark.slow
def test_an_experiment_is_carried_out_and_gone_on_with(
    trial: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, data = trial
    script = open_script("reproduce")
    out, trained = tmp_path / "out", tmp_path / "trained"
    places = ["--data", data, "--cache", tmp_path / "cache", "--checkpoints", trained]
    cheap = ["--workers", 0, "--seconds", 0.5, "--repeats", 1, "--threads", 1]
    first = [script, monkeypatch, file, *places, *cheap]
    assert call(*first, "--out", out) == 0
    assert "The paper: none" in capsys.readouterr().out

    marks: Any = pd.read_parquet(out / "marks.parquet")
    variants = {"PAL", "PAL, summary masked", "LAL", "PAL, decoder trained"}
    assert set(marks["variant"]) == variants
    assert len(marks) == 3 * 2 * len(variants)  # clips, seeds
    assert marks.groupby("variant")["seed"].nunique().eq(2).all()
    table: Any = pd.read_csv(out / "summary.csv").set_index(["variant", "set"])
    scores = marks.groupby("variant")["got"].mean()
    for name in variants:
        assert table.loc[(name, "all"), "score"] == pytest.approx(scores[name])
    whole, connector = (
        table.loc[(name, "all"), "trained_parameters"] for name in ("PAL, decoder trained", "PAL")
    )
    assert whole > connector > 0
    assert table.loc[("PAL, summary masked", "all"), "cache_ratio"] < 1
    assert (out / "scores.svg").is_file() and (out / "score_by_cache_ratio.html").is_file()

    # Two recipes for PAL share their first stage, and nothing is trained twice.
    linked = [folder for folder in trained.glob("*/seed*/1-first") if folder.is_symlink()]
    assert len(linked) == 2
    before = {path: path.stat().st_mtime_ns for path in trained.glob("*/*/*/*.safetensors")}
    assert call(*first, "--out", out) == 2
    assert "--resume" in capsys.readouterr().err
    assert call(*first, "--out", out, "--resume") == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert pd.read_parquet(out / "marks.parquet").equals(marks)

    asked = ["--benchmark", f"csv={data}", "--seeds", 0, "--systems", "LAL"]
    assert call(*first, "--out", tmp_path / "asked", *asked) == 0
    rows: Any = pd.read_parquet(tmp_path / "asked" / "marks.parquet")
    assert set(rows["variant"]) == variants - {"PAL, decoder trained"}
    assert set(rows["set"]) == {"csv"}
    assert rows.groupby("variant")["clip"].nunique().eq(9).all()
