"""`palscope verify MODEL`: one line a check, as they are made."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from palscope._verify.report import line
from palscope._verify.results import Result
from palscope._verify.run import probe_clip, sides_of, verify
from palscope.errors import PalscopeError, short

DTYPES = ("float32", "bfloat16", "float16")


def _parser() -> argparse.ArgumentParser:
    about = "Check a model with hooks beside the same model without them."
    parser = argparse.ArgumentParser(prog="palscope verify", description=about)
    parser.add_argument(
        "model", help="a folder, a hub id or owner/name@revision, demo/pal, demo/lal or demo/plits"
    )
    parser.add_argument("--device", help="by default a GPU where there is one")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="of weights and computation; by default as palscope.load has it",
    )
    parser.add_argument(
        "--clip", type=Path, help="a sound file, of which 3 s are used; by default a bundled one"
    )
    parser.add_argument("--json", type=Path, help="file for the report as plain data")
    return parser


def _device(name: str | None) -> torch.device:
    """The device of a name. Raises `PalscopeError` where torch cannot use it."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        said = short(" ".join(str(error).split()))
        raise PalscopeError(f"--device {name}: torch cannot use it ({said}).") from error


def _tell(result: Result) -> None:
    if result.verdict != "not checked":  # those stand together at the end
        print(line(result), flush=True)


def main(given: Sequence[str]) -> int:
    """Check a model.

    Returns:
        0 where no check failed, 1 where one did, 2 where model or clip cannot be opened.
    """
    arguments = _parser().parse_args(given)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dtype: Any = None if arguments.dtype is None else getattr(torch, arguments.dtype)
    try:
        if arguments.json is not None and not arguments.json.parent.is_dir():
            raise PalscopeError(f"--json {arguments.json}: there is no such folder; make it first.")
        device = _device(arguments.device)
        clip = probe_clip(arguments.clip)
        sides = sides_of(arguments.model, device, dtype)
    except PalscopeError as error:
        print(f"palscope: {error}", file=sys.stderr)
        return 2
    report = verify(sides, clip, _tell)
    print(report.ending())
    if arguments.json is not None:
        text = json.dumps(report.to_dict(), indent=1, default=str)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return report.exit_code
