"""Where a part's tokens stand in the tensor that a hook gets, in this pass of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._queued import queued
from palscope.errors import HookError
from palscope.interventions._before_decoder import encoder_grid
from palscope.interventions._parts import OF_CLIPS, Part


@dataclass(frozen=True)
class Found:
    """Where values stand: an index of the tensor, and which of the part's tokens they are.

    `which` is None when they are all of them.
    """

    index: tuple[Any, ...]
    which: Tensor | None = None


class TokenIndexer:
    """Finds parts in tensors, for a model that is called with so many copies of `inputs`.

    `width` columns are the prompt's, those of a cache that `inputs` go on from included; what
    stands behind was added by decoding.
    """

    def __init__(
        self, model: HookedAudioModel, inputs: Mapping[str, Any], width: int, copies: int = 1
    ) -> None:
        self._model = model
        self._width = width
        lengths = inputs.get("feature_lengths")
        self._frames = () if lengths is None else tuple(int(n) for n in lengths) * copies

    def find(self, part: Part, row: int, tensor: Tensor) -> Found | None:
        """Where the part's values stand in `tensor`; None where this pass holds none of them.

        Args:
            row: the row, or the clip, that stands for the part's own in this batch.
        """
        if part.axis == "clip_tokens":
            (at,) = _on(tensor.device, part.columns)
            return Found(_with_features((torch.full_like(at, row), at), part))
        if part.axis in OF_CLIPS:
            return self._in_encoder(part, row, tensor)
        return self._in_decoder(part, row, tensor)

    def _in_encoder(self, part: Part, clip: int, tensor: Tensor) -> Found | None:
        encoder = self._model.model.encoder.parts[part.encoder]
        passing = encoder.passing
        if passing is None or passing.lengths != self._frames:
            raise HookError(
                f"{part.hook}: clips of {passing and passing.lengths} feature frames pass, but the "
                f"intervention was made for {self._frames}. Call the model with the inputs that it "
                "was made for."
            )
        if clip not in passing.clips:
            return None
        mel = part.axis == "mel"
        places = tensor.shape[-1] if mel else tensor[..., 0].numel() // len(passing.clips)
        order = torch.arange(places) if part.order is None else part.order
        if encoder.a_call_a_clip and int(part.columns.max()) >= places:
            raise HookError(
                f"{part.hook}: {places} tokens of clip {clip} pass, fewer than its time grid "
                f"counts ({int(part.columns.max()) + 1} at least). Please report it."
            )
        grid = encoder_grid(self._model, part)
        first = grid.tokens(passing.start) if passing.start else 0
        inside = (part.columns >= first) & (part.columns < first + len(order))
        which = inside.nonzero()[:, 0]
        if not len(which):
            return None
        (at,) = _on(tensor.device, order[part.columns[which] - first])
        row = passing.clips.index(clip)
        if mel:  # with the clip as a tensor too, the frames' axis comes first: [frames, bins]
            return Found((torch.full_like(at, row), slice(None), at), which)
        index = torch.unravel_index(at + row * places, tensor.shape[:-1])
        return Found(_with_features(index, part), which)

    def _in_decoder(self, part: Part, row: int, tensor: Tensor) -> Found | None:
        run = self._model.model.current_run
        if run is None:
            raise HookError(f"{part.hook} fired outside of a forward pass.")
        assert part.layer is not None
        layer = run.columns_of(part.layer).on_host
        first = run.first_memory_row(part.layer) if part.axis == "memory" else 0
        here = row - first
        if not 0 <= here < tensor.shape[0]:
            raise HookError(f"{part.hook} fired without row {row}, which stands elsewhere.")
        if part.axis in ("pattern", "cross_pattern"):
            read = layer.keys if part.axis == "pattern" else layer.crossed
            keys, _ = self._places(read[row], part.columns, part.onwards)
            assert part.queries is not None
            queries, _ = self._places(layer.running[row], part.queries, part.queries_onwards)
            if not len(keys) or not len(queries):
                return None
            heads = _heads(part, tensor.shape[1])
            at = heads[:, None, None], queries[None, :, None], keys[None, None, :]
            return Found((row, *_on(tensor.device, *at)))
        columns = {"memory": layer.audio, "fed": layer.fed}.get(part.axis, layer.running)
        places, which = self._places(columns[row], part.columns, part.onwards)
        if not len(places):
            return None
        if part.heads is None:
            return Found((here, *_on(tensor.device, places)), which)
        heads = _heads(part, tensor.shape[2])
        return Found((here, *_on(tensor.device, places[:, None], heads[None, :])), which)

    def _places(self, axis: Tensor, wanted: Tensor, onwards: bool) -> tuple[Tensor, Tensor | None]:
        """Places on `axis` of the columns `wanted`, in their order; and which of them stand there.

        The latter is None where all do. With `onwards`, what decoding added comes behind.
        """
        wanted = wanted.contiguous()
        order = axis.argsort()
        at = torch.searchsorted(axis[order], wanted).clamp(max=max(len(axis) - 1, 0))
        there = axis[order][at] == wanted if len(axis) else wanted < 0
        places = order[at[there]]
        which = None if onwards or bool(there.all()) else there.nonzero()[:, 0]
        if onwards:
            places = torch.cat([places, (axis >= self._width).nonzero()[:, 0]])
        return places, which


def _with_features(index: tuple[Tensor, ...], part: Part) -> tuple[Tensor, ...]:
    """Places of tokens, with those of a dictionary's features where the part names some."""
    if part.heads is None:
        return index
    (features,) = _on(index[0].device, torch.tensor(part.heads))
    return (*(each[:, None] for each in index), features[None, :])


def _heads(part: Part, count: int) -> Tensor:
    return torch.arange(count) if part.heads is None else torch.tensor(part.heads)


def _on(device: torch.device, *index: Tensor) -> tuple[Tensor, ...]:
    """Places found on the CPU, where finding them makes no accelerator wait."""
    return tuple(queued(each, device) for each in index)
