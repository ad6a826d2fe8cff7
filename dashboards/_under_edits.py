"""The model under edits: its inputs, its route, what is spliced in, and what acts inside it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from _answers import Ask, encoded_inputs
from _dictionaries import dictionaries, fitting_dictionary, version
from _edits import AnyEdit, edited_sound, interventions, other_for
from _feature_edits import FeatureEdit
from _sounds import bundled_sound

from palscope.audio import Waveform
from palscope.errors import AudioError
from palscope.features import spliced


def inputs_under(ask: Ask, edits: Sequence[AnyEdit]) -> dict[str, Any]:
    """The prompt about the clip with other sound put in; encoded already where it can be.

    A dictionary may stand in the encoder: its clips are encoded with it.
    """
    if not any(isinstance(each, FeatureEdit) or each.brings_sound for each in edits):
        return encoded_inputs(ask)
    sound = edited_sound(edits, ask.sound.waveform, other_sound)
    return dict(ask.opened.model.inputs(ask.question, sound))


@contextmanager
def route_under(ask: Ask, edits: Sequence[AnyEdit]) -> Generator[None]:
    """Within, the route is taken that is asked about, and the edits' dictionaries are spliced in.

    Raises:
        PalscopeError: one is not here, or does not fit the model on its route.
    """
    model = ask.opened.model
    with ExitStack() as stack:
        stack.enter_context(model.route(ask.route))
        if found := [fitting_dictionary(ask, name) for name in dictionaries(edits)]:
            stack.enter_context(spliced(model, *found))
        yield


def versions(edits: Sequence[AnyEdit]) -> tuple[tuple[int, ...], ...]:
    """Those of the edits' dictionaries."""
    return tuple(version(name) for name in dictionaries(edits))


def made_of(ask: Ask, edits: Sequence[AnyEdit], inputs: dict[str, Any]) -> list[Any]:
    """The edits' interventions, under the route that is taken now."""
    sound = ask.sound.waveform
    return interventions(edits, ask.opened.model, inputs, sound, ask.question, other_sound)


def inputs_about(ask: Ask, source: str, seconds: tuple[float, float] | None) -> Mapping[str, Any]:
    """The question about another clip, which is as long and has something in these seconds."""
    other = other_for(source, ask.sound.waveform, seconds, other_sound)
    return ask.opened.model.inputs(ask.question, other)


def other_sound(name: str) -> Waveform:
    """A bundled clip.

    Raises:
        AudioError: there is none of that name.
    """
    try:
        return bundled_sound(name).waveform
    except KeyError as error:
        raise AudioError(f"there is no bundled sound {name!r}.") from error
