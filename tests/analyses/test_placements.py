"""The commands `injection_depth.py` and `audio_queries.py`, on tiny checkpoints and short clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from transformers import AutoTokenizer, WhisperFeatureExtractor

from palscope._connectors import ConnectorConfig
from palscope._models import PalscopeProcessor
from palscope._models.base_weights import find_base
from palscope._routing import Route, route_from_text
from palscope._routing.depths import rerouted_depths, trained_depths, trained_queries
from palscope._statistics import wilson
from palscope.evaluation import _placement_runs as placement_runs
from palscope.evaluation import _placements as placements
from palscope.training._placements import Schedule
from tests import tiny
from tests.analyses.conftest import call, open_script

QUICK = ("--seconds", 1, "--repeats", 1)


def save(folder: Path, route: Route) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))
    connector = ConnectorConfig.for_route(route, summary_width=12)
    model = tiny.model(route, connector=connector, vocab_size=49152)
    ratios = [stream.ratio for stream in route.streams]
    processor = PalscopeProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer, 10, ratios)
    model.config.audio_token_id = processor.audio_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for route in (Route.lal, Route.plits):
        save(folder / route.__name__, route(tiny.LAYERS))
    return folder


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["path,domain,label,split"]
    for domain, labels in (("sound", ("dog", "rain", "dog")), ("speech", ("one", "two"))):
        for number, label in enumerate(labels):
            name = f"{domain}{number}.wav"
            soundfile.write(tmp_path / name, 0.1 * rng.normal(size=6400), 16000)
            lines.append(f"{name},{domain},{label},validation")
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(name: str, *arguments: object) -> int:
        script = open_script(name)
        script.LAYERS = tiny.LAYERS
        return call(script, monkeypatch, *arguments)

    return run


def figures(out: Path) -> set[str]:
    return {path.stem for path in out.glob("*.png")}


def test_a_checkpoint_is_rerouted_scored_and_timed(
    command: Any, models: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    both = (models / "lal", models / "plits")
    given = ("--model", *both, "--manifest", manifest, *QUICK, "--out", out)
    assert command("injection_depth", *given) == 0
    for name, route in (("lal", Route.lal(tiny.LAYERS)), ("plits", Route.plits(tiny.LAYERS))):
        swept = rerouted_depths(route)
        answers = pd.read_parquet(out / name / "answers.parquet")
        assert set(answers["placement"]) == {each.name for each in swept}
        table = pd.read_parquet(out / name / "accuracy.parquet")
        assert len(table) == 2 * len(swept)
        for row in table.itertuples():
            mine = answers[(answers["placement"] == row.placement)]
            mine = mine[mine["domain"] == row.domain]
            assert (row.n, row.correct) == (len(mine), mine["correct"].sum())
            assert (row.low, row.high) == wilson(row.correct, row.n)
            expected = next(each for each in swept if each.name == row.placement)
            assert route_from_text(str(row.route)) == expected.route
        own = table[[route_from_text(text) == route for text in table["route"]]]
        assert set(own["prefill_ratio"]) == set(own["cache_ratio"]) == {1.0}
        silent = table[table["family"] == "no audio"]
        assert (silent["cache_ratio"] < 1).all() and (silent["peak_bytes"] > 0).all()
        record = json.loads((out / name / "run.json").read_text(encoding="utf-8"))
        assert record["finished"] and Route.from_dict(record["route"]) == route
        assert "steps" not in record["config"] and list(record["data"]) == [str(manifest)]
    every = pd.read_csv(out / "accuracy.csv")
    assert set(every["model"]) == {"lal", "plits"} and set(every["n"]) == {3, 2}
    assert figures(out) == {
        "accuracy_by_layers",
        "accuracy_by_window",
        "accuracy_by_time",
        "accuracy_by_cache",
    }
    windows = pd.read_csv(out / "accuracy_by_window.csv")
    assert set(windows["model"]) == {"lal"}
    assert set(windows["family"]) == {"LAL, window of 1", "no audio"}


def test_answers_depend_on_the_route(
    command: Any, models: Path, manifest: Path, tmp_path: Path
) -> None:
    given = ("--model", models / "lal", "--manifest", manifest, *QUICK, "--out", tmp_path / "out")
    assert command("injection_depth", *given) == 0
    answers: Any = pd.read_parquet(tmp_path / "out" / "lal" / "answers.parquet")
    margins = answers.pivot(index="item", columns="placement", values="margin")
    assert margins.T.round(9).drop_duplicates().shape[0] == margins.shape[1]


def test_a_stopped_run_goes_on(
    command: Any, models: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--model", models / "plits", "--manifest", manifest, *QUICK, "--limit", 1)
    assert command("injection_depth", *given, "--out", tmp_path / "whole") == 0
    whole = pd.read_parquet(tmp_path / "whole" / "plits" / "answers.parquet")
    assert set(whole["item"].value_counts()) == {whole["placement"].nunique()}
    assert whole["domain"].value_counts().nunique() == 1  # one clip of each domain
    ranked, asked = placements.ranked_answers, []

    def stopped(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return ranked(*args, **kwargs)

    monkeypatch.setattr(placements, "ranked_answers", stopped)
    given = (*given, "--out", tmp_path / "out", "--resume")
    assert command("injection_depth", *given) == 130
    asked[:] = [1] * 9
    assert command("injection_depth", *given) == 0
    assert len(asked) - 9 == whole["placement"].nunique() - 2
    again = pd.read_parquet(tmp_path / "out" / "plits" / "answers.parquet")
    pd.testing.assert_frame_equal(again, whole)


def test_lal_has_nothing_to_attend_with(
    command: Any,
    models: Path,
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("--manifest", manifest, *QUICK, "--out", tmp_path / "out")
    assert command("audio_queries", "--model", models / "lal", *given) == 2
    said = capsys.readouterr()
    assert "lal cannot be rerouted so" in said.out and "no input projector" in said.out
    assert "give one that carries audio" in said.err
    both = (models / "lal", models / "plits")
    assert command("audio_queries", "--model", *both, *given) == 0
    table = pd.read_csv(tmp_path / "out" / "accuracy.csv")
    assert set(table["model"]) == {"plits"}
    assert set(table["family"]) == {"frames: full", "frames: queries", "frames: keys", "no audio"}
    assert figures(tmp_path / "out") == {
        "accuracy_by_layers",
        "accuracy_by_time",
        "accuracy_by_cache",
    }


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("injection_depth", "lal", trained_depths(tiny.LAYERS)),
        ("audio_queries", "plits", trained_queries(tiny.LAYERS)),
    ],
)
def test_each_depth_is_scored_on_its_own_weights(
    name: str,
    model: str,
    expected: Any,
    command: Any,
    models: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def train(
        placed: Sequence[Any], corpus: Any, out: Path, schedule: Any, **given: Any
    ) -> dict[str, Path]:
        asked.update(given, schedule=schedule, out=out, clips=len(corpus.clips))
        return {p.name: save(out / p.name, p.route) for p in placed}

    monkeypatch.setattr(placement_runs, "train_placements", train)
    out = tmp_path / "out"
    given = ("--model", models / model, "--manifest", manifest, *QUICK, "--out", out)
    training = ("--train", manifest, "--cache", tmp_path / "cache", "--steps", 7, "--batch", 3)
    assert command(name, *given, *training, "--checkpoints", tmp_path / "weights", "--bf16") == 0
    assert asked["manifest"] == manifest and asked["clips"] == 5
    assert asked["schedule"] == Schedule(steps=7, batch=3, bf16=True)
    assert asked["out"] == tmp_path / "weights"
    table = pd.read_csv(out / "accuracy.csv")
    table = table[table["model"] == "trained for 7 steps"]
    assert set(table["placement"]) == {each.name for each in expected}
    for each in expected:
        rows = table[table["placement"] == each.name]
        assert {route_from_text(text) for text in rows["route"]} == {each.route}
    baseline = table[table["placement"] == f"LAL 0-{tiny.LAYERS - 1}"]
    assert set(baseline["prefill_ratio"]) == {1.0}
    record = json.loads((out / "trained" / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["steps"] == 7 and "model" not in record["config"]
    assert set(record["weights"]) == {each.name for each in expected}


def test_wrong_input_ends_in_one_line(
    command: Any,
    models: Path,
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("--model", models / "lal", "--out", tmp_path / "out", "--manifest")
    assert command("injection_depth", *given, manifest, "--split", "test") == 2
    assert "no row has split 'test'" in capsys.readouterr().err
    assert command("injection_depth", *given, tmp_path / "none.csv") == 2
    assert "no such file" in capsys.readouterr().err
