"""Hooks: every place that is offered fires, and an edit that changes nothing changes no bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._verify.results import Result, compared, judged

MADE_FROM = ("hook_scale", "hook_normalized")
"""TransformerLens makes a norm's output anew of what a hook returns there, and warns of it."""


def offered(hooked: HookedAudioModel) -> list[str]:
    """The names of the hook points that can fire under the current route."""
    return [name for name in hooked.hook_dict if hooked.can_fire(name)]


class HookedRun(NamedTuple):
    """A run with a hook at every hook point that is offered.

    `names`: of the hook points; `fired`: those that did; `logits`: `[batch, columns, vocabulary]`.
    """

    names: list[str]
    fired: set[str]
    logits: Float[Tensor, "batch columns vocabulary"]


@torch.no_grad()
def hooked_run(hooked: HookedAudioModel, inputs: Mapping[str, Tensor]) -> HookedRun:
    """Run a model with a hook at every hook point.

    Raises:
        HookError: the model notices itself that some do not fire.
    """
    names, fired = offered(hooked), set[str]()

    def note(name: str) -> Any:
        def look(_tensor: Any, hook: Any) -> None:
            del hook
            fired.add(name)

        return look

    logits = hooked.run_with_hooks(inputs, fwd_hooks=[(name, note(name)) for name in names])
    return HookedRun(names, fired, logits)


def hooks_fire(
    run: HookedRun,
    fused: Float[Tensor, "batch columns vocabulary"],
    limits: Float[Tensor, "columns"] | float,
) -> Result:
    """Whether every hook point fired, and that run gave the logits of one without hooks.

    Args:
        fused: of such a run.
        limits: how far apart the logits of both may be; of one row also one limit a column.
    """
    if silent := sorted(set(run.names) - run.fired):
        says = f"{len(silent)} of {len(run.names)} do not fire: {', '.join(silent[:5])}"
        return judged("hooks", False, says, silent=silent)
    got, wanted = run.logits.flatten(0, 1), fused.flatten(0, 1)
    found = compared("hooks", got, wanted, limits, "those of a run without")
    says = f"{len(run.names)} of {len(run.names)} fire; logits {found.says}"
    return Result("hooks", found.verdict, says, {**found.numbers, "hooks": len(run.names)})


@torch.no_grad()
def edits_of_nothing(
    hooked: HookedAudioModel,
    inputs: Mapping[str, Tensor],
    run: HookedRun,
    fused: Float[Tensor, "batch columns vocabulary"],
) -> Result:
    """Whether edits that return a copy of what they get change no bit.

    At all hook points at once, beside a run in which these only looked; and at those ahead of
    the decoder alone, which leave its kernels as they are.

    Args:
        fused: logits of a run without hooks.
    """
    edited = [name for name in run.names if not name.endswith(MADE_FROM)]
    ahead = [name for name in run.names if name.startswith("audio_")]
    for names, wanted in ((edited, run.logits), (ahead, fused)):
        got = hooked.run_with_hooks(inputs, fwd_hooks=[(name, _copy) for name in names])
        if not torch.equal(got, wanted):
            most = float((got.double() - wanted.double()).abs().max())
            says = f"copies at {len(names)} hook points move logits by up to {most:.2g}"
            return judged("edits", False, says, largest_difference=most)
    says = f"copies at {len(edited)} hook points change no bit, nor at the {len(ahead)} of audio"
    return judged("edits", True, says, hooks=len(edited), audio_hooks=len(ahead))


def _copy(tensor: Any, hook: Any) -> Any:
    del hook
    return tensor.clone() if isinstance(tensor, Tensor) else tensor
