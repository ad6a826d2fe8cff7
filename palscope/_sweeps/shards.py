"""Shards: one item's rows in a file that says whose they are, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from palscope._files import whole
from palscope.errors import PalscopeError

_SHARD, _ITEM = b"palscope.shard", b"palscope.item"
"""Where a shard says which it is: its name, by all that decides its rows, and its item's."""

_pa: Any = arrow
_pq: Any = parquet


def read_shards(path: Path) -> pd.DataFrame:
    """A stored table. Raises `PalscopeError` where it is missing or damaged."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own are ValueErrors
        raise PalscopeError(
            f"{path} cannot be read as a table ({' '.join(str(error).split())}): remove it, and go "
            "on with the run by --resume."
        ) from error


def named_rows(rows: pd.DataFrame, name: str, item: str, keys: Sequence[str]) -> pd.DataFrame:
    """An item's rows with its name in front, in the column `item`.

    Raises `ValueError` where `keys` do not tell the rows apart, or that column holds another name.
    """
    table: Any = rows
    if item not in table:
        table = table.copy(deep=False)
        table.insert(0, item, name)
    elif not (table[item] == name).all():
        raise ValueError(f"the measure's column {item!r} must hold the item's key, {name!r}.")
    twice = table.duplicated([item, *keys])
    if twice.any():
        first = table.loc[twice, [item, *keys]].iloc[0].to_dict()
        raise ValueError(f"two rows are named alike ({first}); give more of the columns as keys.")
    return table


def write_shard(rows: pd.DataFrame, target: Path, name: str) -> None:
    """All or nothing. Not synced: what a power cut spoils is found by its checksums, and redone."""
    table = _pa.Table.from_pandas(rows, preserve_index=False)
    # What it is, inside too: a shard that was copied over another one is not taken for it.
    known = {**(table.schema.metadata or {}), _SHARD: target.stem.encode(), _ITEM: name.encode()}
    with whole(target) as part:
        _pq.write_table(table.replace_schema_metadata(known), part, write_page_checksum=True)


def _read_rows(path: Path) -> Any:
    return _pq.ParquetFile(path, page_checksum_verification=True).read()


def is_stored(path: Path, item: str, name: str) -> bool:
    """Whether a shard is there, can be read to its end, and holds this item of this run."""
    try:
        table = _read_rows(path)
    except (OSError, _pa.ArrowException):
        return False
    known = table.schema.metadata or {}
    mine = known.get(_SHARD) == path.stem.encode() and known.get(_ITEM) == name.encode()
    return mine and item in table.column_names and set(table[item].unique().to_pylist()) <= {name}


def merge(shards: Sequence[Path], target: Path) -> None:
    """Write all shards to one file, a row group each, one at a time in memory."""
    # A column that is empty in one item has no type there, or is not there: the others' decide.
    try:
        schema = _pa.unify_schemas(
            [_pq.read_schema(path) for path in shards], promote_options="permissive"
        )
    except (_pa.ArrowTypeError, _pa.ArrowInvalid) as error:
        raise ValueError(f"items of {target.stem} differ in a column's type: {error}") from error
    schema = _plain(schema)
    with whole(target) as part, _pq.ParquetWriter(part, schema) as writer:
        for path in shards:
            table = _read_rows(path)
            for field in schema:
                if field.name not in table.column_names:
                    table = table.append_column(field, _pa.nulls(len(table), field.type))
            writer.write_table(table.select(schema.names).cast(schema))


def _plain(schema: Any) -> Any:
    """A schema that does not say which shard it is of."""
    told: dict[bytes, bytes] = schema.metadata or {}
    return schema.with_metadata({k: v for k, v in told.items() if k not in (_SHARD, _ITEM)})
