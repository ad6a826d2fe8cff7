"""Many changed runs of one prompt, each going on from the plain run where it first differs.

A run in which nothing changes below a layer, or before a token, repeats there what the plain run
computed. Here it is not computed again: a row joins the batch at the layer where its change begins,
with the residual stream that the plain run had there, and what stands before the change is read
from the plain run's keys and values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._models.audio_memory import carries_keys
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.cache import AudioCache
from palscope._models.clips import AudioClips
from palscope._models.decoder import DecoderRun
from palscope._models.families import key_layer
from palscope._models.gathering import gathered, scattered
from palscope._routing import LayerColumns, Route, TokenLayout
from palscope._routing.columns import BorrowedColumns
from palscope._routing.on_host import on_both


@dataclass(frozen=True)
class PlainRun:
    """A run on one prompt, kept for runs that go on from it.

    Attributes:
        hidden: input of each layer, of the tokens that run there.
        carried: with each layer's input, the states of all columns, where a stream is carried.
        cache: keys and values of each layer: its audio memory, then its sequence.
        logits: at the last column.
    """

    input_ids: Int[Tensor, "1 columns"]
    layout: TokenLayout
    route: Route
    clips: AudioClips | None
    hidden: tuple[Float[Tensor, "1 _running d_model"], ...]
    carried: tuple[Float[Tensor, "1 columns d_model"] | None, ...]
    cache: AudioCache
    logits: Float[Tensor, "vocabulary"]


@torch.no_grad()
def run_plainly(
    model: AudioLanguageModel,
    input_ids: Int[Tensor, "1 columns"],
    attention_mask: Int[Tensor, "1 columns"] | None = None,
    audio: AudioClips | None = None,
) -> PlainRun:
    """Run one prompt under the model's route, and keep what later runs go on from.

    Raises `PromptError` when prompt and clips do not fit together.
    """
    layout = model.layout(input_ids, attention_mask, audio)
    cache = AudioCache()
    made: list[tuple[Tensor, Tensor | None]] = []
    run = DecoderRun(
        model=cast(Any, model),
        route=model.route,
        layout=layout,
        new=layout.width,
        clips=audio,
        cache=cache,
        inputs=made,
    )
    with model.running(run):
        hidden, _ = run(input_ids)
        logits = model.unembed(hidden[:, -1])[0]
    inputs, carried = zip(*made, strict=True)
    return PlainRun(input_ids, layout, model.route, audio, inputs, carried, cache, logits)


@torch.no_grad()
def resume(
    model: AudioLanguageModel,
    plain: PlainRun,
    starts: Sequence[int],
    first: int,
    *,
    anew: Mapping[int, int] | None = None,
    own_clips: bool = False,
) -> Float[Tensor, "rows vocabulary"]:
    """Logits at the last column of copies of a prompt, of which hooks change something.

    Nothing but hooks makes a row differ from the plain run, and no hook may act below the row's
    layer or before `first`: there nothing runs.

    Args:
        plain: of the prompt, under the model's current route.
        starts: for each row, the layer at which it joins; in ascending order.
        first: the first column that is run; all before it are the plain run's.
        anew: layers whose audio memory hooks change on its way, with the first row in which they
            do: from there on it is made anew. Elsewhere it is the plain run's.
        own_clips: hooks change clips on their way into projectors, so every row needs its own.
    """
    assert list(starts) == sorted(starts) and plain.route == model.route
    rows = len(starts)
    clips = plain.clips
    if clips is not None:
        clips = _copies(clips, rows) if own_clips else clips.picked([*range(len(clips))] * rows)
    run = ResumedRun(
        model=cast(Any, model),
        route=plain.route,
        layout=plain.layout.repeated(rows),
        new=plain.layout.width,
        clips=clips,
        cache=None,
        cuts=model.current_cuts,
        plain=plain,
        starts=tuple(starts),
        first=first,
        anew=dict.fromkeys(anew or (), 0) if own_clips else dict(anew or {}),
    )
    with model.running(run):
        model.check_cache(plain.cache)
        return model.unembed(run.last(plain.input_ids))


def _copies(clips: AudioClips, copies: int) -> AudioClips:
    """The clips of a prompt so many times over, each copy's tokens its own, to be changed."""
    order = torch.tensor(clips.order)
    streams = {
        name: tokens[order.to(tokens.device)].repeat(copies, 1, 1)
        for name, tokens in clips.streams.items()
    }
    return AudioClips(
        streams, clips.frames * copies, clips.seconds * copies, tuple(range(len(order) * copies))
    )


@dataclass(frozen=True)
class ResumedColumns(LayerColumns):
    """A layer's columns when only the later ones run: `before` are read from the plain run."""

    before: Int[Tensor, "batch before"]

    @property
    def keys(self) -> Int[Tensor, "batch keys"]:
        """Columns of the layer's keys: memory, then the sequence, run or not."""
        return torch.cat([self.memory, self.before, self.running], dim=1)


@dataclass
class ResumedRun(DecoderRun):
    """Copies of a prompt from column `first` on, row r from layer `starts[r]` on."""

    plain: PlainRun = field(kw_only=True)
    starts: tuple[int, ...] = field(kw_only=True)
    first: int = field(kw_only=True)
    anew: dict[int, int] = field(kw_only=True)

    def last(self, input_ids: Int[Tensor, "1 columns"]) -> Float[Tensor, "rows d_model"]:
        """Normed output of the last layer at the last column."""
        hidden: Tensor | None = None
        whole: Tensor | None = None
        for index in range(self.starts[0], self.route.n_layers):
            if hidden is not None and whole is not None:
                hidden, whole = self._risen(index, hidden, whole)
            joining = sum(start == index for start in self.starts)
            if joining:
                states, carried = self._plain_input(index, joining, input_ids)
                hidden = states if hidden is None else torch.cat([hidden, states])
                if carried is not None:
                    whole = carried if whole is None else torch.cat([whole, carried])
            assert hidden is not None
            self._share_plain(index, hidden.shape[0])
            hidden = self.layer(index, hidden, self.columns_of(index).running, whole)
        assert hidden is not None
        return self.normed(hidden[:, -1])

    def rows_at(self, layer: int) -> int:
        """How many rows have joined by `layer`."""
        return sum(start <= layer for start in self.starts)

    def first_memory_row(self, layer: int) -> int:
        """The row of the batch that comes first where `layer`'s audio memory is made."""
        # States that are carried may have been changed below, in any row.
        return 0 if carries_keys(self.route, layer) else self.anew.get(layer, 0)

    def columns_of(self, layer: int) -> LayerColumns:
        """The columns that meet in `layer`, for the rows that have joined."""
        return self._columns_for(layer, self.rows_at(layer))

    def _columns_for(self, layer: int, rows: int) -> LayerColumns:
        plain = self.plain.cache.columns[layer]
        key = (id(plain), rows)
        if key not in self._columns:
            place, fed_place = self._place_of_first(layer)
            late = partial(_late, place=place, fed_place=fed_place, rows=rows)
            self._columns[key] = on_both(late, plain)
        return self._columns[key]

    def memory_layers(self) -> Collection[int]:
        """The layers whose audio memory is made of clips in this run: where hooks change it."""
        return self.anew

    def _place_of_first(self, layer: int) -> tuple[int, int]:
        """Where `first` stands in a layer's sequence, and among what is fed forward of it."""
        plain = self.plain.cache.columns[layer].on_host
        return int((plain.running < self.first).sum()), int((plain.fed < self.first).sum())

    def _share_plain(self, index: int, rows: int) -> None:
        """Rows that joined above the layer whose keys this one reads, read the plain run's."""
        source = key_layer(self.decoder.config, index)
        if source == index:
            return
        kind = self.decoder.config.layer_types[index]
        made: tuple[Tensor, ...] = self.shared_keys.get(kind, ())
        later = rows - (made[0].shape[0] if made else 0)
        if later:
            held: Any = self.plain.cache.layers[source]
            plain = [part.expand(later, -1, -1, -1) for part in (held.keys, held.values)]
            both = [torch.cat(pair) for pair in zip(made, plain, strict=True)] if made else plain
            self.shared_keys[kind] = tuple(both)

    def _plain_input(
        self, layer: int, rows: int, input_ids: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What rows that join at `layer` find there."""
        place, _ = self._place_of_first(layer)
        if layer == 0:
            # Hooks may act on what enters the first layer, so it is made anew.
            hidden, whole = self.embedded(
                input_ids.expand(rows, -1), self.plain.cache.columns[0].running.expand(rows, -1)
            )
            if whole is None or self.plain.carried[0] is None:
                return hidden[:, place:], None
            return hidden[:, place:], whole[:rows]
        carried = self.plain.carried[layer]
        return (
            self.plain.hidden[layer][:, place:].expand(rows, -1, -1),
            None if carried is None else carried.expand(rows, -1, -1),
        )

    def _risen(self, layer: int, hidden: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that ran the layer below, as `layer` takes them in: other tokens may run here."""
        if self.running_streams(layer - 1) == self.running_streams(layer):
            return hidden, whole
        rows = hidden.shape[0]
        below, here = (self._columns_for(i, rows).running for i in (layer - 1, layer))
        whole = scattered(whole, below, hidden)
        plain = self.plain.carried[layer]
        assert plain is not None
        whole[:, : self.first] = plain[:, : self.first]
        return gathered(whole, here), whole

    def memory(
        self, index: int, hidden: Tensor, whole: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """The layer's audio memory, and the keys and values of what stands before `first`."""
        if key_layer(self.decoder.config, index) != index:
            return None
        rows = hidden.shape[0]
        columns = cast(ResumedColumns, self._columns_for(index, rows))
        audio, before = columns.memory.shape[1], columns.before.shape[1]
        if audio + before == 0:
            return None
        layer: Any = self.plain.cache.layers[index]
        keys, values = (
            part[:, :, : audio + before].expand(rows, -1, -1, -1)
            for part in (layer.keys, layer.values)
        )
        if not audio or not (index in self.anew or carries_keys(self.route, index)):
            return keys, values
        first = self.first_memory_row(index)
        # Rows are copies of one prompt, so those that come first have the same columns.
        changed = self._columns_for(index, rows - first).memory
        made = self.audio.at(
            index, changed, hidden[first:], None if whole is None else whole[first:]
        )
        new_keys, new_values = (
            torch.cat([old[:first], torch.cat([new, old[first:, :, audio:]], 2)])
            for new, old in zip(made, (keys, values), strict=True)
        )
        return new_keys, new_values

    def crossed_memory(self, index: int, hidden: Tensor) -> tuple[Tensor, Tensor] | None:
        """The plain run's; of rows in which hooks change it on its way, made anew."""
        held = self.plain.cache.crossed.get(index)
        if held is None:
            return None
        rows = hidden.shape[0]
        keys, values = (part.expand(rows, -1, -1, -1) for part in held)
        if index not in self.anew:
            return keys, values
        first = self.first_memory_row(index)
        changed = self._columns_for(index, rows - first).crossed
        new_keys, new_values = self.audio.at(index, changed, hidden[first:], None)
        return torch.cat([keys[:first], new_keys]), torch.cat([values[:first], new_values])


def _late(plain: LayerColumns, place: int, fed_place: int, rows: int) -> LayerColumns:
    """So many rows of a plain run's columns, of which those from a place on run."""
    before, running = (
        each.expand(rows, -1) for each in (plain.running[:, :place], plain.running[:, place:])
    )
    fed = plain.fed[:, fed_place:].expand(rows, -1)
    if fed.shape == running.shape:
        fed = running
    memory, crossed = (each.expand(rows, -1) for each in (plain.memory, plain.crossed))
    columns = ResumedColumns(memory, running, fed, crossed, before)
    if isinstance(plain, BorrowedColumns):
        return columns.reading(plain.keys.expand(rows, -1))
    return columns
