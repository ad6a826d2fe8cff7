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

Writes attributions.parquet, cells.parquet (beside exact patching), curves.parquet, their
summaries completeness.csv, agreement.csv, agreement_by_layer.csv and chance.csv, figures (HTML,
PNG, SVG, and their numbers as CSV) and run.json. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._sweeps import commands
from palscope._sweeps.commands import count
from palscope._sweeps.store import StoredTable
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
from palscope.measures._patching import Cell, activation_patching, solved
from palscope.pairs import Pair, bundled_pairs, control, read_pairs
from palscope.plots import _attribution as figures
from palscope.plots._figures import save_figure

PATCHING = "attribution patching"
GRADIENTS = "integrated gradients"
TOGETHER = "integrated gradients, all layers"
"""All layers move together: what text reads of each layer adds up to the whole difference."""

PICTURED = 4
"""So many pairs of each kind get a map of their own."""


def main() -> int:
    parser = commands.arguments(__doc__)
    parser.add_argument("--pairs", type=Path, help="your own pairs (default: the bundled ones)")
    parser.add_argument("--n", type=count, help="so many pairs of each kind (default: all)")
    parser.add_argument(
        "--against",
        choices=("corrupt", "silence", "noise", "shuffled", "other clip"),
        default="corrupt",
        help="what the clean clip is compared with (default: the pair's corrupt clip); with all "
        "others the log-probability of the clean answer takes the place of the logit difference",
    )
    parser.add_argument(
        "--steps", type=count, default=16, help="points of integrated gradients (default: 16)"
    )
    parser.add_argument(
        "--every", type=count, default=5, help="patch every so many layers exactly (default: 5)"
    )
    parser.add_argument(
        "--step", type=float, default=0.3, help="seconds patched together (default: 0.3)"
    )
    parser.add_argument("--windows", type=count, default=8, help="pieces of deletion (default: 8)")
    parser.add_argument(
        "--random", type=count, default=3, help="random orders to compare with (default: 3)"
    )
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Attribute, patch, delete and insert, pair by pair; then draw."""
    pairs = chosen_pairs(given)
    model = commands.open_model(given)
    results = commands.open_run(given, model, data=[given.pairs] if given.pairs else [])
    shared: dict[str, Any] = {"key": lambda pair: pair.name, "content": lambda pair: pair.digest}
    attributions = results.over(
        pairs,
        lambda pair: attributed(model, pair, given).assign(kind=pair.kind),
        table="attributions",
        keys=["method", "path", *CELL],
        **shared,
    )
    of_pair = attributions.shards
    measured = [pair for pair in pairs if pair.name in of_pair]

    def checked(pair: Pair) -> pd.DataFrame:
        return patched(model, pair, pd.read_parquet(of_pair[pair.name]), given)

    def traced(pair: Pair) -> pd.DataFrame:
        return deleted(model, pair, pd.read_parquet(of_pair[pair.name]), given)

    cells = results.over(measured, checked, table="cells", keys=["method", *grids.LABELS], **shared)
    curves = results.over(
        measured, traced, table="curves", keys=["order", "curve", "step"], **shared
    )
    if results.main:
        present(measured, attributions, cells.read(), curves.read(), given)
        results.finish()


def chosen_pairs(given: Namespace) -> list[Pair]:
    """The pairs that the command line names, against what it names."""
    pairs = read_pairs(given.pairs) if given.pairs else bundled_pairs()
    kinds = dict.fromkeys(pair.kind for pair in pairs)
    pairs = [pair for kind in kinds for pair in [p for p in pairs if p.kind == kind][: given.n]]
    if given.against == "corrupt":
        return pairs
    return [control(pair, given.against, seed=given.seed) for pair in pairs]


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


def chosen_layers(model: HookedAudioModel, given: Namespace) -> list[int]:
    """The layers that are patched exactly."""
    return list(range(0, model.current_route.n_layers, given.every))


def attributed(model: HookedAudioModel, pair: Pair, given: Namespace) -> pd.DataFrame:
    """Attributions of one pair by each method."""
    runs, told = setting(model, pair)
    told |= {"metric": metric_of(pair)}
    sites: Any = [Address(site) for site in ("audio_state", "connector_output", "encoder_output")]
    mel = Address("mel")
    layers = [Address("audio_state", layers=(layer,)) for layer in chosen_layers(model, given)]
    # A layer's path is short and smooth; the mel spectrogram's is long and rough.
    few: dict[str, Any] = {"steps": max(1, given.steps // 4)}
    parts = {
        PATCHING: attribution_patching(model, **runs, addresses=[*sites, mel], **told),
        GRADIENTS: integrated_gradients(model, **runs, addresses=layers, **told, **few),
        TOGETHER: integrated_gradients(
            model, **runs, addresses=[sites[0], mel], **told, steps=given.steps
        ),
    }
    return pd.concat([part.assign(method=name) for name, part in parts.items()], ignore_index=True)


def patched(
    model: HookedAudioModel, pair: Pair, attributions: pd.DataFrame, given: Namespace
) -> pd.DataFrame:
    """Exact patching of one pair, beside the attributions."""
    route = model.current_route
    layers = [(layer,) for layer in chosen_layers(model, given)]
    by_layer: list[Cell] = []
    in_all: list[Cell] = []
    for stream in route.streams:
        places: Any = grids.steps(pair.seconds, given.step, stream.name)
        by_layer += grids.layers_by_places(route, places, layers)
        in_all += grids.sites_by_places(places, stream=stream.name, sites=["audio_state"])
    places = grids.steps(pair.seconds, given.step)
    # The encoder's output is pooled into the connector's tokens: the same cells.
    mel, connector = (
        grids.sites_by_places(places, sites=[site]) for site in ("mel", "connector_output")
    )
    runs, told = setting(model, pair)
    cells = [*by_layer, *mel, *connector, *in_all]
    table = activation_patching(model, **runs, cells=cells, **told)
    right = pair.name in solved(table.assign(pair=pair.name))
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


def deleted(
    model: HookedAudioModel, pair: Pair, attributions: pd.DataFrame, given: Namespace
) -> pd.DataFrame:
    """The answer of one pair as sound is deleted and inserted, in several orders."""
    windows = equal_windows(pair.seconds, given.windows)
    whole: Any = attributions
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
    rng = np.random.default_rng([given.seed, *pair.name.encode()])
    orders |= {f"random {i}": rng.permutation(given.windows).tolist() for i in range(given.random)}
    return deletion_insertion(
        model, pair.question, pair.clean, pair.corrupt, windows, orders, **told
    ).assign(kind=pair.kind)


def of_method(table: Any, method: str) -> Any:
    """The rows of one method."""
    return table[table["method"] == method]


def present(
    pairs: Sequence[Pair],
    attributions: StoredTable,
    cells: pd.DataFrame,
    curves: pd.DataFrame,
    given: Namespace,
) -> None:
    """Write the summaries and draw the figures."""
    out: Path = given.out
    sums = [
        completeness(of_method(table, method)).assign(method=method, pair=name)
        for name, table in attributions
        for method in (GRADIENTS, TOGETHER)
    ]
    pd.concat(sums, ignore_index=True).to_csv(out / "completeness.csv", index=False)
    overall = agreement(cells, ["method", "site"])
    overall.to_csv(out / "agreement.csv", index=False)
    in_layers: Any = cells[cells["layer"].notna()]
    depth = agreement(in_layers, ["method", "stream", "layer"])
    chance = against_chance(areas(curves))
    chance.to_csv(out / "chance.csv", index=False)
    for stem, screen, paper, table in (
        ("scatter", figures.scatter, figures.scatter_paper, cells),
        ("agreement_by_layer", figures.by_layer, figures.by_layer_paper, depth),
        ("deletion_insertion", figures.curves, figures.curves_paper, curve_bands(curves)),
    ):
        save_figure(out / stem, screen(table), paper(table), table)
    drawn: dict[str, int] = {}
    for pair in pairs:
        drawn[pair.kind] = drawn.get(pair.kind, 0) + 1
        if drawn[pair.kind] <= PICTURED:
            shown = of_method(pd.read_parquet(attributions.shards[pair.name]), TOGETHER)
            save_figure(
                out / f"map_{pair.name}",
                figures.heat_map(shown, pair.clean),
                figures.heat_map_paper(shown, pair.clean),
                shown,
            )
    print(overall.round(3).to_string(index=False))
    print(chance.round(3).to_string(index=False))
    print(f"{len(pairs)} pair(s) measured; results in {out}")


if __name__ == "__main__":
    raise SystemExit(main())
