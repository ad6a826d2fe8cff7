"""MMAU (Sakshi et al. 2024, arXiv 2410.19168): sounds, music and speech, with choices.

The question file is a JSON list of `{id, audio_id, question, choices, answer, task, difficulty,
category, sub-category, …}`; predictions are its rows with `model_output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from palscope.evaluation._benchmarks import multiple_choice
from palscope.evaluation._benchmarks.benchmark import Benchmark
from palscope.evaluation._benchmarks.files import write_json_list
from palscope.evaluation._benchmarks.sheet import Question

FIELD = "model_output"
ROWS = multiple_choice.json_rows(
    "audio_id", ("task", "difficulty", "category", "sub-category"), FIELD
)

VERSIONS = {
    # before the revision
    "84c00ae01e91e3cf": "test-mini, original release (2024-10-23)",
    "1d2ffa802ca2d462": "test-mini, original release (2024-10-25)",
    "c1e4009a72df59c2": "test-mini, original release (2024-12-09)",
    "1fef46761048f127": "test-mini, original release (2025-01-28)",
    "2dcb170952fc2b07": "test-mini, original release (2025-03-25)",
    # v05.15.25 and corrections of it
    "3d751c46f0a45605": "test-mini v05.15.25 (2025-05-15)",
    "b8606da9c332182e": "test-mini v05.15.25 (2025-05-16)",
    "55e64b1013541943": "test-mini v05.15.25 (2025-05-18)",
    "c368671795e13ddc": "test-mini v05.15.25 (2025-05-19)",
    "7d9ff27ba5ce0946": "test-mini v05.15.25 (2025-05-22)",
    "b4f532f787014806": "test-mini v05.15.25 (2025-05-30)",
    "83b9549603c7e953": "test-mini v05.15.25 (2025-06-23, first)",
    "d1999b31a2c4928a": "test-mini v05.15.25 (2025-06-23, second)",
    "2a8f1900b1a1c487": "test-mini v05.15.25 (2025-08-09)",
}
"""Test-mini as its repository had it from these dates on, by `content_digest`: about a quarter of
the questions changed in May 2025."""


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store answers as MMAU's script takes them."""
    write_json_list(path, ROWS.predicted(pairs))


MMAU = Benchmark(
    name="mmau",
    questions_are="a JSON list, e.g. mmau-test-mini.json",
    predictions_are=f"its rows with the answer in {FIELD}",
    read_questions=ROWS.questions,
    read_predictions=ROWS.predictions,
    write_predictions=write,
    prompt=multiple_choice.prompt,
    options=multiple_choice.options,
    option_of=multiple_choice.option_of,
    rules=multiple_choice.rules,
    versions=VERSIONS,
)
