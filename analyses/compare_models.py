"""Where do several models listen? Mass and knockout of each, over seconds and relative depth.

    python analyses/compare_models.py --model demo/plits demo/lal demo/pal --out runs/models
    python analyses/compare_models.py --config analyses/models/published.yaml --audio CLIPS \
        --out runs/published

A config names the models and how each is loaded (analyses/models has one of the demo's and one of
published models, whose weights the hub gives; they are opened one after the other). Each clip is
asked about on its own. Mass is that of the prompt's last token; knockout cuts all text off from
sound, in a window of a fifth of the layers or in a stretch of time, and gives the KL divergence of
the answer's first token (nats).

Writes a folder a model (profile.parquet, its figure, run.json), and the figure profiles of all
(HTML, PNG, SVG, CSV). A run that was stopped goes on with --resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from palscope.analyses import (
    Analysis,
    AskedClip,
    ClipOptions,
    Results,
    Table,
    Work,
    chosen_clips,
    each,
    main,
    option,
)
from palscope.analyses._analysis import caption_of_models
from palscope.measures._profile import attention_profile, profile_bands
from palscope.plots import _profile as figures


@dataclass(frozen=True, kw_only=True)
class ProfileOptions(ClipOptions):
    """How finely time is cut."""

    step: float = option(0.5, "of a stretch", unit="s")


ProfileResults = Results[ProfileOptions, AskedClip]


@each
def measured(work: Work[ProfileOptions], clip: AskedClip) -> pd.DataFrame:
    """One clip's profile."""
    inputs = work.model.inputs(clip.question, clip.clip)
    length = clip.clip.seconds
    return attention_profile(work.model, inputs, seconds=length, step=work.options.step)


def bands(results: ProfileResults) -> pd.DataFrame:
    """Means over clips of one model's profile."""
    found = profile_bands([table for _, table in results.each("profile")])
    return found.assign(model=results.model)


def compared(every: Sequence[ProfileResults]) -> dict[str, Any]:
    """Means over clips of every model's profile, on the same axes."""
    table = pd.concat([results.derived(bands) for results in every], ignore_index=True)
    return {"profiles": figures.profiles(table, caption=caption_of_models(every))}


ANALYSIS = Analysis(
    name="compare_models",
    title="models",
    about="Where a model listens, on axes that models share: attention mass and knockout, over "
    "seconds and relative depth.",
    options=ProfileOptions,
    items=chosen_clips,
    tables=[Table("profile", measured, ("measure", "axis", "start", "end"))],
    figures=lambda results: compared([results]),
    takes=None,
    compare=compared,
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
