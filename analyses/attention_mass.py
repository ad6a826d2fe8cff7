"""Measure where a model's answer attends: mass by layer, head, pathway and slice of time.

    python analyses/attention_mass.py --model demo/pal --audio CLIP [CLIP …] --out runs/mass

CLIP is a sound file, a folder of them, or a manifest (CSV with columns path, domain, label). Each
clip is asked about on its own; the query is the prompt's last token, which predicts the answer.
Writes attention_mass.parquet, figures (HTML, PNG, SVG, and their numbers as CSV) and run.json. A
run that was stopped goes on with --resume.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from palscope.audio import load_audio
from palscope.measures import attention_mass, by_pathway, mean_band, over_time
from palscope.models.scoring import continued, greedy_tokens
from palscope.plots import attention, paper, tables
from palscope.plots.figures import save_figure
from palscope.sweeps import commands
from palscope.sweeps.clips import sound_files
from palscope.sweeps.record import file_hash
from palscope.sweeps.store import StoredTable
from palscope.training.manifest import read_manifest

QUESTION = "Which sound is this?"
PICTURED = 12
"""Up to so many clips get a figure of their own."""


def main() -> int:
    parser = commands.arguments(__doc__)
    parser.add_argument("--audio", required=True, nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--question", default=QUESTION, help=f"default: {QUESTION}")
    parser.add_argument(
        "--token",
        type=int,
        default=0,
        help="whose attention: 0 is the prompt's last token (default), 1 the greedy answer's first",
    )
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure, store and draw."""
    clips = list(sound_paths(given.audio))
    model = commands.open_model(given)
    model.processor.chat(given.question)  # an unusable question is no clip's fault

    def measure(path: Path) -> pd.DataFrame:
        inputs = model.inputs(given.question, load_audio(path))
        prompt = inputs["input_ids"].shape[1]
        answer = greedy_tokens(model.model, model.processor, inputs)[0].tolist()
        queries = [prompt - 1 + given.token]
        table = attention_mass(model, continued(inputs, answer), queries=queries)
        table.insert(0, "answer", model.tokenizer.decode(answer, skip_special_tokens=True).strip())
        return table

    results = commands.open_run(given, model, data=clips)
    table = results.over(
        clips,
        measure,
        table="attention_mass",
        key=str,
        item="path",
        keys=["row", "query", "layer", "head", "key"],
        content=lambda path: file_hash(path) or "",
    )
    if results.main:
        draw(table, [stream.name for stream in model.current_route.streams], given.out)
        print(
            f"{len(table.shards)} clip(s) measured, {len(table.left_out)} left out; "
            f"results in {given.out}"
        )
    results.finish()


def sound_paths(given: Sequence[Path]) -> Iterator[Path]:
    """The files that the command line names: themselves, in folders, in manifests."""
    for path in given:
        if path.is_dir():
            yield from sound_files(path)
        elif path.suffix.lower() == ".csv":
            yield from (clip.path for clip in read_manifest(path))
        else:
            yield path


def draw(stored: StoredTable, streams: Sequence[str], out: Path) -> None:
    """Draw the figures, over all clips and for each of the first."""
    pathways = ["text", *streams]
    masses: list[pd.DataFrame] = []
    times: list[pd.DataFrame] = []
    for number, (path, table) in enumerate(stored):
        masses.append(by_pathway(table, pathways))
        times.append(over_time(table))
        if number < PICTURED:
            stem = "time" if len(stored.shards) == 1 else f"time_{number:02}_{Path(path).stem}"
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
        slices = mean_band(times, ["pathway", "start_s", "end_s"])
        save_figure(
            out / "time", attention.mass_over_time(slices), paper.mass_over_time(slices), slices
        )


def pick(table: Any, pathway: str) -> pd.DataFrame:
    """The rows of one pathway."""
    return table[table["pathway"] == pathway]


if __name__ == "__main__":
    raise SystemExit(main())
