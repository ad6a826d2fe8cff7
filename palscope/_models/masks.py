"""What attention kernels take as a mask, made of which keys each token may read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palscope._models.devices import device_of
from palscope._models.families import sliding_window
from palscope._routing import LayerColumns, TokenLayout
from palscope.errors import HookError, PalscopeError

EdgeCut = Callable[
    [
        int,
        Int[Tensor, "batch queries"],
        Int[Tensor, "batch keys"],
        Bool[Tensor, "batch queries keys"],
    ],
    Bool[Tensor, "batch heads queries keys"] | None,
]
"""Says which edges of attention a layer must not use; None where it may use all.

It gets the layer, its queries and keys (columns of the layout) and which of the keys the queries
see. `heads` may be 1, for all of them.
"""


@dataclass
class LayerMasks:
    """The masks of one run, each made once for the layers that share it.

    Attributes:
        decoder: the Hugging Face decoder.
        layout: all columns so far.
        frame_readers: `Route.frame_readers`.
        cuts: attention edges that are taken away.
    """

    decoder: Any
    layout: TokenLayout
    frame_readers: str
    cuts: tuple[EdgeCut, ...]
    _made: dict[Any, Any] = field(default_factory=dict[Any, Any])
    _seen: dict[Any, Tensor] = field(default_factory=dict[Any, Tensor])

    def of(
        self,
        index: int,
        columns: LayerColumns,
        running: Int[Tensor, "batch running"],
        hidden: Tensor,
    ) -> Any:
        """A layer's mask in the form that the decoder's attention implementation takes.

        Args:
            index: the layer.
            columns: those that meet in it; layers that share them, by identity, share a mask.
            running: its queries.
            hidden: its sequence.
        """
        window = sliding_window(self.decoder.config, index)
        device = device_of(self.decoder.layers[index]) or hidden.device
        key = (id(columns), window, device)
        if self.cuts:
            visible = self._visible(running, columns, window)
            edges = self._cut_edges(index, running, columns.keys, visible)
            if edges is not None:
                left = without(visible, edges, running, index)
                return in_kind(left, self._attention, hidden.dtype, device)
        if key not in self._made:
            self._made[key] = self._uncut_mask(running, columns, window, hidden.dtype, device)
        return self._made[key]

    def crossed(
        self,
        index: int,
        columns: LayerColumns,
        running: Int[Tensor, "batch running"],
        hidden: Tensor,
    ) -> tuple[Any, bool]:
        """The mask of a layer's second attention, whose keys are `columns.crossed`.

        None where every query reads all of them. And whether a query is left none: then the mask
        has one more key at its end, an empty one, which such queries read.
        """
        device = device_of(self.decoder.layers[index]) or hidden.device
        key = (id(columns), "crossed")
        if key not in self._made:
            here = columns.on_host
            seen = self._seen_across(self.layout.on_host, here.running, here.crossed)
            self._made[key] = bool(seen.all())  # known on the host: nothing waits for the device
        if self._made[key] and not self.cuts:
            return None, False
        seen = self._seen_across(self.layout, running, columns.crossed)
        edges = self._cut_edges(index, running, columns.crossed, seen)
        left = seen[:, None] if edges is None else seen[:, None] & ~edges
        left = left | (running < 0)[:, None, :, None]
        none = ~left.any(-1, keepdim=True)
        nothing = bool(none.any())
        if nothing:
            left = torch.cat([left, none], -1)
        elif bool(left.all()):
            return None, False
        return in_kind(left, self._attention, hidden.dtype, device), nothing

    def _seen_across(self, layout: TokenLayout, queries: Tensor, keys: Tensor) -> Tensor:
        return layout.visible(queries, keys, frame_readers=self.frame_readers)

    def _uncut_mask(
        self,
        running: Int[Tensor, "batch running"],
        columns: LayerColumns,
        window: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Any:
        if self._attention == "sdpa" and (
            self._needs_no_mask(columns, window) or self._word_sees_all(columns, window)
        ):
            return None  # the fused kernels then need none
        visible = self._visible(running, columns, window)
        if self._attention == "sdpa" and is_causal(visible):
            return None
        return in_kind(visible[:, None], self._attention, dtype, device)

    @property
    def _attention(self) -> str:
        return self.decoder.config._attn_implementation

    def _visible(
        self, running: Int[Tensor, "batch running"], columns: LayerColumns, window: int | None
    ) -> Bool[Tensor, "batch queries keys"]:
        """Which keys of a layer each of its tokens may read; kept while edges may be cut."""
        key = (id(columns), window)
        if key in self._seen:
            return self._seen[key]
        visible = self.layout.visible(
            running, columns.keys, window=window, frame_readers=self.frame_readers
        )
        if self.cuts:
            self._seen[key] = visible
        return visible

    def _cut_edges(
        self,
        index: int,
        running: Int[Tensor, "batch running"],
        keys: Int[Tensor, "batch keys"],
        visible: Bool[Tensor, "batch queries keys"],
    ) -> Bool[Tensor, "batch heads queries keys"] | None:
        """The edges of an attention of a layer that are taken away; None where none are."""
        found = [cut(index, running, keys, visible) for cut in self.cuts]
        edges = [each for each in found if each is not None]
        return functools.reduce(torch.logical_or, edges) if edges else None

    def _needs_no_mask(self, columns: LayerColumns, window: int | None) -> bool:
        """Whether the layer is causal over its own sequence alone, without padding.

        Known without building the mask, which in a long prompt is larger than all else.
        """
        return (
            columns.keys.shape == columns.running.shape
            and (window is None or window >= self.layout.width)
            and self.frame_readers == "all"
            and bool((columns.on_host.running >= 0).all())
        )

    def _word_sees_all(self, columns: LayerColumns, window: int | None) -> bool:
        """Whether the layer's sequence is a single token that sees all keys, as in decoding.

        Known on the host, which then waits for nothing.
        """
        if columns.running.shape[1] != 1:
            return False
        here = columns.on_host
        visible = self.layout.on_host.visible(
            here.running, here.keys, window=window, frame_readers=self.frame_readers
        )
        return bool(visible.all())


def in_kind(
    visible: Bool[Tensor, "batch heads queries keys"],
    implementation: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """A mask in the form that an attention implementation takes, on the device of its layer.

    Args:
        visible: `heads` may be 1, for all of them.
        implementation: Hugging Face's name of it.
        dtype: of the states.

    Raises:
        PalscopeError: the implementation takes no mask of palscope's kind.
    """
    if implementation == "sdpa":
        # A boolean mask would be made into this one, and kept for the gradient, in every layer.
        return _added(visible, dtype, float("-inf")).to(device)
    if implementation == "eager":
        return _added(visible, dtype, torch.finfo(dtype).min).to(device)
    if implementation == "flex_attention":
        return _of_blocks(visible.to(device))
    raise PalscopeError(
        f"attention implementation {implementation!r} takes no mask of palscope's kind; load "
        "the model with attn_implementation='sdpa', 'eager' or 'flex_attention'."
    )


def as_added(mask: Any, scores: Float[Tensor, "batch heads queries keys"], *, causal: bool) -> Any:
    """What a kernel's mask adds to scores, whatever its form; None for nothing.

    Args:
        mask: additive, boolean, of blocks, or None.
        causal: what None stands for.
    """
    batch, heads, queries, keys = scores.shape
    if isinstance(mask, Tensor) and mask.dtype != torch.bool:
        return mask[..., :keys]
    if isinstance(mask, Tensor):
        seen = mask
    elif mask is not None:
        from torch.nn.attention.flex_attention import create_mask

        seen = create_mask(mask.mask_mod, batch, heads, queries, keys, device=str(scores.device))
    elif causal:
        seen = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(
            keys - queries
        )
    else:
        return None
    return _added(seen, scores.dtype, torch.finfo(scores.dtype).min)


def _added(visible: Tensor, dtype: torch.dtype, closed: float) -> Tensor:
    """What is added to scores: `closed` where a query does not see a key."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, closed)


def _of_blocks(visible: Bool[Tensor, "batch heads queries keys"]) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    heads = visible.shape[1]

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return visible[b, h if heads > 1 else 0, q, k]

    return create_block_mask(
        seen,
        visible.shape[0],
        heads if heads > 1 else None,
        *visible.shape[2:],
        device=str(visible.device),
    )


def without(
    visible: Bool[Tensor, "batch queries keys"],
    cut: Bool[Tensor, "batch heads queries keys"],
    queries: Int[Tensor, "batch queries"],
    layer: int,
) -> Bool[Tensor, "batch heads queries keys"]:
    """`visible` less the edges of `cut`.

    Args:
        queries: the column of each query, -1 where no token stands.
        layer: where, for the message.

    Raises:
        HookError: a token is left with no key.
    """
    left = visible[:, None] & ~cut
    if bool((~left.any(-1) & (queries >= 0)[:, None]).any()):
        raise HookError(
            f"layer {layer}: the knockout leaves a token nothing to read; let it keep its own key."
        )
    # A place without a token reads everything (TokenLayout.visible), cut or not.
    return left | (queries < 0)[:, None, :, None]


def is_causal(visible: Bool[Tensor, "batch queries keys"]) -> bool:
    """Whether `visible` is what scaled_dot_product_attention does when it gets no mask."""
    queries, keys = visible.shape[1:]
    if queries != keys:
        return False
    return torch.equal(visible, torch.ones_like(visible).tril())
