"""Stored activations, read in any order without holding them in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._features.clips import ABOUT
from palscope._features.shards import PARTS, Shard, read_shard
from palscope._hooks import HookedAudioModel
from palscope._sweeps.record import encoder_hash, weights_hashes
from palscope._sweeps.store import flat, read_record
from palscope._whole import whole_number
from palscope.errors import PalscopeError, short
from palscope.measures._alignment import Head


class ActivationStore:
    """A folder that `collect_activations` has filled.

    `store[hook_point]` has the rows of one hook point.

    Attributes:
        folder: where it is.
        record: the run that made it: weights, route, addresses, versions.
        hook_points: width of the rows of each hook point.
        heads: layer and head of each column, of hook points whose rows are attention.
        clips: a row a clip, in the order of the data set: `name, label, domain, split, group,
            question, seconds`, and `left_out`, which says why it has no rows, else "".

    Raises:
        PalscopeError: the folder holds no such store, an unfinished or a damaged one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = read_record(self.folder)
        if "addresses" not in self.record.get("config", {}):
            raise PalscopeError(f"{folder} is another run's folder; it holds no activations.")
        if not self.record.get("finished"):
            raise PalscopeError(
                f"{folder} is not finished; the command that began it goes on with --resume."
            )
        self.hook_points: dict[str, int] = self.record["hook_points"]
        told: dict[str, list[list[int]]] = self.record.get("heads", {})
        self.heads: dict[str, list[Head]] = {
            name: [(layer, head) for layer, head in heads] for name, heads in told.items()
        }
        self._shards = [read_shard(self.folder / "shards" / n) for n in self.record["shards"]]
        about = [{"left_out": "", **clip} for shard in self._shards for clip in shard.clips]
        self.clips = pd.DataFrame(about, columns=[*ABOUT, "seconds", "left_out"])

    @property
    def left_out(self) -> dict[str, str]:
        """Why clips have no rows, by name."""
        return dict(self.record["left_out"])

    def __getitem__(self, hook_point: str) -> Activations:
        """The rows of a hook point. Raises `PalscopeError` where it was not collected."""
        if hook_point not in self.hook_points:
            raise PalscopeError(
                f"{self.folder} has no {hook_point!r}; it has {', '.join(self.hook_points)}."
            )
        return Activations(self, hook_point, self._shards)

    def check_model(self, model: HookedAudioModel) -> None:
        """Raise `PalscopeError`, naming what differs, where the store is of another model."""
        check_made_by(str(self.folder), self.record, model, *self.hook_points)


BELONGS = ("weights", "route", "encoder")
"""Of a store's record, what tells to which model its rows, and what is made of them, belong."""

_OF_THE_ENCODER = re.compile(r"audio_(blocks\.\d+|conv\d|ln_final)\b")


def belonging(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a store's record that says of which model it is."""
    return {name: record[name] for name in BELONGS if name in record}


def what_differs(
    one: Mapping[str, Any], other: Mapping[str, Any], *hook_points: str
) -> dict[str, tuple[Any, Any]]:
    """Weights and routes that are not the same in two records, as far as hook points hang on them.

    What stands in the encoder is the same below every decoder and on every route. Where both
    records know the encoder's own hash, that alone decides.
    """
    encoder = all(_OF_THE_ENCODER.match(each) for each in hook_points)
    known = encoder and one.get("encoder") and other.get("encoder")
    names = ["encoder"] if known else ["weights", "route"]
    here, there = (flat({name: each.get(name) for name in names}) for each in (one, other))
    return {
        name: (here.get(name), there.get(name))
        for name in {**here, **there}
        if here.get(name) != there.get(name)
        and not name.endswith(".name")
        and not (encoder and name.startswith("weights.text_base."))
    }


def check_made_by(
    what: str, record: Mapping[str, Any], model: HookedAudioModel, *hook_points: str
) -> None:
    """Raise `PalscopeError`, naming what differs, where a record is of other weights or routes.

    Args:
        what: the record's owner, at the sentence's beginning.
        record: with `weights` and `route`, and `encoder` where that has a hash of its own.
        model: on its route.
        hook_points: to which it belongs.
    """
    now = {
        "weights": weights_hashes(model),
        "route": model.current_route.to_dict(),
        "encoder": encoder_hash(model),
    }
    if differ := what_differs(record, now, *hook_points):
        told = (f"{name}: {short(a)}, now {short(b)}" for name, (a, b) in [*differ.items()][:3])
        raise PalscopeError(f"{what} is of another model or route ({'; '.join(told)}).")


class Activations:
    """Rows at one hook point, one a token: a `torch` data set that stays on the disk.

    Attributes:
        hook_point: where.
        width: numbers in a row.
        heads: of rows of attention, layer and head of each column; else None.
        store: that it belongs to.
    """

    def __init__(
        self,
        store: ActivationStore,
        hook_point: str,
        shards: Sequence[Shard],
        chosen: Int[np.ndarray, " rows"] | None = None,
    ) -> None:
        self.store = store
        self.hook_point = hook_point
        self.width = store.hook_points[hook_point]
        self.heads = store.heads.get(hook_point)
        self._shards = shards
        counts = [shard.rows.get(hook_point, 0) for shard in shards]
        self._ends = np.cumsum(counts)
        self._chosen = chosen
        self._opened: dict[int, Tensor] = {}

    def made_by(self, record: Mapping[str, Any]) -> bool:
        """Whether the store is of a record's weights, as far as these rows depend on them."""
        differ = what_differs(record, self.store.record, self.hook_point)
        return not any(name.startswith(("weights", "encoder")) for name in differ)

    def __len__(self) -> int:
        if self._chosen is not None:
            return len(self._chosen)
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, rows: Any) -> Float[Tensor, "*rows width"]:
        """The values of a row, or of several: a slice, or their numbers in any order.

        Raises `IndexError` for a row that is not there.
        """
        if isinstance(rows, slice):
            return self.__getitems__(range(*rows.indices(len(self))))
        if np.ndim(rows):
            return self.__getitems__(rows)
        return self.__getitems__([rows])[0]

    def __getitems__(self, rows: Any) -> Float[Tensor, "rows width"]:
        """The values of several rows, in their order; a `DataLoader` asks so."""
        places = np.asarray(rows, dtype=np.int64)
        places = np.where(places < 0, places + len(self), places)
        if len(places) and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"rows {short(rows)} of {len(self)}")
        if self._chosen is not None:
            places = self._chosen[places]
        shard = np.searchsorted(self._ends, places, side="right")
        out: Tensor | None = None
        for number in np.unique(shard).tolist():
            mine = (shard == number).nonzero()[0]
            begins = int(self._ends[number - 1]) if number else 0
            found = self._values(number)[torch.from_numpy(places[mine] - begins)]
            if out is None:
                out = found.new_empty(len(places), self.width)
            out[torch.from_numpy(mine)] = found
        return torch.empty(0, self.width) if out is None else out

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Where each row stands: `clip` (a row of `store.clips`), `start`, `end` (s), `stream`.

        `start` and `end` are NaN for text.
        """
        base = np.cumsum([0, *(len(shard.clips) for shard in self._shards)])
        parts: dict[str, list[np.ndarray]] = {name: [] for name in PARTS[1:]}
        for shard, first in zip(self._shards, base, strict=False):
            tensors = shard.tensors() if self.hook_point in shard.rows else {}
            for name, found in parts.items():
                if f"{self.hook_point}:{name}" in tensors:
                    values: np.ndarray = tensors[f"{self.hook_point}:{name}"].numpy()
                    found.append(values + (int(first) if name == "clip" else 0))
        whole = {name: np.concatenate(found) for name, found in parts.items()}
        if self._chosen is not None:
            whole = {name: values[self._chosen] for name, values in whole.items()}
        names = self.store.record["streams"]
        kinds = {int(number): name for number, name in names.items()}
        stream = pd.Categorical([kinds[each] for each in whole["stream"].tolist()])
        start, end = whole["seconds"].T
        return pd.DataFrame({"clip": whole["clip"], "start": start, "end": end, "stream": stream})

    def of_clips(self, chosen: Any) -> Activations:
        """The rows of some clips alone.

        Args:
            chosen: a truth value for each row of `store.clips`, as a comparison of its columns
                gives: `store.clips["split"] == "train"`.

        Raises:
            PalscopeError: it is of another number of clips, or leaves no row.
        """
        told = np.asarray(chosen, dtype=bool)
        if told.shape != (len(self.store.clips),):
            raise PalscopeError(
                f"of_clips was given {told.shape} truth values; expected one for each of "
                f"{len(self.store.clips)} clips."
            )
        rows = told[self.rows["clip"].to_numpy()].nonzero()[0]
        if not len(rows):
            raise PalscopeError(f"none of the chosen clips has a row at {self.hook_point}.")
        rows = rows if self._chosen is None else self._chosen[rows]
        return Activations(self.store, self.hook_point, self._shards, rows)

    def batches(self, size: int, *, seed: int | None = None) -> Iterator[Tensor]:
        """All rows once, `[size, width]` at a time, the last of them shorter.

        Args:
            size: rows at a time.
            seed: of their order over the whole store; None as they are stored.
        """
        whole_number(size, "the size of a batch", least=1)
        order = np.arange(len(self))
        if seed is not None:
            np.random.default_rng(seed).shuffle(order)
        for start in range(0, len(order), size):
            yield self.__getitems__(order[start : start + size])

    def _values(self, number: int) -> Tensor:
        """A shard's values, memory-mapped when they are first asked for."""
        if number not in self._opened:
            tensors = self._shards[number].tensors()
            self._opened[number] = tensors[f"{self.hook_point}:values"]
        return self._opened[number]

    def __getstate__(self) -> dict[str, Any]:
        """Each process opens the files by itself."""
        return {**self.__dict__, "_opened": {}}
