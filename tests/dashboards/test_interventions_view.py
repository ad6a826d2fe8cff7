"""The page of interventions, run by Streamlit's AppTest on tiny checkpoints."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from palscope import load
from palscope.interventions import Sound
from palscope.measures.knockout import attention_knockout, sliding_windows, text_to_audio
from palscope.measures.metrics import Answers
from palscope.pairs import bundled_pairs
from palscope.routing import Route, route_to_text
from tests import tiny
from tests.dashboards.conftest import OTHER, captions, figures, quiet

PAIR = next(pair for pair in bundled_pairs() if pair.kind == "first_digit")


def script() -> None:
    from _interventions_view import view  # pyright: ignore[reportMissingImports]

    view()


@pytest.fixture
def open_page(checkpoint: Path) -> Callable[..., AppTest]:
    st.cache_data.clear()
    st.cache_resource.clear()

    def opened(folder: Path = checkpoint, **address: str) -> AppTest:
        page = AppTest.from_function(script, default_timeout=600)
        given = {"model": OTHER, "model-folder": str(folder), "pair": PAIR.name} | address
        for name, value in given.items():
            page.query_params[name] = value
        return page.run()

    return opened


def go(page: AppTest) -> AppTest:
    return next(b for b in page.button if b.label.startswith("Run")).click().run()


@pytest.mark.parametrize(
    ("experiment", "drawn"),
    [
        ("patching", 1),
        ("knockout", 1),
        ("masking", 1),
        ("injection depth", 1),
        ("audio queries", 1),
        ("logit lens", 1),
        ("attribution", 1),
        ("leakage", 2),
    ],
)
def test_every_experiment_runs_when_asked_and_not_before(
    open_page: Callable[..., AppTest], experiment: str, drawn: int
) -> None:
    page = open_page(experiment=experiment)
    quiet(page)
    assert len(figures(page)) == 2 and not page.dataframe  # the two clips alone
    go(page)
    quiet(page)
    assert len(figures(page)) == 2 + drawn
    assert len(page.dataframe[0].value) > 5
    # Another pair's results are not this one's.
    page.selectbox(key="pair").set_value(bundled_pairs()[0].name).run()
    quiet(page)
    assert len(figures(page)) == 2


@pytest.mark.parametrize("grid", ["layers × time", "streams × layers", "layers × heads"])
def test_every_grid_is_patched_under_its_controls(
    open_page: Callable[..., AppTest], grid: str
) -> None:
    page = open_page()
    page.selectbox(key="grid").set_value(grid).run()
    go(page)
    quiet(page)
    assert any("self-patch 0" in c and "full-patch 1" in c for c in captions(page))


def test_the_table_is_the_measure_s(open_page: Callable[..., AppTest], checkpoint: Path) -> None:
    route = Route.pal(tiny.LAYERS, [1])
    model = load(checkpoint)
    page = open_page(experiment="knockout", route=route_to_text(Route.pal(tiny.LAYERS, [0])))
    page.selectbox(key="cut").set_value("stretch by stretch").run()
    shown: Any = go(page).dataframe[0].value
    quiet(page)
    answers = Answers.of(model.processor, PAIR.clean_answer, PAIR.corrupt_answer)
    segments = {each.name: Sound(each.start, each.end) for each in PAIR.segments}
    windows = [*sliding_windows(tiny.LAYERS, 3, 3), range(tiny.LAYERS)]
    assert model.current_route != route
    with model.route(Route.pal(tiny.LAYERS, [0])):
        edges = text_to_audio(model.current_route, readers=("text",), segments=segments)
        inputs = model.inputs(PAIR.question, PAIR.clean)
        wanted: Any = attention_knockout(model, inputs, edges, windows, answers=answers)
    for column in ("logprob_change", "kl"):
        assert shown[column].tolist() == pytest.approx(wanted[column].tolist(), abs=1e-4)


def test_an_answer_that_is_wrong_is_said(open_page: Callable[..., AppTest]) -> None:
    page = open_page()
    shown = " ".join(m.value for m in page.markdown)
    assert ("**behind**" in shown) == bool(page.warning)
    leads = [word for word in ("ahead", "**behind**") if word in shown]
    assert leads


def test_own_sounds_are_asked_for(open_page: Callable[..., AppTest]) -> None:
    page = open_page(pair="two sounds of your own …")
    quiet(page)
    assert "Give two sounds" in page.info[0].value
    assert not figures(page)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["patching", "knockout"])
def test_the_command_runs(
    open_page: Callable[..., AppTest], experiment: str, tmp_path: Path
) -> None:
    page = go(open_page(experiment=experiment))
    words = shlex.split(page.code[-1].value)
    words[words.index("--out") + 1] = str(tmp_path / "run")
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True)
    # The tiny model may answer no pair right, which the script says; anything else is a fault.
    assert done.returncode == 0 or "answers no pair right" in done.stderr, done.stderr
    assert (tmp_path / "run" / "run.json").is_file()
