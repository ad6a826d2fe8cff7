"""Placements of audio side by side: accuracy by domain against time and memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from palscope._models.scoring import prompt_batch
from palscope._routing.depths import Placement
from palscope._routing.notation import route_to_text
from palscope._sweeps.store import Run
from palscope.audio import Waveform
from palscope.audio._compose import SAMPLE_RATE
from palscope.datasets._manifest import Clip, DecodedOnDemand
from palscope.evaluation._accuracy import accuracy, ranked_answers
from palscope.evaluation._items import Item, candidates, manifest_items, take_evenly
from palscope.evaluation._ranking import Asked, ModelAnswerer
from palscope.measures._cost import prefill, prefill_costs

TIMED_QUESTION = "What sound is this?"


@dataclass(frozen=True)
class Questions:
    """What every placement is asked. `digest` is of the questions and their samples."""

    items: tuple[Item, ...]
    asked: tuple[Asked, ...]
    digest: str

    @classmethod
    def about(cls, clips: Sequence[Clip], limit: int | None = None) -> Questions:
        """One question a clip, in a wording of the demo's training.

        Args:
            clips: a manifest's rows; each domain's labels are the choices.
            limit: so many clips of each domain, spread over labels.

        Raises:
            AudioError: a clip cannot be read.
        """
        domains = dict.fromkeys(clip.domain for clip in clips)
        chosen = [
            clip
            for domain in domains
            for clip in take_evenly(
                [each for each in clips if each.domain == domain], limit or len(clips)
            )
        ]
        items = manifest_items(chosen, DecodedOnDemand(), candidates(clips))
        asked = tuple(item.asked() for item in items)
        digest = hashlib.sha256()
        for item, each in zip(items, asked, strict=True):
            digest.update(repr((item.key, item.answer, each.question, each.choices)).encode())
            for waveform in each.waveforms:
                digest.update(waveform.tobytes())
        return cls(tuple(items), asked, digest.hexdigest())


def measure_placements(
    results: Run,
    placements: Sequence[Placement],
    answerer_for: Callable[[Placement], ModelAnswerer],
    questions: Questions,
    *,
    baseline: str,
    seconds: float = 10.0,
    repeats: int = 5,
) -> pd.DataFrame:
    """Score and time every placement in the run `results`, which keeps what is measured.

    Tables in the run's folder: `answers` (`ranked_answers`, by placement), `costs`
    (`prefill_costs` of noise of that length) and `accuracy`, which is returned.

    Args:
        results: the run.
        placements: equal names are measured once.
        answerer_for: the model of a placement; its route is set here.
        questions: what to ask.
        baseline: name of the placement that costs are relative to.
        seconds: of sound in the timed prompt.
        repeats: of the timing.

    Returns:
        One row a (family, placement, domain): both, `layers`, `first_layer`, `route` (in one
        word), the columns of `palscope.evaluation._accuracy.accuracy` and those of `prefill_costs`.
    """

    def answers_of(placement: Placement) -> pd.DataFrame:
        answerer = answerer_for(placement)
        with answerer.model.routed(placement.route):
            return ranked_answers(answerer, questions.items, questions.asked)

    def costs_of(every: Sequence[Placement]) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        noise = (0.1 * rng.normal(size=round(seconds * SAMPLE_RATE))).astype(np.float32)
        calls: dict[str, Any] = {}
        for placement in every:
            answerer = answerer_for(placement)
            model, processor = answerer.model, answerer.processor
            question = ([Waveform(noise, SAMPLE_RATE, "noise")], TIMED_QUESTION)
            inputs = prompt_batch(processor, [question], model.device)
            calls[placement.name] = prefill(model, inputs, placement.route)
        return prefill_costs(calls, baseline, repeats=repeats)

    answers = results.over(
        placements,
        answers_of,
        table="answers",
        key=lambda placement: placement.name,
        item="placement",
        keys=["item"],
        content=lambda placement: f"{route_to_text(placement.route)} {questions.digest}",
    )
    different = list({placement.name: placement for placement in placements}.values())
    routes = " ".join(f"{each.name} {route_to_text(each.route)}" for each in different)
    costs = results.over(
        [different],
        costs_of,
        table="costs",
        key=lambda _: "side by side",
        item="timing",
        keys=["placement"],
        content=lambda _: routes,
    )
    families = " ".join(f"{each.family} {each.name}" for each in placements)
    stored = results.over(
        [placements],
        lambda every: _joined(every, answers.read(), costs.read()),
        table="accuracy",
        key=lambda _: "all",
        item="over",
        keys=["family", "placement", "domain"],
        content=lambda _: f"{families} {[path.name for path in answers.shards.values()]}",
    )
    return stored.read()


def _joined(
    placements: Sequence[Placement], answers: pd.DataFrame, costs: pd.DataFrame
) -> pd.DataFrame:
    named = pd.DataFrame(
        {
            "family": [each.family for each in placements],
            "placement": [each.name for each in placements],
            "layers": [each.layers for each in placements],
            "first_layer": [each.first_layer for each in placements],
            "route": [route_to_text(each.route) for each in placements],
        }
    )
    scores = cast(Any, named).merge(accuracy(answers, ["placement"]), on="placement")
    return scores.merge(costs.drop(columns="timing"), on="placement")
