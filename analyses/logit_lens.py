"""Where in depth an answer becomes readable: logit lens at the last token and at audio tokens.

    python analyses/logit_lens.py --model demo/pal --manifest MANIFEST --out runs/lens

Each clip is asked what it is; the answers to choose from are the labels of its domain. After every
layer, the state of the last token and of audio that runs goes through the final norm and the
unembedding. Audio that is keys only has no such state: it is read by what attention moves from it
to the last token. Writes logit_lens.parquet (a row a place and depth of each clip),
readable_from.csv, the figure readable_by_depth (HTML, PNG, SVG, CSV) and run.json.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pandas as pd

from palscope._sweeps import commands
from palscope._sweeps.record import file_hash
from palscope.audio import load_audio
from palscope.datasets._manifest import Clip, read_manifest
from palscope.datasets._questions import TASK_OF_DOMAIN, TRAIN
from palscope.evaluation._items import take_evenly
from palscope.measures import mean_band
from palscope.measures._key_writes import written_by_pathway
from palscope.measures._logit_lens import (
    answer_lead,
    by_depth,
    logit_lens,
    readable_from,
    written_lead,
)
from palscope.measures._vocabulary import spellings
from palscope.plots import _lens as lens
from palscope.plots._figures import save_figure

QUESTION = "What is heard?"


def main() -> int:
    parser = commands.arguments(__doc__)
    commands.add_clips(parser, 60)
    parser.add_argument("--question", help="default: the domain's in the demo's training")
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure, store and draw."""
    rows = [clip for clip in read_manifest(given.manifest) if given.split in (None, clip.split)]
    labels = {
        domain: sorted({clip.label for clip in rows if clip.domain == domain})
        for domain in dict.fromkeys(clip.domain for clip in rows)
    }
    model = commands.open_model(given)
    choices = {domain: spellings(model, names) for domain, names in labels.items()}

    def measure(clip: Clip) -> pd.DataFrame:
        task = TASK_OF_DOMAIN.get(clip.domain)
        question = given.question or (TRAIN[task][0] if task else QUESTION)
        inputs = model.inputs(question, load_audio(clip.path))
        offered = choices[clip.domain]
        asked: dict[str, Any] = {"answers": [id for ids in offered.values() for id in ids]}
        layout = model.layout(inputs)
        columns = layout.layer_columns(model.current_route, 0).running[0]
        sound = columns[layout.stream[0, columns] >= 0]
        tokens = [*sound.tolist(), -1]
        lead = answer_lead(
            logit_lens(model, inputs, tokens=tokens, top_k=0, **asked), clip.label, offered
        )
        written = written_by_pathway(model, inputs, top_k=0, **asked)
        table = by_depth(lead, written_lead(written, clip.label, offered))
        return table.assign(domain=clip.domain, label=clip.label, chance=1 / len(offered))

    results = commands.open_run(given, model, data=[given.manifest])
    stored = results.over(
        take_evenly(rows, given.clips),
        measure,
        table="logit_lens",
        key=lambda clip: clip.name,
        item="clip",
        keys=["place", "depth"],
        content=lambda clip: repr(
            (clip.domain, clip.label, choices[clip.domain], file_hash(clip.path))
        ),
    )
    if results.main:
        draw([table for _, table in stored], given.out)
        print(f"{len(stored.shards)} clip(s) measured; results in {given.out}")
    results.finish()


def draw(tables: list[pd.DataFrame], out: Path) -> None:
    """The figure, and from which depth on answers are readable."""
    domains: dict[str, list[pd.DataFrame]] = {}
    for table in tables:
        domains.setdefault(str(table["domain"].iloc[0]), []).append(table)
    bands = pd.concat(
        [
            mean_band(clips, ["place", "depth"], value="leads").assign(
                domain=domain, chance=clips[0]["chance"].iloc[0]
            )
            for domain, clips in domains.items()
        ]
    )
    screen, paper = lens.readable_by_depth(bands), lens.readable_by_depth_paper(bands)
    save_figure(out / "readable_by_depth", screen, paper, bands)
    starts = pd.concat(
        [
            mean_band(
                [readable_from(table) for table in clips],
                ["place"],
                value="readable_from",
                limits=(0, None),
            ).assign(domain=domain, clips=len(clips))
            for domain, clips in domains.items()
        ]
    )
    starts.to_csv(out / "readable_from.csv", index=False)
    print(starts.to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(main())
