"""The scripts of `analyses/` in this process: starting another takes each of them seconds."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What `python SCRIPT ARGUMENTS` leaves: `script` is its path in the repository."""
    words = [str(ROOT / script), *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", words), redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(words[0], run_name="__main__")
            status = 0
        except SystemExit as left:
            status = left.code or 0
    if not isinstance(status, int):  # what Python prints of it
        err.write(f"{status}\n")
        status = 1
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
