"""Erasing what tells labels apart: LEACE (Belrose et al. 2023, arXiv 2306.03819).

An eraser is the affine change, smallest in the metric of the rows' covariance, after which the mean
is the same for every label (in each stretch of the clips, where they have several), so that no
linear probe does better than always saying one label on the clips it was fitted on. Whether that
holds of other clips is measured before anything is concluded.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from palscope._directions.examples import Examples
from palscope._directions.logistic import PENALTY, fit_probe
from palscope._directions.probes import Guesses
from palscope._features.scores import check_groups
from palscope._features.store import check_made_by
from palscope._hooks import HookedAudioModel
from palscope._statistics import interval_columns
from palscope._whole import whole_number
from palscope.errors import PalscopeError
from palscope.interventions import Address, Change
from palscope.interventions._resolve import Part

_LEAST = 1e-6
"""Whitened correlations below this are rounding. The package's own 0.01 would leave some in."""


@dataclass(frozen=True, eq=False)
class Eraser(Change):
    """`x - (x - mean) @ right @ left`: rows without what tells some labels apart.

    A change of values as others: `Patch(address, eraser)`, at its own hook point of its own model.
    It is affine, so the mean of erased rows is the erased mean.

    Attributes:
        left: `[rank, width]`, what is taken away.
        right: `[width, rank]`, how much of each.
        mean: `[width]`, which stays as it is.
        hook_point: where it belongs.
        made: how it was made, plain data.
        record: weights and route of the model.
    """

    left: Float64[Tensor, "rank width"]
    right: Float64[Tensor, "width rank"]
    mean: Float64[Tensor, " width"]
    hook_point: str
    made: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(cls, examples: Examples) -> Eraser:
        """The eraser of the examples' labels: choose training clips of one domain.

        Of examples that are stretches, labels are erased in each: afterwards the mean of a label is
        that of all labels at the same time in the clip. What differs by time alone stays.

        Raises:
            PalscopeError: there is one label only.
        """
        names, at = np.unique(examples.labels, return_inverse=True)
        if len(names) < 2:
            raise PalscopeError(f"an eraser takes labels away; all clips have {str(names[0])!r}.")
        told: list[np.ndarray] = []
        for stretch in np.unique(examples.stretch):
            here = (examples.stretch == stretch)[:, None]
            labels = (np.arange(len(names)) == at[:, None]) & here
            told.append(labels - here * (labels.sum(0) / here.sum()))
        made = {"erased": "labels", "labels": names.tolist(), "stretches": len(told)}
        return cls._of(examples, torch.tensor(np.concatenate(told, 1)), made)

    @classmethod
    def random(cls, examples: Examples, rank: int, seed: int = 0) -> Eraser:
        """The control: as many directions, drawn at random where the examples are white.

        Raises:
            PalscopeError: the rank is none, or larger than a row.
        """
        if not 1 <= whole_number(rank, "rank") <= examples.x.shape[1]:
            raise PalscopeError(f"rank is {rank}; expected 1 to {examples.x.shape[1]}.")
        drawn = torch.Generator().manual_seed(seed)
        told = torch.randn(len(examples), rank, generator=drawn, dtype=torch.float64)
        return cls._of(examples, told, {"erased": "random", "rank": rank, "seed": seed})

    @classmethod
    def _of(
        cls, examples: Examples, told: Float64[Tensor, "clips told"], made: dict[str, Any]
    ) -> Eraser:
        x = torch.tensor(examples.x)
        # Without the constraint on the trace, which gives up the guarantee where it acts.
        fitter = leace().LeaceFitter(
            x.shape[1],
            told.shape[1],
            dtype=torch.float64,
            constrain_cov_trace=False,
            svd_tol=_LEAST,
        )
        found: Any = fitter.update(x, told).eraser
        kept = found.proj_left.abs().sum(0) > 0
        return cls(
            left=found.proj_left[:, kept].T.contiguous(),
            right=found.proj_right[kept].T.contiguous(),
            mean=x.mean(0),
            hook_point=examples.hook_point,
            made=made | {"clips": len(x), "seconds": list(examples.seconds)},
            record=examples.record,
        )

    @property
    def rank(self) -> int:
        """How many directions are taken away; of k labels k - 1, in every stretch."""
        return len(self.left)

    def erased(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Rows without it."""
        rows = x if x.dtype == torch.float64 else x.float()
        mean, right, left = (each.to(rows) for each in (self.mean, self.right, self.left))
        return (rows - (rows - mean) @ right @ left).to(x)

    def of_examples(self, examples: Examples) -> Float[np.ndarray, "clips width"]:
        """The vectors of examples without it."""
        return self.erased(torch.tensor(examples.x)).numpy()

    def prepared(self, model: HookedAudioModel, address: Address) -> Eraser:
        """The same. Raises `PalscopeError` for another model or route."""
        if self.record:
            check_made_by("this eraser", self.record, model, self.hook_point)
        return self

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """`old` without it. Raises `PalscopeError` at another site, or one of another width."""
        if part.hook != self.hook_point or old.shape[-1] != len(self.mean):
            raise PalscopeError(
                f"this eraser is of {self.hook_point}, {len(self.mean)} wide; it was put at "
                f"{part.hook}, {old.shape[-1]} wide."
            )
        return self.erased(old)


def leace() -> Any:
    """The package `concept_erasure`, imported when it is first needed."""
    with warnings.catch_warnings():
        # It compiles a function that is not used here by torch.jit, which torch is giving up.
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module("concept_erasure")


NOTHING = "nothing"
"""What is erased of the rows that others are compared with."""


def decodable(
    train: Examples,
    test: Examples,
    erasers: Mapping[str, Eraser],
    *,
    penalty: float = PENALTY,
) -> pd.DataFrame:
    """How well a probe still tells the labels of clips that neither it nor the eraser has seen.

    The probe is fitted anew on training clips of which the same was erased; of examples that are
    stretches, each has a probe of its own, and the score is over all of them.

    Args:
        train: clips of one domain, those that erasers were fitted on.
        test: clips of other recordings.
        erasers: by what they erase.
        penalty: on the probe's squared weights.

    Returns:
        One row an eraser, that of nothing first: `erased, rank`, `moved`, the mean length of the
        change of test clips over the mean norm of rows; `accuracy` with its interval over
        recordings `low, high, values`; `n` clips or stretches, `recordings`, and `chance`, the
        share of the test clips that the commonest label of training has.

    Raises:
        PalscopeError: a recording (speaker) is on both sides.
    """
    check_groups(train.clips, test.clips)
    names, counts = np.unique(train.labels, return_counts=True)
    commonest = names[counts.argmax()]
    rows: list[dict[str, Any]] = []
    for name, eraser in {NOTHING: None, **erasers}.items():
        one, other = (
            each.x if eraser is None else eraser.of_examples(each) for each in (train, test)
        )
        right = _told(train, one, test, other, penalty)
        accuracy, sure, each = Guesses(right, test.recordings).score
        moved = float(np.linalg.norm(other - test.x, axis=1).mean()) / test.row_norm
        rows.append(
            {
                "erased": name,
                "rank": 0 if eraser is None else eraser.rank,
                "moved": moved,
                "accuracy": accuracy,
                **interval_columns(sure, each),
                "n": len(test),
                "recordings": len(set(test.groups)),
                "chance": float((test.labels == commonest).mean()),
            }
        )
    return pd.DataFrame(rows)


def _told(
    train: Examples, one: np.ndarray, test: Examples, other: np.ndarray, penalty: float
) -> np.ndarray:
    """Whether the probe of its stretch tells each test example; none that has no probe."""
    right = np.zeros(len(test), dtype=bool)
    for stretch in np.unique(test.stretch):
        mine, theirs = train.stretch == stretch, test.stretch == stretch
        if len(set(train.labels[mine])) > 1:
            probe = fit_probe(one[mine], train.labels[mine], penalty=penalty)
            right[theirs] = probe.predict(other[theirs]) == test.labels[theirs]
    return right
