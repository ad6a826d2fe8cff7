"""Small files in the benchmarks' own forms, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from palscope.evaluation._benchmarks.benchmark import Benchmark
from palscope.evaluation._benchmarks.rules import ScoringRule
from palscope.evaluation._benchmarks.sheet import Sheet


def json_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def mmau(name: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "audio_id": f"./test-mini-audios/{name}.wav",
        "question": "Who speaks?",
        "choices": ["Man", "Woman", "A child", "Robot"],
        "answer": "Man",
        "task": "speech",
        "split": "test-mini",
        "category": "Reasoning",
        "sub-category": "Source",
        "difficulty": "easy",
    } | changes


def mmsu(name: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "audio_path": f"audio/{name}.wav",
        "question": "Which tone?",
        "choice_a": "rising",
        "choice_b": "falling",
        "choice_c": "level",
        "choice_d": "none",
        "answer_gt": "falling",
        "category": "Perception",
        "sub-category": "Phonology",
    } | changes


def scored(benchmark: Benchmark, predictions: Path, questions: Path | None = None) -> Any:
    """The benchmark's rules on a file of predictions."""
    asked = None if questions is None else benchmark.read_questions(questions)
    return benchmark.rules(Sheet.of(benchmark.read_predictions(predictions, asked), asked), None)


def outcome(rule: Any) -> tuple[float, int]:
    """How much a rule gave, and to how many."""
    assert isinstance(rule, ScoringRule)
    return sum(score.got for score in rule.scores), len({score.id for score in rule.scores})
