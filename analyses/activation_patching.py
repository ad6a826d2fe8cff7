"""Activation patching: which seconds, sites, layers, streams and heads move the answer?

    python analyses/activation_patching.py --model demo/pal --out runs/patching
    python analyses/activation_patching.py --model demo/pal --audio MANIFEST.csv \
        --split validation --kind first_digit last_digit --n 50 --grid layers --out runs/layers

A pair is a clean and a corrupt clip that differ in one thing, such as the first of two digits.
Denoising patches what the clean run computes at a place into the corrupt run, and asks what
suffices to bring the clean answer back; noising is the reverse, and asks what is needed. The effect
is the share of the two runs' difference that a patch restores: 0 is none, 1 all of it.

Grids (cells of a time, over the pair's named segments, or over equal --step seconds):

    sites    the clip itself, encoder output, connector output, audio state × segments
    layers   layers × segments and the text behind the clip
    streams  layers × streams of the route
    heads    layers × heads, at the prompt's last token

Pairs are the package's, made of a manifest's labelled clips (--audio), or your own (--pairs: CSV
with columns clean, corrupt, question, clean_answer, corrupt_answer, and if you like start_s, end_s
of what differs). Pairs to which the
model's own (greedy) answer is not right on both sides are measured and counted, but left out of the
mean.

Writes patching.parquet (every pair and cell), answers.parquet (the model's answers), controls.csv,
effects.csv, moved.csv (in how many pairs the preferred one of the two answers moves), figures
(HTML, PNG, SVG, and their numbers as CSV) and run.json. A run that was stopped goes on with
--resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from palscope._routing import Route
from palscope.analyses import (
    Analysis,
    PairOptions,
    Results,
    Table,
    Work,
    chosen_pairs,
    each,
    main,
    option,
)
from palscope.analyses._items import places_of
from palscope.analyses._passes import ANSWER, ROW, rows_of_patches
from palscope.errors import PalscopeError
from palscope.interventions import Sound
from palscope.measures import _grids as grids
from palscope.measures._metrics import Answers
from palscope.measures._patching import (
    GridCell,
    activation_patching,
    answers_moved,
    check_controls,
    greedy_answers,
    input_patching,
    patching_effects,
)
from palscope.pairs import Pair, control
from palscope.plots import _patching as figures

LABELS_OF_GRID = {
    "sites": ["site", "place"],
    "layers": ["layer", "last_layer", "place"],
    "streams": ["layer", "last_layer", "stream"],
    "heads": ["layer", "head"],
}
"""The columns that name a cell of each grid."""

X_OF_GRID = {"layers": "place", "streams": "stream", "heads": "head"}
"""What lies along a map's horizontal axis."""


@dataclass(frozen=True, kw_only=True)
class PatchingOptions(PairOptions):
    """What is patched, and how."""

    grid: Literal["sites", "layers", "streams", "heads"] = option("sites", "what is patched")
    direction: Literal["denoising", "noising"] = option(
        "denoising",
        "denoising puts clean values into the corrupt run: what suffices? noising does the "
        "reverse: what is needed?",
    )
    layers: Literal["window", "from"] = option(
        "window",
        "a window of neighbouring layers together, or every layer from one up, which compares LAL "
        "and PLITS alike",
        only_with={"grid": ("layers", "streams")},
    )
    width: int = option(
        3,
        "in a window; from one up: every so many",
        unit="layers",
        least=1,
        only_with={"grid": ("layers", "streams")},
    )
    site: Literal["audio_state", "audio_kv"] = option(
        "audio_state",
        "of the sound; audio_kv: keys and values",
        only_with={"grid": ("layers", "streams")},
    )
    step: float | None = option(
        None,
        "equal stretches of so long, not the pair's segments",
        unit="s",
        only_with={"grid": ("sites", "layers")},
    )
    stream: str | None = option(
        None,
        "sound of this stream alone (default: all together)",
        only_with={"grid": ("sites", "layers")},
    )
    metric: Literal["logit_diff", "logprob", "kl", "rank"] = option("logit_diff", "of the answer")
    all_pairs: bool = option(False, "also pairs that are not answered right", page=False)


PatchingResults = Results[PatchingOptions, Pair]


@each
def patched(work: Work[PatchingOptions], pair: Pair) -> pd.DataFrame:
    """Every cell of one pair."""
    model, options = work.model, work.options
    answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
    clips = pair.clean, pair.corrupt, control(pair, "other clip", seed=options.seed).corrupt
    clean, corrupt, other = (model.inputs(pair.question, clip) for clip in clips)
    cells = cells_of(work, pair, answers.behind(clean))
    shared: dict[str, Any] = {"answers": answers, "direction": options.direction}
    inside = [cell for cell in cells if cell.labels["site"] != "waveform"]
    table = activation_patching(model, clean, corrupt, inside, other=other, **shared)
    if len(inside) < len(cells):
        outside = [cell for cell in cells if cell.labels["site"] == "waveform"]
        whole: Any = input_patching(
            model, pair.question, *clips[:2], outside, other=clips[2], **shared
        )
        patches = whole[whole["run"].isin(["patch", "other"])]
        table = pd.concat([table, patches], ignore_index=True)
    return table.assign(kind=pair.kind)


@each
def answered(work: Work[PatchingOptions], pair: Pair) -> pd.DataFrame:
    """The model's own answers to both clips."""
    model = work.model
    clean, corrupt = (model.inputs(pair.question, clip) for clip in (pair.clean, pair.corrupt))
    return greedy_answers(model, clean, corrupt, pair.clean_answer, pair.corrupt_answer)


def passes(work: Work[PatchingOptions], pair: Pair) -> float:
    """Every cell with the clean and an unrelated clip's values, both clips and two answers."""
    cells = cells_of(work, pair, work.model.inputs(pair.question, pair.clean))
    every = rows_of_patches([cell.addresses for cell in cells], work.route.n_layers)
    return 6 + 2 * ANSWER + 2 * ROW * every


def cells_of(work: Work[PatchingOptions], pair: Pair, inputs: dict[str, Any]) -> list[GridCell]:
    """The grid for one pair."""
    options = work.options
    route: Route = work.model.current_route
    if options.grid == "heads":
        return grids.layers_by_heads(route.n_layers, work.model.cfg.n_heads)
    together = grids.layer_windows if options.layers == "window" else grids.layers_from
    layers = together(route.n_layers, min(options.width, route.n_layers))
    if options.grid == "streams":
        return grids.streams_by_layers(route, layers, site=options.site)
    places = places_of(pair, options.step)
    if options.grid == "sites":
        return grids.sites_by_places(places, stream=options.stream)
    sound = {name: Sound(at.start, at.end, options.stream) for name, at in places.items()}
    text = grids.text_places(work.model.layout(inputs)) if options.site == "audio_state" else {}
    return grids.layers_by_places(route, sound | text, layers, site=options.site)


def right_pairs(results: PatchingResults) -> list[str]:
    """The pairs answered right on both sides."""
    both = results.rows("answers").groupby("pair", sort=False)["right"].all()
    answered: Any = both
    return list(answered.index[answered])


def controls(results: PatchingResults) -> pd.DataFrame:
    """Whether the patches that must restore all or nothing do."""
    return check_controls(results.rows("patching"), metric=results.options.metric)


def used(results: PatchingResults) -> pd.DataFrame:
    """The rows that means are taken of; one pair by itself is shown whatever is answered."""
    table: Any = results.rows("patching")
    if results.options.all_pairs or len(results.items) == 1:
        return table
    rows = table[table["pair"].isin(results.derived(right_pairs))]
    if not len(rows):
        raise PalscopeError(
            "the model answers no pair right on both sides, so there is nothing to restore; give "
            "other pairs, or --all-pairs."
        )
    return rows


def effects_of(results: PatchingResults) -> pd.DataFrame:
    """Mean effects of every cell, by kind of pair."""
    by = ["kind", *LABELS_OF_GRID[results.options.grid]]
    return patching_effects(results.derived(used), by, metric=results.options.metric)


def summaries(results: PatchingResults) -> dict[str, pd.DataFrame]:
    """Controls, effects, and in how many pairs the preferred one of the two answers moves."""
    rows: Any = results.derived(used)
    found = {"controls": results.derived(controls), "effects": results.derived(effects_of)}
    if rows["logit_diff"].notna().any():
        by = ["kind", *LABELS_OF_GRID[results.options.grid]]
        found["moved"] = answers_moved(rows, by)
    return found


def drawn(results: PatchingResults) -> dict[str, Any]:
    """The grid of each kind of pair, and where there are layers its lines."""
    options = results.options
    table: Any = results.rows("patching")
    effects: Any = results.derived(effects_of)
    found: dict[str, Any] = {}
    for kind, rows in effects.groupby("kind", sort=False):
        pairs = table.loc[table["kind"] == kind, "pair"].nunique()
        every = options.all_pairs or len(results.items) == 1
        shown = results.derived(controls), pairs, every, options.direction, options.metric
        told: dict[str, Any] = {
            "note": figures.note(rows, *shown),
            "caption": results.caption(int(rows["n"].max()), only=str(kind)),
        }
        name = f"{options.grid}_{kind}"
        if options.grid == "sites":
            found[name] = figures.effects_by_site(rows, **told)
            continue
        x = X_OF_GRID[options.grid]
        found[name] = figures.effect_map(rows, x, **told)
        if options.grid != "heads":
            found[f"{name}_lines"] = figures.effect_lines(rows, x, **told)
    return found


def told(results: PatchingResults) -> list[str]:
    """How many pairs of each kind are answered right, and whether the controls hold."""
    table: Any = results.rows("patching")
    right = results.derived(right_pairs)
    lines: list[str] = []
    for kind, names in table.groupby("kind", sort=False)["pair"].unique().items():
        lines.append(
            f"{kind}: {sum(name in right for name in names)} of {len(names)} pair(s) answered "
            "right on both sides"
        )
    for row in results.derived(controls).to_dict("records"):
        lines.append(
            f"{row['control']}-patch {row['expected']:g} (worst pair off by {row['worst']:.1g})"
        )
    return lines


ANALYSIS = Analysis(
    name="activation_patching",
    title="patching",
    about="Values of one run are put into the other at one place after another. The effect is the "
    "share of the two runs' difference that this restores: 0 is none, 1 all of it. A patched "
    "*token* knows of sounds around it, for the encoder mixes them; `waveform` swaps the sound "
    "itself.",
    passes=passes,
    options=PatchingOptions,
    items=chosen_pairs,
    tables=[
        Table("patching", patched, ("run", *grids.LABELS)),
        Table("answers", answered, ("side",)),
    ],
    summaries=summaries,
    figures=drawn,
    notes=told,
    item="pair",
    takes="pair",
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
