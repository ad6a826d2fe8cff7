"""Interventions that a visitor makes by selecting: what each is, in words, address and code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
from _dictionaries import cached_dictionary
from _feature_edits import FeatureEdit

from palscope._hooks import HookedAudioModel
from palscope.audio import Waveform
from palscope.audio._timegrid import overlaps
from palscope.errors import AudioError, PalscopeError
from palscope.interventions import Address, Knockout, Patch, Resample, Sound, edit_waveform
from palscope.measures._knockout import cuts_of_text

Kind = Literal["cut", "keep", "patch", "tokens"]

SILENCE, NOISE = "silence", "noise"
"""Sources of a patch beside other clips."""

MOST = 12
"""Edits that an address may hold."""

_WRITTEN = re.compile(
    r"(cut|keep|patch|tokens)~(\d{1,5}(?:\.\d{1,6})?)-(\d{1,5}(?:\.\d{1,6})?)~([^~]*)"
    r"~((?:\d{1,4}(?:\.\d{1,4})*)?)~((?:\d{1,4}(?:\.\d{1,4})*)?)~([^~]*)"
)


@dataclass(frozen=True)
class Edit:
    """What is done to a stretch of the sound.

    Attributes:
        kind: `cut`: text no longer reads it; `keep`: text reads nothing else of the sound;
            `patch`: other sound stands there, encoded anew; `tokens`: tokens of other sound do.
        start, end: seconds.
        streams: in which; in all where none is named. A sound has none, so `patch` has none.
        layers: where text no longer reads it, or alone still does; in all where none is named.
        heads: likewise.
        source: of `patch` and `tokens`: `silence`, `noise`, or another clip's name.
    """

    kind: Kind
    start: float
    end: float
    streams: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    source: str = ""

    @property
    def brings_sound(self) -> bool:
        """Whether other sound stands there."""
        return self.kind in ("patch", "tokens")

    @property
    def text(self) -> str:
        """As it stands in the address."""
        return "~".join(
            (
                self.kind,
                f"{self.start:g}-{self.end:g}",
                ".".join(self.streams),
                ".".join(map(str, self.layers)),
                ".".join(map(str, self.heads)),
                self.source,
            )
        )

    @classmethod
    def from_text(cls, text: str) -> Edit | None:
        """That of `text`; None where it is none."""
        match = _WRITTEN.fullmatch(text)
        if match is None or float(match[3]) <= float(match[2]):
            return None
        kind, start, end, streams, layers, heads, source = match.groups()
        layers, heads = (tuple(int(n) for n in each.split(".") if n) for each in (layers, heads))
        named = tuple(name for name in streams.split(".") if name)
        return cls(cast(Kind, kind), float(start), float(end), named, layers, heads, source)

    def __str__(self) -> str:
        seconds = f"{self.start:.2f}–{self.end:.2f} s"
        of = f" of {', '.join(self.streams)}" if self.streams else ""
        layers = _named("layer", self.layers) + _named("head", self.heads)
        return {
            "cut": f"cut {seconds}{of}{layers}",
            "keep": f"keep only {seconds}{of}{layers}",
            "patch": f"{seconds}: sound of {self.source}, encoded anew",
            "tokens": f"{seconds}{of}: tokens of {self.source}, encoded apart",
        }[self.kind]


AnyEdit = Edit | FeatureEdit


def _named(what: str, found: Sequence[int]) -> str:
    return f", {what}{'s' * (len(found) > 1)} {numbers(found)}" if found else ""


def numbers(found: Sequence[int]) -> str:
    """Numbers, neighbours as ranges.

    >>> numbers([20, 21, 22, 25])
    '20–22, 25'
    """
    runs: list[list[int]] = []
    for number in sorted(found):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


# -- in the address -------------------------------------------------------------------------------


def to_text(edits: Sequence[AnyEdit]) -> str:
    """Edits as they stand in the address."""
    return "|".join(each.text for each in edits)


def from_text(text: str) -> list[AnyEdit]:
    """Edits from the address.

    Raises:
        PalscopeError: it names none, or too many.
    """
    written = [part for part in text.split("|") if part]
    if len(written) > MOST:
        raise PalscopeError(f"the address has {len(written)} edits; {MOST} at most.")
    found: list[AnyEdit] = []
    for part in written:
        made = Edit.from_text(part) or FeatureEdit.from_text(part)
        if made is None:
            raise PalscopeError(f"the address's edit {part[:60]!r} cannot be read.")
        found.append(made)
    return found


# -- in force -------------------------------------------------------------------------------------


def edited_sound(
    edits: Sequence[AnyEdit], sound: Waveform, source_of: Callable[[str], Waveform]
) -> Waveform:
    """The clip with the samples of every `patch` exchanged.

    Args:
        source_of: another clip, by its name.

    Raises:
        AudioError: a stretch lies outside of the clip, or the other clip is shorter.
    """
    for each in edits:
        if isinstance(each, Edit) and each.kind == "patch":
            other = other_for(each.source, sound, (each.start, each.end), source_of)
            sound = edit_waveform(sound, Sound(each.start, each.end), other)
    return sound


def interventions(
    edits: Sequence[AnyEdit],
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    sound: Waveform,
    question: str,
    source_of: Callable[[str], Waveform],
) -> list[Knockout | Patch]:
    """What edits do inside the model, under its current route.

    Those of features act while their dictionaries are spliced in.

    Args:
        inputs: of the question about `sound`, which `edited_sound` made.

    Raises:
        PalscopeError: text sees no sound there, the stretch cannot be patched so, or a dictionary
            is not here.
    """

    def inputs_about(source: str, seconds: tuple[float, float] | None) -> Mapping[str, Any]:
        return model.inputs(question, other_for(source, sound, seconds, source_of))

    found: list[Knockout | Patch] = []
    for each in edits:
        if isinstance(each, FeatureEdit):
            hook_point = cached_dictionary(each.dictionary).about.get("hook_point")
            found += each.patches(hook_point, partial(inputs_about, seconds=each.seconds))
        elif each.kind == "tokens":
            other = inputs_about(each.source, (each.start, each.end))
            found += [
                Patch(Address("connector_output", at), Resample(other)) for at in _sounds(each)
            ]
        elif each.kind != "patch":
            cuts = _cuts if each.kind == "cut" else _cuts_of_the_rest
            made = [*cuts(each, model, inputs)]
            if not made and each.kind == "cut":
                raise PalscopeError(f"{each}: text sees none of it there, so nothing is cut.")
            found += made
    return found


def _sounds(edit: Edit) -> list[Sound]:
    """The stretch, in each of its streams."""
    return [Sound(edit.start, edit.end, stream) for stream in edit.streams or (None,)]


def _cuts(edit: Edit, model: HookedAudioModel, inputs: Mapping[str, Any]) -> Iterator[Knockout]:
    del inputs
    where: dict[str, Any] = {"layers": edit.layers or None, "heads": edit.heads or None}
    yield from cuts_of_text(model.current_route, _sounds(edit), **where)


def _cuts_of_the_rest(
    edit: Edit, model: HookedAudioModel, inputs: Mapping[str, Any]
) -> Iterator[Knockout]:
    """Everything of the sound but the stretch, where it is to be read still.

    Tokens that reach into the stretch belong to it, as wherever seconds are named.
    """
    table: Any = model.layout(inputs).table(0)
    for stream in (each.name for each in model.current_route.streams):
        seen = set(model.current_route.layers(stream))
        mine = table[(table["stream"] == stream) & (table["clip"] == 0)]
        if not seen or not len(mine):
            continue
        if edit.streams and stream not in edit.streams:
            yield Knockout(Address("pattern", Sound(stream=stream)))
            continue
        inside = mine[overlaps(mine["start_s"], mine["end_s"], edit.start, edit.end)]
        first, last = float(inside["start_s"].min()), float(inside["end_s"].max())
        if (mine["start_s"] < first - 1e-6).any():
            yield Knockout(Address("pattern", Sound(0.0, first, stream)))
        if (mine["end_s"] > last + 1e-6).any():
            yield Knockout(Address("pattern", Sound(last, None, stream)))
        kept = Sound(edit.start, edit.end, stream)
        others = tuple(sorted(seen - set(edit.layers))) if edit.layers else ()
        if others:
            yield Knockout(Address("pattern", kept, others))
        layers = tuple(sorted(seen & set(edit.layers))) if edit.layers else tuple(sorted(seen))
        heads = tuple(sorted(set(range(model.cfg.n_heads)) - set(edit.heads)))
        if edit.heads and heads and layers:
            yield Knockout(Address("pattern", kept, layers, heads))


def other_for(
    name: str,
    sound: Waveform,
    seconds: tuple[float, float] | None,
    source_of: Callable[[str], Waveform],
) -> Waveform:
    """A clip as long as `sound` which has in these seconds what is put there; None are all.

    Raises `AudioError` where the other clip is shorter.
    """
    rate, length = sound.sample_rate, len(sound.samples)
    seconds = seconds or (0.0, sound.seconds)
    first, last = (round(each * rate) for each in seconds)
    samples = np.zeros(length, dtype=np.float32)
    if name == NOISE:
        loudness = float(np.sqrt(np.mean(np.square(sound.samples[first:last], dtype=np.float64))))
        noise = np.random.default_rng(0).standard_normal(length)
        samples = (loudness * noise).astype(np.float32)
    elif name != SILENCE:
        other = source_of(name)
        if len(other.samples) < min(last, length):
            raise AudioError(
                f"{name} is {other.seconds:.2f} s long, so it has no {seconds[0]:.2f} to "
                f"{seconds[1]:.2f} s to put there: select less, or choose a longer clip."
            )
        kept = min(length, len(other.samples))
        samples[:kept] = other.samples[:kept]
    return Waveform(samples, rate, f"{name} for {sound.source}")
