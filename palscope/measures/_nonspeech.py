"""Words that are written where nobody speaks, and what makes a model stop before the first.

A transcriber has three ways to say that there is nothing to write: a tag in brackets ([MUSIC]), the
end as its first token, or a token of its own for it, by whose probability openai-whisper drops a
window (arXiv 2212.04356, section 4.5). Its published settings forbid the first two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GenerationConfig

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import end_tokens, generation_settings
from palscope.interventions import (
    Add,
    Address,
    Filler,
    Knockout,
    Patch,
    Scale,
    Sound,
    Text,
    run_cells,
)
from palscope.interventions._apply import Intervention, bind, in_force
from palscope.interventions._cells import copies_of, with_encoded

Settings = Literal["greedy", "published", "may stop"]
"""How is written: the likeliest token of all; as the checkpoint's own settings say; or as those,
but that the first token may end the transcript."""

SETTINGS: tuple[Settings, ...] = ("greedy", "published", "may stop")

NO_SPEECH, LOGPROB = 0.6, -1.0
"""openai-whisper drops a window whose no-speech probability is above the first while the mean
log-probability of what is written is below the second (transcribe.py, its defaults)."""

_NO_SPEECH_TOKENS = ("<|nospeech|>", "<|nocaptions|>")
_START = "<|startoftranscript|>"
_TAG = re.compile(r"\[[^\]]*\]?|\([^)]*\)?|\*[^*]*\*?")
_WORD = re.compile(r"\d|[^\W\d_]+(?:'[^\W\d_]+)*")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


# -- words ----------------------------------------------------------------------------------------


def spoken_words(transcript: str) -> list[str]:
    """The words of a transcript in lower case, each digit by its name, without tags in brackets."""
    found: list[str] = _WORD.findall(_TAG.sub(" ", transcript.lower()))
    return [_DIGITS[int(word)] if word.isdecimal() else word for word in found]


def word_error(said: Sequence[str], wanted: Sequence[str]) -> float:
    """Words that must be put in, left out or exchanged, over those that are wanted.

    Raises:
        ValueError: none is wanted.
    """
    if not wanted:
        raise ValueError("a word error needs words that are wanted; got none.")
    best = list(range(len(wanted) + 1))
    for number, word in enumerate(said, 1):
        before, best[0] = best[0], number
        for place, other in enumerate(wanted, 1):
            exchanged = before + (word != other)
            before, best[place] = best[place], min(exchanged, best[place] + 1, best[place - 1] + 1)
    return best[-1] / len(wanted)


# -- what is written ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transcript:
    """What is written, and the mean log-probability of its tokens, the end's included, in nats."""

    text: str
    logprob: float


@torch.no_grad()
def transcripts(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    cells: Sequence[Sequence[Intervention]],
    settings: Settings,
    max_new_tokens: int,
) -> list[Transcript]:
    """What is written to one prompt under each cell's interventions, all cells together.

    Log-probabilities are over the tokens that the settings allow, as openai-whisper's.
    """
    given = with_encoded(model, inputs)
    placed = [(bind(model, given, each), copy) for copy, cell in enumerate(cells) for each in cell]
    chosen = _generation(model, settings, max_new_tokens)
    chosen.return_dict_in_generate = chosen.output_scores = True
    with in_force(model, given, placed, len(cells)):
        out = model.model.generate(**copies_of(given, len(cells)), generation_config=chosen)
    new = out.sequences[:, given["input_ids"].shape[1] :]
    logprobs = torch.stack(out.scores, 1).float().log_softmax(-1).gather(-1, new[..., None])[..., 0]
    ends = torch.isin(new, torch.tensor(end_tokens(model.model, model.processor)).to(new))
    written = ends.cumsum(1) - ends.long() == 0  # up to the first end
    texts = model.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    means = (logprobs * written).nan_to_num().sum(1) / written.sum(1)
    return [Transcript(t.strip(), float(m)) for t, m in zip(texts, means, strict=True)]


@torch.no_grad()
def no_speech_probability(model: HookedAudioModel, inputs: Mapping[str, Any]) -> float:
    """Probability of the no-speech token where the transcript starts; NaN where there is none."""
    known: dict[str, int] = model.processor.tokenizer.get_vocab()
    token = next((known[name] for name in _NO_SPEECH_TOKENS if name in known), None)
    if token is None or _START not in known:
        return float("nan")
    column = int((inputs["input_ids"][0] == known[_START]).nonzero()[0])
    kept = int(inputs["input_ids"].shape[1]) - column
    logits = model(inputs, logits_to_keep=kept)[0, -kept].float()
    return float(logits.softmax(-1)[token])


def dropped(no_speech: float, logprob: float) -> bool:
    """Whether openai-whisper's rule drops what was written."""
    return no_speech > NO_SPEECH and logprob < LOGPROB


def _generation(
    model: HookedAudioModel, settings: Settings, max_new_tokens: int
) -> GenerationConfig:
    own = settings != "greedy"
    chosen = generation_settings(model.model, model.processor, max_new_tokens, own_settings=own)
    if settings == "may stop":
        chosen.begin_suppress_tokens = None
    return chosen


# -- the first token ------------------------------------------------------------------------------


def first_token(
    model: HookedAudioModel, inputs: Mapping[str, Any], cells: Sequence[Sequence[Intervention]]
) -> pd.DataFrame:
    """What becomes of the first token under each cell, where it may be the end ("may stop").

    Returns:
        One row a cell: `token`, the likeliest; `stops`, whether it ends the transcript; `same`,
        whether it is that of the run without interventions; `first`, the log-probability of that
        run's token, and `end`, of the end, in nats over the tokens that are allowed.
    """
    logits = run_cells(model, inputs, [[], *cells])
    forbidden = _generation(model, "may stop", 1).suppress_tokens
    if forbidden:
        logits[:, forbidden] = -torch.inf
    logprobs = logits.log_softmax(-1)
    ends = end_tokens(model.model, model.processor)
    best = logits.argmax(-1)
    table = pd.DataFrame(
        {
            "token": model.processor.tokenizer.batch_decode(best[:, None]),
            "stops": torch.isin(best, torch.tensor(ends)).numpy(),
            "same": (best == best[0]).numpy(),
            "first": logprobs[:, best[0]].numpy(),
            "end": logprobs[:, ends].logsumexp(-1).numpy(),
        }
    )
    return table.iloc[1:].reset_index(drop=True)


def cuts_of_sound(
    model: HookedAudioModel,
) -> tuple[list[dict[str, Any]], list[list[Intervention]]]:
    """Text is cut off from all sound: everywhere, in each layer, in all others, in each head.

    Returns:
        Labels `cut, layer, head` (-1: none) of each cell, and the cells, of which the first cuts
        nothing.
    """
    route = model.current_route
    layers = sorted({layer for each in route.streams for layer in route.layers(each.name)})
    everything = [Sound()] if model.model.filler_id is None else [Sound(), Filler()]

    def cell(where: Sequence[int], heads: tuple[int, ...] | None = None) -> list[Intervention]:
        return [Knockout(Address("pattern", each, tuple(where), heads)) for each in everything]

    made: list[tuple[dict[str, Any], list[Intervention]]] = [
        ({"cut": "nothing", "layer": -1, "head": -1}, []),
        ({"cut": "everywhere", "layer": -1, "head": -1}, cell(layers)),
    ]
    for layer in layers:
        made.append(({"cut": "layer", "layer": layer, "head": -1}, cell([layer])))
        others = [each for each in layers if each != layer]
        if others:
            made.append(({"cut": "others", "layer": layer, "head": -1}, cell(others)))
        made += [
            ({"cut": "head", "layer": layer, "head": head}, cell([layer], (head,)))
            for head in range(model.cfg.n_heads)
        ]
    return [label for label, _ in made], [cells for _, cells in made]


# -- steering -------------------------------------------------------------------------------------


def along(direction: Float[Tensor, " width"], layer: int, dose: float) -> list[Intervention]:
    """`dose` times the direction is added behind a layer, at the token that predicts the first."""
    where = Address("resid_post", Text(-1), layers=(layer,))
    return [Patch(where, Add(direction, dose))] if dose else []


def without_head(model: HookedAudioModel, layer: int, head: int, dose: float) -> list[Intervention]:
    """A head that reads sound writes `1 - dose` of its output there: at a dose of 1 nothing."""
    site = "cross_head_output" if model.current_route.crosses(layer) else "head_output"
    where = Address(site, Text(-1), layers=(layer,), heads=(head,))
    return [Patch(where, Scale(1 - dose))] if dose else []
