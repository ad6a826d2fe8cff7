r"""What does a direction do when it is added, dose by dose: to its label, and to everything else?

    python analyses/steering.py --direction runs/seven --at resid_post:20 --model demo/pal \
        --audio clips.csv --split validation --n 20 --out runs/steering

A direction that was found on stored rows and saved (palscope.directions, docs/how-to/directions.md)
is added at its own site while clips are asked about, at every dose, beside a random direction as
long. Clips of the direction's domain with other labels say how many are answered with its label,
and the log-odds of that; clips of other domains say what is damaged: accuracy, and how far the next
token's distribution moves (KL). A dose of 1 is the direction as it was saved, and its length beside
the rows' is told. With --say the free answers are written down, too: the tokens that are generated
are steered where --tokens is text.

Writes steered.parquet, said.parquet, doses.csv, a figure (HTML, PNG, SVG, CSV) and run.json. A run
that was stopped goes on with --resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from palscope._directions.direction import Direction, Steer
from palscope._directions.steering import steered_choices
from palscope._statistics import mean_row, shown
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
from palscope.analyses._addresses import address_of
from palscope.analyses._options import OptionError
from palscope.interventions import Address, Patch, Sound, Text, intervene
from palscope.plots import _steering as plots

FOUND, RANDOM = "direction", "random"


@dataclass(frozen=True, kw_only=True)
class SteeringOptions(SharedPasses):
    """Which direction is added, where and how much of it."""

    direction: Path = option(..., "folder that Direction.save wrote", page=False)
    at: str = option(..., "its site with the layer: encoder_block:2, resid_post:20", page=False)
    tokens: Literal["sound", "last", "text"] = option(
        "sound",
        "where it is added: sound, the prompt's last token, or all text and what is written",
    )
    start: float = option(0.0, "of the sound", unit="s", least=0)
    end: float | None = option(None, "of the sound (default: the clip's)", unit="s")
    doses: tuple[float, ...] = option((0.0, 0.5, 1.0, 2.0, 4.0), "of the direction")
    say: bool = option(False, "also write down free answers")


@dataclass(frozen=True)
class SteeredClip(AskedClip):
    """A clip, and what is added while it is heard."""

    added: str = ""

    @property
    def digest(self) -> str:
        """Of the direction, too."""
        return hashlib.sha256(f"{super().digest} {self.added}".encode()).hexdigest()


SteeringWork = Work[SteeringOptions]
SteeringResults = Results[SteeringOptions, SteeredClip]


# -- what is added ---------------------------------------------------------------------------------


@cache
def found(folder: Path) -> Direction:
    """The direction, read once."""
    return Direction.load(folder)


def target_of(direction: Direction) -> str:
    """The label that it leads to. Raises `OptionError` where it does not say."""
    label = direction.made.get("label")
    if not isinstance(label, str):
        raise OptionError("--direction: it leads to no label; make one by find_direction.")
    return label


def where(options: SteeringOptions) -> Address:
    """The site, and the tokens there."""
    tokens: Any = {"last": Text(-1), "text": Text()}.get(options.tokens)
    if tokens is None:
        tokens = Sound(options.start, options.end)
    elif options.start or options.end:
        raise OptionError(f"--start and --end are of sound; --tokens is {options.tokens}.")
    return replace(address_of(options.at), tokens=tokens)


def directions(options: SteeringOptions) -> dict[str, Direction]:
    """The direction, and one drawn at random that is as long."""
    own = found(options.direction)
    return {FOUND: own, RANDOM: own.random(options.seed)}


def clips_of(options: SteeringOptions) -> list[SteeredClip]:
    """The chosen clips, which know what is added."""
    own = found(options.direction)
    # An unusable one is no clip's fault.
    target_of(own)
    where(options)
    added = hashlib.sha256(own.vector.numpy().tobytes()).hexdigest()
    return [
        SteeredClip(**{f.name: getattr(clip, f.name) for f in fields(AskedClip)}, added=added)
        for clip in chosen_clips(options)
    ]


# -- what is measured ------------------------------------------------------------------------------


def steered(work: SteeringWork, clips: Sequence[SteeredClip]) -> list[pd.DataFrame]:
    """How every clip's choices are ranked at each dose."""
    for clip in clips:
        clip.require_choices()
    options, inputs = work.options, asked_together(work.model, clips)
    choices = [clip.choices for clip in clips]
    parts: list[list[pd.DataFrame]] = [[] for _ in clips]
    for by, direction in directions(options).items():
        target = target_of(found(options.direction))
        tables = steered_choices(
            work.model, inputs, choices, direction, where(options), options.doses, target=target
        )
        for mine, clip, table in zip(parts, clips, tables, strict=True):
            right = table["best"] == clip.answer
            about = {"domain": clip.group, "answer": clip.answer}
            mine.append(table.assign(by=by, **about, target=table["best"] == target, right=right))
    return [pd.concat(mine, ignore_index=True) for mine in parts]


@each
def said(work: SteeringWork, clip: SteeredClip) -> pd.DataFrame:
    """What is answered freely at each dose, and whether the label is in it."""
    options, inputs = work.options, work.model.inputs(clip.question, clip.clip)
    target = target_of(found(options.direction))
    rows: list[dict[str, Any]] = []
    for by, direction in directions(options).items():
        for dose in options.doses:
            patches = [Patch(where(options), Steer(direction, dose))] if dose else []
            with intervene(work.model, inputs, patches):
                text = work.model.ask(clip.question, clip.clip)
            row = {"by": by, "dose": dose, "domain": clip.group, "answer": clip.answer}
            rows.append({**row, "text": text, "target": target in text.lower()})
    return pd.DataFrame(rows)


# -- over clips ------------------------------------------------------------------------------------


def doses(results: SteeringResults) -> pd.DataFrame:
    """By direction and dose: the target's share and log-odds, and what else changes."""
    table: Any = results.rows("steered")
    own = found(results.options.direction)
    target = target_of(own)
    mine, others = table[table["log_odds"].notna()], table[table["log_odds"].isna()]
    labelled = mine["answer"] == target
    cases: list[tuple[str, Any, str, Any]] = [
        ("rate", mine[~labelled], "target", (0, 1)),
        ("log_odds", mine[~labelled], "log_odds", (None, None)),
        ("kept", mine[labelled], "right", (0, 1)),
        ("elsewhere", others, "right", (0, 1)),
        ("kl", others, "kl", (0, None)),
    ]
    if "said" in results.stored:
        free: Any = results.rows("said")
        here = free["domain"].isin(set(mine["domain"])) & (free["answer"] != target)
        cases.append(("said", free[here], "target", (0, 1)))
    rows: list[dict[str, Any]] = []
    for what, some, column, limits in cases:
        for (by, dose), group in some.groupby(["by", "dose"], sort=False):
            row = {"what": what, "by": by, "dose": dose, "norm": abs(dose) * own.relative_norm}
            rows.append({**row, **mean_row(group[column].astype(float), "value", limits=limits)})
    return pd.DataFrame(rows)


def summaries(results: SteeringResults) -> dict[str, pd.DataFrame]:
    """The doses."""
    return {"doses": doses(results)}


def drawn(results: SteeringResults) -> dict[str, Any]:
    """The dose curve."""
    own = found(results.options.direction)
    table = results.derived(summaries)["doses"]
    figure = plots.dose_curve(table, target_of(own), own.relative_norm, caption=results.caption())
    return {"dose_curve": figure}


def told(results: SteeringResults) -> list[str]:
    """One line a dose and direction."""
    lines: list[str] = []
    for row in results.derived(summaries)["doses"].to_dict("records"):
        name = plots.TITLES[row["what"]].format(target_of(found(results.options.direction)))
        scale, unit = (1, " nats") if row["what"] in ("log_odds", "kl") else (100, " %")
        lines.append(
            f"{row['by']:9} dose {row['dose']:g} ({row['norm']:.2f} of the rows' norm) {name}: "
            f"{scale * row['value']:.2f}{unit} {shown(row, '.2f', scale)} of {row['n']}"
        )
    return lines


ANALYSIS = Analysis(
    name="steering",
    title="steering",
    about="A direction is added while clips are heard, at several doses, beside a random one that "
    "is as long: how many answers become its label, and what is damaged elsewhere.",
    options=SteeringOptions,
    items=clips_of,
    tables=[
        Table("steered", steered, ("by", "dose"), shares_passes=True),
        Table("said", said, ("by", "dose"), when=lambda options: options.say),
    ],
    summaries=summaries,
    figures=drawn,
    notes=told,
    takes=None,  # the page has no direction
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
