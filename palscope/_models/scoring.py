"""Asking a model about clips: greedy answers, and the log-probabilities of given answers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import GenerationConfig

from palscope._models.audio_model import AudioLanguageModel
from palscope._models.processor import AudioProcessor

UserTurn = tuple[Sequence[Any], str]
"""The clips (anything the processor takes, arrays at its sample rate) and the question asked."""


def prompt_batch(
    processor: AudioProcessor, asked: Sequence[UserTurn], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The processor's tensors of questions in its chat format."""
    texts = [processor.chat(question, clips=len(clips)) for clips, question in asked]
    audio = [clip for clips, _ in asked for clip in clips]
    batch = processor(texts, audio or None, sampling_rate=processor.sample_rate)
    return {name: value.to(device) for name, value in batch.items()}


def answer_ids(processor: AudioProcessor, answer: str) -> list[int]:
    """An answer's tokens and the one that ends a turn: what training teaches, ranking scores."""
    text = answer if answer.startswith(processor.answer_start) else processor.answer_start + answer
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, processor.turn_end]


def with_answers(
    processor: AudioProcessor, batch: dict[str, Tensor], answers: Sequence[str]
) -> dict[str, Tensor]:
    """`batch` with each row's answer behind its prompt, and `labels` that are -100 elsewhere."""
    ids = [answer_ids(processor, answer) for answer in answers]
    width = max(map(len, ids))
    pad = int(processor.tokenizer.pad_token_id)
    right = torch.tensor([row + [pad] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    prompt = torch.full_like(batch["input_ids"], -100)
    return batch | {
        "input_ids": torch.cat([batch["input_ids"], right], 1),
        "attention_mask": torch.cat([batch["attention_mask"], mask], 1),
        "labels": torch.cat([prompt, torch.where(mask == 1, right, -100)], 1),
    }


def continued(inputs: Mapping[str, Any], *tokens: Sequence[int]) -> dict[str, Any]:
    """The inputs of prompts with tokens behind each: to look at answers as they were written."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    width = max(map(len, tokens))
    new = torch.tensor([[*each, *[0] * (width - len(each))] for each in tokens])
    real = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in tokens])
    return {
        **inputs,
        "input_ids": torch.cat([ids, new.to(ids)], 1),
        "attention_mask": torch.cat([mask, real.to(mask)], 1),
    }


@dataclass(frozen=True)
class PaddedAnswers:
    """Every prompt's choices as tokens, padded to as many and as long ones.

    Attributes:
        ids: their tokens.
        real: which of them are there.
        choices: how many each prompt has.
    """

    ids: Int[Tensor, "prompts most width"]
    real: Bool[Tensor, "prompts most width"]
    choices: list[int]

    @classmethod
    def of(
        cls, processor: AudioProcessor, choices: Sequence[Sequence[str]], device: torch.device
    ) -> PaddedAnswers:
        """The choices of each prompt, their ends included."""
        tokens = [[answer_ids(processor, choice) for choice in row] for row in choices]
        count = [len(row) for row in tokens]
        width = max(len(ids) for row in tokens for ids in row)
        ids = torch.full((len(tokens), max(count), width), int(processor.tokenizer.pad_token_id))
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for r, row in enumerate(tokens):
            for c, answer in enumerate(row):
                ids[r, c, : len(answer)] = torch.tensor(answer)
                real[r, c, : len(answer)] = True
        return cls(ids.to(device), real.to(device), count)

    @property
    def continuing(self) -> Int[Tensor, "rows before_last"]:
        """What goes on from the prompts' caches, each repeated for every choice."""
        return self.ids.flatten(0, 1)[:, :-1]

    def logprobs(
        self, logits: Float[Tensor, "rows width vocabulary"]
    ) -> list[Float[np.ndarray, " _choices"]]:
        """Log-probability (nats) of each prompt's choices, of logits at the tokens before."""
        ids = self.ids.flatten(0, 1)[..., None]
        logp = logits.float().log_softmax(-1).gather(-1, ids)[..., 0]
        sums = (logp.view_as(self.ids) * self.real).sum(-1).double().cpu().numpy()
        return [row[:count] for row, count in zip(sums, self.choices, strict=True)]


@torch.no_grad()
def batched_choice_logprobs(
    model: AudioLanguageModel,
    processor: AudioProcessor,
    examples: Sequence[tuple[Sequence[Any], str, Sequence[str]]],
    batch_size: int = 8,
) -> list[Float[np.ndarray, " _choices"]]:
    """Log-probability of each choice as the whole answer, its end included.

    Counting the end makes 'sea' and 'sea waves' comparable: each is one complete answer. Prompts
    run once; the choices continue from their cache.

    Args:
        examples: (clips, question, choices).
    """
    results: list[np.ndarray] = []
    for start in range(0, len(examples), batch_size):
        chunk = examples[start : start + batch_size]
        batch = prompt_batch(processor, [(c, q) for c, q, _ in chunk], model.device)
        first = model(**batch, use_cache=True, logits_to_keep=1)
        cache = first.cache
        answers = PaddedAnswers.of(processor, [choices for *_, choices in chunk], model.device)
        most = answers.ids.shape[1]
        cache.batch_repeat_interleave(most)
        rest = model(input_ids=answers.continuing, cache=cache).logits
        results += answers.logprobs(torch.cat([first.logits.repeat_interleave(most, 0), rest], 1))
    return results


def generation_settings(
    model: AudioLanguageModel,
    processor: AudioProcessor,
    max_new_tokens: int,
    *,
    own_settings: bool = False,
) -> GenerationConfig:
    """Settings of greedy decoding; or, with `own_settings`, as `greedy_tokens`."""
    chosen = copy.deepcopy(model.checkpoint_generation) if own_settings else GenerationConfig()
    chosen.max_length = chosen.cache_implementation = None  # its length is told, its cache another
    chosen.max_new_tokens = max_new_tokens
    chosen.pad_token_id = processor.tokenizer.pad_token_id
    chosen.eos_token_id = end_tokens(model, processor)
    return chosen


@torch.no_grad()
def greedy_tokens(
    model: AudioLanguageModel,
    processor: AudioProcessor,
    batch: Mapping[str, Any],
    max_new_tokens: int = 16,
    *,
    own_settings: bool = False,
) -> Int[Tensor, "batch new"]:
    """The tokens that greedy decoding puts behind each prompt, padded on the right.

    Args:
        own_settings: as the checkpoint's generation_config says instead, sampling and penalties
            included.
    """
    chosen = generation_settings(model, processor, max_new_tokens, own_settings=own_settings)
    out = model.generate(**batch, generation_config=chosen)
    return out[:, batch["input_ids"].shape[1] :]


def greedy_answers(
    model: AudioLanguageModel,
    processor: AudioProcessor,
    batch: Mapping[str, Any],
    max_new_tokens: int = 16,
) -> list[list[int]]:
    """`greedy_tokens` of each prompt by itself: up to its end, and that included."""
    ends = end_tokens(model, processor)
    found: list[list[int]] = []
    rows: list[list[int]] = greedy_tokens(model, processor, batch, max_new_tokens).tolist()
    for row in rows:
        length = next((place for place, token in enumerate(row, 1) if token in ends), len(row))
        found.append(row[:length])
    return found


def end_tokens(model: AudioLanguageModel, processor: AudioProcessor) -> list[int]:
    """Tokens that end an answer: the turn's, the text's, those that the checkpoint stops at."""
    given: Any = model.generation_config.eos_token_id if model.generation_config else None
    known: list[int] = [] if given is None else given if isinstance(given, list) else [given]
    return sorted({processor.turn_end, int(processor.tokenizer.eos_token_id), *known})


@torch.no_grad()
def generate_answers(
    model: AudioLanguageModel,
    processor: AudioProcessor,
    asked: Sequence[UserTurn],
    max_new_tokens: int = 16,
    batch_size: int = 8,
    *,
    own_settings: bool = False,
) -> list[str]:
    """Greedy answers; or, with `own_settings`, as `greedy_tokens`."""
    answers: list[str] = []
    for _, question in asked:
        model.check_asked(question)
    for start in range(0, len(asked), batch_size):
        batch = prompt_batch(processor, asked[start : start + batch_size], model.device)
        new = greedy_tokens(model, processor, batch, max_new_tokens, own_settings=own_settings)
        answers += processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    return [text.strip() for text in answers]
