"""Questions with choices, answered in words: MMAU's string match, which MMAR shares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.benchmark import Rules
from palscope.evaluation._benchmarks.files import JsonRow
from palscope.evaluation._benchmarks.json_rows import JsonRows
from palscope.evaluation._benchmarks.rules import in_order, strict
from palscope.evaluation._benchmarks.sheet import NOT_GIVEN, Question, Sheet
from palscope.evaluation._nearest import Embedder

_WORDS = re.compile(r"\w+")

SAYS = (
    "all words of the answer are in the prediction, and no word that only other choices have "
    "(the benchmark's string match)"
)


def words(text: str) -> set[str]:
    r"""The lower-cased runs of word characters (`\w+`)."""
    return set(_WORDS.findall(text.lower()))


def string_match(prediction: str, answer: str, choices: Sequence[str]) -> bool:
    """MMAU's rule (Sakshi et al. 2024, `evaluation.py`), which MMAR took over.

    Words are sets: order and number do not matter. A word that the answer shares with other choices
    counts for the answer. An answer without words (such as "♪") is matched by any prediction that
    has words, and none of the other choices'.
    """
    said, right = words(prediction), words(answer)
    wrong = set[str]().union(*(words(choice) for choice in choices)) - right
    return bool(said) and right <= said and not said & wrong


def prompt(question: Question) -> str:
    """The question with its choices. The wording is ours: the benchmarks prescribe none."""
    return f"{question.text.strip()} Choose from: {', '.join(question.choices)}."


def rules(sheet: Sheet, embedder: Embedder | None = None) -> Rules:
    """`official`, which passes over rows without a prediction, and `strict`, which does not."""
    del embedder
    texts = [answer for _, answer in sheet.rows if answer is not NOT_GIVEN]
    odd = sum(not isinstance(answer, str) for answer in texts)
    notes = [f"{odd} predictions are no text: the official script stops at them; passed over here"]
    return {
        "official": in_order(
            sheet,
            [
                judge(question, answer) if isinstance(answer, str) else None
                for question, answer in sheet.rows
            ],
            f"{SAYS}; rows without a prediction are passed over, repeated ones count again",
            notes if odd else (),
        ),
        "strict": strict(sheet, judge, SAYS),
    }


def judge(question: Question, answer: Any) -> bool:
    """Whether an answer is right; one that is no text is not."""
    return isinstance(answer, str) and string_match(answer, question.truth[0], question.choices)


def option_of(question: Question) -> str:
    """The right choice, as a model ranks it; empty where it is withheld."""
    return question.truth[0] if question.truth else ""


def options(question: Question) -> tuple[str, ...]:
    """The choices, each once: some questions of MMAU have one twice."""
    return tuple(dict.fromkeys(question.choices))


def listed_choices(path: Path, number: int, row: JsonRow) -> tuple[str, ...]:
    """The list in a row's field `choices`. Raises `BenchmarkError` where it is no list of texts."""
    choices = row.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BenchmarkError(
            f"{path}, row {number}: field choices is {choices!r}; expected a list of answers."
        )
    listed = cast("list[Any]", choices)
    if not all(isinstance(choice, str) for choice in listed):
        raise BenchmarkError(f"{path}, row {number}: field choices has entries that are no text.")
    return tuple(cast("list[str]", listed))


def json_rows(audio: str, groups: Sequence[str], given: str) -> JsonRows:
    """Rows with `id, question, choices, answer`, clips named in `audio`, predictions in `given`."""
    return JsonRows(audio, "answer", groups, "choices", listed_choices, given)
