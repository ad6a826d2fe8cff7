"""The benchmarks by name."""

from __future__ import annotations

from palscope._registry import find
from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.audiocaps import AUDIOCAPS
from palscope.evaluation._benchmarks.benchmark import Benchmark
from palscope.evaluation._benchmarks.dcase import DCASE
from palscope.evaluation._benchmarks.esc50 import ESC10, ESC50
from palscope.evaluation._benchmarks.mmar import MMAR
from palscope.evaluation._benchmarks.mmau import MMAU
from palscope.evaluation._benchmarks.mmsu import MMSU
from palscope.evaluation._benchmarks.own import OWN

BENCHMARKS: dict[str, Benchmark] = {
    each.name: each for each in (ESC50, ESC10, DCASE, AUDIOCAPS, MMAU, MMAR, MMSU, OWN)
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        BenchmarkError: there is none.
    """
    return find(BENCHMARKS, name, "benchmark", error=BenchmarkError)
