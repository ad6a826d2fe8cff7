"""The decoder's run: a Hugging Face decoder, layer by layer, on the tokens that a route lets run.

Nothing of the decoder is written again here. Each layer gets the tokens of its sequence, their
rotary positions, a mask built from the layout's one rule of visibility, and, as if from a cache,
the keys and values of the audio that it only reads.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint
from transformers import cache_utils

from palscope._models.angles import Angles
from palscope._models.audio_memory import AudioMemory, carries_keys
from palscope._models.cache import AudioCache, Crossed, DeferredMemory, PassingMemory
from palscope._models.cache_names import INSTALLED
from palscope._models.clips import AudioClips
from palscope._models.families import Family, family_of, key_layer
from palscope._models.feeding import feeding
from palscope._models.gathering import counted_behind, gathered, scattered, spread
from palscope._models.masks import EdgeCut, LayerMasks
from palscope._models.parts import Parts
from palscope._models.recording import Recording, SeenBy, recorded
from palscope._routing import LayerColumns, Level, Route, Source, TokenLayout
from palscope._routing.on_host import on_both
from palscope.errors import PalscopeError, RouteError

_KEYS_SHARED: Any = getattr(cache_utils, "KVSharingDict", dict)
"""Before transformers 5.23 layers shared keys in a plain dict, which a device map cannot spread."""


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
        recordings: who is shown each layer's queries and keys.
        inputs: takes each layer's sequence and, where a stream is carried, all columns' states.
        shared_keys: keys and values that layers take from layers below, by kind (Gemma 3n).

    A run that goes another way up (`resumed`) has `columns_of`, `memory` and what tells hooks and
    audio what of the memory it makes (`first_memory_row`, `memory_layers`) its own, and walks by
    `embedded`, `layer` and `normed`.
    """

    model: Parts
    route: Route
    layout: TokenLayout
    new: int
    clips: AudioClips | None
    cache: AudioCache | None
    piece: TokenLayout | None = None
    checkpointing: bool = False
    cuts: tuple[EdgeCut, ...] = ()
    recordings: tuple[Recording, ...] = ()
    inputs: list[tuple[Tensor, Tensor | None]] | None = None
    shared_keys: Any = field(default_factory=lambda: _KEYS_SHARED(), init=False)
    _columns: dict[Any, LayerColumns] = field(default_factory=dict[Any, LayerColumns], init=False)

    @functools.cached_property
    def decoder(self) -> Any:
        """The Hugging Face decoder: embeddings, layers, final norm."""
        return self.model.decoder

    @functools.cached_property
    def family(self) -> Family:
        """What is particular to the decoder."""
        return family_of(self.decoder.config)

    @functools.cached_property
    def audio(self) -> AudioMemory:
        """The keys and values of audio that layers only read."""
        assert self.clips is not None
        return AudioMemory(
            self.model,
            self.family,
            self.route,
            self.layout,
            self._piece,
            self.clips,
            self._angles,
            self.memory_layers(),
        )

    @functools.cached_property
    def _angles(self) -> Angles:
        # What a second attention reads stands outside of the words' sequence, and is not counted.
        apart = self.family.crossing is not None
        position = self.layout.word if apart else self.layout.position
        return Angles(self.decoder, position[:, self.held :], self.held)

    @functools.cached_property
    def _masks(self) -> LayerMasks:
        return LayerMasks(self.decoder, self.layout, self.route.frame_readers, self.cuts)

    def __call__(
        self, input_ids: Int[Tensor, "batch new"]
    ) -> tuple[Float[Tensor, "batch running d_model"], Int[Tensor, "batch running"]]:
        """Normed output of the last layer, and the column of the layout at each of its places."""
        running = self.columns_of(0).running
        names = self.running_streams(0)
        hidden, whole = self.embedded(input_ids, running)
        if not self._carries_past():
            whole = None  # as long as the prompt, and nobody would read it again
        for index in range(self.route.n_layers):
            if whole is not None and self.running_streams(index) != names:
                # What runs in some layers only is carried past the others.
                names = self.running_streams(index)
                whole = scattered(whole, self._places(running), hidden)
                running = self.columns_of(index).running
                hidden = gathered(whole, self._places(running))
            if self.inputs is not None:
                self.inputs.append((hidden, whole))
            if self.checkpointing:
                hidden = cast(
                    Tensor,
                    checkpoint(self.layer, index, hidden, running, whole, use_reentrant=False),
                )
            else:
                hidden = self.layer(index, hidden, running, whole)
        if self.cache is not None:
            self.cache.layout, self.cache.route = self.layout, self.route
            self.cache.columns = [self.columns_of(i) for i in range(self.route.n_layers)]
        return self.normed(hidden), running

    def normed(self, hidden: Tensor) -> Float[Tensor, "... d_model"]:
        """What left the last layer, as the unembedding takes it."""
        norm = getattr(self.decoder, self.family.norm)
        return norm(self.family.leave(self.decoder, hidden))

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
        crossed = ("crossed",) if self.route.crosses(layer) else ()
        return *(self.route.streams_at(layer, level) for level in levels), crossed

    def first_memory_row(self, layer: int) -> int:
        """The row of the batch that comes first where `layer`'s audio memory is made."""
        del layer
        return 0

    def memory_layers(self) -> Collection[int]:
        """The layers whose audio memory is made of clips in this run."""
        return range(self.route.n_layers)

    def _places(self, columns: Int[Tensor, "batch columns"]) -> Int[Tensor, "batch columns"]:
        """Where `columns` of the layout stand among the new ones."""
        return counted_behind(columns, self.held)

    def running_streams(self, layer: int) -> tuple[str, ...]:
        """The streams whose tokens are part of the layer's sequence."""
        return self.route.streams_at(layer, Level.ATTEND, Level.FULL)

    # -- the bottom -------------------------------------------------------------------------------

    def embedded(
        self, input_ids: Int[Tensor, "batch new"], running: Int[Tensor, "batch running"]
    ) -> tuple[Tensor, Tensor | None]:
        """The first layer's sequence; and, where a stream is carried, all columns' states."""
        at = self._places(running)
        ids = input_ids.gather(1, at.clamp(min=0))
        stream = self.layout.stream.gather(1, running.clamp(min=0))
        # An audio place's id is no word: it may lie outside the vocabulary, and is replaced below.
        ids = ids.masked_fill(stream >= 0, 0)
        hidden = self.model.embed(ids)
        if self.family.placed is not None:
            number = self.layout.word.gather(1, running.clamp(min=0))
            hidden = self.family.placed(self.decoder, hidden, ids, number)
        carried = self._carried_streams()
        if not carried or self.clips is None:
            return self._entered(hidden, ids), None
        piece = self._piece
        whole = spread(hidden, at, piece.width)
        given = len(input_ids)  # runs that begin late give only the rows that begin at the bottom
        stream = piece.stream[:given]
        everywhere = torch.arange(piece.width, device=hidden.device).expand(given, -1)
        for name in carried:
            states = self.model.connector.project_input(name, self.clips.streams[name])
            rows = self.clips.columns(states.to(hidden), piece, everywhere)
            mine = stream == piece.stream_index(name)
            whole = torch.where(mine[..., None], rows, whole)
        whole = self._entered(whole, input_ids.masked_fill(stream >= 0, 0))
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
            carries_keys(self.route, i) or self.running_streams(i) != self.running_streams(0)
            for i in layers
        )

    # -- one layer --------------------------------------------------------------------------------

    def layer(
        self,
        index: int,
        hidden: Tensor,
        running: Int[Tensor, "batch running"],
        whole: Tensor | None,
    ) -> Tensor:
        """What a layer makes of its sequence `hidden`, whose columns `running` are.

        `whole`, where a stream is carried, are the states of all new columns.
        """
        layer: Any = self.decoder.layers[index]
        past: Any = self.cache
        if isinstance(cast(object, layer), FSDPModule):
            past = DeferredMemory(lambda: self.memory(index, hidden, whole), self.cache)
        elif (memory := self.memory(index, hidden, whole)) is not None:
            if self.cache is not None:
                self.cache.update(*memory, index)
            else:
                past = PassingMemory(*memory)
        if not running.shape[1]:  # a piece of a clip that is keys only
            return hidden
        columns = self.columns_of(index)
        given: dict[str, Any] = {}
        if self.family.turns:
            given["position_embeddings"] = self._angles.at(index, hidden, running)
        attentions = [SeenBy(layer.self_attn, columns)]
        if self.family.crossing is not None:
            second = getattr(layer, self.family.crossing)
            given["crossed"] = crossed = self._crossed(index, columns, running, hidden)
            if crossed is not None:
                attentions.append(SeenBy(second, columns.reading(crossed.columns), crossed=True))
        with (
            feeding(layer, columns),
            recorded(attentions, index, running, self.recordings),
        ):
            return self.family.run_layer(
                layer,
                hidden,
                self.shared_keys,
                attention_mask=self._masks.of(index, columns, running, hidden),
                position_ids=self.layout.position.gather(1, running.clamp(min=0)),
                use_cache=self.cache is not None,
                **{INSTALLED: past},
                **given,
            )

    def _crossed(
        self, index: int, columns: LayerColumns, running: Tensor, hidden: Tensor
    ) -> Crossed | None:
        """What the layer's second attention reads; None where that is nothing."""
        held = self.crossed_memory(index, hidden)
        if held is None or not columns.crossed.shape[1]:
            return None
        mask, nothing = self._masks.crossed(index, columns, running, hidden)
        return Crossed.of(*held, mask, columns.crossed, nothing)

    def crossed_memory(self, index: int, hidden: Tensor) -> tuple[Tensor, Tensor] | None:
        """Keys and values `[batch, heads, audio, head_dim]` of the audio that the layer crosses."""
        if self.clips is not None and self.columns_of(index).crossed.shape[1]:
            if isinstance(cast(object, self.decoder.layers[index]), FSDPModule):
                raise PalscopeError(
                    "an encoder–decoder does not run under FSDP: what a layer crosses is made "
                    "before the layer runs, when its weights are in parts. Use device_map."
                )
            made = self.audio.at(index, self.columns_of(index).crossed, hidden, None)
            if self.cache is not None:
                self.cache.crossed[index] = made
            return made
        return None if self.cache is None else self.cache.crossed.get(index)

    def memory(
        self, index: int, hidden: Tensor, whole: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """What the layer reads as if from a cache: keys and values of its `keys` tokens.

        `[batch, kv_heads, audio, head_dim]`, rotated; None where it has none of its own.
        """
        columns = self.columns_of(index).memory
        if self.clips is None or columns.shape[1] == 0:
            return None
        if key_layer(self.decoder.config, index) != index:
            return None  # the layer reads another's
        return self.audio.at(index, columns, hidden, whole)


def check_crosses(config: Any, route: Route) -> None:
    """Check that layers have the attention in which `route` lets them read audio.

    Raises:
        RouteError: they cross audio, but have one attention alone.
    """
    layers = [layer for layer in range(route.n_layers) if route.crosses(layer)]
    if layers and family_of(config).crossing is None:
        raise RouteError(
            f"layers {layers} cross audio (X), but this decoder's layers have no cross-attention: "
            "they read it among the words (projected or carried keys, attend, full)."
        )


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
