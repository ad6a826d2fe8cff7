"""What every command does alike: its errors in one line, its folder, its model."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import set_seed  # transformers' own brings peft along

import palscope
from palscope._files import why_not_written
from palscope._hooks import HookedAudioModel
from palscope._models.processor import AudioProcessor
from palscope._routing import route_from_text
from palscope._sweeps import processes
from palscope.analyses._options import Options
from palscope.errors import PalscopeError


def call(run: Callable[[], Any], out: Path | None = None) -> int:
    """Do a command's work; an error that its user can mend is one line, and exit status 2."""
    try:
        check_out(out)
        run()
    except PalscopeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # Of a table or figure that an analysis writes itself.
        if error.errno is None or (why := why_not_written(error)) is None:
            raise
        print(f"error: {error.filename or out}: {why}; then go on with --resume.", file=sys.stderr)
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


def open_model(options: Options) -> HookedAudioModel:
    """The model, on the route and with the prompt asked for, random numbers seeded.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        RouteError: the route is malformed, or the checkpoint has no weights for it.
        PromptError: the chat format takes no such system message or date.
    """
    set_seed(options.seed)
    model = palscope.load(options.model, device=processes.device(), **_loading(options))
    if options.route is not None:
        model.set_route(route_from_text(options.route))
    set_prompt(model.processor, options.system, options.date)
    return model


def _loading(options: Options) -> dict[str, Any]:
    """How the weights are loaded, for `palscope.load`."""
    found: dict[str, Any] = {}
    if options.dtype is not None:
        found["dtype"] = getattr(torch, options.dtype)
    if options.device_map is not None:
        found["device_map"] = options.device_map
    if options.bits is not None:
        found["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=options.bits == 4, load_in_8bit=options.bits == 8
        )
    return found


def free_memory() -> None:
    """Give back what a model that is gone has held, before the next one is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def set_prompt(processor: AudioProcessor, system: str | None, date: str | None) -> None:
    """Take the system message and date. Raises `PromptError` where the format takes no such."""
    if system is not None:
        processor.system = system
    if date is not None:
        processor.date = date
    processor.chat(processor.any_question)
