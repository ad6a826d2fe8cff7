"""Recording attention: each layer's queries and keys as its kernel got them.

A fused kernel gives no attention pattern. What it is given is enough to compute the few rows of the
pattern that one asks for, so the kernel runs as ever and is recorded: for the length of one layer's
call, another function stands in its place, which calls it, and then hands on what that was given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._models.attention_function import AttentionFunction, redirected
from palscope._models.families import raw
from palscope._routing import LayerColumns
from palscope.errors import HookError


@dataclass(frozen=True)
class LayerAttention:
    """What one layer's attention was computed from in one call.

    The tensors are the kernel's own, positions turned in: they must not be changed. Where a class
    fills its heads up for the kernel (Moonshine), they are without the filling.

    Attributes:
        layer: the layer.
        columns: the columns of the layout that meet in it; its keys are `columns.keys`.
        running: the column of each query, -1 where none stands (the new ones, when decoding).
        query: turned queries.
        key: turned keys, audio that is keys only first.
        value: values, in the order of the keys.
        mask: as the kernel takes it: boolean, additive, a flex BlockMask, or None for causal.
        scaling: what scores are multiplied by.
        softcap: what bounds scores (Gemma 2), None where nothing does.
        crossed: whether it is a layer's second attention, which reads audio alone.
    """

    layer: int
    columns: LayerColumns
    running: Int[Tensor, "batch queries"]
    query: Float[Tensor, "batch heads queries head_dim"]
    key: Float[Tensor, "batch kv_heads keys head_dim"]
    value: Float[Tensor, "batch kv_heads keys head_dim"]
    mask: Any
    scaling: float
    softcap: float | None
    crossed: bool = False

    def weights(
        self, row: int, places: Int[Tensor, "chosen"]
    ) -> Float[Tensor, "heads chosen keys"]:
        """The pattern's rows of some queries of one row of the batch, in float32.

        Args:
            places: which queries, by their place on the query axis; -1 is the last.
        """
        # Of layers that are spread over devices each computes on its own.
        places = places.to(self.query.device) % self.query.shape[2]
        query = self.query[row][:, places].float() * self.scaling
        key = self.key[row].float()
        # Heads that share keys are multiplied with them at once; the keys are not repeated.
        grouped = query.reshape(key.shape[0], -1, query.shape[2])
        scores = (grouped @ key.mT).view(query.shape[0], query.shape[1], -1)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        closed = self._closed(row, places)
        return (scores if closed is None else scores.add_(closed)).softmax(-1)

    def _closed(
        self, row: int, places: Int[Tensor, "chosen"]
    ) -> Float[Tensor, "masks chosen keys"] | None:
        """What the kernel adds to scores: minus infinity where a query does not see a key."""
        queries, keys = self.query.shape[2], self.key.shape[2]
        at = torch.arange(keys, device=places.device)
        if isinstance(self.mask, Tensor):
            mask: Tensor = self.mask[row][:, places]
            if mask.dtype != torch.bool:
                return mask
            seen = mask
        elif self.mask is not None:
            heads = torch.arange(self.query.shape[1], device=places.device)[:, None, None]
            seen = self.mask.mask_mod(torch.full_like(heads, row), heads, places[:, None], at)
        elif queries > 1 and not self.crossed:
            seen = (at <= places[:, None])[None]
        else:
            return None
        # One addition for all heads takes a fraction of the time of a fill with a boolean mask.
        return torch.zeros_like(seen, dtype=torch.float32).masked_fill_(~seen, float("-inf"))


AttentionRecorder = Callable[[LayerAttention], None]


@dataclass
class Recording:
    """A recorder, the layers that it records, and whether any of them ran."""

    recorder: AttentionRecorder
    layers: Collection[int]
    fired: bool = field(default=False, init=False)


@dataclass(frozen=True)
class SeenBy:
    """An attention of a layer, and the columns whose `keys` are its own.

    Attributes:
        crossed: whether it is the layer's second, which reads audio alone.
    """

    module: Any
    columns: LayerColumns
    crossed: bool = False


@contextmanager
def recorded(
    attentions: Sequence[SeenBy],
    layer: int,
    running: Int[Tensor, "batch queries"],
    recordings: Sequence[Recording],
) -> Generator[None, None, None]:
    """Within the block, one call of a layer, those of `recordings` that ask for the layer see it.

    Args:
        attentions: the layer's.

    Raises:
        HookError: the layer ran, but not through its own attention function.
    """
    shown = [recording for recording in recordings if layer in recording.layers]
    with ExitStack() as stack:
        for attention in attentions if shown else ():
            stack.enter_context(_recorded_one(attention, layer, running, shown))
        yield


@contextmanager
def _recorded_one(
    attention: SeenBy, layer: int, running: Tensor, shown: Sequence[Recording]
) -> Generator[None, None, None]:
    told = False

    def tell(
        own: AttentionFunction,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        **kwargs: Any,
    ) -> Any:
        nonlocal told
        out = own(module, query, key, value, mask, **kwargs)
        told = True
        scaling = kwargs.get("scaling")
        filled = slice(module.head_dim)
        seen = LayerAttention(
            layer,
            attention.columns,
            running,
            query[..., filled],
            key[..., filled],
            value[..., filled],
            mask,
            float(query.shape[-1]) ** -0.5 if scaling is None else scaling,
            kwargs.get("softcap"),
            attention.crossed,
        )
        for recording in shown:
            recording.fired = True
            recording.recorder(seen)
        return out

    with redirected(raw(attention.module), tell):
        yield
    if not told:
        raise HookError(
            f"layer {layer} is recorded, but did not run through its attention function: a hook on "
            "scores, pattern or rotated queries and keys makes TransformerLens compute attention "
            "itself. Hook hook_pattern there, or remove that hook."
        )
