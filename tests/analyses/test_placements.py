"""`injection_depth.py` and `audio_queries.py` on tiny checkpoints and short clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palscope._connectors import ConnectorConfig
from palscope._routing import Route, route_from_text
from palscope._routing.depths import rerouted_depths
from palscope._statistics import wilson
from palscope.analyses import analysis_of, main
from tests import tiny
from tests.analyses.conftest import saved

ROUTES = {"lal": Route.lal(tiny.LAYERS), "plits": Route.plits(tiny.LAYERS)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return [
        str(saved(route, folder / name, ConnectorConfig.for_route(route)))
        for name, route in ROUTES.items()
    ]


@pytest.fixture(scope="module")
def run(models: list[str], manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models over all depths."""
    out = tmp_path_factory.mktemp("depth")
    quick = ["--audio", str(manifest), "--seconds", "0.5", "--repeats", "1"]
    given = ["--model", *models, *quick, "--out", str(out)]
    assert main(analysis_of("injection_depth"), words=given) == 0
    return out


@pytest.mark.parametrize("name", ROUTES)
def test_a_checkpoint_is_rerouted_scored_and_timed(name: str, run: Path) -> None:
    route, swept = ROUTES[name], rerouted_depths(ROUTES[name])
    answers: Any = pd.read_parquet(run / name / "answers.parquet")
    assert set(answers["placement"]) == {each.name for each in swept}
    table = pd.read_csv(run / name / "accuracy.csv")
    assert len(table) == 2 * len(swept)
    for row in table.itertuples():
        mine = answers[(answers["placement"] == row.placement) & (answers["family"] == row.family)]
        mine = mine[mine["domain"] == row.domain]
        assert (row.n, row.correct) == (len(mine), mine["correct"].sum())
        assert (row.low, row.high) == pytest.approx(wilson(int(row.correct), int(row.n)))
        expected = next(each for each in swept if each.name == row.placement)
        assert route_from_text(str(row.route)) == expected.route
    own = table[[route_from_text(text) == route for text in table["route"]]]
    assert set(own["prefill_ratio"]) == set(own["cache_ratio"]) == {1.0}
    silent = table[table["family"] == "no audio"]
    assert (silent["cache_ratio"] < 1).all() and (silent["peak_bytes"] > 0).all()
    record = json.loads((run / name / "run.json").read_text(encoding="utf-8"))
    assert record["finished"] and Route.from_dict(record["route"]) == route


def test_answers_depend_on_the_route(run: Path) -> None:
    table: Any = pd.read_parquet(run / "lal" / "answers.parquet")
    margins = table.pivot_table(index="clip", columns="placement", values="margin")
    assert margins.T.round(9).drop_duplicates().shape[0] == margins.shape[1]
    alike = table.groupby(["clip", "placement"])["margin"].nunique()
    assert (alike == 1).all() and table.duplicated(["clip", "placement"]).any()


def test_models_are_drawn_together(run: Path) -> None:
    names = {"layers", "window", "time", "cache"}
    assert {path.stem for path in run.glob("*.png")} == {f"accuracy_by_{name}" for name in names}
    every = pd.read_csv(run / "accuracy_by_time.csv")
    assert set(every["model"]) == {"lal", "plits"} and set(every["n"]) == {3, 2}
    windows = pd.read_csv(run / "accuracy_by_window.csv")
    assert set(windows["model"]) == {"lal"}
    assert set(windows["family"]) == {"LAL, window of 1", "no audio"}


def test_lal_has_nothing_to_attend_with(
    models: list[str], manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", models[0], "--audio", str(manifest), "--out", str(tmp_path)]
    assert main(analysis_of("audio_queries"), words=given) == 2
    said = capsys.readouterr().err
    assert "has no input projector" in said and "choose PLITS or PAL" in said
