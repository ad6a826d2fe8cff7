"""The result store: a run is a folder that survives being killed and goes on where it was.

A run's folder holds `run.json` (the record: command, config, route, seed, versions, hashes), a
Parquet file a table, figures, and under `shards/` each item's rows. A shard appears under its name
only when it is whole, and its name depends on the item, its content and on all that the record says
decides the numbers: a stored row cannot be another run's.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import pandas as pd
from filelock import BaseFileLock, FileLock, Timeout
from tqdm.auto import tqdm

from palscope._files import (
    LARGEST_TEXT,
    make_folder,
    read_object,
    write_json,
    writing,
)
from palscope._sweeps import processes
from palscope._sweeps.shards import is_stored, merge, named_rows, read_shards, write_shard
from palscope.errors import PalscopeError, short

T = TypeVar("T")

DECIDES = ("config", "route", "weights", "prompt", "seed", "dtype", "device")
"""What of a record decides a run's numbers, beside its items."""


@dataclass(frozen=True)
class StoredTable:
    """A table of a run: the file, and each item's shard in the items' order.

    `left_out` says for every item that could not be measured why.
    """

    path: Path
    shards: dict[str, Path]
    left_out: dict[str, str]

    @property
    def rows(self) -> dict[str, Callable[[], pd.DataFrame]]:
        """Reads each item's rows."""
        return {item: partial(read_shards, shard) for item, shard in self.shards.items()}

    def read(self) -> pd.DataFrame:
        """The whole table."""
        return read_shards(self.path)

    def __iter__(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Each item and its rows, read one at a time: the whole may not fit in memory."""
        for item, shard in self.shards.items():
            yield item, read_shards(shard)


@dataclass(frozen=True)
class SharedMeasure(Generic[T]):
    """Measures several items at once, whose passes are shared.

    Attributes:
        measure: gives each item's rows, in their order. Where it raises `PalscopeError` for one,
            each of its items is measured by itself.
        at_once: so many at most.
        alike: items of the same are measured together, as far as there are such: prompts that are
            as long as each other need no padding.
    """

    measure: Callable[[Sequence[T]], Sequence[pd.DataFrame]]
    at_once: int
    alike: Callable[[T], str]

    def rows(self, items: Sequence[T]) -> Sequence[pd.DataFrame] | None:
        """Each item's rows; None where each is to be measured by itself."""
        if len(items) == 1:
            return None
        try:
            found = self.measure(items)
        except PalscopeError:
            return None
        if len(found) != len(items):
            raise ValueError(f"{len(items)} items were measured, and {len(found)} came back.")
        return found


class Run:
    """A run's folder, open for writing. Made by `Run.open`.

    Other processes are kept out of the folder until `finish`, or until this one ends.
    """

    def __init__(self, folder: Path, record: dict[str, Any], lock: BaseFileLock | None) -> None:
        self.folder = folder
        self.record = record
        self._lock = lock
        self._started = time.monotonic()

    @classmethod
    def open(cls, folder: Path, record: Mapping[str, Any], *, resume: bool) -> Run:
        """Begin a run in `folder`, or go on with the one it holds.

        Args:
            folder: made where there is none.
            record: plain data, from `palscope._sweeps.record.run_record`.
            resume: go on with the run in `folder`, if there is one.

        Raises:
            PalscopeError: `folder` holds a run and `resume` is off, or that run's config, route,
                weights, seed, dtype or kind of device is another; or another process is writing
                to it. Nothing is lost.
        """
        lock = _hold_together(folder)
        plain: dict[str, Any] = json.loads(json.dumps(dict(record)))
        if (folder / "run.json").is_file():
            stored = read_record(folder)
            if not resume:
                raise taken(folder, "finished" if stored.get("finished") else "unfinished")
            check_same(folder, stored, plain)
            again = {key: plain[key] for key in ("command", "versions") if key in plain}
            plain = stored | {"resumed": [*stored.get("resumed", []), again]}
        processes.wait()  # all have looked before one writes
        run = cls(folder, plain | {"finished": False}, lock)
        run._write_record()
        return run

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes tables and draws."""
        return processes.rank() == 0

    def over(
        self,
        items: Sequence[T],
        measure: Callable[[T], pd.DataFrame],
        *,
        table: str,
        key: Callable[[T], str],
        item: str = "pair",
        keys: Sequence[str] = (),
        content: Callable[[T], str | bytes] | None = None,
        shared: SharedMeasure[T] | None = None,
    ) -> StoredTable:
        """Measure every item that is not stored yet, and write the table of all.

        A column that an item does not have is empty in its rows.

        Under `accelerate launch` the items are shared out over the processes; the table is the
        same whatever their number. Random numbers are seeded anew for each item (Python's, NumPy's
        and torch's), so that an item's rows do not depend on which were measured before it.

        Args:
            items: what to measure; one that stands there twice is measured once.
            measure: gives an item's rows. A `PalscopeError` leaves the item out; others stop.
            table: the file's name, without its ending.
            key: names an item. It becomes the table's first column.
            item: what an item is, and that column's name.
            keys: the columns that tell an item's rows apart: all that are no measurement. Runs are
                compared in the other columns of numbers.
            content: what the item is made of, such as a file's hash: when it is another, the item
                is measured again.
            shared: measures several items at once.

        Raises:
            PalscopeError: no item could be measured, or two have the same key and other contents.
            ValueError: `keys` do not tell rows apart, the measure gives a column named `item` that
                holds something else, or items differ in a column's type.
        """
        named, contents = by_key(items, table, key, content)
        shards = self.folder / "shards" / table
        make_folder(shards)
        decides = json.dumps([decisive(self.record), table, item, list(keys)], sort_keys=True)
        files = {
            name: shards / f"{_digest(decides, name, contents[name])}.parquet" for name in named
        }
        number, count = processes.rank(), processes.world_size()
        mine = list(named)[number::count]
        missing = [name for name in mine if not is_stored(files[name], item, name)]
        at_once = 1 if shared is None else shared.at_once
        if shared is not None and at_once > 1:
            missing.sort(key=lambda name: shared.alike(named[name]))
        done = len(mine) - len(missing)
        with tqdm(
            total=len(mine), initial=done, desc=table, unit=f" {item}", disable=number > 0
        ) as bar:
            for first in range(0, len(missing), at_once):
                group = missing[first : first + at_once]
                _seed(files[group[0]].stem)
                together = shared.rows([named[name] for name in group]) if shared else None
                for place, name in enumerate(group):
                    _seed(files[name].stem)
                    try:
                        rows = measure(named[name]) if together is None else together[place]
                        rows = named_rows(rows, name, item, keys)
                    except PalscopeError as error:
                        tqdm.write(f"left out: {error}", file=sys.stderr)
                        why = {item: name, "error": str(error)}
                        write_json(files[name].with_suffix(".json"), why)
                    else:
                        write_shard(rows, files[name], name)
                        files[name].with_suffix(".json").unlink(missing_ok=True)
                    bar.update()
        processes.wait()
        stored = self._collect(table, files)
        if self.main:
            merge(list(stored.shards.values()), stored.path)
            for part in shards.glob("*.part"):
                part.unlink(missing_ok=True)  # of processes that were killed
            left_out = [{item: name, "error": error} for name, error in stored.left_out.items()]
            about = {"item": item, "keys": list(keys), "items": len(stored.shards)}
            self.record.setdefault("tables", {})[table] = about | {"left_out": left_out}
            self._write_record()
        processes.wait()
        return stored

    def read(self, table: str) -> pd.DataFrame:
        """A table that `over` has written."""
        return read_shards(self.folder / f"{table}.parquet")

    def finish(self, **facts: Any) -> None:
        """Record that the run is finished, how many seconds it took since `open`, and `facts`."""
        seconds = round(time.monotonic() - self._started, 3)
        self.record |= {**facts, "finished": True, "seconds": seconds}
        self._write_record()
        if self._lock is not None:
            self._lock.release(force=True)

    def _write_record(self) -> None:
        if self.main:
            make_folder(self.folder)
            write_json(self.folder / "run.json", self.record)

    def _collect(self, table: str, files: Mapping[str, Path]) -> StoredTable:
        """What all processes have stored."""
        shards = {name: path for name, path in files.items() if path.is_file()}
        left_out = {
            name: str(
                read_object(path.with_suffix(".json"), "why an item was left out", PalscopeError)[
                    "error"
                ]
            )
            for name, path in files.items()
            if name not in shards
        }
        check_any(table, shards, left_out)
        return StoredTable(self.folder / f"{table}.parquet", shards, left_out)


def by_key(
    items: Sequence[T],
    table: str,
    key: Callable[[T], str],
    content: Callable[[T], str | bytes] | None,
) -> tuple[dict[str, T], dict[str, str | bytes]]:
    """Each item, and what it is made of, by its key.

    Raises `PalscopeError` where two have the same key and other contents.
    """
    named: dict[str, T] = {}
    contents: dict[str, str | bytes] = {}
    for each in items:
        name, made_of = key(each), content(each) if content else ""
        if contents.setdefault(name, made_of) != made_of:
            raise PalscopeError(
                f"two different items for {table} are called {name!r}; give each a name of its own."
            )
        named.setdefault(name, each)
    return named, contents


def check_any(table: str, measured: Collection[str], left_out: Mapping[str, str]) -> None:
    """Raise `PalscopeError`, with the first reason, where no item could be measured."""
    if measured:
        return
    reasons = list(left_out.values())
    raise PalscopeError(
        f"none of {len(reasons)} could be measured for {table}; the first: {reasons[0]}"
        if reasons
        else f"nothing to measure for {table}: give at least one."
    )


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the run in `folder`.

    Raises:
        PalscopeError: there is none, or it cannot be read.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise PalscopeError(
            f"{folder} holds no run.json; give the folder that a script was given as --out."
        )
    return read_object(path, "a run's record", PalscopeError, largest=LARGEST_TEXT)


def hold(folder: Path) -> BaseFileLock:
    """This process's lock on a run's folder, held until it is released, or the process ends.

    Taken again by this process it is the same lock: a cell of a notebook that failed may run again.

    Args:
        folder: made where there is none.

    Raises:
        PalscopeError: another process is writing to it, or it cannot be written to.
    """
    make_folder(folder)
    lock = FileLock(folder.resolve() / "run.lock", is_singleton=True, thread_local=False)
    try:
        with writing(folder):
            lock.acquire(timeout=0)
        return lock
    except Timeout:
        raise PalscopeError(
            f"another process is writing to {folder}; wait until it has ended, or give another "
            "folder."
        ) from None


def taken(folder: Path, state: str) -> PalscopeError:
    """What is said where `folder` holds a run and going on with it was not asked for."""
    return PalscopeError(
        f"{folder} holds a run already ({state}); go on with it by --resume, or give another "
        "folder."
    )


def _hold_together(folder: Path) -> BaseFileLock | None:
    """The lock, held by the first of the processes that share a run; all of them hear of an error.

    So none waits for one that has ended.
    """
    lock = refused = None
    if processes.rank() == 0:
        try:
            lock = hold(folder)
        except PalscopeError as error:
            refused = str(error)
    refused = processes.broadcast(refused)
    if refused is not None:
        raise PalscopeError(refused)
    return lock


def check_same(folder: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `PalscopeError`, naming what differs, where two records are not of one run."""
    one, other = flat(decisive(stored)), flat(decisive(now))
    differ = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    if differ:
        shown = "; ".join(
            f"{n}: {short(one.get(n))}, now {short(other.get(n))}" for n in differ[:5]
        )
        more = f"; and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise PalscopeError(
            f"{folder} holds a run with other settings ({shown}{more}); resume it with its own, or "
            "give another folder."
        )


def flat(data: Any, name: str = "") -> dict[str, Any]:
    """Nested plain data as one level: `{"config": {"a": 1}}` as `{"config.a": 1}`."""
    if not isinstance(data, dict):
        return {name: data}
    out: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", data).items():
        out |= flat(value, f"{name}.{key}" if name else str(key))
    return out


def decisive(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a record decides its run's numbers."""
    chosen = {name: record[name] for name in DECIDES if name in record}
    if "device" in chosen:  # which of several GPUs does not matter
        chosen["device"] = str(chosen["device"]).split(":")[0]
    return chosen


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:24]


def _seed(digest: str) -> None:
    number = int(digest[:8], 16)
    random.seed(number)
    np.random.seed(number)
    torch: Any = sys.modules.get("torch")  # what was never imported draws no numbers
    if torch is not None:
        torch.manual_seed(number)
