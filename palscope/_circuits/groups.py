"""Groups of positions: stretches of a clip's seconds by stream, and stretches of text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from palscope._circuits.features import FeaturePlace
from palscope._hooks import HookedAudioModel
from palscope._routing import TokenLayout
from palscope._routing.layout import FILLER, PADDING, TEXT
from palscope.errors import PalscopeError
from palscope.interventions._before_decoder import encoder_grid, tokens_of
from palscope.interventions._hook_places import place_of
from palscope.pairs._pair import Segment


@dataclass(frozen=True)
class Group:
    """Columns of a prompt that are one position of a circuit.

    Attributes:
        name: for tables and figures.
        columns: of the layout, in order; of `BELOW` tokens of the encoder, and 0.
        stream: of sound; None for text.
        clip: of sound; the clip's number in the prompt.
        start_s: first second that its tokens stand for, from the clip's start; NaN for text.
        end_s: the last.
    """

    name: str
    columns: tuple[int, ...]
    stream: str | None = None
    clip: int = 0
    start_s: float = float("nan")
    end_s: float = float("nan")


LAST = "last token"
ENCODER = "encoder"
"""In the place of a stream's name: tokens inside the encoder."""
PAST = "past the features"
"""In its place: the clip, as it comes into the decoder past the features in the encoder."""
BELOW = (ENCODER, PAST)


def position_groups(
    layout: TokenLayout,
    *,
    seconds: float = 1.0,
    segments: Sequence[Segment] = (),
    words: Sequence[Sequence[int]] = (),
) -> tuple[Group, ...]:
    """All real columns of one prompt in groups, none in two, in order of their first column.

    Sound is cut into stretches of so many seconds, each stream by itself; a token belongs where its
    middle is. Text is cut by the clips, before and behind `words`, and the last token, which
    predicts the answer, stands alone.

    Args:
        layout: of one prompt.
        seconds: length of a stretch, where there are no `segments`.
        segments: stretches by name, as a pair has them, so that the groups of its kind are the
            same; sound in none of them is a stretch of its own, "elsewhere".
        words: columns of text that are a group of their own each: a word of the question, a word of
            an answer that is already written.

    Raises:
        PalscopeError: there are several prompts, the prompt ends in sound, a stretch has no length,
            or words hold a column twice, or one that is no text.
    """
    here = layout.on_host
    if here.stream.shape[0] != 1:
        raise PalscopeError("a circuit is of one prompt: give the inputs of one row.")
    if not seconds > 0:
        raise PalscopeError(f"stretches of {seconds:g} s; give a positive number of seconds.")
    stream: list[int] = here.stream[0].tolist()
    real = [column for column, kind in enumerate(stream) if kind != PADDING]
    last = real[-1]
    if stream[last] != TEXT:
        raise PalscopeError("the prompt ends in sound, so no word of it predicts an answer.")
    own: dict[int, int] = {}
    for number, columns in enumerate(words):
        for column in columns:
            if column in own or column not in real or stream[column] != TEXT:
                raise PalscopeError(
                    f"column {column} of words is no text of this prompt, or stands twice in them."
                )
            own[column] = number
    found: dict[tuple[object, ...], list[int]] = {}
    part = 0
    for before, column in itertools.pairwise([-1, *real]):
        kind = stream[column]
        if before >= 0 and (kind == TEXT) != (stream[before] == TEXT):
            part += 1
        if column == last:
            key: tuple[object, ...] = ("last",)
        elif column in own:
            key = ("words", own[column])
            part += 1
        elif kind == TEXT:
            key = ("text", part)
        elif kind == FILLER:
            key = ("filler", int(here.clip[0, column]))
        else:
            middle = float(here.seconds[0, column].mean())
            stretch = _segment(segments, middle) if segments else int(middle / seconds)
            key = ("sound", kind, int(here.clip[0, column]), stretch)
        found.setdefault(key, []).append(column)
    names = _names(segments)
    texts = [key for key in found if key[0] == "text"]
    groups: list[Group] = []
    for key, columns in found.items():
        if key[0] == "last":
            groups.append(Group(LAST, tuple(columns)))
        elif key[0] == "text":
            groups.append(Group(f"text {texts.index(key) + 1}", tuple(columns)))
        elif key[0] == "words":
            groups.append(Group(f"words {key[1]}", tuple(columns)))
        elif key[0] == "filler":
            groups.append(Group("silence", tuple(columns), "frames", max(int(str(key[1])), 0)))
        else:
            groups.append(_of_sound(layout, key, columns, names))
    return tuple(groups)


def encoder_groups(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    place: FeaturePlace,
    *,
    seconds: float = 1.0,
    segments: Sequence[Segment] = (),
) -> tuple[Group, ...]:
    """An encoder's tokens of the only clip, in the stretches that `position_groups` has.

    Behind them, where sound comes into the decoder past these tokens, the clip as it enters.

    Args:
        inputs: of one prompt.
        place: in the encoder.
        seconds: as in `position_groups`, and so are `segments`.

    Raises:
        PalscopeError: there is no clip, or there are several.
    """
    frames: list[int] = inputs["feature_lengths"].tolist()
    if len(frames) != 1:
        raise PalscopeError(
            f"the prompt has {len(frames)} clips; features in the encoder are nodes of a prompt "
            "with one."
        )
    (part,) = place_of(model, place.hook_point).parts
    grid = encoder_grid(model, part)
    tokens = tokens_of(model, grid, frames[0])
    length = model.model.seconds_covered(frames[0])
    spans = grid.spans(tokens, length)
    found: dict[int, list[int]] = {}
    for token in range(tokens):
        middle = float(spans[token].mean())
        stretch = _segment(segments, middle) if segments else int(middle / seconds)
        found.setdefault(stretch, []).append(token)
    names = _names(segments)
    stretches = tuple(
        _named_group(ENCODER, columns, 0, spans[columns], stretch, names, "")
        for stretch, columns in found.items()
    )
    past = Group(f"{ENCODER}, {PAST}", (0,), PAST, 0, 0.0, length)
    return (*stretches, past) if place.passed else stretches


def _names(segments: Sequence[Segment]) -> list[str]:
    return [*(segment.name for segment in segments), "elsewhere"] if segments else []


def _segment(segments: Sequence[Segment], second: float) -> int:
    """The segment that holds a second; as many as there are for none."""
    for number, segment in enumerate(segments):
        if segment.start <= second < segment.end:
            return number
    return len(segments)


def _of_sound(
    layout: TokenLayout, key: tuple[object, ...], columns: list[int], names: Sequence[str]
) -> Group:
    spans = layout.seconds[0, torch.tensor(columns)].numpy()
    name = layout.streams[int(str(key[1]))].name
    clip = int(str(key[2]))
    several = f" of clip {clip}" if len(layout.clip_row) > 1 else ""
    return _named_group(name, columns, clip, spans, int(str(key[3])), names, several)


def _named_group(
    stream: str,
    columns: list[int],
    clip: int,
    spans: Float[np.ndarray, "columns 2"],
    stretch: int,
    names: Sequence[str],
    several: str,
) -> Group:
    start, end = float(spans[:, 0].min()), float(spans[:, 1].max())
    told = f", {names[stretch]}" if names else f" {start:.2f} to {end:.2f} s"
    return Group(f"{stream}{told}{several}", tuple(columns), stream, clip, start, end)
