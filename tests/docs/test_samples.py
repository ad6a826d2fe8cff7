"""Every Python block of the README and of docs/ runs, and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import PythonCodeBlockParser

from palscope._published import registry as published
from palscope.encoders import _registry as registry
from tests import demo, real_whisper
from tests.docs.pages import PAGES, name_of
from tests.docs.printed import agree, check, said

FENCE = re.compile(r"^[ \t]*```+[ \t]*(\w*)", re.MULTILINE)


def languages(page: Path) -> list[str]:
    """The language of each fenced block: every second fence ends one."""
    return FENCE.findall(page.read_text(encoding="utf-8"))[::2]


WITH_SAMPLES = [page for page in PAGES if "python" in languages(page)]


def examples_of(page: Path) -> list[Example]:
    return list(Document.parse(str(page), PythonCodeBlockParser()).examples())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    # One called "py", or nothing, would be shown as code and never run.
    assert set(languages(page)) <= {"python", "bash", "text"}


def test_the_readme_and_every_kind_of_page_have_samples() -> None:
    names = {name_of(page) for page in WITH_SAMPLES}
    assert {"README.md", "docs/index.md", "docs/concepts.md", "docs/how-to/analysis.md"} <= names


@pytest.mark.parametrize("page", WITH_SAMPLES, ids=name_of)
def test_what_a_sample_prints_stands_beside_it(page: Path) -> None:
    for example in examples_of(page):
        told = said(example)
        silent = [line for line, comment in told.comments.items() if comment is None]
        assert told.below is not None or not silent, f"no output beside lines {silent}"


@pytest.mark.parametrize(
    ("written", "printed", "same"),
    [
        ("seven", "seven", True),
        ("seven", "one", False),
        ("seven", "seven, I think", False),
        ("-15.19 nats", "-15.1874 nats", True),
        ("−15.19", "-15.1874", True),
        ("-15.19", "-15.1674", False),
        ("-15.19", "15.1874", False),
        ("7 tokens", "8 tokens", False),
        ("1.3e-02", "0.0131", True),
        ("1.3e-02", "0.131", False),
        ("… layers [10, …]", "'frames' has none for layers [10, 11, 12]", True),
        ("… layers [10, …]", "'frames' has none for layers [11, 12]", False),
        ("a  b\nc", "a b   c", True),
    ],
)
def test_how_a_page_and_an_output_agree(written: str, printed: str, same: bool) -> None:
    assert agree(written, printed) == same


@pytest.mark.parametrize(
    ("source", "below", "prints"),
    [
        ("print(1 + 1)  # 3", "", "prints '2'"),
        ("for i in range(2):\n    print(\n        i,\n    )  # 0 2", "", r"prints '0\\n1'"),
        ("print('seven')", "```text\none\n```", "prints\nseven"),
    ],
)
def test_a_page_that_says_something_else_is_found(
    source: str, below: str, prints: str, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```python\n{source}\n```\n\n{below}\n", encoding="utf-8")
    (example,) = examples_of(page)
    with pytest.raises(AssertionError, match=prints):
        check(example)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SAMPLES, ids=name_of)
def test_the_samples_of_a_page_run_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # samples write to runs/
    monkeypatch.setattr(registry, "_ENCODERS", dict(registry._ENCODERS))
    monkeypatch.setattr(published, "_FAMILIES", dict(published._FAMILIES))
    examples = examples_of(page)
    assert len(examples) == languages(page).count("python")
    if any(f'load("{real_whisper.NAME}")' in str(each.parsed) for each in examples):
        real_whisper.needed()
    with demo.shared():
        for example in examples:
            check(example)
