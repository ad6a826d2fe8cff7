"""What a link asks for and is not here is said in one sentence, and nothing stands in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from palscope.errors import CheckpointError, PalscopeError
from tests.dashboards.conftest import OTHER, captions, figures, metrics, quiet

Opener = Callable[..., AppTest]


def errors(page: AppTest) -> list[str]:
    return [each.value for each in page.error]


MANY = ", ".join(map(str, range(65)))
LONG = "a" * 6000


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model", "demo/none", "There is no model “demo/none” here: choose another."),
        ("model", LONG, f"There is no model “{'a' * 60}…” here"),
        ("clip", "rooster 9", "There is no sound “rooster 9” here: choose another."),
        ("against", "a dream", "There is no comparison “a dream” here"),
        ("question", LONG, "“Question” has 6,000 characters, 300 at most"),
        (
            "candidates",
            "a" * 3000,
            "the longest of 3,000 characters: 64 of 80",
        ),
        ("candidates", MANY, "65 candidate answers"),
        ("candidates", LONG, "“Candidate answers” has 6,000 characters"),
        ("model-folder", LONG, "has 6,000 characters, 500 at most"),
        ("model-folder", "b" * 400, "no checkpoint 'bbb"),
        ("model-folder", "no\0where", "no checkpoint 'no"),
    ],
)
def test_nothing_is_asked(open_page: Opener, name: str, value: str, said: str) -> None:
    page = open_page(**{name: value})
    for _ in range(2):  # and what is said stays, until something else is chosen
        (error,) = errors(page)
        assert said in error and len(error) < 700
        assert (
            not figures(page) and not page.metric and not page.button_group(key="against").disabled
        )
        page.run()


def test_another_choice_takes_its_place(open_page: Opener) -> None:
    page = open_page(clip="rooster 9")
    page.selectbox(key="clip").set_value("rooster").run()
    quiet(page)
    assert metrics(page)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("layer", "99", "There is no layer “99” here"),
        ("head", "-1", "There is no head “-1” here"),
        ("stream", "echo", "There is no stream “echo” here"),
        ("token", "99", "There is no token “99” after this sound"),
        ("token", "first", "There is no token “first” after this sound"),
    ],
)
def test_nothing_of_another_head_or_token_is_shown(
    open_page: Opener, name: str, value: str, said: str
) -> None:
    page = open_page(**{name: value})
    (error,) = errors(page)
    assert error.startswith(said)
    assert not page.metric and not any("over the prompt" in each for each in captions(page))
    if name == "token":
        page.button_group(key=name).set_value(1).run()
    else:
        box = page.selectbox(key=name)
        box.set_value(box.options[1]).run()
    quiet(page)
    assert metrics(page)


@pytest.mark.parametrize("seconds", ["50-60", "2-1", "soon", "1-" + "9" * 400])
def test_no_seconds_are_selected(open_page: Opener, seconds: str) -> None:
    page = open_page(seconds=seconds)
    (error,) = errors(page)
    assert error.startswith("There are no seconds “") and "so none are selected" in error
    assert not any(" s" in each for each in metrics(page)) and page.button(key="cut").disabled


def test_what_a_visitor_leaves_over_is_no_link(open_page: Opener, plits_checkpoint: Path) -> None:
    """A choice that the other model does not have is dropped, as ever."""
    page = open_page(stream="summary", seconds="1.5-1.8")
    quiet(page)
    page.text_input(key="model-folder").set_value(str(plits_checkpoint)).run()
    quiet(page)
    assert page.selectbox(key="stream").value == "frames" and metrics(page)
    page.selectbox(key="clip").set_value("three").run()  # which is shorter
    quiet(page)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ("cut~0-" + "9" * 400, "cannot be read"),
        ("cut~0-1~~" + "9" * 400 + "~~", "cannot be read"),
        ("|".join(["cut~0-1~~~~"] * 500), "5,999 characters, 4,000 at most"),
        ("cut~0-1~~~" + "99~", "99"),
        ("patch~0-1~~~~no such clip", "no such clip"),
    ],
)
def test_edits_that_cannot_be_made_are_said(open_page: Opener, edits: str, said: str) -> None:
    (error,) = errors(open_page(edits=edits))
    assert said in error and "should not have happened" not in error


def test_a_route_of_any_length_is_said_in_a_sentence(open_page: Opener) -> None:
    (error,) = errors(open_page(route="frames:" + "P" * 6000))
    assert error == "The address's route has 6,007 characters, 2,000 at most."


def clips() -> None:
    from _clips_view import view  # pyright: ignore[reportMissingImports]

    view()


def interventions() -> None:
    from _interventions_view import view  # pyright: ignore[reportMissingImports]

    view()


def runs() -> None:
    from _runs_view import view  # pyright: ignore[reportMissingImports]

    view()


@pytest.mark.parametrize(
    ("view", "name", "value", "said"),
    [
        (clips, "domains", "noises", "There is no domain “noises” here"),
        (clips, "question-of-all", LONG, "“Question” has 6,000 characters"),
        (clips, "model", "demo/none", "There is no model “demo/none” here"),
        (interventions, "pair", "cat and mouse", "There is no pair “cat and mouse” here"),
        (interventions, "analysis", "tea leaves", "There is no analysis “tea leaves” here"),
        (interventions, "activation_patching-grid", "hex", "There is no grid “hex” here"),
        (interventions, "activation_patching-step", "much", "The address gives “much” for “step"),
        (interventions, "attention_knockout-width", "0", "The address gives “0” for “width"),
        (runs, "run", LONG, "“Folder of a run” has 6,000 characters"),
    ],
)
def test_the_other_pages_say_it_too(
    checkpoint: Path, view: Callable[[], None], name: str, value: str, said: str
) -> None:
    page = AppTest.from_function(view, default_timeout=600)
    given = {"model": OTHER, "model-folder": str(checkpoint), "results": "0" * 12, name: value}
    if name.startswith("attention_knockout"):
        given["analysis"] = "knockout"
    for key, each in given.items():
        page.query_params[key] = each
    page.run()
    (error,) = errors(page)
    assert error.startswith(said)
    assert not page.dataframe and not [b for b in page.button if b.label.startswith("Listen")]


def test_who_asks_a_model_past_the_widgets_is_refused_too() -> None:
    from _answers import Ask, ranked  # pyright: ignore[reportMissingImports]

    processor = SimpleNamespace(takes_questions=True)
    sound: Any = SimpleNamespace(digest="", model=SimpleNamespace(processor=processor))
    with pytest.raises(PalscopeError, match="the question has 301 characters, 300 at most"):
        Ask(sound, sound, "?" * 301, sound)
    for choices in (("a" * 81,), tuple(map(str, range(65)))):
        with pytest.raises(PalscopeError, match="64 of 80 characters each at most"):
            ranked(Ask(sound, sound, "?", sound), choices)


def test_names_of_one_folder_are_one_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _models  # pyright: ignore[reportMissingImports]

    st.cache_resource.clear()
    (tmp_path / "link").symlink_to(checkpoint)
    monkeypatch.chdir(checkpoint.parent)
    names = [str(checkpoint), f"{checkpoint}/", str(tmp_path / "link"), checkpoint.name]
    names.append(f"./{checkpoint.name}/../{checkpoint.name}")
    opened = [_models.cached_model(name) for name in names]
    assert len({id(each.model) for each in opened}) == 1
    assert len({each.version for each in opened}) == 1
    assert [each.name for each in opened] == names


def test_a_folder_s_name_may_have_any_length() -> None:
    from palscope._models.finding import find_checkpoint

    for name in ("a" * 6000, "../" * 2000):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            find_checkpoint(name)


def test_a_page_that_fails_says_so_on_top() -> None:
    def script() -> None:
        import streamlit as st
        from _pages import guarded  # pyright: ignore[reportMissingImports]

        from palscope.errors import PalscopeError

        def view() -> None:
            st.title("A page")
            raise PalscopeError("It is late.")

        guarded(view)()

    page = AppTest.from_function(script, default_timeout=60).run()
    shown = [each for each in page.main.children.values()]
    assert shown[0].type == "flex_container" and shown[1].type == "title"
    assert errors(page) == ["It is late."]
