"""Measure where a model's answer attends: mass by layer, head, pathway and slice of time.

    python analyses/attention_mass.py --model demo/pal --audio CLIP [CLIP …] --out runs/mass

CLIP is a sound file, a folder of them, or a manifest (CSV with columns path, domain, label). Each
clip is asked about on its own; the query is the prompt's last token, which predicts the answer.
Writes attention_mass.parquet, figures (HTML, PNG, SVG, and their numbers as CSV) and run.json. Run
again, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import set_seed

import palscope
from palscope.audio import load_audio
from palscope.errors import AudioError, PalscopeError
from palscope.measures import attention_mass, by_pathway, mean_band, over_time
from palscope.models.scoring import continued, greedy_tokens
from palscope.plots import attention, paper, tables
from palscope.plots.figures import save_figure
from palscope.routing import route_from_text
from palscope.sweeps.clips import Done, merge, over_clips, sound_files
from palscope.sweeps.record import run_record, weights_hashes, write_json
from palscope.training.manifest import read_manifest

QUESTION = "Which sound is this?"
SEED = 0
PICTURED = 12
"""Up to so many clips get a figure of their own."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="checkpoint folder or hub id")
    parser.add_argument("--audio", required=True, nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--question", default=QUESTION, help=f"default: {QUESTION}")
    parser.add_argument(
        "--route",
        help="another route than the checkpoint's, e.g. frames:P10.20,summary/3:F30",
    )
    parser.add_argument(
        "--token",
        type=int,
        default=0,
        help="whose attention: 0 is the prompt's last token (default), 1 the greedy answer's first",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    arguments = parser.parse_args()
    try:
        run(**vars(arguments))
    except PalscopeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(
    model: str, audio: Sequence[Path], question: str, route: str | None, token: int, out: Path
) -> None:
    """Measure, store and draw."""
    clips = list(sound_paths(audio))
    set_seed(SEED)
    hooked = palscope.load(model)
    if route is not None:
        hooked.set_route(route_from_text(route))
    hooked.processor.chat(question)  # an unusable question is no clip's fault
    weights = weights_hashes(model, hooked)

    def measure(path: Path) -> pd.DataFrame:
        waveform = load_audio(path)
        inputs = hooked.inputs(question, waveform)
        prompt = inputs["input_ids"].shape[1]
        answer = greedy_tokens(hooked.model, hooked.processor, inputs)[0].tolist()
        table = attention_mass(hooked, continued(inputs, answer), queries=[prompt - 1 + token])
        table.insert(0, "path", str(path))
        table.insert(1, "answer", hooked.tokenizer.decode(answer, skip_special_tokens=True).strip())
        return table

    config = {"model": model, "question": question, "token": token}
    record = run_record(hooked, config=config, weights=weights, seed=SEED)
    settings = {key: record[key] for key in ("config", "route", "weights", "device", "dtype")}
    done, failures = over_clips(clips, measure, out / "clips", settings=settings)
    for failure in failures:
        print(f"left out: {failure.error}", file=sys.stderr)
    if not done:
        raise AudioError(f"none of {len(clips)} clip(s) could be used; see the lines above.")
    merge(done, out / "attention_mass.parquet")
    answers = draw(done, [stream.name for stream in hooked.current_route.streams], out)
    record["clips"] = [
        {"path": str(each.path), "answer": answer}
        for each, answer in zip(done, answers, strict=True)
    ]
    record["left_out"] = [{"path": str(each.path), "error": each.error} for each in failures]
    write_json(out / "run.json", record)
    print(f"{len(done)} clip(s) measured, {len(failures)} left out; results in {out}")


def sound_paths(given: Sequence[Path]) -> Iterator[Path]:
    """The files that the command line names: themselves, in folders, in manifests."""
    for path in given:
        if path.is_dir():
            yield from sound_files(path)
        elif path.suffix.lower() == ".csv":
            yield from (clip.path for clip in read_manifest(path))
        else:
            yield path


def draw(done: Sequence[Done], streams: Sequence[str], out: Path) -> list[str]:
    """Draw the figures, over all clips and for each of the first; returns the clips' answers."""
    pathways = ["text", *streams]
    masses: list[pd.DataFrame] = []
    times: list[pd.DataFrame] = []
    answers: list[str] = []
    for number, each in enumerate(done):
        table = pd.read_parquet(each.results)
        masses.append(by_pathway(table, pathways))
        times.append(over_time(table))
        answers.append(str(table["answer"].iloc[0]))
        if number < PICTURED:
            stem = "time" if len(done) == 1 else f"time_{number:02}_{each.path.stem}"
            waveform = load_audio(each.path)
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
    if len(done) > 1 and any(len(each) for each in times):
        slices = mean_band(times, ["pathway", "start_s", "end_s"])
        save_figure(
            out / "time", attention.mass_over_time(slices), paper.mass_over_time(slices), slices
        )
    return answers


def pick(table: Any, pathway: str) -> pd.DataFrame:
    """The rows of one pathway."""
    return table[table["pathway"] == pathway]


if __name__ == "__main__":
    raise SystemExit(main())
