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
ROWS = multiple_choice.json_rows("audio_path", ("modality", "category", "sub-category"), FIELD)


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store answers as MMAR's script takes them."""
    write_json_lines(path, ROWS.predicted(pairs))


MMAR = Benchmark(
    name="mmar",
    questions_are="JSON lines, e.g. MMAR-meta.jsonl",
    predictions_are=f"its rows with the answer in {FIELD}",
    read_questions=ROWS.questions,
    read_predictions=ROWS.predictions,
    write_predictions=write,
    prompt=multiple_choice.prompt,
    options=multiple_choice.options,
    option_of=multiple_choice.option_of,
    rules=multiple_choice.rules,
    predictions_name="answers.jsonl",
)
