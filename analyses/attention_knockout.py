"""Cut text off from sound in a sliding window of layers: which layers does the answer need?

    python analyses/attention_knockout.py --model demo/pal --out runs/knockout
    python analyses/attention_knockout.py --model demo/pal --manifest MANIFEST.csv \
        --split validation --limit 20 --out runs/knockout
    python analyses/attention_knockout.py --model demo/pal --manifest MANIFEST.csv \
        --split validation --kind first_digit last_digit --limit 20 --out runs/segments

By default the package's 20 pairs are asked about (of which the clean clips are heard), with
--manifest the clips of a CSV with columns path, domain, label, and with --kind pairs of such clips,
whose stretches of time have names (first digit, silence, …). Those, or steps of --seconds, are also
cut by themselves.

Edges from all text (--queries text), from the token alone that predicts the answer (last), or from
the answer's own tokens (generated) are cut, to each stream and to all. As controls, text is cut off
from as many random text tokens, and sound from sound where it runs. Log-probability and the like
are those of the answer's deciding token: the first that differs from the other answer (a pair's
other one, else the likeliest wrong choice). Clips that the model gets wrong are left out of the
figures.

Writes knockout.parquet (a row a cut and window), effects.csv, figures (HTML, PNG, SVG, their
numbers as CSV) and run.json. A run that was stopped goes on with --resume.

A window without effect does not mean that the sound is not read there: what text read below the
window it carries on, and what is left of attention sums to 1 again.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._sweeps import commands
from palscope._sweeps.commands import count
from palscope.audio import Waveform
from palscope.datasets._manifest import Corpus, DecodedOnDemand, read_manifest
from palscope.errors import PalscopeError
from palscope.evaluation._asked import labelled_questions
from palscope.interventions import Sound
from palscope.interventions._cells import with_encoded
from palscope.measures import _grids as grids
from palscope.measures._choices import choice_logprobs
from palscope.measures._knockout import (
    EFFECTS,
    Edges,
    attention_knockout,
    audio_to_audio,
    generated_knockout,
    knockout_effects,
    sliding_windows,
    text_to_audio,
    text_to_text,
    through_fillers,
)
from palscope.measures._metrics import Answers
from palscope.pairs import KINDS, bundled_corpus, bundled_pairs, swap_pairs
from palscope.pairs._pair import Pair
from palscope.plots import _knockout as knockout
from palscope.plots._figures import save_figure

DEPTH = ["group", "queries", "pathway", "first_layer", "last_layer"]
COLUMNS = [
    *("run", "queries", "pathway", "segment", "start_s", "end_s", "first_layer", "last_layer"),
    *("layers", "keys", "logit_diff", "logprob", "kl", "rank"),
    *("logit_diff_change", "logprob_change", "flipped"),
]
DRAWN = ("logprob_change", "flipped")


@dataclass(frozen=True)
class Question:
    """One clip with a question and its right answer; the other answer, or choices to find it in."""

    name: str
    group: str
    text: str
    answer: str
    audio: Waveform
    other: str | None
    choices: tuple[str, ...]
    segments: Mapping[str, Sound]

    @property
    def content(self) -> bytes:
        samples = self.audio.samples
        about = (self.text, self.answer, self.other, self.choices, dict(self.segments))
        return repr(about).encode() + samples.tobytes()


def main() -> int:
    parser = commands.arguments(__doc__)
    parser.add_argument("--manifest", type=Path, help="clips; default: the package's own pairs")
    parser.add_argument("--split", help="only rows of the manifest with this value in column split")
    parser.add_argument("--kind", nargs="+", choices=KINDS, help="pairs of these kinds")
    parser.add_argument(
        "--limit", type=count, default=20, help="clips a domain, or pairs a kind (default: 20)"
    )
    parser.add_argument(
        "--queries",
        nargs="+",
        choices=["text", "last", "generated"],
        default=["text", "last"],
        help="who is cut off (default: text last)",
    )
    parser.add_argument("--width", type=count, default=6, help="layers in a window (default: 6)")
    parser.add_argument("--step", type=count, default=3, help="layers between windows (default: 3)")
    parser.add_argument("--seconds", type=float, help="of a manifest's clips, also cut such steps")
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure, store and draw."""
    model = commands.open_model(given)
    layers = model.current_route.n_layers
    windows = [*sliding_windows(layers, given.width, given.step), range(layers)]
    asked = questions(given)

    def measure(question: Question) -> pd.DataFrame:
        table = cut(model, question, given.queries, windows, seed=given.seed)
        table.insert(0, "group", question.group)
        return table

    results = commands.open_run(given, model, data=[given.manifest] if given.manifest else [])
    stored = results.over(
        asked,
        measure,
        table="knockout",
        key=lambda question: question.name,
        item="clip",
        keys=["run", "queries", "pathway", "segment", "first_layer", "last_layer"],
        content=lambda question: question.content,
    )
    if results.main:
        table: Any = stored.read()
        solved = table[table["solved"]]
        known, kept = table["clip"].nunique(), solved["clip"].nunique()
        print(f"{kept} of {known} clip(s) answered right, the others are left out of the figures")
        if kept:
            draw(solved, given.out)
        print(f"{known} clip(s) measured, {len(stored.left_out)} left out; results in {given.out}")
    results.finish()


def questions(given: Namespace) -> list[Question]:
    """What the command line asks for."""
    if given.manifest and not given.kind:
        found = labelled_questions(
            given.manifest, split=given.split, limit=given.limit, seed=given.seed
        )
        made: list[Question] = []
        for clip, item in found:
            (audio,) = item.asked().clips
            steps = grids.steps(audio.seconds, given.seconds) if given.seconds else {}
            made.append(
                Question(
                    clip.name,
                    item.domain,
                    item.question,
                    item.answer,
                    audio,
                    None,
                    item.choices,
                    steps,
                )
            )
        return made
    if given.seconds:
        raise PalscopeError("--seconds is for a manifest's clips; pairs have stretches by name.")
    return [from_pair(pair) for pair in chosen_pairs(given)]


def chosen_pairs(given: Namespace) -> list[Pair]:
    """The package's pairs, or those of the kinds asked for."""
    if not given.kind:
        return bundled_pairs()
    corpus = bundled_corpus()
    if given.manifest:
        corpus = Corpus(tuple(read_manifest(given.manifest)), DecodedOnDemand())
    return [
        pair
        for kind in given.kind
        for pair in swap_pairs(corpus, kind, n=given.limit, seed=given.seed, split=given.split)
    ]


def from_pair(pair: Pair) -> Question:
    """The clean side of a pair."""
    segments = {each.name: Sound(each.start, each.end) for each in pair.segments}
    return Question(
        pair.name,
        pair.kind,
        pair.question,
        pair.clean_answer,
        pair.clean,
        pair.corrupt_answer,
        (),
        segments if len(segments) > 1 else {},
    )


def cut(
    model: HookedAudioModel,
    question: Question,
    queries: list[str],
    windows: list[range],
    *,
    seed: int,
) -> pd.DataFrame:
    """All cuts of one question."""
    inputs = with_encoded(model, model.inputs(question.text, question.audio))
    other = question.other or runner_up(model, inputs, question)
    answers = Answers.of(model.processor, question.answer, other)
    readers: Any = [reader for reader in queries if reader != "generated"]
    route = model.current_route
    sound = int((model.layout(inputs).stream[0] >= 0).sum())
    edges: list[Edges] = [
        *text_to_audio(route, readers=readers),
        *(
            text_to_text(model, inputs, sound, answers=answers, reader=reader, seed=seed)
            for reader in readers
        ),
        *audio_to_audio(model, inputs),
        *through_fillers(model, inputs),
    ]
    if question.segments:
        edges += text_to_audio(route, readers=("text",), segments=question.segments)
    table = attention_knockout(model, inputs, edges, windows, answers=answers)
    if "generated" in queries:
        made: Any = generated_knockout(model, inputs, windows, answer=question.answer)
        table = pd.concat([table, made[made["run"] == "cut"]], ignore_index=True)
    # The same columns for every clip, whether its stretches have names or not.
    table = table.reindex(columns=COLUMNS).astype({"segment": "string"})
    about = {"answer": question.answer, "other": other, "solved": table["rank"].iloc[0] == 0}
    for place, (name, value) in enumerate(about.items()):
        table.insert(place, name, value)
    return table


def runner_up(model: HookedAudioModel, inputs: Any, question: Question) -> str | None:
    """The likeliest wrong choice; None where nothing is known to choose from."""
    wrong = [choice for choice in question.choices if choice != question.answer]
    if not wrong:
        return None
    return wrong[int(np.argmax(choice_logprobs(model, inputs, wrong)))]


def draw(table: Any, out: Path) -> None:
    """The figures of effects by depth, and by segment and depth, with their tables."""
    by_depth = table[table["segment"].isna()]
    tables = [
        knockout_effects(by_depth, DEPTH, effect=effect).assign(measure=effect)
        for effect in EFFECTS
        if by_depth.loc[by_depth["run"] == "cut", effect].notna().any()
    ]
    pd.concat(tables, ignore_index=True).to_csv(out / "effects.csv", index=False)
    for effect in DRAWN:
        effects = knockout_effects(by_depth, DEPTH, effect=effect)
        save_figure(
            out / f"depth_{effect}",
            knockout.effect_by_depth(effects, effect),
            knockout.effect_by_depth_paper(effects, effect),
            effects,
        )
    parts = table[table["segment"].notna()]
    pathways = list(parts["pathway"].unique())
    for (group, pathway), rows in parts.groupby(["group", "pathway"], sort=False):
        by = ["segment", "first_layer", "last_layer"]
        effects = knockout_effects(rows.sort_values("start_s", kind="stable"), by)
        stem = f"segments_{group}" + (f"_{pathway.replace(' ', '_')}" if len(pathways) > 1 else "")
        save_figure(
            out / stem,
            knockout.segments_by_depth(effects),
            knockout.segments_by_depth_paper(effects),
            effects,
        )


if __name__ == "__main__":
    raise SystemExit(main())
