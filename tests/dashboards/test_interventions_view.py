"""The page of interventions, run by Streamlit's AppTest on tiny checkpoints."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
import streamlit as st
from streamlit.testing.v1 import AppTest

from palscope import load
from palscope._connectors import ConnectorConfig
from palscope._models import turns
from palscope._routing import Route, route_to_text
from palscope._routing.depths import NO_AUDIO, rerouted_depths
from palscope.datasets._questions import LABELS
from palscope.errors import HookError
from palscope.evaluation._asked import labelled_questions
from palscope.evaluation._ranking import Asked, ModelAnswerer, rank
from palscope.interventions import Sound
from palscope.interventions._apply import in_force
from palscope.measures import _choices as choices
from palscope.measures._knockout import attention_knockout, sliding_windows, text_to_audio
from palscope.measures._metrics import Answers
from palscope.pairs import bundled_pairs
from tests import tiny
from tests.dashboards.conftest import OTHER, captions, figures, quiet, saved
from tests.scripts import run_script

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


def logprobs(shown: Any, **at: str) -> Any:
    """Log-probability by candidate of a page's table where its columns are `at`."""
    for column, value in at.items():
        shown = shown[shown[column] == value]
    assert shown["choice"].is_unique
    return shown.set_index("choice")["logprob"]


def test_masking_shows_the_candidates_of_both_clips(
    open_page: Callable[..., AppTest], checkpoint: Path
) -> None:
    route = Route.pal(tiny.LAYERS, [0, 1])
    page = go(open_page(experiment="masking", route=route_to_text(route)))
    quiet(page)
    shown: Any = page.dataframe[0].value
    digits = LABELS["speech"]
    model = load(checkpoint)
    for side, clip in (("clean", PAIR.clean), ("corrupt", PAIR.corrupt)):
        for masked, left in (
            ("nothing", route),
            ("frames", route.mute("frames")),
            ("frames + summary", route.mute("frames").mute("summary")),
        ):
            with model.model.routed(left):
                asked = Asked([clip.samples], PAIR.question, list(digits))
                (wanted,) = rank(ModelAnswerer(model.model, model.processor), [asked])
            found = logprobs(shown, side=side, masked=masked, way="reroute")
            assert list(found.index) == list(digits)
            assert found.tolist() == pytest.approx(wanted.logprobs, abs=1e-4)
    drawn = figures(page)[-1]
    right = [t for t in drawn["data"] if t.get("name") == "right answer"]
    assert {t["customdata"][0] for t in right} == {PAIR.clean_answer, PAIR.corrupt_answer}
    assert list(right[0]["x"]) == ["nothing", "frames", "summary", "frames + summary"]


def test_other_answers_than_the_demo_s_are_candidates_by_themselves() -> None:
    from _experiments import Asked as OfPage  # pyright: ignore[reportMissingImports]
    from _pairs import ChosenPair  # pyright: ignore[reportMissingImports]

    unknown: Any = None
    for answers, wanted in (
        (("two", "nine"), LABELS["speech"]),
        (("two", "dog"), ("two", "dog")),
        (("a cat", "dog"), ("a cat", "dog")),
    ):
        pair = replace(PAIR, clean_answer=answers[0], corrupt_answer=answers[1])
        assert OfPage(unknown, unknown, ChosenPair(pair, ""), ()).candidates == wanted


@pytest.mark.parametrize("of", ["pal", "plits"])
def test_depths_are_those_of_the_route(
    open_page: Callable[..., AppTest], checkpoint: Path, plits_checkpoint: Path, of: str
) -> None:
    folder, route = {
        "pal": (checkpoint, Route.pal(tiny.LAYERS)),
        "plits": (plits_checkpoint, Route.plits(tiny.LAYERS)),
    }[of]
    page = go(open_page(folder, experiment="injection depth"))
    quiet(page)
    shown: Any = page.dataframe[0].value
    placements = rerouted_depths(route)
    assert len(shown) == 2 * len(placements) * len(LABELS["speech"])
    assert set(shown.loc[shown["own"], "placement"]) == {
        each.name for each in placements if each.route == route
    }
    titles = [a["text"] for a in figures(page)[-1]["layout"]["annotations"]]
    assert titles == list(dict.fromkeys(p.family for p in placements if p.family != NO_AUDIO))
    assert not any("left out" in c for c in captions(page))


def test_a_sweep_does_not_keep_the_model_from_others(
    open_page: Callable[..., AppTest], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two placements the model is free; during one it is not."""
    page = open_page(experiment="injection depth")
    import _models  # pyright: ignore[reportMissingImports]

    opened = _models.open_model(str(checkpoint))
    states: list[bool] = []

    def free() -> bool:
        def take() -> bool:
            try:
                with opened.model.turns.block("trial"):
                    return True
            except HookError:
                return False

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(take).result()

    def watched(*given: Any) -> Any:
        states.append(free())
        return in_force(*given)

    def drawn(bar: Any, *given: Any) -> None:
        states.append(free())

    monkeypatch.setattr(turns, "PATIENCE", 0.0)
    monkeypatch.setattr(choices, "in_force", watched)
    monkeypatch.setattr("streamlit.delta_generator.DeltaGenerator.progress", drawn)
    quiet(go(page))
    assert states.count(False) > 5 and states.count(True) > 5


def test_what_the_weights_cannot_serve_is_said(
    open_page: Callable[..., AppTest], tmp_path: Path
) -> None:
    route = Route.lal(tiny.LAYERS)
    folder = saved(route, tmp_path / "lal", ConnectorConfig.for_route(route))
    page = open_page(folder, experiment="audio queries")
    quiet(page)
    with pytest.raises(AssertionError, match="no input projector"):
        quiet(go(page))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["patching", "knockout"])
def test_the_command_runs(
    open_page: Callable[..., AppTest], experiment: str, tmp_path: Path
) -> None:
    page = go(open_page(experiment=experiment))
    done = call(page, tmp_path / "run")
    # The tiny model may answer no pair right, which the script says; anything else is a fault.
    assert done.returncode == 0 or "answers no pair right" in done.stderr, done.stderr
    assert (tmp_path / "run" / "run.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "file", "columns"),
    [
        ("masking", "masking.parquet", ["way", "masked"]),
        ("injection depth", "{model}/answers.parquet", ["placement"]),
        ("audio queries", "{model}/answers.parquet", ["placement"]),
    ],
)
def test_the_command_gives_the_page_s_numbers(
    open_page: Callable[..., AppTest],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    experiment: str,
    file: str,
    columns: list[str],
) -> None:
    """The script asks about one clip; the page, about a pair with that clip and that question."""
    clips = {"clean.wav": PAIR.clean, "corrupt.wav": PAIR.corrupt}
    answers = (PAIR.clean_answer, PAIR.corrupt_answer)
    lines = ["path,domain,label"]
    for (name, clip), answer in zip(clips.items(), answers, strict=True):
        soundfile.write(tmp_path / name, clip.samples, clip.sample_rate, subtype="FLOAT")
        lines.append(f"{name},speech,{answer}")
    manifest = tmp_path / "clips.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (_, item), *_ = labelled_questions(manifest)

    open_page()  # puts the page's modules on the path
    import _interventions_view  # pyright: ignore[reportMissingImports]
    from _pairs import ChosenPair  # pyright: ignore[reportMissingImports]

    chosen = ChosenPair(replace(PAIR, question=item.question), "for this test")
    monkeypatch.setattr(_interventions_view, "choose_pair", lambda: chosen)
    page = go(open_page(experiment=experiment))
    quiet(page)
    shown: Any = page.dataframe[0].value
    quick = [] if experiment == "masking" else ["--seconds", "1", "--repeats", "1"]
    done = call(page, tmp_path / "run", "--manifest", str(manifest), *quick)
    assert done.returncode == 0, done.stderr
    stored: Any = pd.read_parquet(tmp_path / "run" / file.format(model=checkpoint.name))
    rows = stored[stored.filter(regex="^(clip|item)$").iloc[:, 0].str.endswith("clean.wav")]
    assert len(rows) > 3
    shown = shown.drop_duplicates([*columns, "side", "choice"])  # one route, several families
    for row in rows.to_dict("records"):
        found = logprobs(shown, side="clean", **{name: row[name] for name in columns})
        margin = found[PAIR.clean_answer] - found.drop(PAIR.clean_answer).max()
        assert margin == pytest.approx(row["margin"], abs=1e-3), row
        assert found.idxmax() == row["best"]


def call(page: AppTest, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command that the page shows."""
    words = [*shlex.split(page.code[-1].value), *more]
    words[words.index("--out") + 1] = str(out)
    return run_script(*words[1:])
