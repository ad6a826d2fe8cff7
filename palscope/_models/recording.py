"""Recording attention: each layer's queries and keys as its kernel got them.

A fused kernel gives no attention pattern. What it is given is enough to compute the few rows of the
pattern that one asks for, so the kernel runs as ever and is recorded. For the length of one layer's
call, that layer's config names another attention function: one that calls the model's own, and then
hands on what that was given.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from palscope._models.families import raw
from palscope._routing import LayerColumns
from palscope.errors import HookError

_RECORDED = "palscope_recorded"


@dataclass(frozen=True)
class LayerAttention:
    """What one layer's attention was computed from in one call.

    The tensors are the kernel's own, positions turned in: they must not be changed.

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
        elif queries > 1:
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


@contextmanager
def recorded(
    attention: Any,
    layer: int,
    columns: LayerColumns,
    running: Int[Tensor, "batch queries"],
    recordings: Sequence[Recording],
) -> Generator[None, None, None]:
    """Within the block, one call of a layer, those of `recordings` that ask for the layer see it.

    Raises:
        HookError: the layer ran, but not through its own attention function.
    """
    shown = [recording for recording in recordings if layer in recording.layers]
    if not shown:
        yield
        return
    module = raw(attention)
    told = False

    def tell(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        scaling: float | None,
        softcap: float | None,
    ) -> None:
        nonlocal told
        told = True
        by = float(query.shape[-1]) ** -0.5 if scaling is None else scaling
        seen = LayerAttention(layer, columns, running, query, key, value, mask, by, softcap)
        for recording in shown:
            recording.fired = True
            recording.recorder(seen)

    config = module.config
    module.config = _Redirected(config, tell)
    try:
        yield
    finally:
        module.config = config
    if not told:
        raise HookError(
            f"layer {layer} is recorded, but did not run through its attention function: a hook on "
            "scores, pattern or rotated queries and keys makes TransformerLens compute attention "
            "itself. Hook hook_pattern there, or remove that hook."
        )


class _Redirected:
    """A layer's config which, to the thread that made it, names the recorded attention function."""

    def __init__(self, config: Any, tell: Callable[..., None]) -> None:
        self.own = config
        self.tell = tell
        self._thread = threading.get_ident()

    @property
    def _attn_implementation(self) -> str:
        mine = threading.get_ident() == self._thread
        return _RECORDED if mine else self.own._attn_implementation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


def _recorded_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> Any:
    """The module's own attention function, whose input is handed on once it has run."""
    redirected = module.config
    # Eager attention is no entry of the table: each family's forward falls back on its own.
    # It may be decorated (a keyword renamed): what counts is where the function itself stands.
    forward = inspect.unwrap(cast(Callable[..., Any], type(module).forward))
    eager: Any = forward.__globals__["eager_attention_forward"]
    function = ALL_ATTENTION_FUNCTIONS.get_interface(redirected.own._attn_implementation, eager)
    out = function(module, query, key, value, attention_mask, **kwargs)
    scaling, softcap = kwargs.get("scaling"), kwargs.get("softcap")
    redirected.tell(query, key, value, attention_mask, scaling, softcap)
    return out


AttentionInterface.register(_RECORDED, _recorded_attention)
