from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from palscope.evaluation._ranking import ChoiceQuestion, ModelAnswerer, Ranking, rankings


class Fixed:
    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def choice_logprobs(self, asked: list[ChoiceQuestion]) -> list[list[float]]:
        return self.rows

    def answer(self, asked: list[ChoiceQuestion]) -> list[str]:
        return [""] * len(asked)


ASKED = [ChoiceQuestion([np.zeros(10, np.float32)], "What?", ["dog", "rain"])]


def test_the_likeliest_choice_is_best() -> None:
    (ranking,) = rankings(Fixed([[-3.0, -0.5]]), ASKED)
    assert ranking == Ranking(("dog", "rain"), (-3.0, -0.5))
    assert ranking.best == "rain"


@pytest.mark.parametrize("row", [[-1.0], [-1.0, float("nan")]])
def test_rows_that_do_not_fit_are_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match="expected 2 log-probabilities"):
        rankings(Fixed([row]), ASKED)


def test_a_clip_goes_to_the_encoder_with_its_rate() -> None:
    # An encoder that hears at 48 kHz would take a bare array of 16 kHz for a third of its length.
    samples = np.zeros(8000, np.float32)
    (clip,) = ChoiceQuestion([samples], "what?", ["a"]).clips
    assert (clip.seconds, clip.sample_rate) == (0.5, 16_000)
    assert clip.samples is samples

    given: list[Any] = []

    class Processor:
        sample_rate = 48_000

        def chat(self, question: str, clips: int) -> str:
            return question

        def __call__(self, texts: Any, audio: Any, sampling_rate: int) -> Any:
            given.extend(audio)
            raise LookupError  # no model is needed to see what it is given

    model: Any = SimpleNamespace(device="cpu", check_asked=lambda question: None)
    answerer: Any = ModelAnswerer(model, cast(Any, Processor()))
    for call in (answerer.choice_logprobs, answerer.answer):
        with pytest.raises(LookupError):
            call([ChoiceQuestion([samples], "what?", ["a"])])
    assert [clip.seconds for clip in given] == [0.5, 0.5]
