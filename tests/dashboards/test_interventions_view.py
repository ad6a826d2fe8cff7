"""The page of interventions, run by Streamlit's AppTest on tiny checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.runtime.scriptrunner_utils.exceptions import StopException
from streamlit.testing.v1 import AppTest

from palscope import load
from palscope._connectors import ConnectorConfig
from palscope._models import turns
from palscope._routing import Route, route_to_text
from palscope._routing.depths import NO_AUDIO, rerouted_depths
from palscope._sweeps.memory import Memory
from palscope.analyses._items import sides
from palscope.analyses._registry import module_of
from palscope.audio._display import wav_bytes
from palscope.datasets._questions import LABELS
from palscope.errors import HookError
from palscope.evaluation._ranking import ChoiceQuestion, ModelAnswerer, rankings
from palscope.interventions._apply import in_force
from palscope.measures import _choices as choices
from palscope.pairs import bundled_pairs
from palscope.plots import Figure
from tests import tiny
from tests.dashboards.conftest import OTHER, captions, figures, quiet, saved

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
    ("analysis", "drawn"),
    [
        ("patching", 1),
        ("knockout", 5),
        ("masking", 1),
        ("injection depth", 1),
        ("audio queries", 1),
        ("logit lens", 1),
        ("attribution", 1),
        ("leakage", 2),
    ],
)
def test_every_analysis_runs_when_asked_and_not_before(
    open_page: Callable[..., AppTest], analysis: str, drawn: int
) -> None:
    page = open_page(analysis=analysis)
    quiet(page)
    assert not figures(page) and not page.dataframe
    go(page)
    quiet(page)
    assert len(figures(page)) == drawn
    assert len(page.dataframe[0].value) > 5
    # Another pair's results are not this one's.
    page.selectbox(key="pair").set_value(bundled_pairs()[0].name).run()
    quiet(page)
    assert not figures(page)


def test_both_clips_are_played_with_their_segments(open_page: Callable[..., AppTest]) -> None:
    shown = [json.loads(each.proto.json) for each in open_page().get("bidi_component")]
    assert [each["seconds"] for each in shown] == [PAIR.clean.seconds, PAIR.corrupt.seconds]
    assert shown[0]["id"] != shown[1]["id"]
    differs = [[s.start, s.end] for s in PAIR.segments if s.differs]
    for each in shown:
        assert [label["text"] for label in each["labels"]] == [s.name for s in PAIR.segments]
        assert each["frames"] == differs != []


def test_results_are_in_the_address(open_page: Callable[..., AppTest]) -> None:
    """Opened elsewhere it shows the same, and other options have others."""
    page = go(open_page(analysis="logit lens"))
    quiet(page)
    found: Any = page.query_params["results"]
    written = found if isinstance(found, str) else found[0]
    table = page.dataframe[0].value
    opened = open_page(analysis="logit lens", results=written)  # on a fresh server
    quiet(opened)
    assert opened.dataframe[0].value.equals(table)
    other = open_page(analysis="leakage", results=written)
    quiet(other)
    assert not other.dataframe and "results of other options" in captions(other)[-1]
    next(b for b in page.button if b.label == "Stop").click().run()
    assert "results" not in page.query_params and not page.dataframe


def test_what_was_stopped_is_told_and_goes_on(
    open_page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A click ends an analysis at the model's next turn; what was measured of it stays."""
    import _analyses  # pyright: ignore[reportMissingImports]

    stores: list[Memory] = []

    class Seen(Memory):
        def __init__(self) -> None:
            super().__init__()
            stores.append(self)

    def stop_at_once() -> None:
        raise StopException

    def look() -> None:
        if any(len(store) == 1 for store in stores):
            raise StopException

    monkeypatch.setattr(_analyses, "Memory", Seen)
    page = open_page(analysis="masking")  # of both clips
    with monkeypatch.context() as patched:
        patched.setattr(turns, "before_turn", stop_at_once)
        go(page)
        next(b for b in page.button if b.label == "Stop").click().run()
    assert captions(page)[-1] == "Stopped: nothing of it was whole yet, so nothing is kept."
    with monkeypatch.context() as patched:
        patched.setattr(turns, "before_turn", look)
        go(page)
    assert not page.dataframe
    next(b for b in page.button if b.label == "Stop").click().run()
    said = captions(page)[-1]
    assert said.startswith("Stopped: 1 of 4 parts are kept; *Run* goes on with choices of ")
    assert f"{PAIR.name} corrupt" in said and said.count(f"{PAIR.name} clean") == 1
    quiet(go(page))
    assert len(page.dataframe[0].value) > 5


def test_run_says_how_long_it_takes_as_a_pass_took(
    open_page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once it has run, as long as that took: for another pair, with these weights."""
    import _analyses  # pyright: ignore[reportMissingImports]
    import _duration  # pyright: ignore[reportMissingImports]
    import _interventions_view as shown  # pyright: ignore[reportMissingImports]

    answers_of = shown.answers_of
    monkeypatch.setattr(shown, "answers_of", lambda *given: (answers_of(*given)[0], 0.5))
    clock = iter(range(0, 10**9, 40))  # s: the run takes as long as twice looking at it
    page = open_page(analysis="logit lens")
    assert page.button(key="run analysis").label == "Run: about 4 s"  # eight passes
    monkeypatch.setattr(_analyses, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    quiet(page.button(key="run analysis").click().run())
    page.selectbox(key="pair").set_value(bundled_pairs()[0].name).run()
    assert page.button(key="run analysis").label == "Run: about 40 s"
    assert open_page(analysis="leakage").button(key="run analysis").label == "Run: about 3 s"
    assert [_duration.in_words(each) for each in (0.1, 8.2, 61, 91)] == [
        "about 1 s", "about 9 s", "about 65 s", "about 2 min",
    ]  # fmt: skip


def test_an_option_greys_where_it_does_nothing(open_page: Callable[..., AppTest]) -> None:
    """And an address carries what is chosen."""
    page = open_page(**{"activation_patching-grid": "streams"})
    quiet(page)
    assert page.selectbox(key="activation_patching-grid").value == "streams"
    assert not page.selectbox(key="activation_patching-site").disabled
    assert page.number_input(key="activation_patching-step").disabled
    go(page)
    quiet(page)
    assert any("self-patch 0" in said for said in captions(page))
    assert "--grid streams" in page.code[-1].value and "--step" not in page.code[-1].value


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
    loud = PAIR.clean.samples / np.abs(PAIR.clean.samples).max()
    for key, samples in (("clean", np.clip(4 * loud, -1, 1)), ("corrupt", loud)):
        file = wav_bytes(samples, PAIR.clean.sample_rate)
        page.file_uploader(key=f"pair-{key}").upload(f"{key}.wav", file, "audio/wav")
    for key in ("Question about both", "Answer to the clean clip", "Answer to the corrupt clip"):
        page.text_input(key=f"pair-{key}").set_value(key)
    quiet(page.run())
    (told,) = [each.value for each in page.sidebar.warning]
    assert told.startswith("clean.wav is clipped")


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
    page = go(open_page(analysis="masking", route=route_to_text(route)))
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
                asked = ChoiceQuestion([clip.samples], PAIR.question, list(digits))
                (wanted,) = rankings(ModelAnswerer(model.model, model.processor), [asked])
            found = logprobs(shown, clip=f"{PAIR.name} {side}", masked=masked, way="reroute")
            assert list(found.index) == list(digits)
            assert found.tolist() == pytest.approx(wanted.logprobs, abs=1e-4)
    drawn = figures(page)[-1]
    right = [t for t in drawn["data"] if t.get("name") == "right answer"]
    said = {t["text"][0].split(",")[0].split(":")[0] for t in right}
    assert said == {PAIR.clean_answer, PAIR.corrupt_answer}
    axis = drawn["layout"]["xaxis"]["ticktext"]
    assert axis == ["nothing", "frames", "summary", "frames + summary"]


def test_other_answers_than_the_demo_s_are_candidates_by_themselves() -> None:
    for answers, wanted in (
        (("two", "nine"), LABELS["speech"]),
        (("two", "dog"), ("two", "dog")),
        (("a cat", "dog"), ("a cat", "dog")),
    ):
        pair = replace(PAIR, clean_answer=answers[0], corrupt_answer=answers[1])
        assert sides(pair)[0].choices == wanted


@pytest.mark.parametrize("of", ["pal", "plits"])
def test_depths_are_those_of_the_route(
    open_page: Callable[..., AppTest], checkpoint: Path, plits_checkpoint: Path, of: str
) -> None:
    folder, route = {
        "pal": (checkpoint, Route.pal(tiny.LAYERS)),
        "plits": (plits_checkpoint, Route.plits(tiny.LAYERS)),
    }[of]
    page = go(open_page(folder, analysis="injection depth"))
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
    """It is free between any two passes."""
    page = open_page(analysis="injection depth")
    import _models  # pyright: ignore[reportMissingImports]

    opened = _models.cached_model(str(checkpoint))
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

    def watched(*given: Any, **named: Any) -> Any:
        states.append(free())
        return in_force(*given, **named)

    def told(*given: Any) -> Any:
        states.append(free())
        return choices_tables(*given)

    monkeypatch.setattr(turns, "PATIENCE", 0.0)
    monkeypatch.setattr(choices, "in_force", watched)
    choices_tables = choices.choices_tables
    monkeypatch.setattr(choices, "choices_tables", told)
    quiet(go(page))
    assert len(states) > 10 and all(states)


def test_what_the_weights_cannot_serve_is_said(
    open_page: Callable[..., AppTest], tmp_path: Path
) -> None:
    route = Route.lal(tiny.LAYERS)
    folder = saved(route, tmp_path / "lal", ConnectorConfig.for_route(route))
    page = open_page(folder, analysis="audio queries")
    quiet(page)
    with pytest.raises(AssertionError, match="no input projector"):
        quiet(go(page))


OWN = """
import pandas as pd
from palscope.analyses import Analysis, Table, analysis_of, chosen_clips, each
from palscope.errors import PalscopeError
from palscope.plots import Axis, Bars, Figure, Panel

made = []


@each
def measured(work, clip):
    if clip.side == "corrupt":
        raise PalscopeError("this side is not for us.")
    return pd.DataFrame({"bar": ["one"], "height": [1.0], "n": [1]})


def drawn(results):
    made.append("figures")
    table = results.rows("bars")
    bars = Bars.of(table, "bar", "height")
    panel = Panel([bars], Axis("bar", categories=("one",)), Axis("height"))
    return {"bars": Figure([panel], results.caption(), table)}


def notes(results):
    made.append("notes")
    return ["A note of one's own."]


ANALYSIS = Analysis(
    name="leakage",  # as one of the package's, with the same options
    title="mine",
    about="",
    options=analysis_of("leakage").options,
    items=chosen_clips,
    tables=[Table("bars", measured, keys=("bar",))],
    figures=drawn,
    notes=notes,
    takes="both",
)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file of an analysis of one's own, as it was named when the page was opened."""
    (tmp_path / "my" / "dir").mkdir(parents=True)
    (tmp_path / "my" / "dir" / "mine.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["attention.py", "my/dir/mine.py"])
    module_of.cache_clear()
    return "my/dir/mine.py"


def test_an_analysis_of_one_s_own_is_on_the_page(
    open_page: Callable[..., AppTest], own: str
) -> None:
    """With the command that runs its file, and results that are not its namesake's."""
    quiet(go(open_page(analysis="leakage")))
    page = go(open_page(analysis="mine"))
    quiet(page)
    assert len(figures(page)) == 1 and len(page.dataframe[0].value) == 1
    assert page.code[-1].value.startswith(f"python {own} --model ")
    assert page.button(key="run analysis").label == "Run"  # nobody knows how long


def test_what_is_left_out_is_said(open_page: Callable[..., AppTest], own: str) -> None:
    page = go(open_page(analysis="mine"))
    (said,) = [w.value for w in page.warning if "left out" in w.value]
    assert said == f"{PAIR.name} corrupt is left out: this side is not for us."


def test_notes_and_figures_are_made_once_for_light_and_dark(
    open_page: Callable[..., AppTest], own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = go(open_page(analysis="mine"))
    drawn: list[bool] = []
    screen = Figure.screen

    def watched(figure: Figure, *, dark: bool = False) -> Any:
        drawn.append(dark)
        return screen(figure, dark=dark)

    monkeypatch.setattr(Figure, "screen", watched)
    grounds: list[str] = []
    for theme in ("light", "dark", "light"):
        look = property(lambda self, theme=theme: SimpleNamespace(type=theme))
        monkeypatch.setattr(type(st.context), "theme", look)
        quiet(page.run())
        grounds.append(figures(page)[-1]["layout"]["paper_bgcolor"])
        assert "A note of one's own." in captions(page)
    assert grounds[0] == grounds[2] != grounds[1]
    assert module_of(own).made == ["notes", "figures"]
    assert drawn == [True]  # on light it was drawn before
