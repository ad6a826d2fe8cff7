"""Compare two runs of evaluate.py on the same questions, question by question.

    python analyses/compare_scores.py runs/pal runs/lal --out runs/pal-lal

A and B are folders that evaluate.py was given as --out. For every rule that both were scored by, in
all and by category, the difference B less A with its paired interval over clips (95 %; of few clips
each one's difference) and a sign-flip test over clips, with one question a clip McNemar's. Writes
comparison.csv.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palscope._statistics import shown
from palscope.analyses import Command, option
from palscope.evaluation._rows import compare_runs


@dataclass(frozen=True, kw_only=True)
class ScoresOptions:
    """Which runs."""

    a: Path = option(..., "folder of a run", positional=True)
    b: Path = option(..., "folder of another", positional=True)
    out: Path | None = option(None, "folder for comparison.csv; without it there is none")


def compared(given: ScoresOptions) -> None:
    """Compare, print what differs in all, and store the rest."""
    table = compare_runs(given.a, given.b)
    print(f"A: {given.a}\nB: {given.b}")
    overall: Any = table[table["by"] == "all"]
    for row in overall.to_dict("records"):
        print(
            f"{row['rule']}: A {row['a']:.4f}, B {row['b']:.4f}, B less A "
            f"{row['difference']:+.4f} {shown(row, '+.4f')} over {row['n']} questions"
        )
        if row["only_a"] == row["only_a"]:  # not for micro F1 or captions
            print(f"    right: A alone {row['only_a']:.0f}, B alone {row['only_b']:.0f}")
        if row["p"] == row["p"]:
            least = f"of so few clips that differ at least {row['least_p']:.2g}"
            print(f"    sign-flip test: p = {row['p']:.4g} ({least})")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        table.to_csv(given.out / "comparison.csv", index=False)


COMMAND = Command("compare_scores", ScoresOptions, compared)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))
