"""What every script of `analyses/` shares: its arguments, its model, its run and its errors.

A script parses, measures over items, and draws:

    def main() -> int:
        parser = commands.arguments(__doc__)
        parser.add_argument("--question", default="What sound is this?")
        return commands.call(run, parser.parse_args())

    def run(arguments: Namespace) -> None:
        model = commands.open_model(arguments)
        results = commands.open_run(arguments, model)
        table = results.over(items, measure, table="effects", key=str, keys=["layer"])
        if results.main:
            draw(table)
        results.finish()
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed  # transformers' own brings peft along

import palscope
from palscope._files import why_not_written
from palscope._hooks import HookedAudioModel
from palscope._models.chat_format import PROMPT_DATE
from palscope._models.processor import AudioProcessor
from palscope._routing import route_from_text
from palscope._sweeps import processes
from palscope._sweeps.record import run_record, weights_hashes
from palscope._sweeps.store import Run
from palscope.audio._bundled import CLIPS_FOLDER
from palscope.errors import PalscopeError

_NO_SETTING = ("out", "resume", "seed")
"""Arguments that are no part of a run's config; the seed has a place of its own."""


def arguments(doc: str | None, *, models: bool = False, model: bool = True) -> ArgumentParser:
    """A parser with `--model, --route, --system, --date, --seed, --out, --resume`.

    Args:
        doc: the script's docstring, shown by `--help`.
        models: `--model` takes several.
        model: without it there is none of the first four.
    """
    parser = ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if model:
        parser.add_argument(
            "--model",
            required=True,
            nargs="+" if models else None,
            help="checkpoint folder, or hub id (owner/name, owner/name@revision)"
            + (", one or several" if models else ""),
        )
        parser.add_argument(
            "--route", help="another route than the checkpoint's, e.g. frames:P10.20,summary/3:F30"
        )
        add_prompt(parser)
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--resume", action="store_true", help="go on with the run that --out holds")
    return parser


def add_prompt(parser: ArgumentParser) -> None:
    """`--system, --date`: what prompts depend on beside questions."""
    parser.add_argument("--system", help="system message (default: the chat format's own)")
    parser.add_argument(
        "--date",
        help=f"what the chat format takes for today's, where it asks (default: {PROMPT_DATE})",
    )


def set_prompt(processor: AudioProcessor, given: Namespace) -> None:
    """Take `--system` and `--date`. Raises `PromptError` where the chat format takes no such."""
    if given.system is not None:
        processor.system = given.system
    if given.date is not None:
        processor.date = given.date
    processor.chat("?")


def add_clips(parser: ArgumentParser, most: int) -> None:
    """`--manifest, --split, --clips`: labelled clips, `most` of them by default."""
    parser.add_argument(
        "--manifest",
        type=Path,
        default=CLIPS_FOLDER / "clips.csv",
        help="CSV with columns path, domain, label (default: the bundled clips)",
    )
    parser.add_argument("--split", help="only clips of this split, e.g. validation")
    parser.add_argument(
        "--clips", type=count, default=most, help=f"how many, evenly (default: {most})"
    )


def count(text: str, least: int = 1) -> int:
    """The `type` of an argument that counts: a whole number from `least`, in plain digits."""
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise ArgumentTypeError(f"{text}; give a whole number from {least}")
    return int(text)


def workers(text: str) -> int:
    """The `type` of a number of processes beside this one: none is a number, too."""
    return count(text, least=0)


def call(run: Callable[[Namespace], None], given: Namespace) -> int:
    """Run a script's work; an error that its user can mend is one line, and exit status 2."""
    try:
        check_out(getattr(given, "out", None))
        run(given)
    except PalscopeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # Of a table or figure that the script writes itself.
        if error.errno is None or (why := why_not_written(error)) is None:
            raise
        place = error.filename or getattr(given, "out", None)
        print(f"error: {place}: {why}; then go on with --resume.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command with --resume goes on.", file=sys.stderr)
        return 130
    return 0


def check_out(out: Path | None) -> None:
    """Raise `PalscopeError` where results could not be written, before there are any."""
    if out is None:
        return
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise PalscopeError(f"--out {out}: {there} is a file; give a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PalscopeError(f"--out {out}: {there} may not be written to; give another folder.")


def open_model(given: Namespace, **loading: Any) -> HookedAudioModel:
    """The model of `--model`, on the route and with the prompt asked for, random numbers seeded.

    Args:
        given: the parsed arguments.
        **loading: `palscope.load`'s, of how the weights are loaded.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        RouteError: the route is malformed, or the checkpoint has no weights for it.
        PromptError: the chat format takes no such system message or date.
    """
    set_seed(given.seed)
    model = palscope.load(given.model, device=processes.device(), **loading)
    if given.route is not None:
        model.set_route(route_from_text(given.route))
    if "system" in given:
        set_prompt(model.processor, given)
    return model


def open_run(given: Namespace, model: HookedAudioModel, *, data: Iterable[Path] = ()) -> Run:
    """The run in `--out`: new, or gone on with by `--resume`. Its config is the command line.

    Args:
        given: the parsed arguments.
        model: from `open_model`.
        data: the files that the run reads; the record has their sha256.

    Raises:
        PalscopeError: as `Run.open`.
    """
    record = run_record(
        model,
        config=settings(given),
        weights=weights_hashes(model),
        seed=given.seed,
        data=data,
    )
    return Run.open(given.out, record, resume=given.resume)


def settings(given: Namespace) -> dict[str, Any]:
    """The arguments that decide results, as plain data."""
    return {name: _plain(value) for name, value in vars(given).items() if name not in _NO_SETTING}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
