"""Score a model with each of its pathways masked: what does every domain need?

    python analyses/pathway_masking.py --model demo/pal --out runs/masking
    python analyses/pathway_masking.py --model demo/pal --manifest MANIFEST.csv --split validation \
        --limit 25 --out runs/masking

The manifest is a CSV with columns path, domain, label; without one the package's own clips are
asked about. Every stream of the model's route is masked by itself, and all together, in two ways:
by knockout (no text reads the stream; other sound that runs may) and by rerouting (the stream is
absent). Positions stay. Answers are ranked among the domain's labels.

Writes masking.parquet (a row a clip, masking and way), scores.csv (accuracy and what is lost of it,
paired, with intervals over clips, a sign-flip test and its correction for all maskings; of too few
clips their values), contrasts.csv (whether a masking
hurts one domain more than another), figures (HTML, PNG, SVG, their numbers as CSV) and run.json. A
run that was stopped goes on with --resume.

The model was never trained with a pathway masked: a drop says that these weights rely on it, not
that the task needs it.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pandas as pd

from palscope._statistics import shown
from palscope._sweeps import commands
from palscope._sweeps.commands import count
from palscope._sweeps.record import file_hash
from palscope.datasets._manifest import Clip
from palscope.evaluation._asked import labelled_questions
from palscope.evaluation._items import Item
from palscope.measures._masking import WAYS, domain_contrasts, masking_scores, pathway_masking
from palscope.plots import _masking as masking
from palscope.plots._figures import save_figure


def main() -> int:
    parser = commands.arguments(__doc__)
    parser.add_argument("--manifest", type=Path, help="default: the package's own clips")
    parser.add_argument("--split", help="only rows with this value in column split")
    parser.add_argument(
        "--limit", type=count, help="so many clips of each domain, spread over labels"
    )
    parser.add_argument(
        "--way", nargs="+", choices=WAYS, default=WAYS, help="of masking (default: both)"
    )
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure, store and draw."""
    model = commands.open_model(given)
    asked = labelled_questions(
        given.manifest, split=given.split, limit=given.limit, seed=given.seed
    )

    def measure(pair: tuple[Clip, Item]) -> pd.DataFrame:
        _, item = pair
        inputs = model.inputs(item.question, *item.asked().clips)
        table = pathway_masking(model, inputs, item.choices, item.answer, ways=given.way)
        about = {"domain": item.domain, "question": item.question, "answer": item.answer}
        return pd.concat([pd.DataFrame(about, index=table.index), table], axis=1)

    results = commands.open_run(given, model, data=[clip.path for clip, _ in asked])
    stored = results.over(
        asked,
        measure,
        table="masking",
        key=lambda pair: pair[0].name,
        item="clip",
        keys=["way", "masked"],
        content=lambda pair: repr(
            (pair[1].question, pair[1].choices, pair[1].answer, file_hash(pair[0].path))
        ),
    )
    if results.main:
        table = stored.read()
        scores = masking_scores(table)
        scores.to_csv(given.out / "scores.csv", index=False)
        domain_contrasts(table).to_csv(given.out / "contrasts.csv", index=False)
        save_figure(
            given.out / "accuracy",
            masking.accuracy_by_domain(scores),
            masking.accuracy_by_domain_paper(scores),
            scores,
        )
        print_scores(scores)
        left = len(stored.left_out)
        print(f"{len(stored.shards)} clip(s) measured, {left} left out; results in {given.out}")
    results.finish()


def print_scores(scores: pd.DataFrame) -> None:
    """One line a domain, way and masking, in per cent."""
    for row in scores.to_dict("records"):
        text = f"{row['domain']:8} {row['way']:9} {row['masked']:18} {100 * row['accuracy']:5.1f} %"
        text += f" {shown(row, '.1f', 100)} of {row['n']}"
        if row["masked"] != "nothing":
            text += f", lost {100 * row['drop']:.1f} points, p {row['p']:.2g} (of so few changed "
            text += f"answers at least {row['least_p']:.2g}; of all {row['q']:.2g})"
        print(text)


if __name__ == "__main__":
    raise SystemExit(main())
