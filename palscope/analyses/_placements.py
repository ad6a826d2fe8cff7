"""What `injection_depth.py` and `audio_queries.py` share: one checkpoint on several routes.

Each clip's candidates are ranked on every route; prefills of all routes are timed side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from palscope._hooks.attention import CROSSING
from palscope._routing import Route, route_from_text, route_to_text
from palscope._routing.depths import NO_AUDIO, Placement
from palscope.analyses._analysis import (
    TOGETHER,
    Analysis,
    Results,
    Table,
    Work,
    caption_of_models,
    each,
)
from palscope.analyses._items import AskedClip, SharedPasses, asked_together, chosen_clips
from palscope.analyses._options import option
from palscope.analyses._passes import passes_of_choices
from palscope.analyses._roles import with_roles
from palscope.errors import PalscopeError, RouteError
from palscope.evaluation._accuracy import accuracy
from palscope.evaluation._ranking import open_answerer
from palscope.measures._choices import best_choices, placed_choices
from palscope.measures._cost import prefill, prefill_costs, timed_prompt
from palscope.plots import _choices as choices
from palscope.plots import _depth as depth
from palscope.plots._figure import Figure

Find = Callable[[Route], list[Placement]]
"""The placements to compare, made of a checkpoint's own route."""

PLACE = ("family", "placement")
ABOUT = [*PLACE, "layers", "first_layer", "route"]
"""What is said of a placement in every table."""


@dataclass(frozen=True, kw_only=True)
class PlacementOptions(SharedPasses):
    """Which clips are asked about, and how routes are timed."""

    seconds: float = option(10.0, "of noise in the timed prompt", unit="s", least=0.1, page=False)
    repeats: int = option(5, "of the timing", least=1, page=False)


PlacementWork = Work[PlacementOptions]
PlacementResults = Results[PlacementOptions, AskedClip]


def placement_analysis(
    find: Find,
    panels: Callable[[Any], pd.DataFrame],
    compared: Callable[[Sequence[PlacementResults]], dict[str, Figure]],
    *,
    name: str,
    title: str,
    about: str,
) -> Analysis[PlacementOptions, AskedClip]:
    """The analysis of a checkpoint on other routes than its own.

    Args:
        find: makes the routes.
        panels: adds the columns `panel, x, axis` of `choices_against` to what a clip's candidates
            get; of one clip, or both of a pair, these are drawn.
        compared: draws models beside each other, one as well.
        name: of `Analysis`, as title and about.
        title: on the page.
        about: for the page.
    """

    def drawn(results: PlacementResults) -> dict[str, Figure]:
        if len(results.items) > 2:
            return compared([results])
        table = panels(with_roles(results, "choices"))
        return {"answers": choices.choices_against(table, caption=results.caption())}

    return Analysis(
        name=name,
        title=title,
        about=about,
        passes=partial(_passes, find),
        options=PlacementOptions,
        items=partial(chosen_clips, corrupt=True),
        tables=[
            Table("choices", partial(_ranked, find), (*PLACE, "choice"), shares_passes=True),
            Table("answers", each(_best), PLACE),
        ],
        once=Table("costs", partial(_timed, find), ("placement",)),
        summaries=scores,
        figures=drawn,
        notes=partial(_left_out, find),
        takes="both",
        reroutes=True,
        compare=compared,
    )


def _served(find: Find, work: PlacementWork) -> list[Placement]:
    """The placements that the checkpoint has weights for; one may stand in several families."""
    served: list[Placement] = []
    why = ""
    for placement in find(work.route):
        try:
            work.model.model.check_route(placement.route)
            served.append(placement)
        except RouteError as error:
            why = why or str(error)
    if all(placement.name == NO_AUDIO for placement in served):
        if work.model.audio_attention == CROSSING:
            raise PalscopeError(
                f"{work.options.model} is an encoder–decoder, whose sound never stands among the "
                "words: there are no audio queries to take away. Choose PLITS or PAL."
            )
        raise PalscopeError(
            f"{work.options.model} has no weights for any of these routes ({why}); LAL, for one, "
            "has no input projector, so no sound that it could carry upwards: choose PLITS or PAL."
        )
    return served


def _ranked(find: Find, work: PlacementWork, clips: Sequence[AskedClip]) -> Iterator[pd.DataFrame]:
    for clip in clips:
        clip.require_choices()
    placements = _served(find, work)
    inputs = asked_together(work.model, clips)
    choices = [clip.choices for clip in clips]
    routes = {placement.name: route_to_text(placement.route) for placement in placements}
    tables: list[Any] = placed_choices(work.model, inputs, choices, placements)
    for table in tables:
        table.insert(4, "route", table["placement"].map(routes))
        yield table.assign(own=table["route"] == route_to_text(work.route))


def _passes(find: Find, work: PlacementWork, clip: AskedClip) -> float:
    """The prompt, and the candidates behind it, on each route."""
    return len({each.name for each in _served(find, work)}) * passes_of_choices(len(clip.choices))


def _best(work: PlacementWork, clip: AskedClip) -> pd.DataFrame:
    assert clip.answer is not None
    table = best_choices(work.rows("choices", clip.name), clip.answer, ABOUT)
    return table.assign(domain=clip.group, question=clip.question, answer=clip.answer)


def _timed(find: Find, work: PlacementWork, clips: Sequence[AskedClip]) -> Iterator[pd.DataFrame]:
    """Timed as users run it: without hooks, on weights that are loaded once more."""
    options = work.options
    routes = {placement.name: placement.route for placement in _served(find, work)}
    own = next((name for name, route in routes.items() if route == work.route), "own route")
    routes.setdefault(own, work.route)
    answerer = open_answerer(work.model.checkpoint or options.model, work.model.model.device)
    model, processor = answerer.model, answerer.processor
    inputs = timed_prompt(processor, options.seconds, model.device)
    calls = {name: prefill(model, inputs, route) for name, route in routes.items()}
    yield prefill_costs(calls, own, repeats=options.repeats)


# -- what the tables say ---------------------------------------------------------------------------


def scores(results: PlacementResults) -> dict[str, pd.DataFrame]:
    """Accuracy of every placement by domain, and what it costs where that was timed."""
    table: Any = accuracy(results.rows("answers"), ABOUT)
    if "costs" in results.stored:
        costs: Any = results.of_item("costs", TOGETHER)
        table = table.merge(costs.drop(columns="run"), on="placement")
    return {"accuracy": table}


def of_models(every: Sequence[PlacementResults]) -> pd.DataFrame:
    """Every model's scores."""
    parts = [results.derived(scores)["accuracy"].assign(model=results.model) for results in every]
    return pd.concat(parts, ignore_index=True)


def accuracy_figures(
    table: pd.DataFrame, against: Mapping[str, depth.Against], every: Sequence[PlacementResults]
) -> dict[str, Figure]:
    """A figure for each x of which there are rows, by its name."""
    caption = caption_of_models(every)
    return {
        f"accuracy_by_{name}": depth.accuracy_against(table, x, caption=caption)
        for name, x in against.items()
        if x in table and len(table)
    }


def _left_out(find: Find, results: PlacementResults) -> list[str]:
    """How many routes the checkpoint has no weights for."""
    table: Any = results.of_item("choices", results.items[0].name)
    own = table.loc[table["own"], "route"].unique()
    if not len(own):
        return []
    asked = find(route_from_text(own[0]))
    left = len(asked) - len(table[list(PLACE)].drop_duplicates())
    return [f"{left} route(s) left out: {results.model} has no weights for them."] if left else []
