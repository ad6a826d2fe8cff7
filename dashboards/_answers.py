"""What a model answers about a sound, and what each token of the answer attended to.

Results are remembered for all visitors by checkpoint, sound, question and route. A block of
the model is open for one answer or one pass at a time, so nobody waits for another's whole sweep.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
import torch
from _given import check_candidates, check_question
from _models import OpenModel
from _sounds import ChosenSound
from jaxtyping import Float
from transformers.generation.streamers import BaseStreamer

from palscope._models import AudioClips
from palscope._models.cache_names import cache_of
from palscope._models.scoring import batched_choice_logprobs, continued, end_tokens
from palscope._routing import Route, route_to_text
from palscope.interventions import intervene
from palscope.interventions._apply import Intervention
from palscope.measures import attention_mass, by_pathway
from palscope.plots import Caption

ANSWER_TOKENS = 16
"""Longest answer in tokens: the demo's lists of digits and sounds take about ten."""
LIKELIEST = 5
"""Tokens shown at each step of an answer."""


@dataclass(frozen=True)
class Ask:
    """One model, one sound, one question, one route: what all results follow from.

    A model that transcribes is asked none, whatever is given.
    """

    opened: OpenModel
    sound: ChosenSound
    question: str
    route: Route

    def __post_init__(self) -> None:
        """Raises `PalscopeError` where the question is too long."""
        check_question(self.question)
        if not self.opened.model.processor.takes_questions:
            object.__setattr__(self, "question", "")

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Stands for it wherever results are remembered."""
        return self.opened.version, self.sound.digest, self.question, route_to_text(self.route)

    @property
    def caption(self) -> Caption:
        """What every figure says of it."""
        changed = "" if self.route == self.opened.route else f" {route_to_text(self.route)}"
        asked = f"“{self.question}”" if self.question else "its transcript"
        return Caption(self.opened.name + changed, asked, 1)


@dataclass(frozen=True)
class GeneratedAnswer:
    """An answer.

    `tokens`: ids of the answer, the end of turn included. `first`: probability of each token of
    the vocabulary to be the answer's first. `steps`: the likeliest tokens of each step, columns
    `step, rank, token, probability, chosen`. `prefill_s`, `token_s`: seconds until the first token
    and for each further one, on this machine, once. `cache_bytes`: of keys and values.
    """

    text: str
    tokens: tuple[int, ...]
    first: Float[np.ndarray, " vocabulary"]
    steps: pd.DataFrame
    prefill_s: float
    token_s: float
    cache_bytes: int


MOST_RESULTS = 128
"""Results that are remembered of one `Ask`: those that were asked for last."""


class Remembered:
    """Results of one `Ask`, by key. Not in Streamlit's own cache, whose functions draw nothing."""

    def __init__(self) -> None:
        self._results: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()  # visitors share it

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        made = make()
        with self._lock:
            self._results[key] = made
            while len(self._results) > MOST_RESULTS:
                self._results.popitem(last=False)
        return made

    def kept(self, key: Any) -> Any:
        """What was made of it before; None where nothing was."""
        with self._lock:
            return self._results.get(key)


@st.cache_resource(max_entries=64, show_spinner=False)
def _remembered(*key: str) -> Remembered:
    return Remembered()


def once(ask: Ask, key: Any, make: Callable[[], Any]) -> Any:
    """A result of an `Ask`, made once for all visitors; `key` tells it from its others."""
    return _remembered(*ask.key).once(key, make)


def kept(ask: Ask, key: Any) -> Any:
    """A result that `once` has made already; None where it has not."""
    return _remembered(*ask.key).kept(key)


@dataclass(frozen=True)
class Attended:
    """Where a token's attention goes: `keys` from `attention_mass`, `pathways` its sums."""

    keys: pd.DataFrame
    pathways: pd.DataFrame


@st.cache_resource(max_entries=96, show_spinner=False)
def _attended(offset: int, *key: str) -> list[Attended]:
    """A place for the attention of one token; it is large (9 MB for 30 s), so only so many stay."""
    return []


def generated_answer(ask: Ask, show: Callable[[str], Any] = lambda text: None) -> GeneratedAnswer:
    """The greedy answer; `show` is called with its text as it grows."""

    def make() -> GeneratedAnswer:
        inputs = encoded_inputs(ask)
        # Nothing kept, so that no route profits from another's work; others may be using these.
        inputs["audio"] = replace(inputs["audio"], keys_values={})
        return generate(ask, inputs, show)

    return once(ask, "answer", make)


def attended(ask: Ask, offset: int) -> Attended:
    """Attention of one token after the sound, the answer standing behind.

    Args:
        offset: 0 is the prompt's last token, which predicts the first of the answer; 1 is the
            answer's first; -1 the prompt's last but one.
    """
    place = _attended(offset, *ask.key)
    if not place:
        inputs, prompt = with_answer(ask)
        with ask.opened.model.route(ask.route):
            keys = attention_mass(ask.opened.model, inputs, queries=[prompt - 1 + offset])
        place.append(Attended(keys, by_pathway(keys)))
    return place[0]


def known(ask: Ask, offset: int) -> bool:
    """Whether `attended` is remembered."""
    return bool(_attended(offset, *ask.key))


def queries(ask: Ask) -> dict[int, str]:
    """The tokens after the sound that can be asked what they attended to: offset to text."""
    return once(ask, "queries", lambda: _queries(ask))


def _queries(ask: Ask) -> dict[int, str]:
    inputs, prompt = with_answer(ask)
    ids = inputs["input_ids"][0].tolist()
    first = len(ids) - ids[::-1].index(ask.opened.model.processor.audio_token_id)
    tokenizer: Any = ask.opened.model.tokenizer
    filler = ask.opened.model.model.filler_id  # hundreds of one word, which is nobody's
    asked = [at for at in range(first, len(ids)) if ids[at] != filler]
    return {at - prompt + 1: visible(tokenizer.decode([ids[at]])) for at in asked}


def ranked(ask: Ask, choices: tuple[str, ...]) -> pd.DataFrame:
    """Candidate answers and the probability of each among them: `answer, logprob, share`.

    Raises `PalscopeError` where they are too many, or too long.
    """
    check_candidates(choices)
    return once(ask, ("ranked", choices), lambda: _ranked(ask, choices))


def _ranked(ask: Ask, choices: tuple[str, ...]) -> pd.DataFrame:
    model = ask.opened.model
    with model.route(ask.route):
        (logprobs,) = batched_choice_logprobs(
            model.model,
            model.processor,
            [([ask.sound.waveform.samples], ask.question, choices)],
        )
    share = np.exp(logprobs - np.logaddexp.reduce(logprobs))
    table = pd.DataFrame({"answer": choices, "logprob": logprobs, "share": share})
    return table.sort_values("logprob", ascending=False, ignore_index=True)


def token_grid(ask: Ask) -> pd.DataFrame:
    """The tokens of each stream over the sound: `stream, start_s, end_s`."""
    return once(ask, "grid", lambda: _token_grid(ask))


def _token_grid(ask: Ask) -> pd.DataFrame:
    model = ask.opened.model
    table: Any = model.layout(model.inputs(ask.question, ask.sound.waveform)).table(0)
    return table.loc[table["clip"] >= 0, ["stream", "start_s", "end_s"]]


def visible(token: str) -> str:
    """A token's text with spaces and line ends made visible."""
    return token.replace(" ", "␣").replace("\n", "⏎")


@st.cache_resource(max_entries=8, show_spinner=False)
def _encoded(_opened: OpenModel, version: str, digest: str, _sound: ChosenSound) -> AudioClips:
    """The clip as the decoder reads it, and the keys and values made of it so far."""
    model = _opened.model
    return model.encode_audio(model.inputs(model.processor.any_question, _sound.waveform))


def encoded_inputs(ask: Ask) -> dict[str, Any]:
    """The prompt's tensors, its clip encoded."""
    audio = _encoded(ask.opened, ask.opened.version, ask.sound.digest, ask.sound)
    return {**once(ask, "prompt", lambda: _prompt(ask)), "audio": audio}


def _prompt(ask: Ask) -> dict[str, Any]:
    """The prompt's ids: as many places as the clip has tokens, so its features are made for it."""
    inputs = ask.opened.model.inputs(ask.question, ask.sound.waveform)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def with_answer(ask: Ask) -> tuple[dict[str, Any], int]:
    """The prompt and the answer behind it, and how many columns the prompt has."""
    answer = generated_answer(ask)
    inputs = encoded_inputs(ask)
    return continued(inputs, answer.tokens), inputs["input_ids"].shape[1]


class _Watch(BaseStreamer):
    """Hands over the text as it grows, and notes when its tokens came."""

    def __init__(self, tokenizer: Any, show: Callable[[str], Any]) -> None:
        self.tokenizer, self.show = tokenizer, show
        self.tokens: list[int] = []
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) > 1:  # the prompt comes first
            self.tokens += value.tolist()
            self.show(self.tokenizer.decode(self.tokens, skip_special_tokens=True).strip())

    def end(self) -> None:
        pass


def generate(
    ask: Ask,
    inputs: dict[str, Any],
    show: Callable[[str], Any] = lambda text: None,
    interventions: Sequence[Intervention] = (),
) -> GeneratedAnswer:
    """The greedy answer to inputs, under interventions."""
    model = ask.opened.model
    watch = _Watch(model.tokenizer, show)
    with torch.no_grad(), model.route(ask.route), ExitStack() as stack:
        if interventions:
            stack.enter_context(intervene(model, inputs, interventions))
        out: Any = model.model.generate(
            **inputs,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            pad_token_id=model.tokenizer.pad_token_id,
            eos_token_id=end_tokens(model.model, model.processor),
            return_dict_in_generate=True,
            output_logits=True,
            streamer=watch,
        )
    waits = np.diff(watch.times)
    probabilities = [step[0].float().softmax(-1).cpu().numpy() for step in out.logits]
    return GeneratedAnswer(
        text=model.tokenizer.decode(watch.tokens, skip_special_tokens=True).strip(),
        tokens=tuple(watch.tokens),
        first=probabilities[0],
        steps=_steps(probabilities, watch.tokens, model.tokenizer),
        prefill_s=float(waits[0]),
        token_s=float(np.mean(waits[1:])) if len(waits) > 1 else float("nan"),
        cache_bytes=cache_of(out).nbytes,
    )


def _steps(probabilities: list[Any], chosen: list[int], tokenizer: Any) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for step, (each, taken) in enumerate(zip(probabilities, chosen, strict=True)):
        for rank, token in enumerate(np.argsort(each)[::-1][:LIKELIEST].tolist()):
            rows.append(
                {
                    "step": step,
                    "rank": rank,
                    "token": visible(tokenizer.decode([token])),
                    "probability": float(each[token]),
                    "chosen": token == taken,
                }
            )
    return pd.DataFrame(rows)
