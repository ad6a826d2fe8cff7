"""Measure where a model's answer attends: mass by layer, head, pathway and slice of time.

    python analyses/attention_mass.py --model demo/pal --audio CLIP [CLIP …] --out runs/mass
    python analyses/attention_mass.py --model demo/plits demo/lal demo/pal --audio MANIFEST.csv \
        --limit 20 --out runs/trio

CLIP is a sound file, a folder of them, or a manifest (CSV with columns path, domain, label). Each
clip is asked about on its own; the query is the prompt's last token, which predicts the answer.
Writes attention_mass.parquet (every key), mass_by_pathway.parquet (sums), depth.csv (the layers at
which each stream's mass peaks), figures (HTML, PNG, SVG, and their numbers as CSV) and run.json.
With several models each has such a folder in --out, where the figure that compares them stands. A
run that was stopped goes on with --resume.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palscope._models.scoring import continued, greedy_tokens
from palscope._sweeps import commands
from palscope._sweeps.clips import sound_files
from palscope._sweeps.commands import count
from palscope._sweeps.record import file_hash
from palscope._sweeps.store import StoredTable
from palscope.audio import load_audio
from palscope.datasets._manifest import Clip, read_manifest
from palscope.datasets._questions import TASK_OF_DOMAIN, TRAIN
from palscope.errors import PalscopeError
from palscope.evaluation._items import take_evenly
from palscope.measures import attention_mass, by_pathway, mass_per_second, mean_band, over_time
from palscope.measures._depth import depth_of_mass
from palscope.plots import _attention as attention
from palscope.plots import _comparison as comparison
from palscope.plots import _paper as paper
from palscope.plots import _tables as tables
from palscope.plots._figures import save_figure

QUESTION = "Which sound is this?"
PICTURED = 12
"""Up to so many clips get a figure of their own."""


def main() -> int:
    parser = commands.arguments(__doc__, models=True)
    parser.add_argument("--audio", required=True, nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--split", help="of a manifest, only rows with this value in column split")
    parser.add_argument(
        "--limit", type=count, help="so many clips of each domain, spread over labels"
    )
    parser.add_argument(
        "--question",
        help=f"default: what the demo was trained on for a manifest's domain, else {QUESTION}",
    )
    parser.add_argument(
        "--token",
        type=int,
        default=0,
        help="whose attention: 0 is the prompt's last token (default), 1 the greedy answer's first",
    )
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure each model, and draw them side by side."""
    models = list(dict.fromkeys(given.model))
    names = [Path(model).name for model in models]
    if len(set(names)) < len(names):
        raise PalscopeError(f"two models are called alike ({', '.join(names)}); run them apart.")
    heard = chosen_clips(given)
    bands: list[pd.DataFrame] = []
    for model, name in zip(models, names, strict=True):
        out = given.out if len(models) == 1 else given.out / name
        bands += measured(Namespace(**vars(given) | {"model": model, "out": out}), name, heard)
    if bands and len(models) > 1:
        save_depth(given.out, pd.concat(bands, ignore_index=True))


def measured(given: Namespace, name: str, heard: Sequence[Clip]) -> list[pd.DataFrame]:
    """Measure, store and draw one model; its mass by depth and domain, in the main process."""
    model = commands.open_model(given)
    model.processor.chat(given.question or QUESTION)  # an unusable question is no clip's fault

    def measure(clip: Clip) -> pd.DataFrame:
        question = given.question or own_question(clip)
        inputs = model.inputs(question, load_audio(clip.path))
        prompt = inputs["input_ids"].shape[1]
        answer = greedy_tokens(model.model, model.processor, inputs)[0].tolist()
        queries = [prompt - 1 + given.token]
        table = attention_mass(model, continued(inputs, answer), queries=queries)
        table.insert(0, "domain", clip.domain)
        table.insert(1, "answer", model.tokenizer.decode(answer, skip_special_tokens=True).strip())
        return table

    fillers = [] if model.model.filler_id is None else ["filler"]
    pathways = ["text", *fillers, *(stream.name for stream in model.current_route.streams)]

    def sums(path: str) -> pd.DataFrame:
        table = pd.read_parquet(every_key.shards[path])
        mass: Any = by_pathway(table, pathways).drop(columns=["row", "query"])
        return mass.assign(domain=table["domain"].iloc[0])

    results = commands.open_run(given, model, data=[clip.path for clip in heard])
    every_key = results.over(
        heard,
        measure,
        table="attention_mass",
        key=lambda clip: str(clip.path),
        item="path",
        keys=["row", "query", "layer", "head", "pathway", "key", "clip", "start_s", "end_s"],
        content=lambda clip: f"{clip.domain} {file_hash(clip.path)}",
    )
    by_path = results.over(
        list(every_key.shards),
        sums,
        table="mass_by_pathway",
        key=str,
        item="path",
        keys=["layer", "head", "pathway"],
        content=lambda path: every_key.shards[path].name,
    )
    if not results.main:
        return []
    draw(every_key, by_path, pathways[1:], given.out)
    bands = depth_bands(name, by_path)
    save_depth(given.out, bands)
    depth_of_mass(by_path.read(), ["domain"]).to_csv(given.out / "depth.csv", index=False)
    results.finish()
    done, left = len(every_key.shards), len(every_key.left_out)
    print(f"{done} clip(s) measured, {left} left out; results in {given.out}")
    return [bands]


def own_question(clip: Clip) -> str:
    """The question that the demo was trained on for the clip's domain."""
    task = TASK_OF_DOMAIN.get(clip.domain)
    return TRAIN[task][0] if task else QUESTION


def chosen_clips(given: Namespace) -> list[Clip]:
    """The clips that the command line names: themselves, in folders, in manifests."""
    found: list[Clip] = []
    for path in given.audio:
        if path.suffix.lower() == ".csv":
            rows = [clip for clip in read_manifest(path) if given.split in (None, clip.split)]
            if not rows:
                raise PalscopeError(f"{path} has no rows of split {given.split!r}.")
            found += rows
        else:
            files = sound_files(path) if path.is_dir() else [path]
            found += [Clip(str(file), file, domain="", label="") for file in files]
    if given.limit is None:
        return found
    domains = dict.fromkeys(clip.domain for clip in found)
    return [
        clip
        for domain in domains
        for clip in take_evenly([clip for clip in found if clip.domain == domain], given.limit)
    ]


def depth_bands(name: str, by_path: StoredTable) -> pd.DataFrame:
    """Mean mass by layer and pathway of each domain, with intervals over its clips."""
    domains: dict[str, list[pd.DataFrame]] = {}
    for _, table in by_path:
        domains.setdefault(str(table["domain"].iloc[0]), []).append(table)
    bands = [
        mean_band(masses, ["layer", "pathway"]).assign(model=name, domain=domain)
        for domain, masses in domains.items()
    ]
    return pd.concat(bands, ignore_index=True)


def save_depth(out: Path, bands: pd.DataFrame) -> None:
    """The figure of mass by depth, a panel a domain."""
    screen, print_ = comparison.mass_by_depth(bands), comparison.mass_by_depth_paper(bands)
    save_figure(out / "mass_by_depth", screen, print_, bands)


def draw(every_key: StoredTable, by_path: StoredTable, streams: Sequence[str], out: Path) -> None:
    """Draw the figures, over all clips and for each of the first."""
    masses = [table for _, table in by_path]
    times: list[pd.DataFrame] = []
    for number, (path, table) in enumerate(every_key):
        times.append(over_time(table))
        if number < PICTURED:
            stem = "time" if len(masses) == 1 else f"time_{number:02}_{Path(path).stem}"
            waveform = load_audio(path)
            save_figure(
                out / stem,
                attention.time_over_spectrogram(table, waveform),
                paper.time_over_spectrogram(table, waveform),
                tables.time_means(table, clip=0),
            )
    layers = mean_band(masses, ["layer", "pathway"])
    save_figure(
        out / "mass_by_layer", attention.mass_by_layer(layers), paper.mass_by_layer(layers), layers
    )
    heads = mean_band(masses, ["layer", "head", "pathway"])
    for pathway in streams:
        save_figure(
            out / f"layer_head_{pathway}",
            attention.layer_head_map(heads, pathway),
            paper.layer_head_map(heads, pathway),
            pick(heads, pathway),
        )
    if len(masses) > 1 and any(len(each) for each in times):
        slices = over_seconds(times)
        save_figure(
            out / "time", attention.mass_over_time(slices), paper.mass_over_time(slices), slices
        )


def over_seconds(times: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean attention a second, in bins of the longest token, while more than half of clips last.

    Behind that a mean would be of ever fewer clips, and not of those before.
    """
    every: Any = pd.concat(times)
    step = float((every["end_s"] - every["start_s"]).max())
    edges = np.arange(round(every["end_s"].max() / step + 0.5) + 1) * step
    binned = [mass_per_second(each, edges) for each in times if len(each)]
    slices: Any = mean_band(binned, ["pathway", "start_s", "end_s"], limits=(0, None))
    return slices[slices["n"] > len(times) / 2].reset_index(drop=True)


def pick(table: Any, pathway: str) -> pd.DataFrame:
    """The rows of one pathway."""
    return table[table["pathway"] == pathway]


if __name__ == "__main__":
    raise SystemExit(main())
