"""The page of many clips, run by Streamlit's AppTest on a tiny checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.dashboards.conftest import OTHER, captions, figures, quiet


def script() -> None:
    from _clips_view import view  # pyright: ignore[reportMissingImports]

    view()


@pytest.fixture
def open_clips(checkpoint: Path) -> Callable[..., AppTest]:
    st.cache_resource.clear()  # what other tests measured in this process

    def opened(chosen: list[str] | None, **address: str | list[str]) -> AppTest:
        page = AppTest.from_function(script, default_timeout=600)
        page.query_params["model"] = OTHER
        page.query_params["model-folder"] = str(checkpoint)
        for name, value in address.items():
            page.query_params[name] = value
        page.run()
        return page if chosen is None else page.multiselect(key="sounds").set_value(chosen).run()

    return opened


def listen(page: AppTest) -> AppTest:
    return next(b for b in page.button if b.label.startswith("Listen")).click().run()


def test_clips_are_measured_once_and_averaged(open_clips: Callable[..., AppTest]) -> None:
    page = open_clips(["rain", "dog 1"])
    assert [b.label for b in page.button] == ["Listen to 2", "Stop"]
    assert "Nothing is measured" in page.info[0].value
    listen(page)
    quiet(page)
    assert not [b for b in page.button if b.label.startswith("Listen")]
    assert [s.value for s in page.header] == ["Mean over 2 clips", "Clip by clip"]
    assert len(figures(page)) == 1 + 2 + 2  # by layer; a map a stream; a picture a clip
    shown = [c for c in captions(page) if "(known: " in c]
    assert [c.split(":")[0] for c in shown] == ["rain", "dog 1"]
    more = open_clips(["rain", "dog 1", "rooster"])
    assert next(b.label for b in more.button if b.label.startswith("Listen")) == "Listen to 1"


def test_the_mean_is_that_of_the_clips(
    open_clips: Callable[..., AppTest], checkpoint: Path
) -> None:
    from palscope import load
    from palscope.audio._bundled import bundled_clips
    from palscope.measures import attention_mass, by_pathway

    page = listen(open_clips(["three", "four"], domains="speech"))
    quiet(page)
    model = load(checkpoint)
    clips: Any = bundled_clips()
    masses: list[Any] = []
    for label in ("three", "four"):
        path = clips.loc[clips["label"] == label, "path"].iloc[0]
        table: Any = attention_mass(model, model.inputs("Which digit is spoken?", path))
        masses.append(by_pathway(table).groupby(["layer", "pathway"], observed=True)["mass"].mean())
    mean = (masses[0] + masses[1]) / 2
    assert mean.loc[(0, "frames")] > 0
    drawn = next(t for t in figures(page)[0]["data"] if t.get("name") == "frames")
    seen = [y for y in numbers(drawn["y"]) if not (y is None or np.isnan(y))]  # it breaks there
    assert seen == pytest.approx(mean.loc[:, "frames"].dropna().tolist(), abs=1e-5)


def numbers(values: Any) -> list[float | None]:
    """A plotly array as JSON has it: plain, or base64 of its bytes."""
    if isinstance(values, dict):
        import base64

        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
    return list(values)


def test_a_link_has_the_sounds_that_were_chosen(open_clips: Callable[..., AppTest]) -> None:
    page = open_clips(None, sounds=["dog 2", "three"])  # of whatever domain
    quiet(page)
    assert page.multiselect(key="sounds").value == ["dog 2", "three"]
    listen(page)
    shown = [c.split(":")[0] for c in captions(page) if "(known: " in c]
    assert shown == ["dog 2", "three"]
    everything = open_clips([])
    assert everything.button[0].label == "Listen to 11"  # of 12 of the domain


def test_a_link_to_clips_that_are_not_here_says_so(open_clips: Callable[..., AppTest]) -> None:
    page = open_clips(None, sounds=["rooster 9", "cat"])
    (error,) = [each.value for each in page.error]
    assert error == "There is no sound “rooster 9”, “cat” here: choose another."
    assert not page.button and not figures(page)  # nothing in their place
    some = open_clips(None, sounds=["rooster 9", "rain"])
    (error,) = [each.value for each in some.error]
    assert error == "There is no sound “rooster 9” here: choose another."
    assert [b.label for b in some.button] == ["Listen to 1", "Stop"]
    many = open_clips(None, sounds=[f"cat {i}" for i in range(40)])
    (error,) = [each.value for each in many.error]
    assert "“cat 4” and 35 more here" in error


def test_what_is_odd_about_a_clip_is_told_at_it(
    open_clips: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bundled ones too, and of those without a picture."""
    import _clips_view  # pyright: ignore[reportMissingImports]

    (told,) = [w.value for w in listen(open_clips(["dog 2", "three"])).warning]
    assert told.startswith("dog 2 reaches full scale")
    monkeypatch.setattr(_clips_view, "PICTURED", 1)
    page = open_clips(["three", "dog 2"])
    assert len(figures(page)) == 1 + 2 + 1
    assert [w.value for w in page.warning] == [told]


def test_a_question_for_all_and_another_route_count(open_clips: Callable[..., AppTest]) -> None:
    own = listen(open_clips(["sneeze 1"]))
    muted = listen(open_clips(["sneeze 1"], route="frames:.4,summary/3:F4"))
    quiet(muted)
    assert all(math.isnan(each) for each in numbers(trace(muted, "frames")))  # unseen: blank
    asked = listen(open_clips(["sneeze 1"], **{"question-of-all": "What is that?"}))
    assert numbers(trace(asked, "text")) != numbers(trace(own, "text"))


def trace(page: AppTest, name: str) -> Any:
    return next(t for t in figures(page)[0]["data"] if t.get("name") == name)["y"]
