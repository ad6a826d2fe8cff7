"""MMAR (Ma et al. 2025): deep reasoning over sounds, music, speech and their mixes, with choices.

The question file has one JSON object a line, `{id, audio_path, question, choices, answer, modality,
category, sub-category, …}`; predictions are its rows with `answer_prediction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from palscope.evaluation._benchmarks import multiple_choice
from palscope.evaluation._benchmarks.benchmark import Benchmark
from palscope.evaluation._benchmarks.files import write_json_lines
from palscope.evaluation._benchmarks.sheet import Question

FIELD = "answer_prediction"
GROUPS = ("modality", "category", "sub-category")


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store answers as MMAR's script takes them."""
    write_json_lines(path, multiple_choice.predicted_rows(FIELD, pairs))


MMAR = Benchmark(
    name="mmar",
    questions_are="JSON lines, e.g. MMAR-meta.jsonl",
    predictions_are=f"its rows with the answer in {FIELD}",
    read_questions=multiple_choice.questions_reader("audio_path", GROUPS),
    read_predictions=multiple_choice.predictions_reader(FIELD, "audio_path", GROUPS),
    write_predictions=write,
    prompt=multiple_choice.prompt,
    options=multiple_choice.options,
    option_of=multiple_choice.option_of,
    rules=multiple_choice.rules,
    predictions_name="answers.jsonl",
)
