"""All in one run of at most 12 minutes on one large GPU (80 GB): what a first person reports.

    python -m benchmarks.gpu --out runs/gpu.json
    python -m benchmarks.gpu --toy --out benchmarks/gpu_toy.json

Random weights at the shapes of Llama-3.2-1B (with palscope's encoder and connector) and of
Qwen2-Audio-7B, bfloat16; `--toy` takes tiny ones, on a CPU too, where the numbers mean nothing.
Parts, each with a limit of its own:

- `machine`: rates of large matrix products and of copying.
- `integrations`: training step, prefill and decoding of PLITS, LAL and PAL (`integrations.py`).
- `kernels`: which attention kernels each integration's prefill and training step ran, in how many
  layers they were given a dense mask, and what that costs: attention alone with a dense mask,
  with a lower-right causal one (flash), and with flex.
- `hooks`, `mass`, `sweep`, of both shapes: ratios to a plain forward pass of the same turns.
- `waits`: how often the host waited for the device, as CUDA itself warns of it (GPU alone).
- `long_audio`: a stream that is asked about (`long_audio.py`).
- `published`: Qwen2-Audio's sound frozen from a layer on, beside the published prefill.

Every row is saved when it is there. A part that fails or runs out of time says so and keeps its
rows. The same command goes on with what is missing; no part is begun a third time.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_parts
from benchmarks.core import default_device, header, rates, write
from benchmarks.gpu_subjects import LARGE, TOY, Sizes
from benchmarks.integrations import SHAPES, Case, build, measure

Row = tuple[str, Any]


@dataclass(frozen=True)
class Run:
    """What a part gets: sizes, where to compute, and which of its rows are there already."""

    sizes: Sizes
    device: str
    dtype: torch.dtype
    done: frozenset[str]
    report: dict[str, Any]


def machine(run: Run) -> Iterator[Row]:
    """What the machine does at most."""
    if "rates" not in run.done:
        yield "rates", rates(run.device, run.dtype)


def integrations(run: Run) -> Iterator[Row]:
    """PLITS, LAL and PAL side by side, at every length."""
    possible = run.report["parts"]["machine"]["rows"]["rates"]
    models = build(SHAPES[run.sizes.shape], run.device, run.dtype)
    for frames in run.sizes.frames:
        if f"N_a {frames}" not in run.done:
            cases = {
                name: Case(model, frames, run.sizes.words, 1) for name, model in models.items()
            }
            yield f"N_a {frames}", measure(cases, run.sizes.repeats, possible)


def kernels(run: Run) -> Iterator[Row]:
    """Attention's kernels, and what a dense mask costs."""
    frames = run.sizes.frames[-1]
    models = build(SHAPES[run.sizes.shape], run.device, run.dtype)
    for name, model in models.items():
        if name not in run.done:
            yield name, gpu_parts.kernels_of(Case(model, frames, run.sizes.words, 1))
    if "attention alone" not in run.done:
        yield "attention alone", gpu_parts.attention_alone(run.sizes, run.device, run.dtype)


def _of_subjects(measured: Callable[..., Any]) -> Callable[[Run], Iterator[Row]]:
    def part(run: Run) -> Iterator[Row]:
        for name, make in run.sizes.subjects.items():
            if name not in run.done:
                subject = make(run.sizes, run.device, run.dtype)
                yield name, measured(subject, run.sizes)
                del subject
                _clear()

    return part


def long_audio(run: Run) -> Iterator[Row]:
    """A stream, asked about at several lengths."""
    if "LAL" not in run.done:
        yield "LAL", gpu_parts.stream(run.sizes, run.dtype)


def published(run: Run) -> Iterator[Row]:
    """Qwen2-Audio's sound frozen from a layer on."""
    if "qwen2-audio" not in run.done:
        yield "qwen2-audio", gpu_parts.frozen(run.sizes, run.device, run.dtype)


PARTS: dict[str, tuple[Callable[[Run], Iterator[Row]], int]] = {
    "machine": (machine, 20),
    "integrations": (integrations, 150),
    "kernels": (kernels, 70),
    "hooks": (_of_subjects(gpu_parts.hooks), 80),
    "mass": (_of_subjects(gpu_parts.mass), 90),
    "sweep": (_of_subjects(gpu_parts.sweep), 110),
    "waits": (_of_subjects(gpu_parts.waits), 50),
    "long_audio": (long_audio, 80),
    "published": (published, 50),
}
"""Each part and its limit in seconds: 700 in all, beside starting."""
_ATTEMPTS, _COMPLETE = 2, "complete"


class OutOfTime(Exception):
    """A part's limit is reached."""


@contextmanager
def at_most(seconds: float) -> Generator[None, None, None]:
    """Within, `OutOfTime` is raised when the seconds are over."""

    def over(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measured(name: str, report: dict[str, Any], run: Run, save: Callable[[], None]) -> None:
    """Run a part into its place in the report; nothing that goes wrong in it goes further."""
    part, limit = PARTS[name]
    found = report["parts"].setdefault(name, {"attempts": 0, "rows": {}})
    if found.get("ended") == _COMPLETE or found["attempts"] >= _ATTEMPTS:
        return
    found["attempts"] += 1
    save()  # what brings the process down is not begun a third time
    begun = time.perf_counter()
    try:
        with at_most(limit):
            for key, row in part(run):
                found["rows"][key] = row
                save()
        found["ended"] = _COMPLETE
    except OutOfTime:
        found["ended"] = f"stopped after {limit} s"
    except Exception as error:
        found["ended"] = f"failed: {type(error).__name__}: {error}"
        traceback.print_exc()
    found["seconds"] = time.perf_counter() - begun
    save()
    print(f"{name}: {found['ended']}, {found['seconds']:.1f} s", flush=True)


def _clear() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def begun(path: Path, settings: dict[str, Any], device: str) -> dict[str, Any]:
    """The report of a run with these settings that was stopped, or a new one."""
    if path.exists():
        old = json.loads(path.read_text())
        if old.get("settings") == settings:
            return old
    return header(device) | {"settings": settings, "parts": {}}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run all parts, save as it goes, and print what each came to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="tiny shapes: to see that it runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    given = parser.parse_args(arguments)
    device = default_device()
    if device == "cpu" and not given.toy:
        parser.error("there is no GPU here; --toy takes shapes that a CPU can run.")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    sizes = TOY if given.toy else LARGE
    report = begun(given.out, {"shape": sizes.shape, "dtype": str(dtype)}, device)

    def save() -> None:
        write(report, given.out)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in dict.fromkeys(["machine", *given.parts]):
            done = frozenset(report["parts"].get(name, {}).get("rows", {}))
            measured(name, report, Run(sizes, device, dtype, done, report), save)
            _clear()
    return report


if __name__ == "__main__":
    main()
