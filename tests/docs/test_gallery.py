"""The gallery shows a figure of every analysis, with what it says and what it does not say."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import pytest

from palscope.analyses._registry import analyses
from tests.docs.pages import DOCS, ROOT

PAGE = (DOCS / "gallery.md").read_text(encoding="utf-8")
IMAGES = DOCS / "images" / "gallery"


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_gallery", DOCS / "_gallery.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as dataclasses ask for it
    spec.loader.exec_module(module)
    return module


def test_every_analysis_has_a_figure(gallery: ModuleType) -> None:
    sources = [drawing.source for drawing in gallery.drawings() if drawing.figures]
    shown = set(re.findall(r"analyses/(\w+)\.py", "".join(sources)))
    assert set(analyses()) - shown == set()


def test_every_figure_is_there_and_small(gallery: ModuleType) -> None:
    named = {
        IMAGES / drawing.run / f"{figure}.png"
        for drawing in gallery.drawings()
        for figure in drawing.figures
    }
    assert named == set(IMAGES.rglob("*.png"))
    assert sum(path.stat().st_size for path in named) < 1_500_000


def test_every_figure_says_what_it_does_not_say() -> None:
    for below in PAGE.split("![")[1:]:
        text = below.split("```")[0].split("\n## ")[0]
        assert "**Says:**" in text and "**Does not say:**" in text, below.split("]")[0]


def test_a_run_has_one_folder(gallery: ModuleType) -> None:
    runs = [drawing.run for drawing in gallery.drawings()]
    assert len(runs) == len(set(runs)) > 10
    assert "gallery:" in (ROOT / "Makefile").read_text(encoding="utf-8")
