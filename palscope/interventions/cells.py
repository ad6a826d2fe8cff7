"""Many interventions on one prompt, each in a row of its own: the plain loop, in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from palscope.errors import PalscopeError
from palscope.hooks import HookedAudioModel
from palscope.interventions.apply import Bound, Intervention, Reroute, bind, in_force
from palscope.routing import Route

BEFORE_THE_DECODER = ("window", "mel", "clip_tokens")


@torch.no_grad()
def run_cells(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    cells: Sequence[Sequence[Intervention]],
    *,
    batch_size: int = 16,
    progress: bool = False,
) -> Float[Tensor, "cells vocabulary"]:
    """Logits at the last token of one prompt, under each cell's interventions by themselves.

    A cell without interventions is the plain run. Cells share forward passes, `batch_size` of them
    each; the numbers are those of `intervene`, to rounding.

    Args:
        inputs: of one prompt, with `input_features` where a cell reaches into the encoder.

    Raises:
        PalscopeError: there are several prompts, or an intervention cannot be resolved.
        HookError: an intervention took no effect.
    """
    if inputs["input_ids"].shape[0] != 1:
        raise PalscopeError("cells are rows of a batch, so they need the inputs of one prompt.")
    logits: dict[int, Tensor] = {}
    by_route: dict[Route, list[int]] = {}
    for number, cell in enumerate(cells):
        routes = [each.route for each in cell if isinstance(each, Reroute)]
        by_route.setdefault(routes[-1] if routes else model.current_route, []).append(number)
    encoded = with_encoded(model, inputs)
    with tqdm(total=len(cells), unit="cell", disable=not progress, leave=False) as bar:
        for route, numbers in by_route.items():
            with model.route(route):
                for start in range(0, len(numbers), batch_size):
                    chunk = numbers[start : start + batch_size]
                    out = _run_together(model, inputs, encoded, [cells[number] for number in chunk])
                    logits.update(zip(chunk, out, strict=True))
                    bar.update(len(chunk))
    return torch.stack([logits[number] for number in range(len(cells))])


def with_encoded(model: HookedAudioModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """`inputs` with their clips encoded (`audio`) in place of `input_features`."""
    given = dict(inputs)
    if given.get("input_features") is not None:
        given["audio"] = model.encode_audio(given)
        del given["input_features"], given["feature_lengths"]
    return given


def _run_together(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    encoded: Mapping[str, Any],
    cells: Sequence[Sequence[Intervention]],
) -> Float[Tensor, "cells vocabulary"]:
    placed: list[tuple[Bound, int]] = []
    for copy, cell in enumerate(cells):
        for each in cell:
            if not isinstance(each, Reroute):
                placed.append((bind(model, inputs, each), copy))
    in_encoder = any(part.axis in BEFORE_THE_DECODER for b, _ in placed for part in b.parts)
    given = inputs if in_encoder else encoded
    with in_force(model, inputs, placed, len(cells)):
        return model(copies_of(given, len(cells)), logits_to_keep=1)[:, -1].float().cpu()


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
