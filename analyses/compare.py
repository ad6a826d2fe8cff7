"""Compare two runs of the same analysis: their settings, and their tables row by row.

    python analyses/compare.py runs/pal runs/lal --out runs/pal-lal

A and B are folders that a script was given as --out. Writes differences.csv (what differs in the
settings, weights, versions and data), each table that both have joined on the columns that name
its rows (TABLE.parquet: every value in A, in B, and B less A), their mean differences with 95 %
intervals over items, or of too few each one's (TABLE_VALUE.csv, with a figure as HTML, PNG and
SVG) and run.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from palscope._statistics import shown
from palscope._sweeps.compare import (
    ItemRows,
    TablePair,
    difference_summary,
    joined,
    record_differences,
    shared_tables,
)
from palscope._sweeps.record import command_record, file_hash
from palscope._sweeps.store import Run, read_record
from palscope.analyses import Command, option
from palscope.analyses._options import StoredOptions, deciding
from palscope.errors import PalscopeError, short
from palscope.plots import Caption
from palscope.plots import _comparison as comparison

SHOWN = 20
"""So many differences between the records are printed."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(StoredOptions):
    """Which runs."""

    a: Path = option(..., "folder of a run", positional=True)
    b: Path = option(..., "folder of another", positional=True)


def compared(given: CompareOptions) -> None:
    """Compare records, then each table."""
    a, b = read_record(given.a), read_record(given.b)
    tables = shared_tables(given.a, a, given.b, b)
    results = Run.open(given.out, command_record(deciding(given)), resume=given.resume)
    differences = record_differences(a, b)
    if results.main:
        differences.to_csv(given.out / "differences.csv", index=False)
        print(f"A: {given.a}\nB: {given.b}\n")
        for row in differences[:SHOWN].itertuples():
            print(f"{row.field}: {short(row.a)} in A, {short(row.b)} in B")
        if not len(differences):
            print("The settings agree.")
        if len(differences) > SHOWN:
            print(f"… and {len(differences) - SHOWN} more: see {given.out / 'differences.csv'}")
    facts: dict[str, Any] = {}
    for name, pair in tables.items():
        facts |= of_table(results, name, pair)
    if not any(fact["rows"] for fact in facts.values()):
        raise PalscopeError(
            f"no row of {', '.join(facts)} is in both runs; did they measure the same items?"
        )
    results.finish(compared=facts)


def of_table(results: Run, name: str, pair: TablePair) -> dict[str, Any]:
    """Join one table, and draw the differences; says how much of it was in both."""
    one, other = ItemRows(pair.a, pair.item), ItemRows(pair.b, pair.item)
    items = [item for item in one.groups if item in other.groups]
    hashes = f"{file_hash(pair.a)} {file_hash(pair.b)}"
    fact = {
        "items": len(items),
        "only_a": len(one.groups) - len(items),
        "only_b": len(other.groups) - len(items),
        "rows": 0,
    }
    if not items:
        return {name: fact}
    both = results.over(
        items,
        lambda item: joined(one[item], other[item], pair.keys),
        table=name,
        key=str,
        item=pair.item,
        keys=pair.keys,
        content=lambda item: hashes,
    )
    fact["rows"] = sum(len(rows) for _, rows in both)
    if results.main:
        print(
            f"\n{name}: {fact['rows']} rows of {fact['items']} items are in both; "
            f"{fact['only_a']} items in A alone, {fact['only_b']} in B alone"
        )
        if fact["rows"]:
            draw(results.folder, name, difference_summary(both, pair.keys))
    return {name: fact}


def draw(out: Path, name: str, summary: pd.DataFrame) -> None:
    """Print what differs in all, and draw how it differs along the columns that name a row."""
    table: Any = summary
    for value, rows in table.groupby("value", sort=False):
        total = rows[rows["by"] == "all"].iloc[0]
        print(
            f"  {value}: A {total['mean_a']:.4g}, B {total['mean_b']:.4g}, B less A "
            f"{total['difference']:.4g} {shown(total)} (n = {total['n']})"
        )
        along = rows[rows["by"] != "all"]
        stem = out / f"{name}_{value}"
        if len(along):
            caption = Caption("A and B", f"table {name}", int(total["n"]), "items")
            comparison.differences(rows, caption=caption).save(stem)
        else:
            rows.to_csv(f"{stem}.csv", index=False)


COMMAND = Command("compare", CompareOptions, compared)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))
