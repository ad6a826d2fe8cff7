"""The page with a model that takes no question: it writes down what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from palscope.pairs import bundled_pairs
from tests.dashboards.conftest import OTHER, captions, figures, metrics, quiet
from tests.published.tiny import whisper


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("whisper")
    whisper.model().save_pretrained(made)
    whisper.processor().save_pretrained(made)
    return made


@pytest.mark.slow
def test_a_transcriber_is_asked_nothing_and_shows_where_it_reads(
    folder: Path, open_page: Callable[..., AppTest]
) -> None:
    page = open_page(folder=folder, seconds="none")
    quiet(page)
    told = captions(page)
    assert any("takes no question" in each for each in told)
    assert any(": what is said" in each for each in told)
    assert "Question" not in [box.label for box in page.text_input]
    assert set(metrics(page)) == {"text", "filler", "frames"}
    assert figures(page)
    (tokens,) = [group for group in page.button_group if group.key == "token"]
    assert 1 < len(tokens.options) < 40  # not the hundreds that fill the window
    page.button(key="example Which heads hear “seven”?").click().run()
    quiet(page)
    assert page.selectbox(key="stream").value == "selected seconds"
    assert page.button_group(key="token").value == 2
    assert "0.68–1.21 s" in metrics(page)
    assert any("The one before “7” predicts it" in each.value for each in page.markdown)


@pytest.mark.slow
def test_pairs_are_written_down_and_analysed(folder: Path) -> None:
    page = AppTest.from_function(interventions, default_timeout=600)
    given = {"model": OTHER, "model-folder": str(folder), "pair": bundled_pairs()[0].name}
    for name, value in (given | {"analysis": "logit lens"}).items():
        page.query_params[name] = value
    quiet(page.run())
    assert any("takes no question" in each for each in captions(page))
    assert any("right is “one”" in each.value for each in page.markdown)
    next(b for b in page.button if b.label.startswith("Run")).click().run()
    quiet(page)
    assert figures(page)


def interventions() -> None:
    from _interventions_view import view  # pyright: ignore[reportMissingImports]

    view()
