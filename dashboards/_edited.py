"""What edits do to an answer, and which heads and layers it reads the sound through.

Everything is remembered with the answer (`_answers`): a click that was made before costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from _answers import Ask, encoded_inputs, generate, generated_answer, kept, once, ranked
from _edits import AnyEdit, Edit
from _edits_code import code
from _under_edits import inputs_under, made_of, route_under, versions

from palscope.audio._timegrid import overlaps
from palscope.interventions import Sound, Text, run_cells
from palscope.measures import (
    Answers,
    attention_knockout,
    choice_logprobs,
    head_effects,
    shortest_window,
)
from palscope.measures._grids import steps
from palscope.measures._knockout import Edges
from palscope.measures._metrics import answer_metrics
from palscope.measures._stretches import stretches_beside

CHECKED = 12
"""Heads that are cut for real, beside the estimate for all."""
MOST_STRETCHES, SHORTEST_S = 24, 0.1
"""Stretches of a clip that are cut one by one, and how short they may be."""


@dataclass(frozen=True)
class Edited:
    """An answer under edits.

    Attributes:
        text: the answer.
        before, after: log-probability (nats) of the answer that was given without edits, as a
            whole, its end included.
        probability: of the new answer's first token.
    """

    text: str
    before: float
    after: float
    probability: float

    @property
    def change(self) -> float:
        """Nats."""
        return self.after - self.before


def edited(ask: Ask, edits: tuple[AnyEdit, ...]) -> Edited:
    """The answer under all of `edits` together.

    Raises:
        PalscopeError: an edit does nothing here, or cannot be made.
    """
    return once(ask, ("edited", edits, versions(edits)), lambda: _edited(ask, edits))


def _edited(ask: Ask, edits: tuple[AnyEdit, ...]) -> Edited:
    model = ask.opened.model
    answer = generated_answer(ask)
    before = once(ask, "before", lambda: _logprob(ask, answer.text))
    inputs = inputs_under(ask, edits)
    with route_under(ask, edits):
        made = made_of(ask, edits, inputs)
        (after,) = choice_logprobs(model, inputs, [answer.text], made)
        new = generate(ask, inputs, interventions=made)
    return Edited(new.text, before, float(after), float(new.first[new.tokens[0]]))


def _logprob(ask: Ask, answer: str) -> float:
    """Of a whole answer, without edits."""
    model, inputs = ask.opened.model, encoded_inputs(ask)
    with model.route(ask.route):
        return float(choice_logprobs(model, inputs, [answer])[0])


def code_of(ask: Ask, edits: tuple[AnyEdit, ...]) -> str:
    """`code`, of which a cut needs the prompt's layout: made once."""

    def make() -> str:
        with ask.opened.model.route(ask.route):
            made = [made_of(ask, [each], encoded_inputs(ask)) for each in edits]
        return code(edits, made, ask.opened.name, ask.question)

    return once(ask, ("code", edits), make)


def controls(ask: Ask, edits: tuple[AnyEdit, ...], number: int, rival: str) -> pd.DataFrame:
    """The same cut of every other stretch of that length, all other edits in force.

    Args:
        number: which of the edits; a `cut`.
        rival: the answer that the given one is ahead of.

    Returns:
        `start_s, end_s, sounds, change, lead`: `lead` of the answer over its rival under the cut,
        and by how much it moved it (nats), at the token in which the two part; the first row is
        the cut itself.
    """
    key = ("controls", edits, versions(edits), number, rival)
    table: pd.DataFrame = once(ask, key, lambda: _controls(ask, edits, number, rival)).copy()
    # Not remembered: the visitor's labels may change.
    stretches = zip(table["start_s"], table["end_s"], strict=True)
    table.insert(2, "sounds", [sounding(ask, start, end) for start, end in stretches])
    return table


def _controls(ask: Ask, edits: tuple[AnyEdit, ...], number: int, rival: str) -> pd.DataFrame:
    model, mine = ask.opened.model, edits[number]
    assert isinstance(mine, Edit)
    others = (*edits[:number], *edits[number + 1 :])
    answers = answers_of(ask, rival)
    inputs = answers.behind(inputs_under(ask, edits))
    with route_under(ask, edits):
        cuts, whole = made_of(ask, [mine], inputs), ask.sound.waveform.seconds
        others_of_it = stretches_beside(model, inputs, cuts, mine.start, mine.end, whole)
        stretches = [(mine.start, mine.end), *others_of_it]
        cells = [made_of(ask, others, inputs)] + [
            made_of(ask, (*others, replace(mine, start=start, end=end)), inputs)
            for start, end in stretches
        ]
        logits = run_cells(model, inputs, cells)
    lead = answer_metrics(logits, answers, logits[0])[answers.metric].to_numpy()
    return pd.DataFrame(
        {
            "start_s": [start for start, _ in stretches],
            "end_s": [end for _, end in stretches],
            "change": lead[1:] - lead[0],
            "lead": lead[1:],
        }
    )


def sounding(ask: Ask, start: float, end: float) -> str:
    """What is known to sound in a stretch."""
    spans = ask.sound.spans
    if not spans:
        return ""
    starts, ends = (np.array([getattr(s, edge) for s in spans]) for edge in ("start", "end"))
    inside = overlaps(starts, ends, start, end)
    return ", ".join(s.label for s, there in zip(spans, inside, strict=True) if there) or "silence"


# -- where it is read -----------------------------------------------------------------------------


def rival_of(ask: Ask, choices: Sequence[str]) -> str:
    """The likeliest answer beside the one given: of the candidates, else of the vocabulary.

    A token with which the one given could begin, as "Sev" or "seven" of "Seven", is no other.
    """
    answer = generated_answer(ask)
    given = answer.text.strip().lower()
    others = [each for each in choices if each.strip().lower() != given]
    if others:
        table = ranked(ask, tuple(choices))
        order: list[str] = table["answer"].tolist()
        return next(each for each in order if each in others)
    tokenizer: Any = ask.opened.model.tokenizer
    for token in np.argsort(answer.first)[::-1].tolist():
        text = tokenizer.decode([token], skip_special_tokens=True).strip()
        if text and token != answer.tokens[0] and not given.startswith(text.lower()):
            return text
    return ""


def answers_of(ask: Ask, rival: str) -> Answers:
    """The token in which the answer and its rival part."""
    processor = ask.opened.model.processor
    return Answers.of(processor, generated_answer(ask).text, rival or None)


def effects_of_heads(ask: Ask, rival: str, sounds: tuple[Sound, ...]) -> pd.DataFrame:
    """`head_effects` of text reading `sounds`, on the answer's lead over its rival."""
    return once(ask, ("heads", rival, sounds), lambda: _effects_of_heads(ask, rival, sounds))


def _effects_of_heads(ask: Ask, rival: str, sounds: tuple[Sound, ...]) -> pd.DataFrame:
    model, inputs, answers = ask.opened.model, encoded_inputs(ask), answers_of(ask, rival)
    asked: dict[str, Any] = {"answers": answers, "sounds": sounds, "checked": CHECKED}
    with model.route(ask.route):
        return head_effects(model, inputs, **asked)


def effect_of_all(ask: Ask, rival: str, sounds: tuple[Sound, ...]) -> float:
    """What cutting text off from `sounds` in all layers and heads does to that lead, in nats."""
    edges = [Edges(tuple((Text(), sound) for sound in sounds))]
    table = once(ask, ("all", rival, sounds), lambda: _cut_everywhere(ask, rival, edges))
    return float(table["change"].iloc[0])


def fewest_layers(ask: Ask, rival: str, sounds: tuple[Sound, ...]) -> pd.DataFrame:
    """`shortest_window` of text reading `sounds`."""
    return once(ask, ("window", rival, sounds), lambda: _fewest_layers(ask, rival, sounds))


def _fewest_layers(ask: Ask, rival: str, sounds: tuple[Sound, ...]) -> pd.DataFrame:
    model, inputs, answers = ask.opened.model, encoded_inputs(ask), answers_of(ask, rival)
    with model.route(ask.route):
        return shortest_window(model, inputs, answers=answers, sounds=sounds)


def effects_of_seconds(ask: Ask, rival: str) -> pd.DataFrame:
    """What cutting each stretch of the clip does: `start_s, end_s, change` in nats of the lead."""
    return once(ask, ("seconds", rival), lambda: _effects_of_seconds(ask, rival))


def measured_seconds(ask: Ask, rival: str) -> pd.DataFrame | None:
    """`effects_of_seconds` where they are measured already."""
    return kept(ask, ("seconds", rival))


def _effects_of_seconds(ask: Ask, rival: str) -> pd.DataFrame:
    seconds = ask.sound.waveform.seconds
    stretches = steps(seconds, max(SHORTEST_S, seconds / MOST_STRETCHES)).values()
    edges = [
        Edges(((Text(), sound),), {"start_s": sound.start, "end_s": sound.end})
        for sound in stretches
    ]
    return _cut_everywhere(ask, rival, edges)[["start_s", "end_s", "change"]]


def _cut_everywhere(ask: Ask, rival: str, edges: Sequence[Edges]) -> Any:
    """`attention_knockout` in all layers: a row each of `edges`, `change` of the lead in nats."""
    model, inputs, answers = ask.opened.model, encoded_inputs(ask), answers_of(ask, rival)
    with model.route(ask.route):
        every = [range(ask.route.n_layers)]
        table: Any = attention_knockout(model, inputs, edges, every, answers=answers)
    cut = table[table["run"] == "cut"].rename(columns={f"{answers.metric}_change": "change"})
    return cut.reset_index(drop=True)
