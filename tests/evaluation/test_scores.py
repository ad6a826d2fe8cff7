from __future__ import annotations

from typing import Any

import pytest

from palscope.evaluation._scores import summarise, summarise_composed


def answered(answer: str, best: str, greedy: str, heard: str, domain: str = "sound") -> Any:
    return {
        "key": f"{answer}{best}{greedy}",
        "domain": domain,
        "answer": answer,
        "heard": heard.split("+"),
        "best": best,
        "greedy": greedy,
        "logprobs": {"dog": -1.0, "rain": -2.0},
    }


ROWS = [
    answered("dog", "dog", "dog", "dog"),
    answered("dog", "rain", "dogdog", "rain"),
    answered("rain", "rain", "rain", "dog"),
    {"key": "x", "domain": "sound", "answer": "dog", "heard": ["dog"], "error": "broken"},
    answered("dog", "rain", "rain", "rain", "speech"),
]


def test_accuracy_counts_what_was_answered() -> None:
    scores = summarise(ROWS)
    assert (scores["accuracy"], scores["n"]) == (0.5, 4)
    assert (scores["exact_match"], scores["off_list"]) == (0.5, 0.25)
    low, high = scores["interval"]
    assert low < 0.5 < high
    sound = scores["by_domain"]["sound"]
    assert (sound["accuracy"], sound["n"]) == (pytest.approx(2 / 3), 3)
    assert sound["labels"] == ["dog", "rain"]
    assert sound["by_label"]["dog"]["accuracy"] == 0.5
    assert scores["by_domain"]["speech"]["n"] == 1
    assert "follows_audio" not in scores


def test_swapped_scores_say_whether_the_answer_follows_the_audio() -> None:
    scores = summarise(ROWS, swapped=True)
    assert scores["follows_audio"] == 0.75
    assert scores["by_domain"]["speech"]["follows_audio"] == 1.0


def test_nothing_answered_gives_no_numbers() -> None:
    scores = summarise([ROWS[3]])
    assert (scores["accuracy"], scores["n"], scores["by_domain"]) == (None, 0, {})


def test_composed_scores_tell_hearing_from_ordering() -> None:
    table = summarise_composed(
        [
            answered("dog", "rain", "rain", "dog+rain", "sound_first"),
            answered("dog", "dog", "dog", "dog+rain", "sound_first"),
            answered("two", "two", "two", "six+six", "digit_count"),
        ]
    )
    assert table["sound_first"]["accuracy"] == 0.5
    assert table["sound_first"]["present"] == 1.0
    assert table["sound_first"]["chance"] == 0.5
    assert "present" not in table["digit_count"]
