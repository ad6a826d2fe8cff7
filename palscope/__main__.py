"""The command `palscope`, or `python -m palscope`."""

from __future__ import annotations

import argparse
import ast
import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from palscope._beside import analysis_files

COMMANDS = {
    "convert": ("palscope.encoders._convert", "make an encoder's folder of a published checkpoint"),
    "page": ("palscope._page", "open the page"),
    "verify": ("palscope._verify.command", "check a model with hooks beside it without them"),
}
"""Subcommands: the module, whose `main` takes the words behind the name, and what it does."""


def main(given: Sequence[str] | None = None) -> int:
    """Run a subcommand, or an analysis by its name. Returns its exit code."""
    analyses = analysis_files()
    parser = argparse.ArgumentParser(
        prog="palscope", epilog=_table(analyses), formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "command", choices=[*COMMANDS, *analyses], metavar="COMMAND", help="see below"
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="what it takes: its own --help")
    asked = parser.parse_args(given)
    if asked.command in COMMANDS:
        return importlib.import_module(COMMANDS[asked.command][0]).main(asked.rest)
    words = [str(analyses[asked.command]), *asked.rest]
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
    return 0


def _table(analyses: dict[str, Path]) -> str:
    about = {name: text for name, (_, text) in COMMANDS.items()}
    about |= {name: _first_line(file) for name, file in analyses.items()}
    wide = max(map(len, about))
    return "\n".join(f"  {name:{wide}}  {text}" for name, text in about.items())


def _first_line(file: Path) -> str:
    """Of a script's docstring, without running it."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
