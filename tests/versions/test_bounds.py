"""The ranges of pyproject, the files of constraints, and what is said of a version outside."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from palscope import _versions as versions

ROOT = Path(__file__).parents[2]
BROUGHT = {"packaging"}
"""What is installed with any Python environment, and so at no version of ours."""


def required() -> dict[str, Requirement]:
    """What pyproject requires, its extras included, but for tools that only develop palscope."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^(dev|docs) = \[.*?^\]", "", text)
    lines = re.findall(r'^  "([a-z][a-z0-9-]*>=[^"]*)",', text, re.MULTILINE)
    return {each.name: each for each in map(Requirement, lines)}


def stated(name: str) -> dict[str, list[Requirement]]:
    """A constraints file's lines, by package."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints" / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            each = Requirement(line)
            found.setdefault(each.name, []).append(each)
    return found


def only(requirement: Requirement, operator: str) -> Version:
    [one] = [each for each in requirement.specifier if each.operator == operator]
    return Version(one.version)


def test_the_oldest_versions_are_pyprojects_lower_bounds() -> None:
    oldest = {name: only(lines[0], "==") for name, lines in stated("oldest.txt").items()}
    bounds = {name: only(each, ">=") for name, each in required().items() if name not in BROUGHT}
    assert len(bounds) >= 25
    assert oldest == bounds


def test_the_pinned_versions_lie_in_the_ranges() -> None:
    pinned = stated("pinned.txt")
    for name, each in required().items():
        assert pinned[name]
        for line in pinned[name]:
            assert each.specifier.contains(only(line, "==")), line


def outside() -> list[tuple[str, str | None]]:
    """A version below each range, one above where it has an upper bound, and none at all."""
    bounded = [name for name in versions.CHECKED if "<" in str(required()[name].specifier)]
    return [
        *((name, found) for name in versions.CHECKED for found in ("0.0.1", None)),
        *((name, "99.0") for name in bounded),
    ]


@pytest.mark.parametrize(("name", "found"), outside())
def test_another_version_is_refused_by_name(
    name: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed(asked: str) -> str:
        if asked != name:
            return metadata.version(asked)
        if found is None:
            raise metadata.PackageNotFoundError(asked)
        return found

    monkeypatch.setattr(versions, "version", installed)
    monkeypatch.setattr(versions, "requires", lambda _: [str(e) for e in required().values()])
    with pytest.raises(ImportError, match=rf"palscope needs {name}.*pip install '{name}"):
        versions.check_versions(*versions.CHECKED)


def test_the_installed_versions_pass_and_an_import_checks_them() -> None:
    versions.check_versions(*versions.CHECKED, "streamlit")
    program = (
        "import importlib.metadata as m; given = m.version\n"
        "m.version = lambda name: '4.0' if name == 'transformers' else given(name)\n"
        "import palscope"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode and "but 4.0 is installed" in done.stderr.splitlines()[-1]
