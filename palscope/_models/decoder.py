"""The decoder's run: a Hugging Face decoder, layer by layer, on the tokens that a route lets run.

Nothing of the decoder is written again here. Each layer gets the tokens of its sequence, their
rotary positions, a mask built from the layout's one rule of visibility, and, as if from a cache,
the keys and values of the audio that it only reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint
from transformers import cache_utils

from palscope._listened import is_heard_within, is_listened_to
from palscope._models.cache import AudioCache, PassingMemory, PromisedMemory
from palscope._models.cache_names import INSTALLED
from palscope._models.clips import AudioClips
from palscope._models.devices import device_of
from palscope._models.families import (
    Family,
    KeysValues,
    family_of,
    key_layer,
    key_parts,
    rotary,
    rotary_kind,
    rotate_keys,
    sliding_window,
)
from palscope._models.masks import in_kind, is_causal, without
from palscope._models.stamps import Stamp, stamp_contents, stamps_of_contents
from palscope._models.watching import Watch, watched
from palscope._routing import LayerColumns, Level, Route, Source, Stream, TokenLayout
from palscope._routing.on_host import on_both
from palscope.errors import RouteError

_KEYS_SHARED: Any = getattr(cache_utils, "KVSharingDict", dict)
"""Before transformers 5.23 layers shared keys in a plain dict, which a device map cannot spread."""

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


class AudioTaps(nn.Module):
    """Where one layer's audio can be read and edited, on its way to being keys and values.

    Identity modules, so that forward hooks and nnsight reach them. Shapes: `state`
    `[batch, audio, d_model]`; `k`, `v` `[batch, audio, kv_heads, head_dim]`, before RoPE. They fire
    in layers that hold a stream at level `keys`, once a prompt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: nn.Module = nn.Identity()
        self.k: nn.Module = nn.Identity()
        self.v: nn.Module = nn.Identity()


class StreamProjectors(Protocol):
    """What a model needs of a connector: the states of streams, and for which routes."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Those of which there are tokens."""
        ...

    def project_input(self, stream: str, tokens: Tensor) -> Tensor:
        """The state that `stream` carries upwards from the bottom of the decoder."""
        ...

    def project_layer(self, stream: str, layer: int, tokens: Tensor) -> Tensor:
        """The state of `stream` that `layer` reads as keys and values."""
        ...

    def layer_projector(self, stream: str, layer: int) -> nn.Module:
        """What makes that state."""
        ...

    def check_serves(self, route: Route) -> None:
        """Check that there are weights for `route`. Raises `RouteError` when there are none."""
        ...


class Parts(Protocol):
    """What the decoder's run needs of a model."""

    decoder: Any
    connector: StreamProjectors
    audio_taps: nn.ModuleList

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embeddings of words."""
        ...


@dataclass
class DecoderRun:
    """One forward pass through the decoder.

    Attributes:
        layout: all columns so far, those of a cached prefix included.
        new: how many of them are new in this pass.
        piece: the layout of these alone, which counts clips and tokens as `clips` does; needed
            after a cached prefix.
        clips: the clips of the new columns; None when there is no audio, or a cache holds it.
        cuts: attention edges that are taken away (attention knockout).
        watches: who is shown each layer's queries and keys.
    """

    model: Parts
    route: Route
    layout: TokenLayout
    new: int
    clips: AudioClips | None
    cache: AudioCache | None
    piece: TokenLayout | None = None
    checkpointing: bool = False
    hidden_states: list[Tensor] | None = None
    cuts: tuple[EdgeCut, ...] = ()
    watches: tuple[Watch, ...] = ()
    _columns: dict[Any, LayerColumns] = field(default_factory=dict[Any, LayerColumns])
    _masks: dict[Any, Any] = field(default_factory=dict[Any, Any])
    _seen: dict[Any, Tensor] = field(default_factory=dict[Any, Tensor])
    _stamps: dict[tuple[str, int], Stamp] = field(default_factory=dict[tuple[str, int], Stamp])
    _rotary: dict[str, tuple[Tensor, Tensor]] = field(
        default_factory=dict[str, tuple[Tensor, Tensor]]
    )
    _angles: dict[tuple[str, int], tuple[Tensor, Tensor, Tensor]] = field(
        default_factory=dict[tuple[str, int], tuple[Tensor, Tensor, Tensor]]
    )
    _shared: Any = field(default_factory=lambda: _KEYS_SHARED())

    @functools.cached_property
    def decoder(self) -> Any:
        """The Hugging Face decoder: embeddings, layers, final norm."""
        return self.model.decoder

    @functools.cached_property
    def family(self) -> Family:
        """What is particular to the decoder."""
        return family_of(self.decoder.config)

    def __call__(
        self, input_ids: Int[Tensor, "batch new"]
    ) -> tuple[Float[Tensor, "batch running d_model"], Int[Tensor, "batch running"]]:
        """Normed output of the last layer, and the column of the layout at each of its places."""
        decoder = self.decoder
        running = self.columns_of(0).running
        names = self._running_streams(0)
        hidden, whole = self._embed(input_ids, running)
        if not self._carries_past():
            whole = None  # as long as the prompt, and nobody would read it again
        for index in range(self.route.n_layers):
            if whole is not None and self._running_streams(index) != names:
                # What runs in some layers only is carried past the others.
                names = self._running_streams(index)
                whole = scattered(whole, self._places(running), hidden)
                running = self.columns_of(index).running
                hidden = gathered(whole, self._places(running))
            if self.hidden_states is not None:
                self.hidden_states.append(self.family.residual(decoder.config, hidden))
            if self.checkpointing:
                hidden = cast(
                    Tensor,
                    checkpoint(self._layer, index, hidden, running, whole, use_reentrant=False),
                )
            else:
                hidden = self._layer(index, hidden, running, whole)
        if self.cache is not None:
            self.cache.layout, self.cache.route = self.layout, self.route
            self.cache.columns = [self.columns_of(i) for i in range(self.route.n_layers)]
        return self._normed(hidden), running

    def _normed(self, hidden: Tensor) -> Float[Tensor, "... d_model"]:
        """What left the last layer, as the unembedding takes it."""
        return self.decoder.norm(self.family.leave(self.decoder, hidden))

    # -- columns ----------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many columns a cached prefix holds."""
        return self.layout.width - self.new

    def columns_of(self, layer: int) -> LayerColumns:
        """The columns that meet in `layer`; one object for layers that let the same streams in.

        `memory` and `running` are the new ones; the keys are the cached prefix's too.
        """
        source = key_layer(self.decoder.config, layer)
        key = self._levels(layer), self._levels(source)
        if key not in self._columns:
            columns = self._piece.layer_columns(self.route, layer)
            if self.held:
                assert self.cache is not None
                columns = columns.behind(self.cache.columns[layer], self.held)
            if key[0] != key[1]:
                columns = self._borrowing(columns, self.columns_of(source), layer)
            self._columns[key] = columns
        return self._columns[key]

    def _borrowing(self, columns: LayerColumns, source: LayerColumns, layer: int) -> LayerColumns:
        """A layer's columns, with the keys of the one that makes them."""

        def borrowing(
            layout: TokenLayout, columns: LayerColumns, source: LayerColumns
        ) -> LayerColumns:
            return columns.reading(layout.seen_in(source.keys, self.route, layer))

        return on_both(borrowing, self.layout, columns, source)

    def _levels(self, layer: int) -> tuple[tuple[str, ...], ...]:
        levels = (Level.KEYS, Level.ATTEND, Level.FULL)
        return tuple(self.route.streams_at(layer, level) for level in levels)

    def first_memory_row(self, layer: int) -> int:
        """The row of the batch that comes first where `layer`'s audio memory is made."""
        del layer
        return 0

    def _places(self, columns: Int[Tensor, "batch columns"]) -> Int[Tensor, "batch columns"]:
        """Where `columns` of the layout stand among the new ones."""
        return torch.where(columns < 0, -1, columns - self.held) if self.held else columns

    def _running_streams(self, layer: int) -> tuple[str, ...]:
        return self.route.streams_at(layer, Level.ATTEND, Level.FULL)

    # -- the bottom -------------------------------------------------------------------------------

    def _embed(
        self, input_ids: Int[Tensor, "batch new"], running: Int[Tensor, "batch running"]
    ) -> tuple[Tensor, Tensor | None]:
        """The first layer's sequence; and, where a stream is carried, all columns' states."""
        at = self._places(running)
        ids = input_ids.gather(1, at.clamp(min=0))
        stream = self.layout.stream.gather(1, running.clamp(min=0))
        # An audio place's id is no word: it may lie outside the vocabulary, and is replaced below.
        ids = ids.masked_fill(stream >= 0, 0)
        hidden = self.model.embed(ids)
        carried = self._carried_streams()
        if not carried or self.clips is None:
            return self._entered(hidden, ids), None
        piece = self._piece
        whole = scattered(hidden.new_zeros(*piece.stream.shape, hidden.shape[-1]), at, hidden)
        everywhere = torch.arange(piece.width, device=hidden.device).expand(whole.shape[0], -1)
        for name in carried:
            states = self.model.connector.project_input(name, self.clips.streams[name])
            rows = self.clips.columns(states.to(hidden), piece, everywhere)
            mine = piece.stream == piece.stream_index(name)
            whole = torch.where(mine[..., None], rows, whole)
        given = len(input_ids)  # runs that begin late give only the rows that begin at the bottom
        ids = input_ids.masked_fill(piece.stream[:given] >= 0, 0)
        whole = self._entered(whole[:given], ids)
        return gathered(whole, at), whole

    def _entered(self, embedded: Tensor, ids: Int[Tensor, "batch columns"]) -> Tensor:
        """What runs through the layers: the residual state, and what tokens take along."""
        state = self.family.enter(self.decoder, embedded)
        if self.family.beside is None:
            return state
        return torch.cat([state, self.family.beside(self.decoder, ids, embedded)], -1)

    @property
    def _piece(self) -> TokenLayout:
        return self.layout if self.piece is None else self.piece

    def _carried_streams(self) -> list[str]:
        return [
            stream.name
            for stream, cells in self.route.rows
            if any(c.level is not Level.ABSENT and c.source is Source.CARRIED for c in cells)
        ]

    def _carries_past(self) -> bool:
        """Whether a layer needs the state of tokens that did not run in the layer below."""
        layers = range(self.route.n_layers)
        return any(
            self._carries_keys(i) or self._running_streams(i) != self._running_streams(0)
            for i in layers
        )

    def _carries_keys(self, layer: int) -> bool:
        return any(
            self.route.cell(name, layer).source is Source.CARRIED
            for name in self.route.streams_at(layer, Level.KEYS)
        )

    # -- one layer --------------------------------------------------------------------------------

    def _layer(
        self,
        index: int,
        hidden: Tensor,
        running: Int[Tensor, "batch running"],
        whole: Tensor | None,
    ) -> Tensor:
        layer: Any = self.decoder.layers[index]
        past: Any = self.cache
        if isinstance(cast(object, layer), FSDPModule):
            past = PromisedMemory(lambda: self._memory(index, hidden, whole), self.cache)
        elif (memory := self._memory(index, hidden, whole)) is not None:
            if self.cache is not None:
                self.cache.update(*memory, index)
            else:
                past = PassingMemory(*memory)
        if not running.shape[1]:  # a piece of a clip that is keys only
            return hidden
        cos, sin = self._rotary_at(index, hidden, running)
        columns = self.columns_of(index)
        with (
            self._fed(layer.mlp, columns),
            watched(layer.self_attn, index, columns, running, self.watches),
        ):
            return self.family.run_layer(
                layer,
                hidden,
                self._shared,
                attention_mask=self._mask(index, running, hidden),
                position_ids=self.layout.position.gather(1, running.clamp(min=0)),
                use_cache=self.cache is not None,
                position_embeddings=(cos, sin),
                **{INSTALLED: past},
            )

    def _memory(
        self, index: int, hidden: Tensor, whole: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Rotated keys and values `[batch, kv_heads, audio, head_dim]` of `keys` tokens."""
        columns = self.columns_of(index).memory
        if self.clips is None or columns.shape[1] == 0:
            return None
        if key_layer(self.decoder.config, index) != index:
            return None  # the layer reads another's
        return self._memory_at(index, columns, hidden, whole)

    def _memory_at(
        self,
        index: int,
        columns: Int[Tensor, "batch audio"],
        hidden: Tensor,
        whole: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """That of the tokens in `columns`."""
        names = self.route.streams_at(index, Level.KEYS)
        taps = cast(AudioTaps, self.model.audio_taps[index])
        carried = self._carries_keys(index)
        if carried or is_listened_to(taps.state):
            state = self._memory_state(index, names, columns, hidden, whole)
            keys, values = self._keys_values(index, taps.state(state))
        else:
            parts = [self._clip_keys_values(name, index, hidden.dtype) for name in names]
            keys, values = (
                self._merged(names, columns, [part[which] for part in parts]) for which in (0, 1)
            )
        keys, values = taps.k(keys).transpose(1, 2), taps.v(values).transpose(1, 2)
        cos, sin = (each.to(keys.device) for each in self._rotary_at(index, hidden, columns))
        return rotate_keys(keys, cos, sin), values

    def _memory_state(
        self,
        index: int,
        names: tuple[str, ...],
        columns: Int[Tensor, "batch audio"],
        hidden: Tensor,
        whole: Tensor | None,
    ) -> Float[Tensor, "batch audio d_model"]:
        """What the streams at level `keys` bring into the layer, before its input norm."""
        assert self.clips is not None
        parts: list[Tensor] = []
        for name in names:
            if self.route.cell(name, index).source is Source.CARRIED:
                assert whole is not None
                state = self.family.residual(self.decoder.config, whole)
                parts.append(gathered(state, self._places(columns)))
            else:
                state = self.model.connector.project_layer(name, index, self.clips.streams[name])
                parts.append(self._of_clips(state.to(hidden.dtype), columns))
        return self._pick(names, columns, parts)

    def _clip_keys_values(self, name: str, index: int, dtype: torch.dtype) -> KeysValues:
        """Unrotated keys and values of one stream of every clip; kept with clips used again."""
        assert self.clips is not None
        projector = self.model.connector.layer_projector(name, index)
        # What was kept has no gradient, so a pass that wants one makes its own; and so does one in
        # which somebody listens on the way.
        keeps = self.clips.reused and not torch.is_grad_enabled() and not is_heard_within(projector)
        stamp: Stamp = ()
        if keeps:
            layer = self.decoder.layers[index]
            device = self.clips.streams[name].device.type
            stamp = (dtype, torch.is_autocast_enabled(device), layer.training)
            stamp += self._weights_of_clips(name, index)
            known = self.clips.keys_values.get((name, index))
            if known is not None and known[0] == stamp:
                return known[1]
        state = self.model.connector.project_layer(name, index, self.clips.streams[name])
        made = self._keys_values(index, state.to(dtype))
        if keeps:
            self.clips.keys_values[name, index] = stamp, made
        return made

    def _weights_of_clips(self, name: str, index: int) -> Stamp:
        """Stands for the weights that a stream's keys and values in a layer are made of."""
        if isinstance(cast(object, self.decoder.layers[index]), FSDPModule):
            return stamp_contents(self._made_by(name, index))  # whole only while the layer runs
        if not self._stamps:  # all at once: each reading waits for the device
            made = self._projected_keys()
            stamps = stamps_of_contents(self._made_by(*each) for each in made)
            self._stamps.update(zip(made, stamps, strict=True))
        return self._stamps[name, index]

    def _projected_keys(self) -> list[tuple[str, int]]:
        """The streams and layers in which keys are made of clips alone."""
        return [
            (name, layer)
            for layer in range(self.route.n_layers)
            for name in self.route.streams_at(layer, Level.KEYS)
            if self.route.cell(name, layer).source is Source.PROJECTED
        ]

    def _made_by(self, name: str, index: int) -> list[nn.Module]:
        projector = self.model.connector.layer_projector(name, index)
        return [projector, *key_parts(self.decoder.layers[index])]

    def _keys_values(self, index: int, state: Tensor) -> KeysValues:
        """Keys and values, made where the layer is, and left there."""
        layer = self.decoder.layers[index]
        return self.family.keys_values(layer, state.to(device_of(layer)))

    def _merged(
        self, names: tuple[str, ...], columns: Int[Tensor, "batch audio"], parts: list[Tensor]
    ) -> Tensor:
        return self._pick(names, columns, [self._of_clips(part, columns) for part in parts])

    def _of_clips(self, values: Tensor, columns: Int[Tensor, "batch audio"]) -> Tensor:
        """A stream's values, made for the stored clips, at the new `columns`."""
        assert self.clips is not None
        return self.clips.columns(values, self._piece, self._places(columns))

    def _pick(
        self, names: tuple[str, ...], columns: Int[Tensor, "batch audio"], rows: list[Tensor]
    ) -> Tensor:
        """At each column, the value of the stream that stands there."""
        picked = rows[0]
        stream = self.layout.stream.gather(1, columns.clamp(min=0))
        for name, row in zip(names[1:], rows[1:], strict=True):
            mine = (stream == self.layout.stream_index(name)).to(picked.device)
            mine = mine.reshape(*mine.shape, *[1] * (row.ndim - 2))
            picked = torch.where(mine, row.to(picked.device), picked)
        return picked

    def _rotary_at(
        self, index: int, hidden: Tensor, columns: Int[Tensor, "batch columns"]
    ) -> tuple[Tensor, Tensor]:
        kind = rotary_kind(self.decoder.config, index)
        if kind not in self._rotary:
            new = self.layout.position[:, self.held :]
            self._rotary[kind] = rotary(self.decoder, hidden, new, index)
        # Layers share their columns, by identity, and so their angles.
        key = (kind, id(columns))
        if key not in self._angles:
            at = self._places(columns)
            cos, sin = (gathered(each, at) for each in self._rotary[kind])
            self._angles[key] = (columns, cos, sin)
        return self._angles[key][1:]

    def _mask(self, index: int, running: Int[Tensor, "batch running"], hidden: Tensor) -> Any:
        """The layer's mask in the form that the decoder's attention implementation takes."""
        columns = self.columns_of(index)
        window = sliding_window(self.decoder.config, index)
        device = device_of(self.decoder.layers[index]) or hidden.device
        key = (id(columns), window, device)
        if self.cuts and (edges := self._cut_edges(index, running, columns, window)) is not None:
            left = without(self._visible(running, columns, window), edges, running, index)
            return in_kind(left, self._attention, hidden.dtype, device)
        if key not in self._masks:
            self._masks[key] = self._uncut_mask(running, columns, window, hidden.dtype, device)
        return self._masks[key]

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
            running, columns.keys, window=window, frame_readers=self.route.frame_readers
        )
        if self.cuts:
            self._seen[key] = visible
        return visible

    def _cut_edges(
        self,
        index: int,
        running: Int[Tensor, "batch running"],
        columns: LayerColumns,
        window: int | None,
    ) -> Bool[Tensor, "batch heads queries keys"] | None:
        """The edges that are taken away in a layer; None where none are."""
        visible = self._visible(running, columns, window)
        found = [cut(index, running, columns.keys, visible) for cut in self.cuts]
        edges = [each for each in found if each is not None]
        return functools.reduce(torch.logical_or, edges) if edges else None

    def _needs_no_mask(self, columns: LayerColumns, window: int | None) -> bool:
        """Whether the layer is causal over its own sequence alone, without padding.

        Known without building the mask, which in a long prompt is larger than all else.
        """
        return (
            columns.keys.shape == columns.running.shape
            and (window is None or window >= self.layout.width)
            and self.route.frame_readers == "all"
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
            here.running, here.keys, window=window, frame_readers=self.route.frame_readers
        )
        return bool(visible.all())

    @contextmanager
    def _fed(self, mlp: nn.Module, columns: LayerColumns) -> Generator[None, None, None]:
        """Within, `mlp` runs on the tokens that are fed alone; the others that run get 0.

        Zero is what leaves the residual stream unchanged in every family, post-norms included.
        """
        if columns.feeds_all:
            yield
            return
        running, fed = columns.running, columns.fed
        # Both are in order, so a column's place is how many stand before it.
        places = torch.searchsorted(running.contiguous(), fed.clamp(min=0).contiguous())
        places = torch.where(fed < 0, -1, places)

        def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (gathered(args[0], places), *args[1:])

        def after(_module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            return scattered(out.new_zeros(*running.shape, out.shape[-1]), places, out)

        handles = [mlp.register_forward_pre_hook(before), mlp.register_forward_hook(after)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def check_keys_are_there(config: Any, route: Route) -> None:
    """Check that layers which read another layer's keys find there what `route` shows them.

    Raises:
        RouteError: a stream takes part in such a layer, but not where its keys are made.
    """
    for layer in range(route.n_layers):
        source = key_layer(config, layer)
        for name in route.streams_at(source, Level.ABSENT):
            if route.cell(name, layer).level is not Level.ABSENT:
                raise RouteError(
                    f"layer {layer} has no keys of its own and reads those of layer {source}, "
                    f"where {name} are absent: mute them in layer {layer} too, or let them into "
                    f"layer {source}."
                )


def gathered(
    values: Float[Tensor, "batch columns width"], columns: Int[Tensor, "batch chosen"]
) -> Float[Tensor, "batch chosen width"]:
    """`values` at `columns`; a -1 takes any."""
    at = columns.to(values.device).clamp(min=0)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, at)


def scattered(
    values: Float[Tensor, "batch columns width"],
    columns: Int[Tensor, "batch chosen"],
    new: Float[Tensor, "batch chosen width"],
) -> Float[Tensor, "batch columns width"]:
    """`values` with `new` at `columns`; what stands at -1 is dropped."""
    width = values.shape[1]
    spare = torch.cat([values, values.new_zeros(values.shape[0], 1, values.shape[2])], dim=1)
    at = torch.where(columns < 0, width, columns).to(values.device)[..., None].expand_as(new)
    return spare.scatter(1, at, new.to(values))[:, :width]
