"""Both runs of a pair, and what nodes write in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from palscope._circuits.graph import Graph
from palscope._circuits.local import check_adds_up
from palscope._circuits.observed import Observed, observe
from palscope._circuits.writes import Writes, writes_of
from palscope._hooks import HookedAudioModel
from palscope.measures._metrics import Answers
from palscope.measures._patching import Direction, source_and_target


@dataclass(frozen=True, eq=False)
class Compared:
    """Two runs.

    Attributes:
        inputs: of the run that gets the other's values, the answers' beginning behind.
        here: this run, and what its nodes write.
        there: the other one.
    """

    inputs: dict[str, Any]
    here: Observed
    there: Observed
    writes_here: Writes
    writes_there: Writes

    @cached_property
    def change(self) -> Writes:
        """What nodes write more in the other run."""
        return self.writes_there - self.writes_here


def compared(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    graph: Graph,
    answers: Answers,
    direction: Direction = "noising",
    *,
    gradients: bool = False,
) -> Compared:
    """Both runs, `gradients` with those of `here`.

    Raises:
        PalscopeError: the prompts differ in more than sound, or what nodes write does not add up.
    """
    check_adds_up(model)
    source, target = source_and_target(clean, corrupt, answers, direction)
    here = observe(model, target, graph, answers, gradients=gradients)
    there = observe(model, source, graph, answers)
    mine, theirs = (writes_of(model, graph, run) for run in (here, there))
    return Compared(target, here, there, mine, theirs)
