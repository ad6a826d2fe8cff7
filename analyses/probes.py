r"""How well can a label be read at a site, in a layer, at a second, of unseen recordings?

    python analyses/activations.py --model demo/pal --audio clips.csv \
        --at encoder_block resid_post:0,10,20 --out runs/activations
    python analyses/probes.py runs/activations --out runs/probes

Logistic probes on the mean row of every clip, a domain by itself; no recording (or speaker) stands
on both sides. Beside each is a control task with labels drawn at random for every pair of label and
recording: what the probe learns by heart. With --step, every stretch of the clips has a probe of
its own, as far as half of a domain's clips reach.

Writes probes.csv and figures (HTML, PNG, SVG, CSV).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from palscope._directions.examples import clip_examples
from palscope._directions.probes import FOLDS, probe_scores
from palscope._features.store import Activations, ActivationStore
from palscope._files import make_folder
from palscope._statistics import shown
from palscope.analyses import Command, option
from palscope.analyses._command import save_figures
from palscope.errors import PalscopeError
from palscope.plots import Caption
from palscope.plots._probes import accuracy_by_layer, accuracy_over_time

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
"""The number of the layer in the name of a hook point."""


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Which rows are read, and how recordings are held out."""

    store: Path = option(..., "folder of activations", positional=True)
    at: tuple[str, ...] = option((), "hook points (default: all that are stored)")
    domain: tuple[str, ...] = option((), "domains (default: all)")
    step: float | None = option(None, "probe every stretch of so long", unit="s", least=0.01)
    folds: int = option(FOLDS, "parts, each held out once", least=2)
    penalty: float = option(1.0, "on the probe's squared weights", least=0)
    seed: int = option(0, "of parts and of the control task")
    out: Path = option(..., "folder for the table and figures")


def probed(given: ProbeOptions) -> None:
    """Probe, write, draw and print."""
    store = ActivationStore(given.store)
    domains = _chosen(given.domain, store.clips["domain"].unique(), "domain")
    parts: list[pd.DataFrame] = []
    for hook_point in _chosen(given.at, store.hook_points, "hook point"):
        layer = _LAYER.search(hook_point)
        site = _LAYER.sub("*", hook_point, count=1)
        for domain in domains:
            rows = store[hook_point].of_clips(store.clips["domain"] == domain)
            for seconds in _stretches(rows, domain, given.step):
                examples = clip_examples(rows, seconds=seconds)
                scores = probe_scores(
                    examples, folds=given.folds, penalty=given.penalty, seed=given.seed
                )
                number = float("nan") if layer is None else int(layer[0])
                parts.append(scores.assign(site=site, layer=number))
                for row in scores.to_dict("records"):
                    print(_told(row))
    table = pd.concat(parts, ignore_index=True)
    make_folder(given.out)
    table.to_csv(given.out / "probes.csv", index=False)
    save_figures(_figures(table, store), given.out)


def _chosen(asked: tuple[str, ...], known: Any, what: str) -> list[str]:
    """Those that were asked for, or all."""
    unknown = [each for each in asked if each not in known]
    if unknown:
        raise PalscopeError(f"no {what} {unknown[0]!r} is stored; there are {', '.join(known)}.")
    return list(asked or known)


def _stretches(
    rows: Activations, domain: str, step: float | None
) -> Iterator[tuple[float, float | None]]:
    """The whole clip; or each stretch that half of the domain's clips reach the end of."""
    if step is None:
        yield 0.0, None
        return
    clips: Any = rows.store.clips
    half = float(clips.loc[clips["domain"] == domain, "seconds"].median())
    if half < step:
        raise PalscopeError(
            f"half of the clips of {domain} are shorter than {half:.2f} s; give a --step below "
            "that."
        )
    for number in range(int(half / step + 1e-6)):
        yield round(number * step, 9), round((number + 1) * step, 9)


def _told(row: dict[str, Any]) -> str:
    control = {"low": row["control_low"], "high": row["control_high"]}
    stretch = "" if row["end"] != row["end"] else f" {row['start']:.2f} to {row['end']:.2f} s"
    return (
        f"{row['hook_point']}{stretch}, {row['domain']}: {100 * row['accuracy']:.1f} % "
        f"{shown(row, '.1f', 100)} of {row['n']} clips, {row['recordings']} {row['apart']}s; "
        f"control {100 * row['control']:.1f} % {shown(control, '.1f', 100)}"
    )


def _figures(table: pd.DataFrame, store: ActivationStore) -> dict[str, Any]:
    """Against layers; of stretches against time."""
    whole: Any = table
    caption = Caption(
        str(store.record["weights"]["checkpoint"]["name"]),
        "which label has the clip?",
        int(whole.groupby("domain")["n"].max().sum()),
    )
    if whole["end"].notna().any():
        return {"accuracy_over_time": accuracy_over_time(whole, caption=caption)}
    return {"accuracy_by_layer": accuracy_by_layer(whole, caption=caption)}


COMMAND = Command("probes", ProbeOptions, probed)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))
