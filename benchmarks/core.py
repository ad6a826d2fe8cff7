"""What the benchmarks share: timing in turns, what a machine can do at most, and the report."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm.auto import tqdm


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each call, its repeats taking turns with the others'."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in tqdm(range(repeats + 1), desc="timing", leave=False):
        for name, call in calls.items():
            synchronise()  # what is still queued is nobody's
            start = time.perf_counter()
            call()
            synchronise()
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronise() -> None:
    """Wait until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def default_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def rates(device: str, dtype: torch.dtype, repeats: int = 5) -> dict[str, float]:
    """What the machine does at most: large matrix products, and copying memory.

    Returns `flops_per_second` and `bytes_per_second` (bytes read and written), each the best of
    `repeats`.
    """
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(2**28 if device == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best(call: Callable[[], Any]) -> float:
        seconds: list[float] = []
        for _ in range(repeats + 1):
            synchronise()
            start = time.perf_counter()
            call()
            synchronise()
            seconds.append(time.perf_counter() - start)
        return min(seconds[1:])

    return {
        "flops_per_second": 2 * size**3 / best(lambda: a @ b),
        "bytes_per_second": 2 * source.nbytes / best(lambda: target.copy_(source)),
    }


def header(device: str) -> dict[str, Any]:
    """Machine and versions, for the head of a report."""
    return {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def write(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(report, indent=2) + "\n")
    unfinished.replace(path)
