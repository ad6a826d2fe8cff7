"""An index of units, read: each unit by itself, without the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from safetensors import safe_open

from palscope._features.heard.bins import EDGES, OF_ATTENTION
from palscope._features.heard.labels import named
from palscope._features.heard.samples import BANDS, PER_BAND, TOP
from palscope._sweeps.store import read_record
from palscope._whole import whole_number
from palscope.errors import PalscopeError

CLIPS, LABELS, UNITS, ARRAYS = (
    "clips.parquet",
    "labels.parquet",
    "units.parquet",
    "units.safetensors",
)
NEAREST = 8


class UnitIndex(Mapping[str, "IndexedUnits"]):
    """A folder that `index_units` has filled: `index["features"][12]` is a unit.

    Attributes:
        folder: where it is.
        record: the run that made it.
        clips: a row a clip: `name, label, domain, split, group, question, seconds, left_out` and
            `sound`, its file as seen from the folder, empty where none was given.
        labels: `domain, label, clips`.

    Raises:
        PalscopeError: the folder holds no such index, an unfinished or a damaged one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = read_record(self.folder)
        if not isinstance(self.record.get("config", {}).get("units"), dict):
            raise PalscopeError(f"{folder} is another run's folder; it holds no index of units.")
        if not self.record.get("finished"):
            raise PalscopeError(
                f"{folder} is not finished; the command that began it begins it again."
            )
        self.clips = read_parquet(self.folder / CLIPS)
        self.labels = read_parquet(self.folder / LABELS)
        self._units = {name: IndexedUnits(self, name) for name in self.record["counts"]}

    def __getitem__(self, name: str) -> IndexedUnits:
        """Units of a name. Raises `PalscopeError` where there are none."""
        if name not in self._units:
            raise PalscopeError(f"{self.folder} has no units {name!r}; it has {', '.join(self)}.")
        return self._units[name]

    def __iter__(self) -> Any:
        """Their names; first those that the index is of."""
        return iter(self._units)

    def __len__(self) -> int:
        return len(self._units)

    def path(self, beside: str) -> Path:
        """A file that the index names."""
        return Path(os.path.normpath(self.folder.resolve() / beside))


class IndexedUnits:
    """Units of one kind: `units[12]` is one, `units.table` the list.

    Attributes:
        index: that they are in.
        name: of their kind.
        hook_point: whose rows they are units of.
        heads: of heads, layer and head of each; else None.
        edges: of the bins of histograms.
    """

    def __init__(self, index: UnitIndex, name: str) -> None:
        self.index = index
        self.name = name
        self.hook_point: str = index.record["hook_points"][name]
        told: list[list[int]] | None = index.record["config"]["units"][name].get("heads")
        self.heads = None if told is None else [(layer, head) for layer, head in told]
        self.edges = EDGES if told is None else OF_ATTENTION
        self._count: int = index.record["counts"][name]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, unit: int) -> IndexedUnit:
        """One unit. Raises `PalscopeError` where it is not there."""
        if not 0 <= whole_number(unit, "a unit's number") < len(self):
            raise PalscopeError(f"there is no unit {unit} among {len(self):,} {self.name}.")
        return IndexedUnit(self, unit)

    @property
    def asked(self) -> bool:
        """Whether what they are depends on the question: whether they are of the decoder."""
        return not self.hook_point.startswith("audio_")

    def head(self, layer: int, head: int) -> IndexedUnit:
        """The unit that is a head. Raises `PalscopeError` where it is not there."""
        if self.heads is None:
            raise PalscopeError(f"{self.name} are no heads; give a unit's number.")
        if (layer, head) not in self.heads:
            layers = sorted({each for each, _ in self.heads})
            raise PalscopeError(
                f"layer {layer} head {head} is not among the {self.name}, which are of "
                f"{self.hook_point}: its layers are {', '.join(map(str, layers))}."
            )
        return self[self.heads.index((layer, head))]

    def called(self, unit: int) -> str:
        """What a unit is called: "features 12", "layer 23 head 2"."""
        if self.heads is None:
            return f"{self.name} {unit}"
        layer, head = self.heads[unit]
        kind = self.index.record["config"]["units"][self.name]["kind"]
        return f"layer {layer} head {head}{'' if kind == 'heads' else f', {self.name}'}"

    def with_heads(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with layer and head behind each `unit`, where these are heads."""
        if self.heads is not None:
            units: list[int] = table["unit"].tolist()
            table.insert(1, "layer", [self.heads[unit][0] for unit in units])
            table.insert(2, "head", [self.heads[unit][1] for unit in units])
        return table

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a unit.

        `unit`; `best_label`, the label whose clips it ranks highest among training clips, and its
        `score`, the average precision on held-out ones; `name`, that label where the score reaches
        the bar, else empty; `rows`, the share that it fires on; `clips` that it fires in; its
        `largest` value; `words` that it writes. Heads have `layer`, `head`, and what they give to
        all tokens of a clip, on average (`gives`).
        """
        return read_parquet(self.index.folder / self.name / UNITS)

    def by_label(self, label: str, domain: str | None = None) -> pd.DataFrame:
        """Units by how well they tell a label on held-out clips, the best first.

        Returns:
            `unit` (of heads `layer, head`, too), `auroc` among clips of its domain, `precision`
            among all, `fires` (share of the label's clips), `name`.

        Raises:
            PalscopeError: no clip has the label, or none held out.
        """
        labels: Any = self.index.labels
        told: Any = (labels["label"] == label) & ((labels["domain"] == domain) | (domain is None))
        found = np.flatnonzero(told.to_numpy())
        if len(found) != 1:
            known = ", ".join(named(labels))
            why = "is in several domains, give one" if len(found) else "no clip has"
            raise PalscopeError(f"label {label!r}: {why}; there are {known or 'none'}.")
        columns = {name: self.array(name)[:, found[0]] for name in ("auroc", "precision", "fires")}
        if np.isnan(columns["auroc"]).all():
            raise PalscopeError(
                f"label {label!r} has no score: no clip of split "
                f"{self.index.record['config']['test']!r} has it, or all of its domain have."
            )
        table = self.with_heads(
            pd.DataFrame({"unit": np.arange(len(self)), **columns, "name": self.table["name"]})
        )
        return table.sort_values(["auroc", "precision"], ascending=False, ignore_index=True)

    def array(self, name: str, unit: int | None = None) -> np.ndarray:
        """A stored array, whole or of one unit. Raises `PalscopeError` for a damaged file."""
        path = self.index.folder / self.name / ARRAYS
        try:
            with cast(Any, safe_open)(path, framework="np") as opened:
                if unit is None:
                    return opened.get_tensor(name)
                return opened.get_slice(name)[unit : unit + 1][0]
        except Exception as error:  # safetensors' own is a plain Exception
            raise PalscopeError(
                f"{path} cannot be read ({error}): make the index again."
            ) from error

    @cached_property
    def arrays(self) -> list[str]:
        """The names of the arrays that there are."""
        path = self.index.folder / self.name / ARRAYS
        try:
            with cast(Any, safe_open)(path, framework="np") as opened:
                return list(opened.keys())
        except Exception as error:
            raise PalscopeError(
                f"{path} cannot be read ({error}): make the index again."
            ) from error


class IndexedUnit:
    """One unit of an index; in a notebook it shows itself and plays.

    Attributes:
        units: its kind.
        number: which it is.
    """

    def __init__(self, units: IndexedUnits, number: int) -> None:
        self.units = units
        self.number = number

    def _repr_html_(self) -> str:
        from palscope._features.heard.show import shown  # it reads this module

        return shown(self)

    @property
    def about(self) -> Mapping[str, Any]:
        """Its row of `IndexedUnits.table`."""
        return cast("Mapping[str, Any]", self.units.table.iloc[self.number].to_dict())

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Where it is heard, a row a clip.

        `band` is "strongest", or which quarter of the clips that fire it the clip was drawn from
        ("0-25 %" are the weakest); `clip` (row of the index's clips), `start` and `end` (s) of what
        is at least half as strong as the peak, the peak's `value`; `name, label, domain` of the
        clip.
        """
        parts = {
            name: self.units.array(f"sample_{name}", self.number)
            for name in ("clip", "start", "end", "value")
        }
        share = 100 // BANDS
        names = [f"{share * band}-{share * (band + 1)} %" for band in range(BANDS)]
        bands = ["strongest"] * TOP + [name for name in names for _ in range(PER_BAND)]
        table: Any = pd.DataFrame({"band": bands, **parts})
        table = table[table["clip"] >= 0].reset_index(drop=True)
        told: Any = self.units.index.clips.iloc[table["clip"]][["name", "label", "domain"]]
        return table.join(told.reset_index(drop=True))

    @cached_property
    def histogram(self) -> pd.DataFrame:
        """Rows by the size of the unit's values, where it fires: `low, high, rows`."""
        counts = self.units.array("counts", self.number)
        used = np.flatnonzero(counts)
        within = slice(used[0], used[-1] + 1) if len(used) else slice(0)
        low, high = self.units.edges[:-1], self.units.edges[1:]
        return pd.DataFrame({"low": low[within], "high": high[within], "rows": counts[within]})

    @cached_property
    def labels(self) -> pd.DataFrame:
        """How well it tells each label, the best first: `domain, label, clips, fires, ...`.

        `fires` is the share of the label's clips that fire it; `precision` the average precision
        among all held-out clips; `auroc` that among those of the domain.
        """
        columns = {
            name: self.units.array(name, self.number) for name in ("fires", "precision", "auroc")
        }
        table = self.units.index.labels.assign(**columns)
        return table.sort_values(["precision", "fires"], ascending=False, ignore_index=True)

    @cached_property
    def nearest(self) -> pd.DataFrame:
        """The units of its kind whose directions are nearest: `unit, cosine`; of neurons none.

        Of heads those whose values over all tokens are nearest: `unit, layer, head, correlation`.
        """
        near = "cosine" if self.units.heads is None else "correlation"
        if "nearest" not in self.units.arrays:
            return pd.DataFrame({"unit": [], near: []})
        names = {"unit": "nearest", near: f"nearest_{near}"}
        found = {each: self.units.array(name, self.number) for each, name in names.items()}
        return self.units.with_heads(pd.DataFrame(found))

    @cached_property
    def twins(self) -> dict[str, tuple[IndexedUnit, float]]:
        """Of each kind beside its own the unit that correlates most over rows, and how much."""
        out: dict[str, tuple[IndexedUnit, float]] = {}
        for name in self.units.index:
            if f"twin:{name}" in self.units.arrays:
                found = int(self.units.array(f"twin:{name}", self.number))
                if found >= 0:
                    correlation = self.units.array(f"twin_correlation:{name}", self.number)
                    out[name] = self.units.index[name][found], float(correlation)
        return out


def read_parquet(path: Path) -> pd.DataFrame:
    """A table of an index. Raises `PalscopeError` where it cannot be read."""
    try:
        return pd.read_parquet(path)
    except Exception as error:  # pyarrow's own have no common ancestor
        raise PalscopeError(f"{path} cannot be read ({error}): make the index again.") from error
