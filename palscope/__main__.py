"""The command `palscope`, or `python -m palscope`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {"verify": "palscope._verify.command"}
"""Modules of subcommands, each with a `main` that takes the words behind its name."""


def main(given: Sequence[str] | None = None) -> int:
    """Run a subcommand. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="palscope")
    parser.add_argument("command", choices=COMMANDS, help="verify: check a model; see its --help")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="what the command takes")
    arguments = parser.parse_args(given)
    return importlib.import_module(COMMANDS[arguments.command]).main(arguments.rest)


if __name__ == "__main__":
    sys.exit(main())
