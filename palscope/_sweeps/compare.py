"""Two runs of one analysis: what differs in their records, and by how much in their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet

from palscope._routing import Route, route_to_text
from palscope._statistics.tables import banded
from palscope._sweeps.store import DECIDES, flat
from palscope.errors import PalscopeError

RECORDED = (*DECIDES, "versions", "data")
"""What of two records is compared."""


class TablePair(NamedTuple):
    """A table that two runs have: what an item is, the columns that name its rows, the files."""

    item: str
    keys: list[str]
    a: Path
    b: Path


def record_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> pd.DataFrame:
    """`field, a, b`: each field in which two runs' records differ; None where one lacks it."""
    one, other = (flat(_readable(record)) for record in (a, b))
    fields = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    rows = {
        "field": fields,
        "a": [one.get(name) for name in fields],
        "b": [other.get(name) for name in fields],
    }
    return pd.DataFrame(rows, dtype=object)


def shared_tables(
    a: Path, a_record: Mapping[str, Any], b: Path, b_record: Mapping[str, Any]
) -> dict[str, TablePair]:
    """The tables that two runs in folders `a` and `b` both have, by name.

    Raises:
        PalscopeError: they share none, or a table's rows are named by other columns.
    """
    ones: dict[str, Any] = a_record.get("tables", {})
    others: dict[str, Any] = b_record.get("tables", {})
    shared = [name for name in ones if name in others]
    if not shared:
        raise PalscopeError(
            f"{a} (tables: {', '.join(ones) or 'none'}) and {b} ({', '.join(others) or 'none'}) "
            "share no table; compare two runs of the same analysis."
        )
    pairs: dict[str, TablePair] = {}
    for name in shared:
        named = [(each[name]["item"], list(each[name]["keys"])) for each in (ones, others)]
        if named[0] != named[1]:
            raise PalscopeError(
                f"the rows of table {name} are named by {named[0]} in {a}, by {named[1]} in {b}; "
                "measure both with the same version."
            )
        files = [folder / f"{name}.parquet" for folder in (a, b)]
        for file in files:
            if not file.is_file():
                raise PalscopeError(f"{file} is missing; finish that run with --resume.")
        pairs[name] = TablePair(*named[0], *files)
    return pairs


class ItemRows:
    """A run's table, read an item at a time: its file holds each item in row groups of its own."""

    def __init__(self, path: Path, item: str) -> None:
        try:
            self._file: Any = cast(Any, parquet).ParquetFile(path)
        except (OSError, ValueError) as error:
            raise PalscopeError(
                f"{path} cannot be read as a table ({error}); finish that run with --resume."
            ) from error
        self.groups: dict[str, list[int]] = {}
        for group in range(self._file.num_row_groups):
            names = self._file.read_row_group(group, columns=[item]).column(0)
            if len(names):
                self.groups.setdefault(str(names[0]), []).append(group)

    def __getitem__(self, item: str) -> pd.DataFrame:
        """The item's rows."""
        return self._file.read_row_groups(self.groups[item]).to_pandas()


def joined(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows that two tables share, with each value in both and its difference, b less a.

    Args:
        a: one item's rows.
        b: the same item's in the other run.
        keys: the columns that name a row.

    Returns:
        `keys…`, and for each column of numbers that both have beside them `NAME_a, NAME_b,
        NAME_difference`.
    """
    one, other = (_plain(table, keys) for table in (a, b))
    values = [name for name in _values(one, keys) if name in _values(other, keys)]
    how: dict[str, Any] = {"on": list(keys), "validate": "one_to_one"} if keys else {"how": "cross"}
    both: Any = one[[*keys, *values]].merge(other[[*keys, *values]], suffixes=("_a", "_b"), **how)
    for name in values:
        both[f"{name}_difference"] = both[f"{name}_b"] - both[f"{name}_a"]
    columns = [f"{name}_{part}" for name in values for part in ("a", "b", "difference")]
    return both[[*keys, *columns]]


def difference_summary(
    items: Iterable[tuple[str, pd.DataFrame]], keys: Sequence[str], *, confidence: float = 0.95
) -> pd.DataFrame:
    """Mean differences over items, in all and along each key column.

    Rows of an item are averaged first, then items, so that the interval, of the paired difference,
    says how much items differ.

    Args:
        items: each item and its rows, from `joined`.
        keys: the columns that name a row.
        confidence: of the intervals.

    Returns:
        `value, by, at, group, n, mean_a, mean_b, difference, low, high, values`. `by` is "all" or a
        key column that has several levels, `at` its level. Along a column of numbers, such as the
        layer, the columns of words, such as the pathway, stay apart: `group` says which, e.g.
        "frames". `n` items have a value in both runs, and count in all three means; of too few of
        them (`palscope._statistics`) `low` and `high` are NaN, and `values` has each item's.
    """
    means: dict[str, list[Any]] = {}
    for name, rows in items:
        table = cast(Any, rows.copy())
        for column in _differences(table):
            # What one run has no value of (a stream that it does not see) is in neither mean.
            value = column.removesuffix("_difference")
            missing = table[column].isna()
            table.loc[missing, [f"{value}_a", f"{value}_b"]] = np.nan
        for by, dimensions in _dimensions(table, keys).items():
            group = (
                table.groupby(dimensions, observed=True)
                if dimensions
                else table.groupby(np.zeros(len(rows), dtype=int))
            )
            of_item = group[_compared(table)].mean().reset_index(names=dimensions or ["all"])
            means.setdefault(by, []).append(of_item.assign(_item=name))
    parts = [
        _paired(pd.concat(tables, ignore_index=True), by, keys, confidence)
        for by, tables in means.items()
    ]
    summary: Any = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"by": []})
    levels = summary.groupby("by")["at"].transform("nunique") if len(summary) else 0
    return summary[(levels > 1) | (summary["by"] == "all")].reset_index(drop=True)


def _paired(table: Any, by: str, keys: Sequence[str], confidence: float) -> pd.DataFrame:
    """Means over items of one way to group them."""
    words = [name for name in keys if name in table and name != by]
    out: list[pd.DataFrame] = []
    for value in [name.removesuffix("_difference") for name in _differences(table)]:
        columns = [f"{value}_{part}" for part in ("a", "b", "difference")]
        both = table.dropna(subset=columns[2])
        mean = both.groupby([by, *words], observed=True)[columns].mean()
        rows = mean.set_axis(["mean_a", "mean_b", "difference"], axis=1).reset_index()
        wide = both.pivot(index=[by, *words], columns="_item", values=columns[2])
        found = banded(wide.reindex(mean.index).to_numpy(float), confidence)
        group = rows[words].astype(str).agg(", ".join, axis=1) if words else ""
        out.append(
            pd.DataFrame(
                {
                    "value": value,
                    "by": by,
                    # Levels of different columns stand below each other: words, as in a CSV.
                    "at": rows[by].astype(str) if by != "all" else "",
                    "group": group,
                    "n": found["n"],
                    "mean_a": rows["mean_a"],
                    "mean_b": rows["mean_b"],
                    "difference": rows["difference"],
                    **{name: found[name] for name in ("low", "high", "values")},
                }
            )
        )
    return pd.concat(out, ignore_index=True)


def _dimensions(table: Any, keys: Sequence[str]) -> dict[str, list[str]]:
    """For each way to group rows, the columns to group by: a number's, with those of words."""
    numbers = [name for name in keys if pd.api.types.is_numeric_dtype(table[name])]
    words = [name for name in keys if name not in numbers]
    return {"all": [], **{name: [name] for name in words}, **{n: [n, *words] for n in numbers}}


def _readable(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared of a record, with its route in a line."""
    chosen = {name: record[name] for name in RECORDED if name in record}
    if "route" in chosen:
        chosen["route"] = route_to_text(Route.from_dict(chosen["route"]))
    return chosen


def _plain(table: Any, keys: Sequence[str]) -> Any:
    """Categories as words: two runs may know different ones."""
    categorical = [name for name in keys if isinstance(table[name].dtype, pd.CategoricalDtype)]
    return table.astype(dict.fromkeys(categorical, str))


def _values(table: Any, keys: Sequence[str]) -> list[str]:
    return [name for name in table.select_dtypes("number") if name not in keys]


def _differences(table: Any) -> list[str]:
    return [name for name in table if str(name).endswith("_difference")]


def _compared(table: Any) -> list[str]:
    values = [name.removesuffix("_difference") for name in _differences(table)]
    return [f"{value}_{part}" for value in values for part in ("a", "b", "difference")]
