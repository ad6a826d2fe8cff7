"""Mean rows of clips: what probes and directions are fitted on, and which clips belong together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from palscope._features.store import Activations, belonging
from palscope._finite import all_finite
from palscope.audio._timegrid import overlaps
from palscope.errors import PalscopeError

_ROWS = 16_384
"""Read at a time."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The mean row of each of several clips, or of each of their stretches, at one hook point.

    Attributes:
        x: one vector a clip or stretch.
        clips: what is known of its clip, in the same order, as `ActivationStore.clips` has it.
        hook_point: where.
        record: of the run that stored them: weights and route.
        row_norm: the mean norm of the rows that the means are over.
        stretch: the number of the stretch, from 0; all 0 where the whole clip is one.
        seconds: the part of every clip that the means are over; an end of None is the clip's.
    """

    x: Float[np.ndarray, "clips width"]
    clips: pd.DataFrame
    hook_point: str
    record: dict[str, Any]
    row_norm: float
    stretch: Int[np.ndarray, " clips"]
    seconds: tuple[float, float | None] = (0.0, None)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def labels(self) -> np.ndarray:
        """The label of each."""
        return self.clips["label"].to_numpy(dtype=str)

    @property
    def groups(self) -> np.ndarray:
        """The `group` of each; its name where it has none."""
        table: Any = self.clips
        return table["group"].where(table["group"] != "", table["name"]).to_numpy(dtype=str)

    @property
    def recordings(self) -> np.ndarray:
        """The recording (or speaker) of each: clips of one never stand on both sides of a split.

        It is the clip's domain and `group`. A clip without a group is one by itself, and so is
        every clip of a domain that is all one group: see `one_group`.
        """
        table: Any = self.clips
        alone = table["group"].eq("") | table["domain"].isin(self.one_group)
        return np.where(alone, table["name"], table["domain"] + "/" + table["group"]).astype(str)

    @property
    def one_group(self) -> list[str]:
        """Domains whose clips all have the same group, so that none can be kept apart by it."""
        table: Any = self.clips
        groups = table[table["group"].ne("")].groupby("domain", sort=False)["group"].nunique()
        return [str(domain) for domain, count in groups.items() if count == 1]

    def of(self, chosen: Any) -> Examples:
        """Those of some clips alone: a truth value each, or their numbers."""
        places = np.arange(len(self))[np.asarray(chosen)]
        if not len(places):
            raise PalscopeError(f"none of the {len(self)} clips at {self.hook_point} is chosen.")
        table: Any = self.clips
        clips = table.iloc[places].reset_index(drop=True)
        return replace(self, x=self.x[places], clips=clips, stretch=self.stretch[places])


def clip_examples(
    rows: Activations,
    *,
    seconds: tuple[float, float | None] = (0.0, None),
    step: float | None = None,
) -> Examples:
    """The mean of every clip's rows, or of every stretch's, in double precision.

    Args:
        rows: at one hook point; of some clips alone by `Activations.of_clips`.
        seconds: only rows of tokens that overlap this stretch of their clip. A clip that ends
            before it has no example. Rows of text have no seconds: they count where the stretch is
            the whole clip.
        step: one example for every stretch of so many seconds (a token belongs to that in which its
            middle lies), in place of one for the whole.

    Raises:
        PalscopeError: no row lies there, a row holds NaN or infinity, or the step is none.
    """
    table: Any = rows.rows
    chosen = np.ones(len(rows), dtype=bool)
    start, end = seconds
    if seconds != (0.0, None):
        ends = np.inf if end is None else end
        chosen = overlaps(table["start"].to_numpy(), table["end"].to_numpy(), start, ends)
    stretch = np.zeros(len(rows), dtype=int)
    if step is not None:
        if not 0 < step < np.inf:
            raise PalscopeError(f"step is {step:g} s; expected seconds above 0.")
        middle = (table["start"].to_numpy() + table["end"].to_numpy()) / 2
        chosen &= ~np.isnan(middle)
        stretch[chosen] = ((middle[chosen] - start) / step).clip(0).astype(int)
    places = chosen.nonzero()[0]
    if not len(places):
        told = "the end" if end is None else f"{end:g} s"
        raise PalscopeError(f"{rows.hook_point} has no row from {start:g} s to {told}.")
    pairs = np.stack([table["clip"].to_numpy()[places], stretch[places]], 1)
    found, at = np.unique(pairs, axis=0, return_inverse=True)
    at = at.reshape(-1)  # of another shape in numpy 2.0
    clips = found[:, 0]
    norms = 0.0
    sums = torch.zeros(len(clips), rows.width, dtype=torch.float64)
    for begin in range(0, len(places), _ROWS):
        values = rows[places[begin : begin + _ROWS]].double()
        if not all_finite(values):
            raise PalscopeError(f"rows at {rows.hook_point} hold NaN or infinity.")
        norms += float(values.square().sum(1).sqrt().sum())
        sums.index_add_(0, torch.from_numpy(at[begin : begin + _ROWS]), values)
    means: np.ndarray = sums.numpy() / np.bincount(at)[:, None]
    about: Any = rows.store.clips
    record = belonging(rows.store.record)
    known = about.iloc[clips].reset_index(drop=True)
    return Examples(
        means, known, rows.hook_point, record, norms / len(places), found[:, 1], seconds
    )
