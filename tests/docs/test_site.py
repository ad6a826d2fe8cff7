"""The built site: no warning, every public name, notebooks, search; nothing from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.dashboards.browser import chromium, find_chromium
from tests.docs.pages import ROOT
from tests.test_public import NAMES

pytest.importorskip("mkdocs", reason="the documentation's tools are not installed: make docs")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_reference_has_every_public_name(site: Path) -> None:
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    assert sorted({f"{module}.{name}" for module, name in NAMES} - listed) == []


def test_pages_load_nothing_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = re.compile(r"<(?:script|img|link|iframe)\b[^>]*(?:src|href)=\"((?:https?:)?//[^\"]+)")
    for page in pages:
        assert loaded.findall(page.read_text(encoding="utf-8")) == [], page


def test_notebooks_are_pages_with_their_figures(site: Path) -> None:
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = site / "notebooks" / f"{notebook.stem}.html"
        images = re.findall(r'<img [^>]*src="([^"]+)"', page.read_text(encoding="utf-8"))
        files = [image for image in images if not image.startswith("data:")]
        assert notebook.read_text(encoding="utf-8").count('"image/png"') == len(files)
        assert all((page.parent / image).is_file() for image in files)
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="notebooks/01_hooked_caches.html"' in index


def test_search_works_from_a_folder(site: Path) -> None:
    if find_chromium() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine: install the system's package chromium")
    with chromium() as browser:
        page = browser.new_page()
        page.goto((site / "how-to" / "first-finding.html").as_uri())
        page.locator("[data-md-component=search-query]").fill("denoising")
        found = page.locator(".md-search-result__item a").first
        found.wait_for()
        assert (found.get_attribute("href") or "").startswith("file:")
