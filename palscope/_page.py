"""`palscope page`: the page in a browser."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from palscope._beside import folder


def main(given: Sequence[str] | None = None) -> int:
    """Become the page's server. Returns 2 where one of the files is not there."""
    parser = argparse.ArgumentParser(prog="palscope page", description="Open the page.")
    parser.add_argument("analyses", nargs="*", type=Path, help="files of analyses of your own")
    parser.add_argument("--port", type=int, default=8501, help="default: 8501")
    asked = parser.parse_args(given)
    for file in asked.analyses:
        if not file.is_file():
            print(f"palscope: {file} is not there; give files of analyses.", file=sys.stderr)
            return 2
    words = ["-m", "streamlit", "run", str(folder("dashboards") / "attention.py")]
    words += ["--server.port", str(asked.port), "--", *map(str, asked.analyses)]
    os.execv(sys.executable, [sys.executable, *words])
