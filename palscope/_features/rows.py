"""The rows that clips have at hook points: values, and where each token stands in its clip."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from palscope._features.heads import HeadReader, HeadReading, rows_name
from palscope._finite import all_finite
from palscope._hooks import HookedAudioModel
from palscope._hooks.added import hook_site
from palscope._models.scoring import prompt_batch
from palscope._routing import TokenLayout
from palscope._routing.layout import FILLER, TEXT
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.interventions._address import OF_SPLICES, SITES, Address, Sound, Text
from palscope.interventions._before_decoder import encoder_grid
from palscope.interventions._capture import capture_parts, whole_pass
from palscope.interventions._parts import OF_CLIPS, Part
from palscope.interventions._resolve import resolve
from palscope.measures._alignment import Head

BEFORE_DECODER = -4
"""Stands where `TokenLayout.stream` has a stream: a token of the encoder belongs to none yet."""

Asked = tuple[Waveform, str]
"""A clip and its question."""


@dataclass(frozen=True)
class Rows:
    """What one clip has at one hook point, a row a token inside the clip.

    Attributes:
        values: of a site with heads, those of all heads side by side.
        seconds: start and end of the sound that a token stands for; NaN for text.
        stream: as in `stream_names`.
    """

    values: Float[Tensor, "tokens width"]
    seconds: Float64[Tensor, "tokens 2"]
    stream: Int[Tensor, "tokens"]


def stream_names(model: HookedAudioModel) -> dict[int, str]:
    """What the numbers of streams in rows mean."""
    streams = {number: stream.name for number, stream in enumerate(model.current_route.streams)}
    return {BEFORE_DECODER: "encoder", FILLER: "filler", TEXT: "text", **streams}


_NO_ROWS = "waveform"


class RowReader:
    """Reads rows at addresses in one pass of the model, which ends behind the last of them.

    Attributes:
        heads: of each hook point's rows that are attention, whose columns are which; known once
            rows were read.

    Args:
        model: on the route that is asked about.
        addresses: without tokens, those of the sound. Of `pattern` one at most; its rows are named
            by `rows_name`, for they are of many layers and of one stream.

    Raises:
        PalscopeError: nothing is addressed, or a site whose values are no rows of tokens.
    """

    def __init__(self, model: HookedAudioModel, addresses: Sequence[Address]) -> None:
        if not addresses:
            raise PalscopeError("no address is given; say where, e.g. Address('encoder_output').")
        for address in addresses:
            if address.site == _NO_ROWS:
                raise PalscopeError(
                    f"{address.site} has no vector for each token; address one of "
                    f"{', '.join(site for site in SITES if site != _NO_ROWS)}."
                )
            if address.site in OF_SPLICES:
                raise PalscopeError(
                    f"{address.site} is of a dictionary: store the rows of its site, and encode "
                    "those."
                )
        self.model = model
        self.addresses = tuple(_of_sound(address) for address in addresses)
        self.heads: dict[str, list[Head]] = {}
        self._head_reader = _reader_of_heads(model, self.addresses)
        self._encoder_alone = all(SITES[each.site].tokens == "sound" for each in addresses)

    def inputs(self, asked: Sequence[Asked]) -> dict[str, Tensor]:
        """The model's inputs, a row of the batch a clip."""
        turns = [((clip,), question) for clip, question in asked]
        return prompt_batch(self.model.processor, turns, self.model.model.device)

    def parts(self, inputs: Mapping[str, Any], layout: TokenLayout) -> list[Part]:
        """The tokens of every clip at every hook point; patterns are not among them.

        Raises what `resolve` raises, and `PalscopeError` where two addresses meet.
        """
        found: dict[tuple[str, int], Part] = {}
        for address in self.addresses:
            if address.site == "pattern":
                continue
            resolved = resolve(self.model, inputs, address, layout).parts
            for part in _once(resolved) if address.site == "connector_output" else resolved:
                if (part.hook, part.row) in found:
                    raise PalscopeError(
                        f"two of the addresses are of {part.hook}; give one that covers both."
                    )
                found[part.hook, part.row] = part
        return list(found.values())

    def counts(self, inputs: Mapping[str, Any]) -> dict[str, int]:
        """How many rows the clips of `inputs` have at each hook point, before they are heard."""
        layout = self.model.layout(inputs).on_host
        found: dict[str, int] = {}
        for part in self.parts(inputs, layout):
            found[part.hook] = found.get(part.hook, 0) + len(part.columns)
        if self._head_reader is not None:
            reading = HeadReading(self._head_reader.parts(inputs, layout), layout)
            for row in range(layout.stream.shape[0]):
                for stream, columns in reading.streams(row).items():
                    name = rows_name(layout.streams[stream].name)
                    found[name] = found.get(name, 0) + len(columns)
        return found

    def __call__(self, asked: Sequence[Asked]) -> list[dict[str, Rows]]:
        """Each clip's rows by hook point, on the CPU.

        Raises:
            PalscopeError: a clip cannot be encoded, or what the model makes of it is not finite.
        """
        inputs = prompts = self.inputs(asked)
        reading: HeadReading | None = None
        if self._head_reader is not None:
            inputs = self._head_reader.written(prompts)
        layout = self.model.layout(inputs).on_host
        if self._head_reader is not None:
            prompt = prompts["input_ids"].shape[1]
            reading = HeadReading(self._head_reader.parts(inputs, layout, prompt), layout)
        parts = self.parts(inputs, layout)
        captured = capture_parts(self.model, inputs, parts, self._run(parts, reading))
        frames: list[int] = inputs["feature_lengths"].tolist()
        found: list[dict[str, Rows]] = [{} for _ in asked]
        for part, value in zip(parts, captured, strict=True):
            if not all_finite(value):
                raise PalscopeError(f"{part.hook} holds NaN or infinity.")
            seconds, stream = places_of(self.model, part, layout, frames)
            rows = Rows(value.flatten(1).cpu(), seconds, stream.to(torch.int8))
            found[part.prompt[0]][part.hook] = rows
        if reading is not None:
            for row, rows in enumerate(found):
                rows |= self._rows_of_heads(reading, row)
        return found

    def _run(
        self, parts: Sequence[Part], reading: HeadReading | None
    ) -> Callable[[HookedAudioModel, Mapping[str, Any]], Any]:
        if self._encoder_alone:
            return HookedAudioModel.encode_audio
        every = [*parts, *(reading.parts if reading else ())]
        last = 1 + max(_layer(part) for part in every)
        stop = None if last >= self.model.current_route.n_layers else last
        if reading is not None:
            return lambda model, inputs: reading.run(model, inputs, stop)
        if stop is None:
            return whole_pass
        return lambda model, inputs: model(dict(inputs), stop_at_layer=stop)

    def _rows_of_heads(self, reading: HeadReading, row: int) -> dict[str, Rows]:
        """A clip's rows of attention, of each stream."""
        layout, found = reading.layout, dict[str, Rows]()
        for stream, columns in reading.streams(row).items():
            name = rows_name(layout.streams[stream].name)
            values, heads = reading.values(row, stream)
            if self.heads.setdefault(name, heads) != heads:
                raise PalscopeError(
                    f"{name}: other heads read this clip's {layout.streams[stream].name} than the "
                    "clips before it; this is a fault of palscope's."
                )
            if not all_finite(values):
                raise PalscopeError(f"{name} holds NaN or infinity.")
            numbers = torch.full((len(columns),), stream, dtype=torch.int8)
            found[name] = Rows(values, layout.seconds[row, columns], numbers)
        return found


def places_of(
    model: HookedAudioModel, part: Part, layout: TokenLayout, frames: Sequence[int]
) -> tuple[Float64[Tensor, "tokens 2"], Int[Tensor, "tokens"]]:
    """Seconds and streams of a part's tokens.

    Args:
        model: on its route.
        part: of a site, or of a dictionary that is spliced in there.
        layout: of the inputs.
        frames: in the features of each of the inputs' clips.
    """
    if part.axis not in OF_CLIPS:
        return layout.seconds[part.row, part.columns], layout.stream[part.row, part.columns]
    streams = [stream.name for stream in layout.streams]
    if (name := stream_of(hook_site(part.hook))) in streams:
        number = streams.index(name)
        mine = (layout.clip == part.row) & (layout.stream == number)
        seconds = layout.seconds[mine][layout.token[mine].argsort()]
        return seconds[part.columns], torch.full_like(part.columns, number)
    grid = encoder_grid(model, part)
    length = model.model.seconds_covered(frames[part.row])
    spans = torch.from_numpy(grid.spans(int(part.columns[-1]) + 1, length))
    return spans[part.columns], torch.full_like(part.columns, BEFORE_DECODER)


_PROJECTOR = re.compile(r"audio_projector_(?P<stream>\w+)_(?P<layer>\d+)\.hook_in")
_INPUT = re.compile(r"audio_input_(?P<stream>\w+)\.hook_in")
"""Where a stream leaves the connector."""


def stream_of(hook: str) -> str | None:
    """The stream that enters a hook point of the connector's output; None elsewhere."""
    found = _PROJECTOR.fullmatch(hook) or _INPUT.fullmatch(hook)
    return None if found is None else found["stream"]


def _layer(part: Part) -> int:
    """The decoder's layer up to which a pass must go to get there."""
    if (projector := _PROJECTOR.fullmatch(part.hook)) is not None:
        return int(projector["layer"])
    return part.layer or 0 if part.hook.startswith("blocks.") else 0


def _once(parts: Sequence[Part]) -> list[Part]:
    """Of each stream one hook point: what enters its projectors is the same in every layer."""
    hooks: dict[str | None, str] = {}
    for part in parts:
        hooks.setdefault(stream_of(part.hook), part.hook)
    return [part for part in parts if part.hook in hooks.values()]


def _of_sound(address: Address) -> Address:
    """The address, of sound where no tokens are named."""
    return address if address.tokens is not None else replace(address, tokens=Sound())


def _reader_of_heads(model: HookedAudioModel, addresses: Sequence[Address]) -> HeadReader | None:
    """Of the address of patterns, if there is one.

    Raises `PalscopeError` where there are several, or another's rows would depend on what a
    transcriber writes for it.
    """
    found = [address for address in addresses if address.site == "pattern"]
    if not found:
        return None
    if len(found) > 1:
        raise PalscopeError("two of the addresses are of pattern; give one that covers both.")
    reader = HeadReader(model, found[0])
    if reader.writes and any(isinstance(address.tokens, Text) for address in addresses):
        raise PalscopeError(
            "a transcriber writes words before its heads are read, and text would be stored with "
            "them; store text in a run of its own."
        )
    return reader
