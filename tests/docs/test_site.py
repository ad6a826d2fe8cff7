"""The built site: no warning, every public name in the reference, nothing from another host."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

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


def public_names() -> set[str]:
    """Classes and functions of modules by their full names, and every `__all__`."""
    names: set[str] = set()
    for found in pkgutil.walk_packages([str(ROOT / "palscope")], "palscope."):
        path = ROOT.joinpath(*found.name.split("."))
        path = path / "__init__.py" if found.ispkg else path.with_suffix(".py")
        if found.name.endswith("__main__"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                names.add(f"{found.name}.{node.name}")
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names |= {f"{found.name}.{name}" for name in ast.literal_eval(node.value)}
    return names


def test_the_reference_has_every_public_name(site: Path) -> None:
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    wanted = public_names()
    assert {"palscope._routing.Route", "palscope._sweeps.store.Run"} <= wanted
    assert sorted(wanted - listed) == []


def test_pages_load_nothing_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = re.compile(r"<(?:script|img|link|iframe)\b[^>]*(?:src|href)=\"((?:https?:)?//[^\"]+)")
    for page in pages:
        assert loaded.findall(page.read_text(encoding="utf-8")) == [], page
