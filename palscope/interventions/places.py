"""Where a part's tokens stand in the tensor that a hook gets, in this pass of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palscope.errors import HookError
from palscope.hooks import HookedAudioModel
from palscope.interventions.resolve import Part


@dataclass(frozen=True)
class Found:
    """Where values stand: an index of the tensor, and which of the part's tokens they are.

    `which` is None when they are all of them.
    """

    index: tuple[Any, ...]
    which: Tensor | None = None


class Places:
    """Finds parts in tensors, for a model that is called with so many copies of `inputs`.

    Encoders fire a hook once for each window of a long clip, so the windows are counted.
    """

    def __init__(self, model: HookedAudioModel, inputs: Mapping[str, Any], copies: int = 1) -> None:
        self._model = model
        rows, self._width = (int(n) for n in inputs["input_ids"].shape)
        self._rows = rows * copies
        lengths = inputs.get("feature_lengths")
        self._frames = [] if lengths is None else [int(n) for n in lengths] * copies
        self._fired: dict[str, int] = {}

    def next_window(self, part: Part) -> int:
        """Number of the encoder's window that fires the part's hook now."""
        hook = part.hook
        window = self._model.model.encoder.parts[part.encoder].window
        windows = -(-max(self._frames) // window)
        count = self._fired.get(hook, 0)
        self._fired[hook] = count + 1
        return count % windows

    def find(self, part: Part, row: int, tensor: Tensor, window: int | None) -> Found | None:
        """Where the part's values stand in `tensor`; None where this pass holds none of them.

        Args:
            row: the row, or the clip, that stands for the part's own in this batch.
            window: number of the encoder's window, for hooks inside it.
        """
        if part.axis == "clip_tokens":
            return Found((row, part.columns.to(tensor.device)))
        if part.axis in ("window", "mel"):
            return self._in_window(part, row, tensor, window or 0)
        return self._in_decoder(part, row, tensor)

    def _in_window(self, part: Part, clip: int, tensor: Tensor, window: int) -> Found | None:
        encoder = self._model.model.encoder.parts[part.encoder]
        frames = encoder.window
        first = window * frames
        here = [i for i, n in enumerate(self._frames) if n > first]
        if len(here) != tensor.shape[0]:
            raise HookError(
                f"{part.hook}: {tensor.shape[0]} clips fired, but the intervention was made for "
                f"{len(here)}. Call the model with the inputs that it was made for."
            )
        if clip not in here:
            return None
        per = frames if part.order is None else len(part.order)
        inside = (part.columns >= window * per) & (part.columns < (window + 1) * per)
        which = inside.nonzero()[:, 0]
        if not len(which):
            return None
        at = part.columns[which] - window * per
        if part.order is not None:
            at = part.order[at]
        at = at.to(tensor.device)
        place = here.index(clip)
        # With the clip as a tensor too, the tokens' axis comes first: [tokens, bins].
        clips = torch.full_like(at, place)
        return Found((clips, slice(None), at) if part.axis == "mel" else (clips, at), which)

    def _in_decoder(self, part: Part, row: int, tensor: Tensor) -> Found | None:
        run = self._model.model.current_run
        if run is None:
            raise HookError(f"{part.hook} fired outside of a forward pass.")
        if run.layout.stream.shape[0] != self._rows:
            raise HookError(
                f"{part.hook}: the call has {run.layout.stream.shape[0]} rows, but the "
                f"interventions were made for {self._rows}. Beams and other repeats are not "
                "supported."
            )
        assert part.layer is not None
        layer = run.columns_of(part.layer)
        first = run.first_memory_row(part.layer) if part.axis == "memory" else 0
        here = row - first
        if not 0 <= here < tensor.shape[0]:
            raise HookError(f"{part.hook} fired without row {row}, which stands elsewhere.")
        if part.axis == "pattern":
            keys = self._places(layer.keys[row], part.columns, part.onwards)
            assert part.queries is not None
            queries = self._places(layer.running[row], part.queries, part.queries_onwards)
            if not len(keys) or not len(queries):
                return None
            heads = self._heads(part, tensor.shape[1], tensor.device)
            return Found((row, heads[:, None, None], queries[None, :, None], keys[None, None, :]))
        columns = {"memory": layer.memory, "fed": layer.fed}.get(part.axis, layer.running)
        places = self._places(columns[row], part.columns, part.onwards)
        if not len(places):
            return None
        if part.heads is None:
            return Found((here, places))
        heads = self._heads(part, tensor.shape[2], tensor.device)
        return Found((here, places[:, None], heads[None, :]))

    def _places(self, axis: Tensor, wanted: Tensor, onwards: bool) -> Tensor:
        found = torch.isin(axis, wanted.to(axis.device))
        if onwards:
            found |= axis >= self._width
        return found.nonzero()[:, 0]

    @staticmethod
    def _heads(part: Part, count: int, device: torch.device) -> Tensor:
        return (
            torch.arange(count, device=device)
            if part.heads is None
            else torch.tensor(part.heads, device=device)
        )
