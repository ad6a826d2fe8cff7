"""Gradient attribution: which sound, seconds and pitches does the answer rest on?

    python analyses/attribution.py --model demo/pal --out runs/attribution
    python analyses/attribution.py --model demo/lal --pairs PAIRS.csv --against silence --out runs/a

For pairs of clips that differ in one thing, the difference of the two answers' logits is traced
back to audio tokens (every stream and layer), to the encoder's and the connector's output and to
the mel spectrogram: by attribution patching (one gradient, at the corrupt run) and by integrated
gradients (along the line from the corrupt run to the clean one; their sum is checked). Both are
then tested:

- against exact patching of the same cells (denoising; layers × stretches of time): correlations
  over cells, with intervals over pairs, and by layer;
- by deletion and insertion: the clip's sound is taken away (put in) in the order of its
  attribution, and the answer's log-probability should fall (rise) sooner than in random order, or
  in the order of attention.

--check says what they are tested by.

Writes attributions.parquet, cells.parquet (beside exact patching), curves.parquet, their
summaries completeness.csv, agreement.csv, agreement_by_layer.csv and chance.csv, figures (HTML,
PNG, SVG, and their numbers as CSV) and run.json. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from palscope._hooks import HookedAudioModel
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
from palscope.analyses._passes import GRADIENT, ROW, share_run
from palscope.interventions import Address
from palscope.measures import _grids as grids
from palscope.measures import attention_mass, over_time
from palscope.measures._attribution import (
    CELL,
    attribution_patching,
    completeness,
    integrated_gradients,
)
from palscope.measures._faithfulness import (
    against_chance,
    agreement,
    areas,
    beside_patching,
    by_window,
    curve_bands,
    deletion_insertion,
    equal_windows,
)
from palscope.measures._metrics import Answers
from palscope.measures._patching import GridCell, activation_patching, solved_pairs
from palscope.pairs import Pair, control
from palscope.plots import _attribution as figures

PATCHING = "attribution patching"
GRADIENTS = "integrated gradients"
TOGETHER = "integrated gradients, all layers"
"""All layers move together: what text reads of each layer adds up to the whole difference."""

PICTURED = 4
"""So many pairs of each kind get a map of their own."""


@dataclass(frozen=True, kw_only=True)
class AttributionOptions(PairOptions):
    """What is traced back, and how it is checked."""

    against: Literal["corrupt", "silence", "noise", "shuffled", "other clip"] = option(
        "corrupt",
        "what the clean clip is compared with; with all but the pair's corrupt clip the "
        "log-probability of the clean answer takes the place of the logit difference",
    )
    points: int = option(16, "of integrated gradients between the two runs", least=1)
    check: tuple[Literal["patching", "deletion"], ...] = option(
        ("patching", "deletion"),
        "exact patching of the same cells; deleting and inserting sound in the order found",
    )
    stride: int = option(5, "between those that are patched exactly", unit="layers", least=1)
    step: float = option(0.3, "sound patched together", unit="s")
    windows: int = option(8, "stretches that are deleted one after another", least=1)
    orders: int = option(3, "random orders to compare with", least=1)


AttributionResults = Results[AttributionOptions, Pair]


def against(options: AttributionOptions, pair: Pair) -> Pair:
    """The pair, or its clean clip beside a control."""
    if options.against == "corrupt":
        return pair
    return control(pair, options.against, seed=options.seed)


def setting(model: HookedAudioModel, pair: Pair) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two runs' inputs, and what every measure of the pair is told."""
    runs = {
        "clean": model.inputs(pair.question, pair.clean),
        "corrupt": model.inputs(pair.question, pair.corrupt),
    }
    answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
    return runs, {"answers": answers}


def metric_of(pair: Pair) -> Any:
    """The logit difference, where there are two answers."""
    return "logit_diff" if pair.corrupt_answer is not None else "logprob"


def chosen_layers(work: Work[AttributionOptions]) -> list[int]:
    """The layers that are patched exactly."""
    return list(range(0, work.model.current_route.n_layers, work.options.stride))


@each
def attributed(work: Work[AttributionOptions], pair: Pair) -> pd.DataFrame:
    """Attributions of one pair by each method."""
    model, points = work.model, work.options.points
    runs, told = setting(model, pair)
    told |= {"metric": metric_of(pair)}
    sites: Any = [Address(site) for site in ("audio_state", "connector_output", "encoder_output")]
    mel = Address("mel")
    layers = [Address("audio_state", layers=(layer,)) for layer in chosen_layers(work)]
    # A layer's path is short and smooth; the mel spectrogram's is long and rough.
    few: dict[str, Any] = {"steps": max(1, points // 4)}
    parts = {
        PATCHING: attribution_patching(model, **runs, addresses=[*sites, mel], **told),
        GRADIENTS: integrated_gradients(model, **runs, addresses=layers, **told, **few),
        TOGETHER: integrated_gradients(
            model, **runs, addresses=[sites[0], mel], **told, steps=points
        ),
    }
    tables = [part.assign(method=name) for name, part in parts.items()]
    return pd.concat(tables, ignore_index=True).assign(kind=pair.kind)


@each
def patched(work: Work[AttributionOptions], pair: Pair) -> pd.DataFrame:
    """Exact patching of one pair, beside the attributions."""
    model, step = work.model, work.options.step
    attributions = work.rows("attributions", pair.name)
    route = model.current_route
    layers = [(layer,) for layer in chosen_layers(work)]
    by_layer: list[GridCell] = []
    in_all: list[GridCell] = []
    for stream in route.streams:
        places: Any = grids.steps(pair.seconds, step, stream.name)
        by_layer += grids.layers_by_places(route, places, layers)
        in_all += grids.sites_by_places(places, stream=stream.name, sites=["audio_state"])
    places = grids.steps(pair.seconds, step)
    # The encoder's output is pooled into the connector's tokens: the same cells.
    mel, connector = (
        grids.sites_by_places(places, sites=[site]) for site in ("mel", "connector_output")
    )
    runs, told = setting(model, pair)
    cells = [*by_layer, *mel, *connector, *in_all]
    table = activation_patching(model, **runs, cells=cells, **told)
    right = pair.name in solved_pairs(table.assign(pair=pair.name))
    # Layers of a stream that runs add up along the path of all, not in attribution patching.
    shown = {
        PATCHING: [*by_layer, *mel, *connector],
        GRADIENTS: by_layer,
        TOGETHER: [*in_all, *mel],
    }
    parts: list[pd.DataFrame] = []
    for method, mine in shown.items():
        own = of_method(attributions, method)
        beside = beside_patching(table, own, cells, only=mine, metric=metric_of(pair))
        parts.append(beside.assign(method=method))
    return pd.concat(parts, ignore_index=True).assign(kind=pair.kind, solved=right)


@each
def deleted(work: Work[AttributionOptions], pair: Pair) -> pd.DataFrame:
    """The answer of one pair as sound is deleted and inserted, in several orders."""
    model, options = work.model, work.options
    windows = equal_windows(pair.seconds, options.windows)
    whole: Any = work.rows("attributions", pair.name)
    importance = {
        f"{method}, {site.replace('_', ' ')}": by_window(
            whole[(whole["method"] == method) & (whole["site"] == site)], windows
        )
        for method, site in ((PATCHING, "mel"), (TOGETHER, "mel"), (TOGETHER, "audio_state"))
    }
    runs, told = setting(model, pair)
    mass = over_time(attention_mass(model, told["answers"].behind(runs["clean"])))
    importance["attention mass"] = by_window(mass, windows, value="mass")
    orders: dict[str, Sequence[int]] = {
        name: np.argsort(-values, kind="stable").tolist() for name, values in importance.items()
    }
    rng = np.random.default_rng([options.seed, *pair.name.encode()])
    orders |= {
        f"random {i}": rng.permutation(options.windows).tolist() for i in range(options.orders)
    }
    return deletion_insertion(
        model, pair.question, pair.clean, pair.corrupt, windows, orders, **told
    ).assign(kind=pair.kind)


def passes(work: Work[AttributionOptions], pair: Pair) -> float:
    """Gradients at every point of every path, and of the checks the patches and the orders."""
    options, n_layers = work.options, work.model.current_route.n_layers
    layers = chosen_layers(work)
    points = 1 + 2 * options.points
    points += max(1, options.points // 4) * sum(share_run([each], n_layers) for each in layers)
    found = 6 + GRADIENT * ROW * points
    if "patching" in options.check:
        steps = len(grids.steps(pair.seconds, options.step))
        whole, part = 3 + len(work.route.streams), sum(share_run([i], n_layers) for i in layers)
        found += 6 + ROW * steps * (whole + part * len(work.route.streams))
    if "deletion" in options.check:
        orders = 4 + options.orders
        found += 2 * orders * (options.windows + 1)  # each encoded anew
    return found


def of_method(table: Any, method: str) -> Any:
    """The rows of one method."""
    return table[table["method"] == method]


def checks(results: AttributionResults) -> dict[str, pd.DataFrame]:
    """The tables that say how far attributions can be trusted, as far as they were checked."""
    sums = [
        completeness(of_method(rows, method)).assign(method=method, pair=name)
        for name, rows in results.each("attributions")
        for method in (GRADIENTS, TOGETHER)
    ]
    found = {"completeness": pd.concat(sums, ignore_index=True)}
    if "cells" in results.stored:
        found["agreement"] = agreement(results.rows("cells"), ["method", "site"])
    if "curves" in results.stored:
        found["chance"] = against_chance(areas(results.rows("curves")))
    return found


def agreement_by_layer(cells: Any) -> pd.DataFrame:
    """Agreement with exact patching in every layer."""
    return agreement(cells[cells["layer"].notna()], ["method", "stream", "layer"])


def drawn(results: AttributionResults) -> dict[str, Any]:
    """A map of each of the first pairs, and the checks."""
    found: dict[str, Any] = {}
    kinds: dict[str, int] = {}
    for pair in results.items:
        kinds[pair.kind] = kinds.get(pair.kind, 0) + 1
        if kinds[pair.kind] <= PICTURED:
            shown = of_method(results.of_item("attributions", pair.name), TOGETHER)
            one = replace(results, items=[pair]).caption()
            found[f"map_{pair.name}"] = figures.heat_map(shown, pair.clean, caption=one)
    caption = results.caption()
    if "cells" in results.stored:
        cells = results.rows("cells")
        found["scatter"] = figures.scatter(cells, caption=caption)
        found["agreement_by_layer"] = figures.by_layer(agreement_by_layer(cells), caption=caption)
    if "curves" in results.stored:
        bands = curve_bands(results.rows("curves"))
        found["deletion_insertion"] = figures.curves(bands, caption=caption)
    return found


def told(results: AttributionResults) -> list[str]:
    """The checks in words."""
    tables = results.derived(checks)
    sums: Any = tables["completeness"]
    if len(results.items) == 1:
        return [
            f"{row.method}, {row.site}: attributions sum to {row.attribution:.2f}, the metric "
            f"differs by {row.difference:.2f} nats"
            for row in sums.itertuples()
            if row.method == TOGETHER
        ]
    return [
        tables[name].round(3).to_string(index=False)
        for name in ("agreement", "chance")
        if name in tables
    ]


ANALYSIS = Analysis(
    name="attribution",
    title="attribution",
    about="Gradients say, to first order, what patching every token and every bin of the "
    "spectrogram would do: fast, and wrong where the model is far from linear. `check` compares "
    "them with exact patching, and with what deleting sound does.",
    passes=passes,
    options=AttributionOptions,
    items=chosen_pairs,
    prepare=against,
    tables=[
        Table("attributions", attributed, ("method", "path", *CELL)),
        Table("cells", patched, ("method", *grids.LABELS), lambda given: "patching" in given.check),
        Table(
            "curves", deleted, ("order", "curve", "step"), lambda given: "deletion" in given.check
        ),
    ],
    summaries=checks,
    figures=drawn,
    notes=told,
    item="pair",
    takes="pair",
    on_page={"check": ()},
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
