"""The analysis of docs/how-to/analysis.md, saved as the page says and run by both hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from palscope._routing import Route
from palscope.analyses import analysis_of
from tests import tiny
from tests.dashboards.conftest import DASHBOARDS, OTHER, figures, quiet, saved
from tests.docs.pages import DOCS
from tests.plots.reading import agree
from tests.scripts import run_script


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = (DOCS / "how-to" / "analysis.md").read_text(encoding="utf-8")
    (source, *others) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert not others and len(source.splitlines()) < 100
    path = tmp_path_factory.mktemp("own") / "muting.py"
    path.write_text(source, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Route.pal(tiny.LAYERS, [0, 2]), tmp_path_factory.mktemp("pal"))


def test_it_runs_resumes_and_refuses(file: Path, checkpoint: Path, tmp_path: Path) -> None:
    def run(*words: object) -> Any:
        given = ("--model", checkpoint, "--n", 1, "--width", 1, "--out", tmp_path / "run")
        return run_script(str(file), *given, *words)

    done = run()
    assert done.returncode == 0, done.stderr
    table: Any = pd.read_parquet(tmp_path / "run" / "muting.parquet")
    assert table["muted"].unique().tolist() == ["none", "0 to 0", "2 to 2"]
    assert table.groupby("muted")["probability"].nunique().gt(1).all()
    for ending in ("html", "png", "svg", "csv"):
        assert (tmp_path / "run" / f"muting.{ending}").stat().st_size > 100
    assert len(pd.read_csv(tmp_path / "run" / "means.csv")) == 3
    assert run().returncode == 2 and "go on with it by --resume" in run().stderr
    assert run("--resume").returncode == 0
    other = run("--resume", "--width", 2)
    assert other.returncode == 2 and "other settings (config.width: 1, now 2)" in other.stderr
    assert "(layers) (default: 10)" in " ".join(run("--help").stdout.split())


def test_it_is_on_the_page(file: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DASHBOARDS))
    monkeypatch.setattr("sys.argv", ["attention.py", str(file)])

    def script() -> None:
        from _interventions_view import view  # pyright: ignore[reportMissingImports]

        view()

    page = AppTest.from_function(script, default_timeout=600)
    given = {"model": OTHER, "model-folder": str(checkpoint), "analysis": "muting"}
    for name, value in (given | {"muting-width": "2"}).items():
        page.query_params[name] = value
    page.run()
    assert page.number_input(key="muting-width").value == 2
    next(button for button in page.button if button.label.startswith("Run")).click().run()
    quiet(page)
    assert len(figures(page)) == 1 and len(page.dataframe[0].value) == 2
    assert "--width 2" in page.code[-1].value


def test_its_figure_is_the_same_on_screen_and_in_print(
    file: Path, checkpoint: Path, tmp_path: Path
) -> None:
    from palscope.analyses import run

    analysis = analysis_of(str(file))
    given = {"model": str(checkpoint), "n": 1, "width": 1}
    (results,) = run(analysis, given, tmp_path / "run")
    agree(analysis.figures(results)["muting"])
