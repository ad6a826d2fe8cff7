"""A direction at one hook point of one model, and the change that steers along it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from palscope._features.dictionary import Dictionary
from palscope._features.store import Activations, check_made_by
from palscope._files import make_folder, read_object, whole, write_json
from palscope._finite import all_finite
from palscope._hooks import HookedAudioModel
from palscope._stored import load_tensors
from palscope._whole import whole_number
from palscope.errors import CheckpointError, PalscopeError
from palscope.interventions import Address, Change
from palscope.interventions._resolve import Part

ABOUT, VECTOR = "direction.json", "direction.safetensors"


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector at a hook point: what of rows there goes with a label, or with a latent.

    Attributes:
        vector: `[width]`. One that `find_direction` made is as long as its two sides lie apart
            along it, so that a dose of 1 leads from the mean of one to the mean of the other.
        hook_point: where it belongs.
        made: how it was made, plain data: `by`, and what it is of.
        record: weights and route of the model; empty where they are not known.
        row_norm: the mean norm of the rows there, which says how large a dose is; NaN where it is
            not known.

    Raises:
        PalscopeError: the vector is no vector, holds NaN or infinity, or is nothing.
    """

    vector: Float[Tensor, " width"]
    hook_point: str
    made: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    row_norm: float = float("nan")

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not all_finite(self.vector) or not self.vector.any():
            raise PalscopeError(
                f"a direction at {self.hook_point} is one vector of finite numbers, not all 0; got "
                f"shape {tuple(self.vector.shape)}."
            )

    @classmethod
    def of_latent(cls, dictionary: Dictionary, latent: int) -> Direction:
        """A latent's row of the decoder, as it is: what the latent writes where it is 1.

        Raises:
            PalscopeError: there is no such latent, or the dictionary does not say where it belongs.
        """
        if not 0 <= whole_number(latent, "latent") < dictionary.d_sae:
            raise PalscopeError(f"no latent {latent}; there are {dictionary.d_sae}.")
        about = dictionary.about
        # What a transcoder writes stands where its targets do.
        hook_point = about.get("hook_point" if dictionary.centred else "hook_point_out")
        if not hook_point:
            raise PalscopeError("this dictionary does not say at which hook point it writes.")
        row = dictionary.W_dec.detach()[latent].float().cpu().clone()
        made = {"by": "decoder row", "latent": int(latent)}
        return cls(row, str(hook_point), made, dict(about.get("record") or {}))

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return len(self.vector)

    @property
    def norm(self) -> float:
        """Its length."""
        return float(self.vector.double().square().sum().sqrt())

    @property
    def relative_norm(self) -> float:
        """Its length beside the mean norm of the rows."""
        return self.norm / self.row_norm

    def random(self, seed: int = 0) -> Direction:
        """One as long, in a direction drawn at random: the control of whatever is done with it."""
        drawn = torch.randn(self.width, generator=torch.Generator().manual_seed(seed))
        vector = drawn / drawn.square().sum().sqrt() * self.norm
        return replace(
            self,
            vector=vector.to(self.vector),
            made={"by": "random", "seed": seed, "of": self.made},
        )

    # -- where it belongs -------------------------------------------------------------------------

    def check_rows(self, rows: Activations) -> None:
        """Raise `PalscopeError`, naming what differs, for rows of another site, width or model."""
        self.check_site(rows.hook_point, rows.width)
        if self.record and not rows.made_by(self.record):
            raise PalscopeError(f"{rows.store.folder} is of another model than this direction.")

    def check_model(self, model: HookedAudioModel) -> None:
        """Raise `PalscopeError`, naming what differs, for another model or route."""
        if self.record:
            check_made_by("this direction", self.record, model, self.hook_point)

    def check_site(self, hook_point: str, width: int) -> None:
        """Raise `PalscopeError` for another hook point, or one of another width."""
        if hook_point != self.hook_point:
            raise PalscopeError(
                f"this direction is of {self.hook_point}, not of {hook_point}; Add(vector) adds "
                "any vector anywhere."
            )
        if width != self.width:
            raise PalscopeError(
                f"this direction has {self.width} numbers, but {hook_point} is {width} wide."
            )

    # -- files ------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write `direction.json` and `direction.safetensors`.

        Raises:
            PalscopeError: they cannot be written.
        """
        folder = Path(folder)
        make_folder(folder)
        with whole(folder / VECTOR) as part:
            save_file({"vector": self.vector.contiguous()}, part)
        row_norm = None if math.isnan(self.row_norm) else self.row_norm
        about = {"hook_point": self.hook_point, "made": self.made, "record": self.record}
        write_json(folder / ABOUT, {**about, "norm": self.norm, "row_norm": row_norm})

    @classmethod
    def load(cls, folder: str | Path) -> Direction:
        """What `save` wrote.

        Raises:
            CheckpointError: the folder holds no direction, or a damaged one.
        """
        folder = Path(folder)
        about = read_object(
            folder / ABOUT, "a direction, as Direction.save writes it", CheckpointError
        )
        vector = load_tensors([folder / VECTOR]).get("vector")
        hook_point: Any = about.get("hook_point")
        if vector is None or not isinstance(hook_point, str):
            raise CheckpointError(f"{folder} holds no direction with its hook point.")
        made: Any = about.get("made") or {}
        record: Any = about.get("record") or {}
        row_norm: Any = about.get("row_norm")
        return cls(vector, hook_point, made, record, float("nan" if row_norm is None else row_norm))


@dataclass(frozen=True, eq=False)
class Steer(Change):
    """Add `dose` times a direction, at its own hook point of its own model.

    Tokens that decoding adds are steered too where the address holds them (`Text()`, or no tokens
    at all); with `Text(-1)` or seconds of sound the prompt's tokens alone.
    """

    direction: Direction
    dose: float = 1.0

    def prepared(self, model: HookedAudioModel, address: Address) -> Steer:
        """The same. Raises `PalscopeError` for another model or route."""
        self.direction.check_model(model)
        return self

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """`old` plus the direction. Raises `PalscopeError` at another site."""
        self.direction.check_site(part.hook, old.shape[-1])
        return old + self.dose * self.direction.vector.to(old)
