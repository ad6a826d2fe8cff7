"""Every Python block of the README and of docs/ runs, a page's blocks one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser

from palscope._published import registry as published
from palscope.encoders import _registry as registry
from tests import demo
from tests.docs.pages import PAGES, name_of

FENCE = re.compile(r"^[ \t]*```+[ \t]*(\w*)", re.MULTILINE)


def languages(page: Path) -> list[str]:
    """The language of each fenced block: every second fence ends one."""
    return FENCE.findall(page.read_text(encoding="utf-8"))[::2]


WITH_SAMPLES = [page for page in PAGES if "python" in languages(page)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    # One called "py", or nothing, would be shown as code and never run.
    assert set(languages(page)) <= {"python", "bash", "text"}


def test_the_readme_and_every_kind_of_page_have_samples() -> None:
    names = {name_of(page) for page in WITH_SAMPLES}
    assert {"README.md", "docs/index.md", "docs/concepts.md", "docs/how-to/analysis.md"} <= names


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SAMPLES, ids=name_of)
def test_the_samples_of_a_page_run_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # samples write to runs/
    monkeypatch.setattr(registry, "_ENCODERS", dict(registry._ENCODERS))
    monkeypatch.setattr(published, "_FAMILIES", dict(published._FAMILIES))
    examples = list(Document.parse(str(page), PythonCodeBlockParser()).examples())
    assert len(examples) == languages(page).count("python")
    with demo.shared():
        for example in examples:
            example.evaluate()
