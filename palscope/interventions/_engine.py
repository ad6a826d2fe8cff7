"""Many interventions on one prompt at batch speed: each begins where it first changes something.

`run_cells_plainly` (`cells`) says what the numbers are; here the same hooks act in runs that leave
out what they would repeat (`models.resumed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from palscope._hooked import has_hooks_of_others, is_hooked
from palscope._hooks import HookedAudioModel
from palscope._models.resumed import PlainRun, resume, run_plainly
from palscope._routing import Route, TokenLayout
from palscope._routing.layout import TEXT
from palscope.interventions._apply import Bound, in_force
from palscope.interventions._parts import Part

BUDGET_BYTES = 2**30
"""Memory that the rows of one batch may take, roughly. A GPU gives half of what is free."""

_WASTE = 0.2
"""Cells that begin at different tokens share a batch while it runs so much more than they need."""


@dataclass(frozen=True)
class Start:
    """Where a cell first changes something: nothing below `layer`, nothing before `column`."""

    layer: int
    column: int
    anew: frozenset[int] = frozenset()
    """Layers whose audio memory it changes on its way to keys and values."""
    in_projectors: bool = False
    """Whether it changes clips on their way into projectors."""


def start_of(bound: Sequence[Bound], layout: TokenLayout, route: Route) -> Start | None:
    """Where a cell begins; None when that lies before the decoder, or it changes nothing.

    Args:
        layout: of its prompt.
        route: under which it runs.
    """
    starts: list[Start] = []
    for part in (part for each in bound for part in each.parts):
        found = _start_of_part(part, layout, route)
        if found is None:
            return None
        starts.append(found)
    if not starts:
        return None
    return Start(
        min(start.layer for start in starts),
        min(start.column for start in starts),
        frozenset(layer for start in starts for layer in start.anew),
        any(start.in_projectors for start in starts),
    )


def _start_of_part(part: Part, layout: TokenLayout, route: Route) -> Start | None:
    if part.axis == "clip_tokens":
        return _start_of_projector(part, layout, route)
    if part.axis in ("passing", "mel"):
        return None
    assert part.layer is not None
    read = part.columns if part.queries is None else part.queries
    anew = frozenset({part.layer} if part.axis == "memory" else ())
    return Start(part.layer, int(read.min()), anew)


def _start_of_projector(part: Part, layout: TokenLayout, route: Route) -> Start | None:
    """Of tokens on their way into a projector of the connector."""
    point = part.hook.removesuffix(".hook_in")
    if point.startswith("audio_projector_"):
        stream, number = point.removeprefix("audio_projector_").rsplit("_", 1)
        layer, anew = int(number), frozenset({int(number)})
    elif point.startswith("audio_input_"):
        stream, layer = point.removeprefix("audio_input_"), 0
        anew = frozenset(each for each in range(route.n_layers) if route.crosses(each))
    else:
        return None
    here = layout.on_host
    tokens = (here.clip[0] == part.row) & (here.stream[0] == here.stream_index(stream))
    changed = tokens & torch.isin(here.token[0], part.columns)
    return Start(layer, int(changed.nonzero()[0, 0]), anew, True)


class Engine:
    """Runs cells on one prompt under the model's current route.

    `plain` is the run that none of them changes.
    """

    def __init__(self, model: HookedAudioModel, inputs: Mapping[str, Any]) -> None:
        """`inputs` of one prompt, its clips encoded."""
        self._model = model
        self._inputs = inputs
        self.plain: PlainRun = run_plainly(
            model.model, inputs["input_ids"], inputs.get("attention_mask"), inputs.get("audio")
        )

    @staticmethod
    def serves(model: HookedAudioModel, layout: TokenLayout) -> bool:
        """Whether runs may begin late: nothing else is hooked, and the prompt ends in text.

        A hook of someone else's would see some rows, layers and tokens alone, and not know which.
        """
        inner = model.model
        if inner.current_cuts or inner.is_watched or int(layout.on_host.stream[0, -1]) != TEXT:
            return False
        everything = {*model.modules(), *model.model.modules()}
        return not any(_is_hooked(module) for module in everything)

    def batches(self, starts: Mapping[int, Start], at_most: int | None) -> list[list[int]]:
        """Numbers of cells that share a batch, those that join first in front."""
        width = self.plain.layout.width
        room = self._rows(width) if at_most is None else at_most
        found: list[list[int]] = []
        first = 0
        for number in sorted(starts, key=lambda n: (starts[n].column, starts[n].layer, n)):
            column = starts[number].column
            near = (width - first) * (1 - _WASTE) <= width - column
            if not found or not near or len(found[-1]) == room:
                found.append([])
                first = column
            found[-1].append(number)
        return [sorted(batch, key=lambda n: (starts[n].layer, n)) for batch in found]

    def run(
        self, cells: Sequence[tuple[Sequence[Bound], Start]]
    ) -> tuple[Float[Tensor, "cells vocabulary"], int]:
        """Logits at the last token of each cell, and how many edges of attention were cut.

        Cells that join first stand in front.
        """
        placed = [(each, row) for row, (bound, _) in enumerate(cells) for each in bound]
        starts = [start for _, start in cells]
        with in_force(self._model, self._inputs, placed, len(cells)) as cuts:
            logits = resume(
                self._model.model,
                self.plain,
                [start.layer for start in starts],
                min(start.column for start in starts),
                anew=_first_rows(starts),
                own_clips=any(start.in_projectors for start in starts),
            )
        return logits, cuts.edges_cut

    def _rows(self, width: int) -> int:
        """How many rows of so many columns the budget holds, by what a layer makes of each."""
        config: Any = self._model.model.text_config
        budget = BUDGET_BYTES
        if self._model.model.device.type == "cuda":
            budget = torch.cuda.mem_get_info(self._model.model.device)[0] // 2
        fed: int | list[int] = config.intermediate_size  # Gemma 3n: of each layer
        per_column = 6 * config.hidden_size + 3 * (max(fed) if isinstance(fed, list) else fed)
        per_row = width * per_column + config.vocab_size
        return max(1, budget // (per_row * self._model.model.dtype.itemsize))


def _first_rows(starts: Sequence[Start]) -> dict[int, int]:
    """Each layer whose audio memory is changed, and the first row in which it is."""
    rows = reversed(list(enumerate(starts)))
    return {layer: row for row, start in rows for layer in start.anew}


def _is_hooked(module: nn.Module) -> bool:
    if isinstance(module, HookPoint):
        return is_hooked(module)
    return has_hooks_of_others(module)
