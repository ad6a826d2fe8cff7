"""Links and commands in the pages lead somewhere: files exist, and so do scripts and their flags.

`mkdocs build --strict` checks the site's links and anchors; here they are checked as a reader of
the repository follows them. Links to other hosts are not followed: tests need no network.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name_of
from tests.scripts import run_script

CARDS = sorted((ROOT / "demo").glob("*/README.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A command goes on over a backslash at the line's end, and ends with its line or inline code.
SCRIPT = re.compile(r"python ((?:analyses|benchmarks)/\w+\.py)((?:\\\n|[^`\n])*)")
MAKE = re.compile(r"^make (\w+)", re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands() -> list[tuple[str, str, str]]:
    """(page, script, what follows it)."""
    return [
        (name_of(page), script, rest)
        for page in [*PAGES, *CARDS]
        for script, rest in SCRIPT.findall(text_of(page))
    ]


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=name_of)
def test_links_to_files_of_the_repository_exist(page: Path) -> None:
    links = [link.split("#")[0] for link in LINK.findall(text_of(page))]
    inside = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_the_pages_name_commands() -> None:
    scripts = {script for _, script, _ in commands()}
    assert {"analyses/attention_mass.py", "analyses/evaluate.py"} <= scripts
    assert [script for script in sorted(scripts) if not (ROOT / script).is_file()] == []


@pytest.mark.parametrize("script", sorted({script for _, script, _ in commands()}))
def test_flags_in_the_pages_exist(script: str) -> None:
    printed = run_script(script, "--help")
    assert printed.returncode == 0
    known = set(re.findall(r"(?<![\w-])--[\w-]+", printed.stdout))
    for page, named, rest in commands():
        if named == script:
            assert set(re.findall(r"(?<![\w-])--[\w-]+", rest)) <= known, f"{page}: {rest}"


def test_make_targets_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in MAKE.findall(text_of(page))}
    assert "demo" in named
    assert named <= targets
