"""What fires in a sound: a stored clip's, or any other, which the model hears once."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from palscope._features.heard.bins import shares_below
from palscope._features.heard.index import IndexedUnits
from palscope._features.heard.source import encoder_of
from palscope._features.rows import RowReader
from palscope._features.store import ActivationStore, check_made_by
from palscope._hooks import HookedAudioModel
from palscope.audio import load_audio
from palscope.errors import PalscopeError
from palscope.interventions._address import Address, Filler, Sound, Text
from palscope.measures._alignment import Head

_OF_ADDRESSES: dict[str, Any] = {each.__name__: each for each in (Address, Sound, Text)}


@dataclass(frozen=True)
class UnitsOfSound:
    """What units are in a sound.

    Attributes:
        units: their kind.
        values: of each token.
        seconds: first and last of each token.
    """

    units: IndexedUnits
    values: Float[np.ndarray, "tokens units"]
    seconds: Float[np.ndarray, "tokens 2"]

    def ranked(self, start: float = 0.0, end: float | None = None, most: int = 20) -> pd.DataFrame:
        """The units that fire from `start` to `end`, those first that are seldom so strong.

        Returns:
            `unit` (of heads `layer, head`, too), its largest `value` there, from `start` to `end`
            of that token (s), and `share_below`, the share of the data set's rows on which it is
            weaker; and `name`.

        Raises:
            PalscopeError: no token lies there.
        """
        last = float(self.seconds.max()) if end is None else end
        rows = np.flatnonzero((self.seconds[:, 0] < last) & (self.seconds[:, 1] > start))
        if not len(rows):
            raise PalscopeError(
                f"no token of this sound lies from {start:g} to {last:g} s; it ends at "
                f"{self.seconds.max():.2f} s."
            )
        here = self.values[rows]
        at, value = rows[here.argmax(0)], here.max(0)
        record = self.units.index.record
        counts = self.units.array("counts")
        share = shares_below(value[None], counts, record["rows"], self.units.edges)[0]
        order = np.lexsort((-value, -share))
        order = order[value[order] > 0][:most]
        return self.units.with_heads(
            pd.DataFrame(
                {
                    "unit": order,
                    "value": value[order],
                    "share_below": share[order],
                    "start": self.seconds[at[order], 0],
                    "end": self.seconds[at[order], 1],
                    "name": self.units.table["name"].to_numpy()[order],
                }
            )
        )


def what_fires(
    units: IndexedUnits,
    sound: Any,
    start: float = 0.0,
    end: float | None = None,
    *,
    model: HookedAudioModel | None = None,
    question: str = "",
    most: int = 20,
) -> pd.DataFrame:
    """The units that fire in a sound, those first that are seldom so strong.

    Args:
        units: of an index: `index["features"]`.
        sound: any sound, which `model` hears once; without a model a clip's name in the index,
            whose stored rows are read.
        start: first second that is asked about.
        end: last one; None is the sound's.
        model: the one that the index is of, on its route.
        question: asked with the sound, which sites in the decoder depend on.
        most: so many units.

    Returns:
        `unit` (of heads `layer, head`, too), its largest `value` there, `start` and `end` of that
        token (s), `share_below`, the share of the data set's rows on which it is weaker, and its
        proposed `name`.

    Raises:
        PalscopeError: the model is another one, the store or the clip is gone, or no token lies in
            those seconds.
    """
    if model is None:
        found = of_stored_clip(units, str(sound))
    else:
        found = of_sound(units, model, sound, question)
    return found.ranked(start, end, most)


def of_stored_clip(units: IndexedUnits, name: str) -> UnitsOfSound:
    """Units of a clip's stored rows. Raises `PalscopeError` where there are none, or no store."""
    index = units.index
    store = ActivationStore(index.path(index.record["config"]["store"]))
    chosen: Any = store.clips["name"] == name
    if not chosen.any():
        raise PalscopeError(f"{store.folder} has no clip {name!r}; give a model to hear a sound.")
    rows = store[units.hook_point].of_clips(chosen)
    table: Any = rows.rows
    return _encoded(units, rows[:], table[["start", "end"]].to_numpy(), rows.heads)


def of_sound(
    units: IndexedUnits, model: HookedAudioModel, sound: Any, question: str = ""
) -> UnitsOfSound:
    """Units of what a model makes of a sound.

    Raises `PalscopeError` where the index is of another model or route.
    """
    index = units.index
    check_made_by(str(index.folder), index.record, model, units.hook_point)
    reader = RowReader(model, [_address(each) for each in index.record["addresses"]])
    asked = load_audio(sound), question or model.processor.any_question
    found = reader([asked])[0][units.hook_point]
    heads = reader.heads.get(units.hook_point)
    return _encoded(units, found.values, found.seconds.numpy(), heads)


@torch.no_grad()
def _encoded(
    units: IndexedUnits, rows: torch.Tensor, seconds: np.ndarray, heads: list[Head] | None
) -> UnitsOfSound:
    if units.heads is not None and units.heads != heads:
        raise PalscopeError(
            f"{units.index.folder}: its {units.name} are of other heads than the rows now: make "
            "the index again."
        )
    told = dict(units.index.record["config"]["units"][units.name])
    if "path" in told:
        told["path"] = units.index.path(told["path"])
    timed = ~np.isnan(seconds[:, 0])
    values = encoder_of(told)(rows.float()).numpy()
    return UnitsOfSound(units, values[timed], seconds[timed])


def _address(written: str) -> Address:
    """An address as a store's record writes it, of all of the sound."""
    try:
        return replace(_made(ast.parse(written, mode="eval").body), tokens=None)
    except (AttributeError, KeyError, SyntaxError, TypeError, ValueError) as error:
        raise PalscopeError(f"the index's store was of {written}, which cannot be read.") from error


def _made(node: Any) -> Any:
    """What the text of an address, or of a part of one, says; nothing else is called."""
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    parts = {cast(str, each.arg): _made(each.value) for each in node.keywords}
    name = cast(Any, node.func).id
    return Filler() if name == "Filler" else _OF_ADDRESSES[name](**parts)
