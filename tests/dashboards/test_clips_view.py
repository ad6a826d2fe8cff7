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

    def opened(sounds: list[str], **address: str) -> AppTest:
        page = AppTest.from_function(script, default_timeout=600)
        page.query_params["model"] = OTHER
        page.query_params["model-folder"] = str(checkpoint)
        for name, value in address.items():
            page.query_params[name] = value
        page.run()
        return page.multiselect[0].set_value(sounds).run()

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
    assert [s.value for s in page.subheader] == ["Mean over 2 clips", "Clip by clip"]
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


def test_a_question_for_all_and_another_route_count(open_clips: Callable[..., AppTest]) -> None:
    own = listen(open_clips(["sneeze 1"]))
    muted = listen(open_clips(["sneeze 1"], route="frames:.4,summary/3:F4"))
    quiet(muted)
    assert all(math.isnan(each) for each in numbers(trace(muted, "frames")))  # unseen: blank
    asked = listen(open_clips(["sneeze 1"], **{"question-of-all": "What is that?"}))
    assert numbers(trace(asked, "text")) != numbers(trace(own, "text"))


def trace(page: AppTest, name: str) -> Any:
    return next(t for t in figures(page)[0]["data"] if t.get("name") == name)["y"]
