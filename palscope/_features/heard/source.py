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
from palscope._features.scores import Units, both_signs, random_dictionary
from palscope._features.store import Activations
from palscope._finite import all_finite
from palscope.errors import PalscopeError

MOST_RANDOM = 4096
"""Of a random dictionary so many units are kept: they are all alike."""


@dataclass(frozen=True, eq=False)
class UnitSource:
    """Units of stored rows: latents, neurons, dimensions, directions, all that has a value a row.

    A unit fires on a row where its value is above 0. Directions of your own are given as
    `UnitSource("mine", rows, lambda x: x @ directions.T)`.

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

    @torch.no_grad()
    def values(self, start: int, end: int) -> Float[np.ndarray, "rows units"]:
        """Of some rows. Raises `PalscopeError` where one is not finite."""
        found = self.encode(self.rows[start:end].float())
        if not all_finite(found):
            raise PalscopeError(
                f"{self.name} of {self.rows.hook_point} hold NaN or infinity, of rows {start} to "
                f"{end}: the dictionary or its rows are damaged."
            )
        return found.float().numpy()


def encoder_of(told: dict[str, Any]) -> Units:
    """How stored units are made of rows, as `UnitSource.made` tells.

    Raises `PalscopeError` for units that were given as a function.
    """
    match told.get("kind"):
        case "dictionary":
            return load_dictionary(told["path"]).encode
        case "random":
            return _random(load_dictionary(told["path"]), told["seed"])[0]
        case "rows":
            return lambda x: x
        case "dimensions":
            return both_signs
        case _:
            raise PalscopeError(
                "these units were given as a function, which is not stored; only units of "
                "dictionaries, neurons and dimensions can be searched by sound."
            )


def _writes(dictionary: Dictionary) -> str:
    """Where it writes, if that is elsewhere than it reads."""
    return "" if dictionary.centred else dictionary.about.get("hook_point_out") or "unknown"


def _random(learned: Dictionary, seed: int) -> tuple[Units, Tensor]:
    made = random_dictionary(learned, seed)
    return lambda x: made.encode(x)[:, :MOST_RANDOM], made.W_dec.detach()[:MOST_RANDOM]
