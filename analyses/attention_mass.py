"""Measure where a model's answer attends: mass by layer, head, pathway and slice of time.

    python analyses/attention_mass.py --model demo/pal --audio CLIP [CLIP …] --out runs/mass
    python analyses/attention_mass.py --model demo/plits demo/lal demo/pal --audio MANIFEST.csv \
        --n 20 --out runs/trio

CLIP is a sound file, a folder of them, or a manifest (CSV with columns path, domain, label). Each
clip is asked about on its own; the query is the prompt's last token, which predicts the answer.
Writes attention_mass.parquet (every key), mass_by_pathway.parquet (sums), depth.csv (the layers at
which each stream's mass peaks), figures (HTML, PNG, SVG, and their numbers as CSV) and run.json.
With several models each has such a folder in --out, where the figure that compares them stands. A
run that was stopped goes on with --resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._hooks.attention import CROSSING
from palscope._models.scoring import continued, greedy_answers
from palscope.analyses import (
    Analysis,
    AskedClip,
    Results,
    SharedPasses,
    Table,
    Work,
    asked_together,
    chosen_clips,
    each,
    main,
    option,
)
from palscope.analyses._analysis import caption_of_models
from palscope.interventions._cells import with_encoded
from palscope.measures import attention_mass, by_pathway, mean_band, over_time
from palscope.measures._columns import of_each_row
from palscope.measures._depth import depth_of_mass
from palscope.measures._seconds import mass_per_second
from palscope.plots import _attention as attention
from palscope.plots import _comparison as comparison

PICTURED = 12
"""Up to so many clips get a figure of their own."""


@dataclass(frozen=True, kw_only=True)
class MassOptions(SharedPasses):
    """Whose attention is measured."""

    token: int = option(
        0, "whose attention: 0 is the prompt's last token, 1 the greedy answer's first", least=0
    )


MassResults = Results[MassOptions, AskedClip]


def measured(work: Work[MassOptions], clips: Sequence[AskedClip]) -> Iterator[pd.DataFrame]:
    """The mass of every key in every layer and head."""
    model = work.model
    inputs = with_encoded(model, asked_together(model, clips))
    prompt = inputs["input_ids"].shape[1]
    answers = greedy_answers(model.model, model.processor, inputs)
    said = continued(inputs, *answers)
    table = attention_mass(model, said, queries=[prompt - 1 + work.options.token])
    rows = of_each_row(table, said["attention_mask"])
    for clip, answer, own in zip(clips, answers, rows, strict=True):
        own.insert(0, "domain", clip.group)
        own.insert(1, "answer", model.tokenizer.decode(answer, skip_special_tokens=True).strip())
        yield own


@each
def summed(work: Work[MassOptions], clip: AskedClip) -> pd.DataFrame:
    """The mass of every pathway."""
    mass: Any = by_pathway(work.rows("attention_mass", clip.name), pathways_of(work.model))
    return mass.drop(columns=["row", "query"]).assign(domain=clip.group)


def pathways_of(model: HookedAudioModel) -> list[str]:
    """What attention can go to beside sound, and the streams; text first.

    An encoder–decoder reads text in another attention, whose mass is 1 whatever is heard.
    """
    text = [] if model.audio_attention == CROSSING else ["text"]
    fillers = [] if model.model.filler_id is None else ["filler"]
    return [*text, *fillers, *(stream.name for stream in model.current_route.streams)]


def depth_bands(results: MassResults) -> pd.DataFrame:
    """Mean mass by layer and pathway of each domain, with intervals over its clips."""
    domains: dict[str, list[pd.DataFrame]] = {}
    for _, table in results.each("mass_by_pathway"):
        domains.setdefault(str(table["domain"].iloc[0]), []).append(table)
    bands = [
        mean_band(masses, ["layer", "pathway"]).assign(model=results.model, domain=domain)
        for domain, masses in domains.items()
    ]
    return pd.concat(bands, ignore_index=True)


def drawn(results: MassResults) -> dict[str, Any]:
    """Mass by layer, head and time; of the first clips over their own spectrograms."""
    caption = results.caption()
    masses = [table for _, table in results.each("mass_by_pathway")]
    layers = mean_band(masses, ["layer", "pathway"])
    heads: Any = mean_band(masses, ["layer", "head", "pathway"])
    found: dict[str, Any] = {"mass_by_layer": attention.mass_by_layer(layers, caption=caption)}
    for pathway in [name for name in heads["pathway"].unique() if name != "text"]:
        found[f"layer_head_{pathway}"] = attention.layer_head_map(heads, pathway, caption=caption)
    times: list[pd.DataFrame] = []
    for number, clip in enumerate(results.items):
        table = results.of_item("attention_mass", clip.name)
        times.append(over_time(table))
        if number < PICTURED:
            stem = "time" if len(masses) == 1 else f"time_{number:02}_{Path(clip.name).stem}"
            found[stem] = attention.time_over_spectrogram(
                table, clip.clip, caption=replace(results, items=[clip]).caption()
            )
    if len(masses) > 1 and any(len(each) for each in times):
        found["time"] = attention.mass_over_time(over_seconds(times), caption=caption)
    return found | compared([results])


def compared(every: Sequence[MassResults]) -> dict[str, Any]:
    """Mass by depth, a panel a domain and a line a model."""
    bands = pd.concat([results.derived(depth_bands) for results in every], ignore_index=True)
    return {"mass_by_depth": comparison.mass_by_depth(bands, caption=caption_of_models(every))}


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


def peaks(results: MassResults) -> dict[str, pd.DataFrame]:
    """The layers at which each stream's mass peaks."""
    return {"depth": depth_of_mass(results.rows("mass_by_pathway"), ["domain"])}


ANALYSIS = Analysis(
    name="attention_mass",
    title="attention mass",
    about="Where the token that predicts the answer attends, by layer, head, pathway and time.",
    options=MassOptions,
    items=chosen_clips,
    tables=[
        Table(
            "attention_mass",
            measured,
            ("row", "query", "layer", "head", "pathway", "key", "clip", "start_s", "end_s"),
            shares_passes=True,
        ),
        Table("mass_by_pathway", summed, ("layer", "head", "pathway")),
    ],
    summaries=peaks,
    figures=drawn,
    column="path",  # `clip` is the number of a clip within its prompt
    takes=None,
    compare=compared,
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
