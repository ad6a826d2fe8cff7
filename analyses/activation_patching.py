"""Activation patching: which seconds, sites, layers, streams and heads move the answer?

    python analyses/activation_patching.py --model demo/pal --out runs/patching
    python analyses/activation_patching.py --model demo/pal --manifest MANIFEST.csv \
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

Pairs come from the bundled clips, from a manifest of labelled clips (--manifest: CSV with columns
path, domain, label) or from your own pairs (--pairs: CSV with columns clean, corrupt, question,
clean_answer, corrupt_answer, and if you like start_s, end_s of what differs). Pairs to which the
model's own (greedy) answer is not right on both sides are measured and counted, but left out of the
mean.

Writes patching.parquet (every pair and cell), answers.parquet (the model's answers), effects.csv,
moved.csv (in how many pairs the preferred one of the two answers moves), figures (HTML, PNG, SVG,
and their numbers as CSV) and run.json. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._sweeps import commands
from palscope._sweeps.commands import count
from palscope._sweeps.store import Run
from palscope.datasets._manifest import Corpus, DecodedOnDemand, read_manifest
from palscope.errors import PalscopeError
from palscope.interventions import Sound
from palscope.measures import _grids as grids
from palscope.measures._metrics import METRICS, Answers
from palscope.measures._patching import (
    Cell,
    activation_patching,
    answers_moved,
    check_controls,
    greedy_answers,
    input_patching,
    patching_effects,
)
from palscope.pairs import KINDS, Pair, bundled_pairs, control, read_pairs, swap_pairs
from palscope.plots import _patching as figures
from palscope.plots._figures import save_figure

LABELS_OF_GRID = {
    "sites": ["site", "place"],
    "layers": ["layer", "last_layer", "place"],
    "streams": ["layer", "last_layer", "stream"],
    "heads": ["layer", "head"],
}
"""The columns that name a cell of each grid."""


def main() -> int:
    parser = commands.arguments(__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--manifest", type=Path, help="make pairs of these labelled clips")
    source.add_argument("--pairs", type=Path, help="your own pairs")
    parser.add_argument("--split", help="of a manifest, only clips with this value in column split")
    parser.add_argument("--kind", nargs="+", choices=KINDS, help="kinds of pairs (default: all)")
    parser.add_argument("--n", type=count, help="so many pairs of each kind (default: 20)")
    parser.add_argument("--grid", choices=LABELS_OF_GRID, default="sites")
    parser.add_argument("--step", type=float, help="equal steps of so many seconds, not segments")
    parser.add_argument("--stream", help="sound of this stream alone (default: all together)")
    parser.add_argument(
        "--site",
        choices=("audio_state", "audio_kv"),
        default="audio_state",
        help="of the sound in grids layers and streams; audio_kv: keys and values",
    )
    parser.add_argument(
        "--layers",
        choices=("window", "from"),
        default="window",
        help="patch neighbouring layers together, or all layers from one up",
    )
    parser.add_argument("--width", type=count, default=3, help="layers together (default: 3)")
    parser.add_argument("--direction", choices=("denoising", "noising"), default="denoising")
    parser.add_argument("--metric", choices=METRICS, default="logit_diff")
    parser.add_argument(
        "--all-pairs", action="store_true", help="also those that are not answered right"
    )
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Patch every pair, check the controls, and draw."""
    pairs = chosen_pairs(given)
    model = commands.open_model(given)

    def measure(pair: Pair) -> pd.DataFrame:
        return patched(model, pair, given).assign(kind=pair.kind)

    results = commands.open_run(
        given, model, data=[path for path in (given.manifest, given.pairs) if path]
    )

    def answered(pair: Pair) -> pd.DataFrame:
        clean, corrupt = (model.inputs(pair.question, c) for c in (pair.clean, pair.corrupt))
        return greedy_answers(model, clean, corrupt, pair.clean_answer, pair.corrupt_answer)

    shared: dict[str, Any] = {"key": lambda pair: pair.name, "content": lambda pair: pair.digest}
    results.over(pairs, measure, table="patching", keys=["run", *grids.LABELS], **shared)
    results.over(pairs, answered, table="answers", keys=["side"], **shared)
    if results.main:
        present(results, given)


def chosen_pairs(given: Namespace) -> list[Pair]:
    """The pairs that the command line names."""
    if given.pairs is not None:
        return read_pairs(given.pairs)[: given.n]
    if given.manifest is not None:
        corpus = Corpus(tuple(read_manifest(given.manifest)), DecodedOnDemand())
        return [
            pair
            for kind in given.kind or KINDS
            for pair in swap_pairs(
                corpus, kind, n=given.n or 20, seed=given.seed, split=given.split
            )
        ]
    pairs = bundled_pairs()
    kinds = given.kind or dict.fromkeys(pair.kind for pair in pairs)
    chosen = [pair for kind in kinds for pair in [p for p in pairs if p.kind == kind][: given.n]]
    if not chosen:
        raise PalscopeError(
            f"there are no bundled pairs of kind {', '.join(kinds)}; give a --manifest."
        )
    return chosen


def patched(model: HookedAudioModel, pair: Pair, given: Namespace) -> pd.DataFrame:
    """The table of one pair."""
    answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
    clips = pair.clean, pair.corrupt, control(pair, "other clip", seed=given.seed).corrupt
    clean, corrupt, other = (model.inputs(pair.question, clip) for clip in clips)
    cells = cells_of(model, pair, answers.behind(clean), given)
    shared: dict[str, Any] = {"answers": answers, "direction": given.direction}
    inside = [cell for cell in cells if cell.labels["site"] != "waveform"]
    table = activation_patching(model, clean, corrupt, inside, other=other, **shared)
    if len(inside) == len(cells):
        return table
    outside = [cell for cell in cells if cell.labels["site"] == "waveform"]
    heard: Any = input_patching(model, pair.question, *clips[:2], outside, other=clips[2], **shared)
    return pd.concat([table, heard[heard["run"].isin(["patch", "other"])]], ignore_index=True)


def cells_of(
    model: HookedAudioModel, pair: Pair, inputs: dict[str, Any], given: Namespace
) -> list[Cell]:
    """The grid for one pair."""
    route = model.current_route
    if given.grid == "heads":
        return grids.layers_by_heads(route.n_layers, model.cfg.n_heads)
    together = grids.layer_windows if given.layers == "window" else grids.layers_from
    layers = together(route.n_layers, given.width)
    if given.grid == "streams":
        return grids.streams_by_layers(route, layers, site=given.site)
    places = (
        grids.steps(pair.seconds, given.step)
        if given.step
        else {each.name: Sound(each.start, each.end) for each in pair.segments}
    )
    if given.grid == "sites":
        return grids.sites_by_places(places, stream=given.stream)
    sound = {name: Sound(where.start, where.end, given.stream) for name, where in places.items()}
    text = grids.text_places(model.layout(inputs)) if given.site == "audio_state" else {}
    return grids.layers_by_places(route, sound | text, layers, site=given.site)


def present(results: Run, given: Namespace) -> None:
    """Tables and figures, if the controls hold."""
    table: Any = results.read("patching")
    controls = check_controls(table, metric=given.metric)
    right = right_pairs(results.read("answers"))
    used = table if given.all_pairs else table[table["pair"].isin(right)]
    kinds = table.groupby("kind", sort=False)["pair"].unique()
    counts = {
        kind: {"pairs": len(names), "right": int(pd.Series(names).isin(right).sum())}
        for kind, names in kinds.items()
    }
    for kind, told in counts.items():
        print(f"{kind}: {told['right']} of {told['pairs']} pairs are answered right")
    if not len(used):
        raise PalscopeError(
            "the model answers no pair right on both sides, so there is nothing to restore; give "
            "other pairs, or --all-pairs."
        )
    by = ["kind", *LABELS_OF_GRID[given.grid]]
    effects: Any = patching_effects(used, by, metric=given.metric)
    effects.to_csv(given.out / "effects.csv", index=False)
    if used["logit_diff"].notna().any():
        answers_moved(used, by).to_csv(given.out / "moved.csv", index=False)
    for kind, rows in effects.groupby("kind", sort=False):
        told = counts[kind]
        note = figures.note(
            rows, controls, told["pairs"], given.all_pairs, given.direction, given.metric
        )
        draw(rows.drop(columns="kind"), given, f"{given.grid}_{kind}", note)
    results.finish(controls=controls.to_dict("records"), pairs=counts)
    print(effects[effects["run"].isin(["patch", "other"])].round(3).to_string(index=False))
    print(f"results in {given.out}")


def right_pairs(answers: Any) -> list[str]:
    """The pairs answered right on both sides."""
    both = answers.groupby("pair", sort=False)["right"].all()
    return list(both.index[both])


def draw(effects: pd.DataFrame, given: Namespace, stem: str, note: str) -> None:
    """The figures of one kind of pair."""
    out = given.out
    if given.grid == "sites":
        screen = figures.effects_by_site(effects, note)
        save_figure(out / stem, screen, figures.effects_by_site_paper(effects, note), effects)
        return
    x = {"layers": "place", "streams": "stream", "heads": "head"}[given.grid]
    screen = figures.effect_map(effects, x, note)
    save_figure(out / stem, screen, figures.effect_map_paper(effects, x, note), effects)
    if given.grid != "heads":
        screen = figures.effect_lines(effects, x, note)
        print_ = figures.effect_lines_paper(effects, x, note)
        save_figure(out / f"{stem}_lines", screen, print_, effects)


if __name__ == "__main__":
    raise SystemExit(main())
