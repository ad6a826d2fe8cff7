"""Evaluation: questions of manifests and benchmarks asked, answers scored, runs compared."""

from __future__ import annotations

from palscope.evaluation._benchmark_runs import evaluate_benchmark, score_predictions
from palscope.evaluation._evaluate import evaluate_manifest
from palscope.evaluation._ranking import open_answerer
from palscope.evaluation._rows import compare_runs

__all__ = [
    "compare_runs",
    "evaluate_benchmark",
    "evaluate_manifest",
    "open_answerer",
    "score_predictions",
]
