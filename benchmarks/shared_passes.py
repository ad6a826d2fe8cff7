"""What analyses cost where clips share passes, beside one clip after the other.

    python -m benchmarks.shared_passes --out benchmarks/shared_passes.json

The bundled clips, eight at once (the scripts' `--batch`) and alone, in interleaved repeats; the
rows of both are held against each other. Reading the files counts in both.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.core import header, medians, write
from palscope import load
from palscope._hooks import HookedAudioModel
from palscope.analyses import Work, analysis_of

ANALYSES = ("attention_mass", "pathway_masking")


def main() -> int:
    """Time both, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo/pal")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = load(given.model)
    report: Any = header("cpu") | {"model": given.model}
    for name in ANALYSES:
        report[name] = timed(model, given.model, name, given.clips, given.repeats)
        print(name, report[name], flush=True)
    if given.out is not None:
        write(report, given.out)
    return 0


def timed(
    model: HookedAudioModel, name: str, analysis: str, clips: int, repeats: int
) -> dict[str, Any]:
    """Seconds of both, their ratio, and how far rows are apart."""
    found = analysis_of(analysis)
    options = found.options(model=(name,))
    items = sorted(found.items(options)[:clips], key=lambda clip: clip.group)  # as runs do
    rows: dict[str, list[pd.DataFrame]] = {}

    def none(*_: str) -> pd.DataFrame:
        raise AssertionError("a first table reads no other")

    def measured(at_once: int, label: str) -> None:
        work: Any = Work(model, model.current_route, options, rows=none, whole=none)
        some = [replace(item) for item in items]  # whose sound is not read yet
        rows[label] = [
            table
            for first in range(0, len(some), at_once)
            for table in found.tables[0].measure(work, some[first : first + at_once])
        ]

    times = medians(
        {
            "alone": lambda: measured(1, "alone"),
            "together": lambda: measured(options.batch, "together"),
        },
        repeats,
    )
    return times | {
        "ratio": times["together"] / times["alone"],
        "clips": len(items),
        "at_once": options.batch,
        "furthest_apart": max(map(furthest_apart, rows["alone"], rows["together"])),
    }


def furthest_apart(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """The largest difference of numbers; infinite where anything else differs."""
    numbers = list(one.select_dtypes("number"))
    rest = [name for name in one if name not in numbers]
    if list(one) != list(other) or not one[rest].astype(str).equals(other[rest].astype(str)):
        return float("inf")
    apart: Any = (one[numbers] - other[numbers]).abs().to_numpy()
    return float(np.nanmax(np.asarray(apart, float)))


if __name__ == "__main__":
    raise SystemExit(main())
