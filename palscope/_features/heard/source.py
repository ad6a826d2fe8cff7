"""Units: a value for each stored row, whatever they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._features.dictionary import Dictionary
from palscope._features.formats import load_dictionary
from palscope._features.heard.bins import EDGES, OF_ATTENTION
from palscope._features.scores import Units, both_signs, random_dictionary
from palscope._features.store import Activations
from palscope._finite import all_finite
from palscope.errors import PalscopeError

MOST_RANDOM = 4096
"""Of a random dictionary so many units are kept: they are all alike."""


@dataclass(frozen=True, eq=False)
class UnitSource:
    """Units of stored rows: latents, neurons, dimensions, directions, all that has a value a row.

    A unit fires on a row where its value is above 0; a head reads it there. Directions of your own
    are given as `UnitSource("mine", rows, lambda x: x @ directions.T)`.

    Attributes:
        name: of these units: "features".
        rows: that they are read from.
        encode: the units' values of rows.
        directions: what each unit writes, for its neighbours and its words; None where it is not
            known.
        writes: hook point at which they write `directions`; of none given, where rows are.
        made: how to make them again of other rows, plain data: what a search by sound needs.
    """

    name: str
    rows: Activations
    encode: Units
    directions: Float[Tensor, "units width"] | None = None
    writes: str = ""
    made: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of_dictionary(
        cls, path: str | Path, rows: Activations, name: str = "features"
    ) -> UnitSource:
        """The latents of a stored dictionary, a transcoder's too.

        Raises `PalscopeError` for rows of another site, width or model.
        """
        made = load_dictionary(path)
        made.check_rows(rows)
        told = {"kind": "dictionary", "path": str(Path(path).resolve())}
        return cls(name, rows, made.encode, made.W_dec.detach(), _writes(made), told)

    @classmethod
    def of_random(
        cls, path: str | Path, rows: Activations, name: str = "random", seed: int = 0
    ) -> UnitSource:
        """The latents of a random dictionary of a stored one's sizes, 4,096 at most."""
        told = {"kind": "random", "path": str(Path(path).resolve()), "seed": seed}
        learned = load_dictionary(path)
        encode, directions = _random(learned, seed)
        return cls(name, rows, encode, directions, _writes(learned), told)

    @classmethod
    def of_rows(cls, rows: Activations, name: str = "neurons") -> UnitSource:
        """Each number of a row: neurons, where it is their activations."""
        return cls(name, rows, lambda x: x, made={"kind": "rows"})

    @classmethod
    def of_dimensions(cls, rows: Activations, name: str = "dimensions") -> UnitSource:
        """Both ends of each dimension: those at which it is large, then those of its negative."""
        return cls(name, rows, both_signs, made={"kind": "dimensions"})

    @classmethod
    def of_heads(cls, rows: Activations, name: str = "heads") -> UnitSource:
        """Heads, by what each gives to a token: rows of `Address("pattern", queries=Text(-1))`.

        Raises `PalscopeError` for rows that are no attention.
        """
        return cls(name, rows, lambda x: x, made={"kind": "heads", "heads": _heads(rows)})

    @classmethod
    def of_even_heads(cls, rows: Activations, name: str = "spread evenly") -> UnitSource:
        """The same heads, with what each gives to a clip spread evenly over the clip's tokens.

        What is told so is told by how much a head listens and how long the clip is, not by where it
        listens: the control beside `of_heads`, whose values are larger in short clips, too. Raises
        `PalscopeError` for rows that are no attention.
        """
        return cls(name, rows, _even, made={"kind": "even", "heads": _heads(rows)})

    @property
    def edges(self) -> Float[np.ndarray, " edges"]:
        """Of the bins in which values are counted."""
        return OF_ATTENTION if "heads" in self.made else EDGES

    @property
    def is_even(self) -> bool:
        """Whether these are `of_even_heads`."""
        return self.made.get("kind") == "even"

    @torch.no_grad()
    def values(self, start: int, end: int) -> Float[np.ndarray, "rows units"]:
        """Of some rows, whole clips. Raises `PalscopeError` where one is not finite."""
        given = self.rows[start:end].float()
        if self.is_even:
            table: Any = self.rows.rows
            clips: np.ndarray = table["clip"].to_numpy()[start:end]
            ends = np.flatnonzero(np.diff(clips)) + 1
            found = torch.cat([_even(clip) for clip in given.tensor_split(ends.tolist())])
        else:
            found = self.encode(given)
        if not all_finite(found):
            raise PalscopeError(
                f"{self.name} of {self.rows.hook_point} hold NaN or infinity, of rows {start} to "
                f"{end}: the dictionary or its rows are damaged."
            )
        return found.float().numpy()


def encoder_of(told: dict[str, Any]) -> Units:
    """How stored units are made of rows of one clip, as `UnitSource.made` tells.

    Raises `PalscopeError` for units that were given as a function.
    """
    match told.get("kind"):
        case "dictionary":
            return load_dictionary(told["path"]).encode
        case "random":
            return _random(load_dictionary(told["path"]), told["seed"])[0]
        case "rows" | "heads":
            return lambda x: x
        case "even":
            return _even
        case "dimensions":
            return both_signs
        case _:
            raise PalscopeError(
                "these units were given as a function, which is not stored; only units of "
                "dictionaries, neurons, dimensions and heads can be searched by sound."
            )


def _even(rows: Float[Tensor, "tokens heads"]) -> Float[Tensor, "tokens heads"]:
    """One clip's rows, spread evenly over its tokens."""
    return rows.mean(0, keepdim=True).expand_as(rows)


def _heads(rows: Activations) -> list[list[int]]:
    if rows.heads is None:
        raise PalscopeError(
            f"{rows.hook_point} is no attention of heads; that is stored of Address('pattern', "
            "queries=Text(-1)), as pattern.STREAM."
        )
    return [list(each) for each in rows.heads]


def _writes(dictionary: Dictionary) -> str:
    """Where it writes, if that is elsewhere than it reads."""
    return "" if dictionary.centred else dictionary.about.get("hook_point_out") or "unknown"


def _random(learned: Dictionary, seed: int) -> tuple[Units, Tensor]:
    made = random_dictionary(learned, seed)
    return lambda x: made.encode(x)[:, :MOST_RANDOM], made.W_dec.detach()[:MOST_RANDOM]
