"""What a check found: a verdict, and the numbers it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._verify.tolerance import COARSE, apart

Verdict = Literal["ok", "FAILED", "told", "not checked"]


@dataclass(frozen=True)
class Result:
    """One line of a report.

    Attributes:
        name: of the check.
        verdict: "told" where there is nothing to hold against.
        says: the line, with the numbers that matter.
        numbers: plain data, for the report's JSON.
    """

    name: str
    verdict: Verdict
    says: str
    numbers: Mapping[str, Any] = field(default_factory=dict[str, Any])


def judged(name: str, holds: bool, says: str, **numbers: Any) -> Result:
    """The result of a check that holds or does not."""
    return Result(name, "ok" if holds else "FAILED", says, numbers)


def unchecked(name: str, why: str, **numbers: Any) -> Result:
    """The result of a check that could not be made."""
    return Result(name, "not checked", why, numbers)


def attempted(name: str, check: Callable[[], Result]) -> Result:
    """What `check` finds; an error that it ends in is a fault that it found."""
    try:
        return check()
    except Exception as error:  # whatever is raised goes into the report
        return judged(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}")


def compared(
    name: str,
    got: Float[Tensor, "its_columns its_vocabulary"],
    wanted: Float[Tensor, "columns vocabulary"],
    limits: Float[Tensor, "columns"] | float,
    beside: str,
) -> Result:
    """Whether logits are the same but for rounding.

    Args:
        limits: how far apart they may be, as `tolerance.limits` has it; one, or one a column.
        beside: what they are compared with.
    """
    if got.shape != wanted.shape:
        says = f"{list(got.shape)} logits, but {list(wanted.shape)} of {beside}"
        return judged(name, False, says)
    got, wanted = got.detach().cpu(), wanted.detach().cpu()
    if torch.equal(got, wanted):
        return judged(name, True, f"equal bit for bit to {beside}", apart=0.0)
    shares = apart(got, wanted)
    allowed = torch.as_tensor(limits, dtype=shares.dtype).cpu().expand_as(shares)
    worst = int((shares / allowed).nan_to_num(nan=float("inf")).argmax())
    numbers = {
        "apart": float(shares.max()),
        "apart_at_worst": float(shares[worst]),
        "limit_at_worst": float(allowed[worst]),
        "worst_column": worst,
        "largest_difference": float((got.double() - wanted.double()).abs().max()),
    }
    says = (
        f"{_share(numbers['apart_at_worst'])} of the spread from {beside}; "
        f"rounding may do {_share(numbers['limit_at_worst'])}"
    )
    holds = bool((shares <= allowed).all())
    if holds and float(allowed.median()) > COARSE:
        return unchecked(name, f"{says}: too much to tell, try --dtype float32", **numbers)
    return judged(name, holds, says, **numbers)


def _share(number: float) -> str:
    return f"{100 * number:.2g} %"
