"""A tiny checkpoint, short labelled clips, and the analyses and commands run on them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from palscope._routing import Route
from palscope.analyses import analysis_of, main
from tests import tiny
from tests.dashboards.conftest import saved

ANALYSES = Path(__file__).parents[2] / "analyses"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Route.pal(tiny.LAYERS, [0, 2]), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of 0.6 s in two domains; the loudest moment of each is its end."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    lines = ["path,domain,label,split"]
    for domain, labels in (("sound", ("dog", "rain", "dog")), ("speech", ("six", "two"))):
        for number, label in enumerate(labels):
            samples = 0.1 * rng.normal(size=9600)
            samples[-1600:] *= 3
            soundfile.write(folder / f"{domain}{number}.wav", samples, 16_000)
            lines.append(f"{domain}{number}.wav,{domain},{label},validation")
    path = folder / "clips.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def own_pairs(manifest: Path) -> Path:
    """Two pairs of the labelled clips; the second says where its clips differ."""
    path = manifest.parent / "pairs.csv"
    path.write_text(
        "clean,corrupt,question,clean_answer,corrupt_answer,start_s,end_s\n"
        "sound0.wav,sound1.wav,what?,one,two,,\n"
        "speech0.wav,speech1.wav,what?,two,three,0.2,0.4\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def analyse(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run an analysis on the tiny checkpoint; the folder of its results."""

    def run(name: str, *words: object, out: Path = tmp_path / "run") -> Path:
        given = ["--model", str(checkpoint), *map(str, words), "--out", str(out)]
        assert main(analysis_of(name), words=given) == 0
        return out

    return run


@pytest.fixture
def refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What an analysis says on one line where it cannot be run so."""

    def run(name: str, *words: object, out: Path = tmp_path / "refused") -> str:
        given = ["--model", str(checkpoint), *map(str, words), "--out", str(out)]
        capsys.readouterr()
        assert main(analysis_of(name), words=given) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said.splitlines()[-1]

    return run


def open_script(name: str) -> Any:
    """The script of that name as a module of its own, so that a test may change it."""
    spec = importlib.util.spec_from_file_location(f"{name}_command", ANALYSES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass of the script looks for it
    spec.loader.exec_module(module)
    return module


def call(script: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The script's exit status, run with these arguments."""
    words = [*map(str, arguments)]
    monkeypatch.setattr(sys, "argv", [Path(script.__file__).name, *words])
    if hasattr(script, "ANALYSIS"):
        return main(script.ANALYSIS, words=words)
    return script.COMMAND.main(words=words)
