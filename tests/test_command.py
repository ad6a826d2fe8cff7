"""The command `palscope`, in a clone and from a wheel alone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from palscope import _beside
from palscope.__main__ import COMMANDS, main
from tests.docs.pages import ROOT

SCRIPTS = sorted(file.stem for file in (ROOT / "analyses").glob("*.py"))


def test_help_says_what_every_command_and_analysis_is_for(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    told = {name: about for name, *about in lines}
    assert len(SCRIPTS) > 10
    assert all(len(told[name]) > 2 for name in (*COMMANDS, *SCRIPTS))


def test_an_analysis_is_run_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    script = tmp_path / "echo.py"
    script.write_text("import sys\nprint(__name__, sys.argv)\nsys.exit(7)\n")
    monkeypatch.setattr("palscope.__main__.analysis_files", lambda: {"echo": script})
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit, match="7"):
        main(["echo", "--model", "demo/pal"])
    assert capsys.readouterr().out == f"__main__ {[str(script), '--model', 'demo/pal']}\n"


def test_the_page_is_streamlit_s_with_the_files_of_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    began: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _program, words: began.append(words))
    assert main(["page", str(tmp_path / "nowhere.py")]) == 2
    assert "nowhere.py is not there" in capsys.readouterr().err and not began
    (tmp_path / "own.py").touch()
    main(["page", str(tmp_path / "own.py"), "--port", "8600"])
    (words,) = began
    assert words[:4] == [sys.executable, "-m", "streamlit", "run"] and Path(words[4]).is_file()
    assert words[5:] == ["--server.port", "8600", "--", str(tmp_path / "own.py")]


def test_what_is_shown_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _beside.words_for("leakage") == ["python", "analyses/leakage.py"]
    assert _beside.words_for("mine") == ["python", "mine.py"]
    monkeypatch.setattr(_beside, "in_clone", lambda: False)
    monkeypatch.setattr(_beside, "analysis_files", lambda: {"leakage": Path("leakage.py")})
    assert _beside.words_for("leakage") == ["palscope", "leakage"]


ALONE = """
import sys
import palscope
from palscope import _beside, analyses
from palscope.__main__ import main

assert palscope.__file__.startswith(sys.argv[1]), palscope.__file__
print(*_beside.analysis_files())
assert (_beside.folder("dashboards") / "attention.py").is_file()
assert analyses.analysis_of("leakage").name == "leakage"
main(["logit_lens", "--model", "demo/pal", "--out", "out"])
"""


@pytest.mark.slow
def test_a_wheel_needs_no_clone(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds the wheel: make setup")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as inside:
        names = inside.namelist()
        inside.extractall(tmp_path / "site")
    assert {"palscope/py.typed", "palscope/dashboards/.streamlit/config.toml"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"palscope"}
    alone = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert alone.stdout.split() == SCRIPTS, alone.stderr
    assert alone.returncode == 2
    assert alone.stderr.splitlines()[-1].startswith("error: demo/pal comes with a clone")
