"""Ranking a question's possible answers by the probability that the model gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float

from palscope._models import scoring
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.finding import CheckpointLike
from palscope._models.processor import AudioProcessor
from palscope._published.loading import find_model, open_checkpoint
from palscope._sweeps import processes
from palscope.audio import Waveform
from palscope.audio._compose import SAMPLE_RATE


class ChoiceQuestion(NamedTuple):
    """What a model is asked: clips (mono float32, 16 kHz), a question and its possible answers."""

    waveforms: list[Float[np.ndarray, " _samples"]]
    question: str
    choices: list[str]

    @property
    def clips(self) -> list[Waveform]:
        """The clips with their rate: an encoder may hear at another one."""
        return [Waveform(samples, SAMPLE_RATE, "a clip") for samples in self.waveforms]


class Answerer(Protocol):
    """A model as the evaluation sees it."""

    def choice_logprobs(self, asked: list[ChoiceQuestion]) -> list[list[float]]:
        """Log-probability of every choice of every question, in nats.

        It is the sum over the answer's tokens and the end token, so that "sea" gains nothing by
        being shorter than "sea waves".
        """
        ...

    def answer(self, asked: list[ChoiceQuestion]) -> list[str]:
        """The greedy answer to every question."""
        ...


@dataclass(frozen=True)
class ModelAnswerer:
    """A model and its processor as an `Answerer`."""

    model: AudioLanguageModel
    processor: AudioProcessor
    max_new_tokens: int = 12
    """Room for the longest list of digits, and for a stutter to show."""

    def choice_logprobs(self, asked: list[ChoiceQuestion]) -> list[list[float]]:
        """See `Answerer`."""
        questions = [(each.clips, each.question, each.choices) for each in asked]
        rows = scoring.batched_choice_logprobs(self.model, self.processor, questions)
        return [[float(value) for value in row] for row in rows]

    def answer(self, asked: list[ChoiceQuestion]) -> list[str]:
        """See `Answerer`."""
        questions = [(each.clips, each.question) for each in asked]
        return scoring.generate_answers(
            self.model, self.processor, questions, max_new_tokens=self.max_new_tokens
        )


def open_answerer(
    name: CheckpointLike, device: torch.device | str | None = None, **options: Any
) -> ModelAnswerer:
    """The model of a checkpoint, to be asked as users run it: without hooks.

    Args:
        name: a folder or hub id; or what was found by one.
        device: by default the one of this process, or a GPU where there is one.
        **options: of `ModelAnswerer`.

    Raises:
        CheckpointError: it cannot be found or loaded.
    """
    model: Any
    model, processor = open_checkpoint(find_model(name))
    default = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().to(device or processes.device() or default)
    return ModelAnswerer(model, processor, **options)


@dataclass(frozen=True)
class Ranking:
    """The choices of one question with their log-probabilities (nats)."""

    choices: tuple[str, ...]
    logprobs: tuple[float, ...]

    @property
    def best(self) -> str:
        """The likeliest choice; of equals the first."""
        return self.choices[int(np.argmax(self.logprobs))]


def rankings(answerer: Answerer, asked: Sequence[ChoiceQuestion]) -> list[Ranking]:
    """Rank the choices of every question.

    Raises:
        ValueError: the model gave a number of log-probabilities that is not that of the choices,
            or one that is not a number.
    """
    found: list[Ranking] = []
    for each, row in zip(asked, answerer.choice_logprobs(list(asked)), strict=True):
        if len(row) != len(each.choices) or np.isnan(row).any():
            raise ValueError(
                f"{each.question!r}: expected {len(each.choices)} log-probabilities, got {row}"
            )
        found.append(Ranking(tuple(each.choices), tuple(row)))
    return found
