"""Audio that a layer only reads: its keys and values, made of clips or of what was carried up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from palscope._hooked import is_hooked, is_hooked_within
from palscope._models.angles import Angles
from palscope._models.clips import AudioClips
from palscope._models.devices import device_of
from palscope._models.families import Family, KeysValues, key_parts, rotate_keys
from palscope._models.gathering import counted_behind, gathered
from palscope._models.parts import AudioTaps, Parts
from palscope._models.stamps import Stamp, stamp_contents, stamps_of_contents
from palscope._routing import Level, Route, Source, TokenLayout


def carries_keys(route: Route, layer: int) -> bool:
    """Whether a layer reads the state that a stream carries past the layers below."""
    return any(
        route.cell(name, layer).source is Source.CARRIED
        for name in route.streams_at(layer, Level.KEYS)
    )


@dataclass
class AudioMemory:
    """The keys and values of `keys` tokens in one run.

    Attributes:
        layout: all columns so far, those of a cached prefix included.
        piece: the layout of the new ones alone, which counts clips and tokens as `clips` does.
        clips: of the new columns.
        angles: of the new columns.
        layers: those in which the run makes keys and values.
    """

    model: Parts
    family: Family
    route: Route
    layout: TokenLayout
    piece: TokenLayout
    clips: AudioClips
    angles: Angles
    layers: Collection[int]
    _stamps: dict[tuple[str, int], Stamp] = field(default_factory=dict[tuple[str, int], Stamp])
    _entered: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def at(
        self,
        index: int,
        columns: Int[Tensor, "batch audio"],
        hidden: Tensor,
        whole: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Rotated keys and values `[batch, kv_heads, audio, head_dim]` of a layer.

        Args:
            index: the layer.
            columns: those of its `keys` tokens, of which `[batch, …]` may be the first rows.
            hidden: the layer's sequence.
            whole: the states of all new columns, where a stream is carried.
        """
        names = self.route.streams_at(index, Level.KEYS)
        taps = cast(AudioTaps, self.model.audio_taps[index])
        carried = carries_keys(self.route, index)
        if carried or is_hooked(taps.state):
            state = self._memory_state(index, names, columns, hidden, whole)
            keys, values = self._keys_values(index, taps.state(state))
        else:
            parts = [self._clip_keys_values(name, index, hidden.dtype) for name in names]
            keys, values = (
                self._merged(names, columns, [part[which] for part in parts]) for which in (0, 1)
            )
        keys, values = taps.k(keys).transpose(1, 2), taps.v(values).transpose(1, 2)
        if self.family.crossing is not None:
            return keys, values  # in no order with the words
        cos, sin = (each.to(keys.device) for each in self.angles.at(index, hidden, columns))
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
        parts: list[Tensor] = []
        for name in names:
            if self.route.cell(name, index).source is Source.CARRIED:
                assert whole is not None
                state = self.family.residual(self.model.decoder.config, whole)
                parts.append(gathered(state, counted_behind(columns, self.angles.held)))
            else:
                parts.append(self._of_clips(self._projected(name, index, hidden.dtype), columns))
        return self._pick(names, columns, parts)

    def _clip_keys_values(self, name: str, index: int, dtype: torch.dtype) -> KeysValues:
        """Unrotated keys and values of one stream of every clip; kept with clips used again."""
        projector = self.model.connector.layer_projector(name, index)
        # What was kept has no gradient, so a pass that wants one makes its own; and so does one in
        # which there is a hook on the way.
        keeps = (
            self.clips.reused and not torch.is_grad_enabled() and not is_hooked_within(projector)
        )
        stamp: Stamp = ()
        if keeps:
            layer = self.model.decoder.layers[index]
            device = self.clips.streams[name].device.type
            stamp = (dtype, torch.is_autocast_enabled(device), layer.training)
            stamp += self._weights_of_clips(name, index)
            known = self.clips.keys_values.get((name, index))
            if known is not None and known[0] == stamp:
                return known[1]
        made = self._keys_values(index, self._projected(name, index, dtype))
        if keeps:
            self.clips.keys_values[name, index] = stamp, made
        return made

    def _projected(self, name: str, index: int, dtype: torch.dtype) -> Tensor:
        """What a layer takes of one stream of every clip; what is crossed is one state for all."""
        tokens = self.clips.streams[name]
        if self.route.cell(name, index).source is not Source.CROSSED:
            return self.model.connector.project_layer(name, index, tokens).to(dtype)
        if name not in self._entered:
            self._entered[name] = self.model.connector.project_input(name, tokens).to(dtype)
        return self._entered[name]

    def _weights_of_clips(self, name: str, index: int) -> Stamp:
        """Stands for the weights that a stream's keys and values in a layer are made of."""
        if isinstance(cast(object, self.model.decoder.layers[index]), FSDPModule):
            return stamp_contents(self._made_by(name, index))  # whole only while the layer runs
        if not self._stamps:  # all at once: each reading waits for the device
            made = self._projected_keys()
            stamps = stamps_of_contents(self._made_by(*each) for each in made)
            self._stamps.update(zip(made, stamps, strict=True))
        return self._stamps[name, index]

    def _projected_keys(self) -> list[tuple[str, int]]:
        """The streams and layers in which keys are made, of clips alone."""
        return [
            (name, layer)
            for layer in self.layers
            for name in self.route.streams_at(layer, Level.KEYS)
            if self.route.cell(name, layer).source is not Source.CARRIED
        ]

    def _made_by(self, name: str, index: int) -> list[nn.Module]:
        projector = self.model.connector.layer_projector(name, index)
        return [projector, *key_parts(self.model.decoder.layers[index])]

    def _keys_values(self, index: int, state: Tensor) -> KeysValues:
        """Keys and values, made where the layer is, and left there."""
        layer = self.model.decoder.layers[index]
        return self.family.keys_values(layer, state.to(device_of(layer)))

    def _merged(
        self, names: tuple[str, ...], columns: Int[Tensor, "batch audio"], parts: list[Tensor]
    ) -> Tensor:
        return self._pick(names, columns, [self._of_clips(part, columns) for part in parts])

    def _of_clips(self, values: Tensor, columns: Int[Tensor, "batch audio"]) -> Tensor:
        """A stream's values, made for the stored clips, at the new `columns`."""
        return self.clips.columns(values, self.piece, counted_behind(columns, self.angles.held))

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
