"""A run's scored rows: stored, summed up by category, and compared with another run's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd

from palscope._files import LARGEST_TEXT, read_object, whole
from palscope._statistics import (
    Values,
    difference_of_scores,
    false_discovery,
    interval_columns,
    score_of,
)
from palscope._sweeps.shards import read_shards
from palscope.errors import PalscopeError

ROWS = "rows.parquet"
NOT_CATEGORIES = ("rule", "id", "clip", "got", "of")


def write_rows(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Store each rule's rows in one table, `rule, id, clip, CATEGORIES…, got, of`."""
    kept = [cast(Any, table).assign(rule=name) for name, table in tables.items() if len(table)]
    table: Any = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame({"rule": []})
    with whole(folder / ROWS) as part:
        table.to_parquet(part, index=False)


def score(rows: pd.DataFrame, measure: str) -> dict[str, Any]:
    """A score with its interval, in all and by every category.

    Args:
        rows: `id, clip, CATEGORIES…, got, of`.
        measure: the score's name.

    Returns:
        `MEASURE` (`got` over `of`, summed), `n` (how many ids), its 95 % `interval` over clips
        (`score_of`; None where clips are too few, then `values` has each clip's score) and
        `by_category`: field, then value, then the same. Of no rows the score is None.
    """
    table: Any = rows
    fields = [name for name in table if name not in NOT_CATEGORIES]
    return {
        **_score(table, measure),
        "by_category": {
            field: {
                str(value): _score(group, measure)
                for value, group in table.groupby(field, sort=True)
                if value != ""
            }
            for field in fields
        },
    }


def _score(rows: Any, measure: str) -> dict[str, Any]:
    if not len(rows):
        return {measure: None, "n": 0, "interval": None}
    score, interval, by_clip = score_of(rows)
    found: dict[str, Any] = {
        measure: score,
        "n": int(rows["id"].nunique()),
        "interval": list(interval) if interval.known else None,
    }
    values = Values.unless(interval, by_clip)
    return found | ({"values": list(values.numbers)} if values.numbers else {})


def compare_runs(a: Path, b: Path) -> pd.DataFrame:
    """What two runs on the same questions got, question by question.

    Args:
        a: folder of a run.
        b: folder of another.

    Returns:
        One row a rule and category: `rule, by, at, n` (questions that both have), `a`, `b`
        (scores), `difference` (B less A) with its paired 95 % interval over clips, `low`, `high`
        (NaN where clips are too few, then `values` has each clip's difference); `only_a`, `only_b`
        (questions that one alone answers right; NaN where answers are not right or wrong); `p`,
        that both do equally well, of a sign-flip test over clips, and `least_p`, the least that so
        few clips that change can give; and `q`, `p` corrected for all rows of the table (false
        discovery rate).

    Raises:
        PalscopeError: a folder holds no scored rows, the questions differ, or no rule or question
            is in both.
    """
    _same_questions(a, b)
    one, other = (_read(folder) for folder in (a, b))
    rules = [name for name in one["rule"].unique() if name in set(other["rule"])]
    if not rules:
        raise PalscopeError(f"{a} and {b} were scored by no rule alike; score both the same way.")
    out: list[dict[str, Any]] = []
    for rule in rules:
        halves = [table[table["rule"] == rule] for table in (one, other)]
        answered = set(halves[0]["id"]) & set(halves[1]["id"])
        halves = [half[half["id"].isin(answered)] for half in halves]
        if not answered:
            continue
        out.append({"rule": rule, "by": "all", "at": "", **_compared(*halves)})
        fields = [name for name in halves[0] if name not in NOT_CATEGORIES]
        for field in fields:
            values = {str(value) for half in halves for value in half[field].dropna()} - {""}
            out += [
                {"rule": rule, "by": field, "at": value}
                | _compared(*(half[half[field] == value] for half in halves))
                for value in sorted(values)
            ]
    if not out:
        raise PalscopeError(f"no question is scored in both {a} and {b}.")
    table = pd.DataFrame(out)
    return table.assign(q=false_discovery(table["p"]))


def _compared(one: Any, other: Any) -> dict[str, Any]:
    # A label that one run alone predicted is nothing got of nothing in the other.
    sums = [
        half.groupby(["id", "clip"])[["got", "of"]].sum().add_suffix(suffix)
        for half, suffix in ((one, "_a"), (other, "_b"))
    ]
    both: Any = sums[0].join(sums[1], how="outer").fillna(0.0).reset_index()
    row: dict[str, Any] = {"n": len(both)}
    for side in "ab":
        of = both[f"of_{side}"].sum()
        row[side] = float(both[f"got_{side}"].sum() / of) if of else float("nan")
    found = difference_of_scores(both)
    row |= {"difference": row["b"] - row["a"]} | interval_columns(found.interval, found.by_clip)
    single = both[["of_a", "of_b"]].eq(1).all(axis=None)
    if not (single and both[["got_a", "got_b"]].isin((0, 1)).all(axis=None)):
        alone = (float("nan"), float("nan"))
    else:
        alone = (
            int((both["got_a"] > both["got_b"]).sum()),
            int((both["got_b"] > both["got_a"]).sum()),
        )
    tested = {"p": found.p, "least_p": found.least_p}
    return row | {"only_a": alone[0], "only_b": alone[1]} | tested


def _read(folder: Path) -> Any:
    path = folder / ROWS
    if not path.is_file():
        raise PalscopeError(f"{folder} holds no {ROWS}; give a folder that evaluate.py wrote.")
    return read_shards(path)


def _same_questions(a: Path, b: Path) -> None:
    asked: list[Any] = []
    for folder in (a, b):
        path = folder / "scores.json"
        if not path.is_file():
            raise PalscopeError(f"{path} is missing; give a folder that evaluate.py wrote.")
        scores = read_object(path, "a run's scores", PalscopeError, largest=LARGEST_TEXT)
        version: dict[str, Any] = scores.get("version", {})
        settings: dict[str, Any] = scores.get("settings", {})
        asked.append(version.get("digest") or settings.get("manifest_sha256"))
    if asked[0] != asked[1]:
        raise PalscopeError(
            f"{a} and {b} answered different questions (digests {asked[0]}, {asked[1]}): another "
            "benchmark, version or manifest; score both against the same file by --questions."
        )
