"""Many interventions on one prompt, each by itself in a row of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from palscope._hooks import HookedAudioModel
from palscope._routing import Route, TokenLayout
from palscope.errors import HookError, PalscopeError
from palscope.interventions._apply import Bound, Condition, Intervention, Reroute, in_force
from palscope.interventions._engine import Engine, Start, start_of
from palscope.interventions._knockout import Knockout


@torch.no_grad()
def run_cells(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    cells: Sequence[Sequence[Intervention | Reroute]],
    *,
    batch_size: int | None = None,
    progress: bool = False,
) -> Float[Tensor, "cells vocabulary"]:
    """Logits at the last token of one prompt, under each cell's interventions by themselves.

    A cell without interventions is the plain run. Cells share forward passes, in which each leaves
    out the layers and tokens before its first change; the numbers are those of `intervene`, to
    rounding. Cells that reach into the encoder or take another route, and all cells where a hook of
    someone else's is set on the model, run whole (`run_cells_plainly`).

    Args:
        inputs: of one prompt, with `input_features` where a cell reaches into the encoder.
        batch_size: at most so many cells together; by default as many as memory holds.

    Raises:
        PalscopeError: there are several prompts, or an intervention cannot be resolved.
        HookError: a patch took no effect, or no knockout of any cell did.
    """
    _check_one_prompt(inputs)
    encoded = with_encoded(model, inputs)
    layout = model.layout(encoded)
    asked = [Condition.of(model, cell) for cell in cells]
    logits: dict[int, Tensor] = {}
    edges = 0
    with model.model.turns.passing():  # hooks of another's block are gone then
        served = Engine.serves(model, layout)
    if served:
        logits, edges = _run_late(model, inputs, encoded, layout, asked, batch_size, progress)
    rest = [number for number in range(len(cells)) if number not in logits]
    whole, more = _run_whole(
        model, inputs, encoded, [asked[number] for number in rest], batch_size or 16, progress
    )
    logits.update(zip(rest, whole, strict=True))
    _check_cut(asked, edges + more)
    return torch.stack([logits[number] for number in range(len(cells))])


@torch.no_grad()
def run_cells_plainly(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    cells: Sequence[Sequence[Intervention | Reroute]],
    *,
    batch_size: int = 16,
) -> Float[Tensor, "cells vocabulary"]:
    """`run_cells`, every cell from the first layer and the first token: what it is checked by."""
    _check_one_prompt(inputs)
    encoded = with_encoded(model, inputs)
    asked = [Condition.of(model, cell) for cell in cells]
    logits, edges = _run_whole(model, inputs, encoded, asked, batch_size, False)
    _check_cut(asked, edges)
    return torch.stack(logits)


def with_encoded(model: HookedAudioModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """`inputs` with their clips encoded (`audio`) in place of `input_features`."""
    given = dict(inputs)
    if given.get("input_features") is not None:
        given["audio"] = model.encode_audio(given)
        del given["input_features"], given["feature_lengths"]
    return given


def copies_of(inputs: Mapping[str, Any], copies: int) -> dict[str, Any]:
    """`inputs` so many times, one behind the other, each with its clips."""
    made: dict[str, Any] = {
        name: value.repeat(copies, *[1] * (value.ndim - 1))
        for name, value in inputs.items()
        if isinstance(value, Tensor)
    }
    audio = inputs.get("audio")
    if audio is not None:
        made["audio"] = audio.picked(list(range(len(audio))) * copies)
    return made


def _run_late(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    encoded: Mapping[str, Any],
    layout: TokenLayout,
    cells: Sequence[Condition],
    batch_size: int | None,
    progress: bool,
) -> tuple[dict[int, Tensor], int]:
    """Logits, by number, of those cells that begin inside the decoder; and the edges cut."""
    bound: dict[int, list[Bound]] = {}
    starts: dict[int, Start] = {}
    unchanged: list[int] = []
    for number, cell in enumerate(cells):
        if cell.route != model.current_route:
            continue
        bound[number] = cell.bind(model, inputs, layout)
        start = start_of(bound[number], layout, model.current_route)
        if not cell.interventions:
            unchanged.append(number)
        elif start is not None:
            starts[number] = start
    if not starts and not unchanged:
        return {}, 0
    engine = Engine(model, encoded)
    logits = dict.fromkeys(unchanged, engine.plain.logits.float().cpu())
    edges = 0
    with tqdm(total=len(starts), unit="cell", disable=not progress, leave=False) as bar:
        for batch in engine.batches(starts, batch_size):
            out, cut = engine.run([(bound[number], starts[number]) for number in batch])
            logits.update(zip(batch, out.float().cpu(), strict=True))
            edges += cut
            bar.update(len(batch))
    return logits, edges


def _run_whole(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    encoded: Mapping[str, Any],
    cells: Sequence[Condition],
    batch_size: int,
    progress: bool,
) -> tuple[list[Tensor], int]:
    """Logits of each cell, and the edges of attention that were cut."""
    logits: dict[int, Tensor] = {}
    edges = 0
    by_route: dict[Route, list[int]] = {}
    for number, cell in enumerate(cells):
        by_route.setdefault(cell.route, []).append(number)
    with tqdm(total=len(cells), unit="cell", disable=not progress, leave=False) as bar:
        for route, numbers in by_route.items():
            with model.route(route):
                for start in range(0, len(numbers), batch_size):
                    chunk = numbers[start : start + batch_size]
                    together = [cells[number] for number in chunk]
                    out, cut = _run_together(model, inputs, encoded, together)
                    logits.update(zip(chunk, out, strict=True))
                    edges += cut
                    bar.update(len(chunk))
    return [logits[number] for number in range(len(cells))], edges


def _run_together(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    encoded: Mapping[str, Any],
    cells: Sequence[Condition],
) -> tuple[Float[Tensor, "cells vocabulary"], int]:
    layout = model.layout(encoded)
    placed = [
        (bound, copy)
        for copy, cell in enumerate(cells)
        for bound in cell.bind(model, inputs, layout)
    ]
    parts = [part for bound, _ in placed for part in bound.parts]
    in_encoder = any(part.layer is None or part.axis == "passing" for part in parts)
    given = inputs if in_encoder else encoded
    with in_force(model, inputs, placed, len(cells)) as cuts:
        logits = model(copies_of(given, len(cells)), logits_to_keep=1)[:, -1].float().cpu()
    return logits, cuts.edges_cut


def _check_one_prompt(inputs: Mapping[str, Any]) -> None:
    if inputs["input_ids"].shape[0] != 1:
        raise PalscopeError("cells are rows of a batch, so they need the inputs of one prompt.")


def _check_cut(cells: Sequence[Condition], edges: int) -> None:
    """Knockouts of single cells may cut nothing: a sliding window may hide the keys already."""
    asked = (each for cell in cells for each in cell.interventions)
    if not edges and any(isinstance(each, Knockout) for each in asked):
        raise HookError("the knockouts cut no edge in any cell: do the queries see the keys?")
