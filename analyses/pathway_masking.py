"""Score a model with each of its pathways masked: what does every domain need?

    python analyses/pathway_masking.py --model demo/pal --out runs/masking
    python analyses/pathway_masking.py --model demo/pal --audio MANIFEST.csv --split validation \
        --n 25 --out runs/masking

Every stream of the model's route is masked by itself, and all together, in two ways:
by knockout (no text reads the stream; other sound that runs may) and by rerouting (the stream is
absent). Positions stay. Answers are ranked among the domain's labels.

Writes choices.parquet (a row a clip, masking, way and candidate), masking.parquet (the best one),
scores.csv (accuracy and what is lost of it, paired, with intervals over clips, a sign-flip test and
its correction for all maskings; of too few clips their values), contrasts.csv (whether a masking
hurts one domain more than another), figures (HTML, PNG, SVG, their numbers as CSV) and run.json. A
run that was stopped goes on with --resume.

The model was never trained with a pathway masked: a drop says that these weights rely on it, not
that the task needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from palscope._statistics import shown
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
from palscope.analyses._passes import passes_of_choices
from palscope.analyses._roles import with_roles
from palscope.errors import PalscopeError
from palscope.measures._choices import best_choices
from palscope.measures._masking import (
    MASKING,
    NOTHING,
    WAYS,
    Way,
    domain_contrasts,
    masked_choices,
    masking_scores,
    maskings,
)
from palscope.plots import _choices as choices
from palscope.plots import _masking as masking


@dataclass(frozen=True, kw_only=True)
class MaskingOptions(SharedPasses):
    """How streams are masked."""

    way: tuple[Way, ...] = option(WAYS, "of masking")


def ranked(work: Work[MaskingOptions], clips: Sequence[AskedClip]) -> list[pd.DataFrame]:
    """Every candidate's log-probability under each masking."""
    for clip in clips:
        clip.require_choices()
    if list(maskings(work.model.current_route)) == [NOTHING]:
        raise PalscopeError("no layer of this route has sound, so there is nothing to mask.")
    inputs = asked_together(work.model, clips)
    choices = [clip.choices for clip in clips]
    return masked_choices(work.model, inputs, choices, ways=work.options.way)


def passes(work: Work[MaskingOptions], clip: AskedClip) -> float:
    """The prompt, and the candidates behind it, under each masking."""
    ways, masked = len(work.options.way), len(maskings(work.route))
    return ways * masked * passes_of_choices(len(clip.choices))


@each
def best(work: Work[MaskingOptions], clip: AskedClip) -> pd.DataFrame:
    """The best candidate under each masking."""
    assert clip.answer is not None
    table = best_choices(work.rows("choices", clip.name), clip.answer, MASKING)
    about = {"domain": clip.group, "question": clip.question, "answer": clip.answer}
    return pd.concat([pd.DataFrame(about, index=table.index), table], axis=1)


def scores(results: Results[MaskingOptions, AskedClip]) -> dict[str, pd.DataFrame]:
    """Accuracy and what is lost of it, and whether one domain loses more than another."""
    table = results.rows("masking")
    return {"scores": masking_scores(table), "contrasts": domain_contrasts(table)}


def drawn(results: Results[MaskingOptions, AskedClip]) -> dict[str, Any]:
    """Accuracy by domain; of one clip or pair, its candidates' log-probabilities."""
    caption = results.caption()
    if len(results.items) > 2:
        found = results.derived(scores)["scores"]
        return {"accuracy": masking.accuracy_by_domain(found, caption=caption)}
    table = with_roles(results, "choices")
    table = table.assign(
        panel=table["way"].map(masking.TITLES.__getitem__),
        x=table["masked"],
        axis="masked",
        own=table["masked"] == NOTHING,
    )
    return {"masked": choices.choices_against(table, caption=caption)}


def told(results: Results[MaskingOptions, AskedClip]) -> list[str]:
    """One line a domain, way and masking, in per cent."""
    if len(results.items) <= 2:
        return []
    lines: list[str] = []
    for row in results.derived(scores)["scores"].to_dict("records"):
        text = f"{row['domain']:8} {row['way']:9} {row['masked']:18} {100 * row['accuracy']:5.1f} %"
        text += f" {shown(row, '.1f', 100)} of {row['n']}"
        if row["masked"] != NOTHING:
            text += f", lost {100 * row['drop']:.1f} points, p {row['p']:.2g} (of so few changed "
            text += f"answers at least {row['least_p']:.2g}; of all {row['q']:.2g})"
        lines.append(text)
    return lines


ANALYSIS = Analysis(
    name="pathway_masking",
    title="masking",
    about="A whole pathway is taken from the text, in every layer: by *knockout* no text reads it, "
    "but other sound that runs may; by *rerouting* it is absent, so that nothing reads it. In PAL "
    "the two differ for the frames, which the summary reads too. The model was never trained so: "
    "what it loses says what these weights rely on.",
    passes=passes,
    options=MaskingOptions,
    items=partial(chosen_clips, corrupt=True),
    tables=[
        Table("choices", ranked, ("way", "masked", "choice"), shares_passes=True),
        Table("masking", best, ("way", "masked")),
    ],
    summaries=scores,
    figures=drawn,
    notes=told,
    takes="both",
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
