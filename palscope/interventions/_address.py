"""Addresses: where in a model, said the way a person thinks of sound.

An address is a *site* of the computation, the tokens there (`Sound` in seconds, or `Text`), and
where the site has them, layers and heads. `resolve` turns it into exact tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

from palscope._whole import whole_number, whole_numbers
from palscope.errors import PalscopeError

SiteName = Literal[
    "waveform",
    "mel",
    "encoder_block",
    "encoder_neurons",
    "encoder_output",
    "connector_output",
    "audio_state",
    "audio_k",
    "audio_v",
    "resid_pre",
    "resid_post",
    "attn_out",
    "mlp_in",
    "mlp_out",
    "head_output",
    "pattern",
    "cross_out",
    "cross_head_output",
    "feature",
    "feature_error",
]

Units = Literal["sound", "audio", "any"]


@dataclass(frozen=True)
class Site:
    """What can be addressed at a site.

    Attributes:
        about: what stands there.
        layers: of which part there is one a layer; None when there is but one.
        heads: whether it has heads (query heads, also under grouped-query attention).
        tokens: `sound` before the decoder, `audio` tokens inside it, or `any` token.
    """

    about: str
    layers: Literal["encoder", "decoder"] | None
    heads: bool
    tokens: Units


SITES: dict[SiteName, Site] = {
    "waveform": Site("samples of the clip, before any model", None, False, "sound"),
    "mel": Site("log-mel frames, 10 ms each", None, False, "sound"),
    "encoder_block": Site("output of an encoder layer", "encoder", False, "sound"),
    "encoder_neurons": Site(
        "activations of the feed-forward network of an encoder layer", "encoder", False, "sound"
    ),
    "encoder_output": Site("the features that the connector reads", None, False, "sound"),
    "connector_output": Site("a stream's tokens, before its projectors", None, False, "audio"),
    "audio_state": Site(
        "the state in which a layer takes a stream in: LAL's audio state where the stream is keys "
        "only, the residual stream where it runs",
        "decoder",
        False,
        "audio",
    ),
    "audio_k": Site("keys of audio tokens, before RoPE", "decoder", True, "audio"),
    "audio_v": Site("values of audio tokens", "decoder", True, "audio"),
    "resid_pre": Site("residual stream before a layer", "decoder", False, "any"),
    "resid_post": Site("residual stream after a layer", "decoder", False, "any"),
    "attn_out": Site("what attention adds to the residual stream", "decoder", False, "any"),
    "mlp_in": Site("what the feed-forward network takes, behind its norm", "decoder", False, "any"),
    "mlp_out": Site("what the feed-forward network adds", "decoder", False, "any"),
    "head_output": Site("a head's output, before the output projection", "decoder", True, "any"),
    "pattern": Site("attention of queries to keys, after softmax", "decoder", True, "any"),
    "cross_out": Site(
        "what cross-attention adds, in encoder–decoders; there attn_out and head_output are of the "
        "attention over words",
        "decoder",
        False,
        "any",
    ),
    "cross_head_output": Site(
        "a cross-attention head's output, before the output projection", "decoder", True, "any"
    ),
    "feature": Site("latents of a dictionary that is spliced in", None, False, "any"),
    "feature_error": Site("what such a dictionary leaves unexplained", None, False, "any"),
}

OF_SPLICES = ("feature", "feature_error")
"""Sites that are there while a dictionary is spliced in."""


@dataclass(frozen=True)
class Sound:
    """The audio tokens that overlap `start` to `end` seconds of a clip.

    Attributes:
        start: seconds from the clip's start.
        end: seconds; None for the clip's end.
        stream: one of the route's streams; None for every stream that stands at the site.
        clip: number of the clip in its prompt.
    """

    start: float = 0.0
    end: float | None = None
    stream: str | None = None
    clip: int = 0

    def __post_init__(self) -> None:
        edges = (self.start,) if self.end is None else (self.start, self.end)
        if not all(_is_time(edge) for edge in edges) or self.start < 0:
            raise PalscopeError(
                f"seconds {self.start} to {self.end} are no stretch of a clip; it starts at 0."
            )
        if self.end is not None and not self.end > self.start:
            raise PalscopeError(
                f"{self.start:g} to {self.end:g} s is empty; the end must lie after the start."
            )
        object.__setattr__(self, "start", float(self.start))
        object.__setattr__(self, "end", None if self.end is None else float(self.end))
        object.__setattr__(self, "clip", whole_number(self.clip, "clip", least=0))


@dataclass(frozen=True)
class Text:
    """Text tokens.

    Attributes:
        what: None for every text token of the prompt and every one that decoding adds; a string of
            the prompt, for the tokens that it covers; or columns of `input_ids`, of which a
            negative one counts the row's real tokens from the right (-1 predicts the answer).
    """

    what: str | int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        what: Any = self.what
        if what is not None and not isinstance(what, str):
            numbers = whole_numbers(what, "columns")
            what = numbers[0] if hasattr(what, "__index__") and len(numbers) == 1 else numbers
            object.__setattr__(self, "what", what)
        if what == "" or what == ():
            raise PalscopeError("an empty string or no columns name no text token.")


@dataclass(frozen=True)
class Filler(Text):
    """The tokens that fill a clip's places behind its sound, in classes that have such.

    Gemma 3n's are words; Whisper's the encoder's tokens of the silence that fills its window. They
    hear the clip, and text reads them: sound reaches it through them, too.
    """

    what: None = field(default=None, init=False)


Tokens = Sound | Text


@dataclass(frozen=True)
class Address:
    """A place in the model.

    Attributes:
        site: a name of `SITES`.
        tokens: the tokens there; at `pattern` the keys. None for every token that stands there.
        layers: None for every layer in which the tokens stand at the site.
        heads: query heads, None for all. Keys and values are shared by a group of query heads, so
            at `audio_k` and `audio_v` whole groups must be named.
        queries: at `pattern`, who reads; all text by default.
        features: at `feature`, numbers of latents; None for all.
        at: at `feature` and `feature_error`, the hook point of the dictionary; None where one
            alone is spliced in.

    Raises:
        PalscopeError: the parts do not fit together.
    """

    site: SiteName
    tokens: Tokens | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    queries: Tokens = Text()
    features: tuple[int, ...] | None = None
    at: str | None = None

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise PalscopeError(f"no site {self.site!r}; there are: {', '.join(SITES)}.")
        site = SITES[self.site]
        for name in ("layers", "heads", "features"):
            given = getattr(self, name)
            if given is not None:
                numbers = tuple(sorted(set(whole_numbers(given, name, least=0))))
                if not numbers:
                    raise PalscopeError(f"{name} {given} name none; leave them out for all.")
                object.__setattr__(self, name, numbers)
        if self.layers is not None and site.layers is None:
            raise PalscopeError(f"{self.site} has no layers; leave them out.")
        if self.heads is not None and not site.heads:
            raise PalscopeError(
                f"{self.site} has no heads; those that do: "
                f"{', '.join(name for name, other in SITES.items() if other.heads)}."
            )
        if self.features is not None and self.site != "feature":
            raise PalscopeError(f"{self.site} has no features; only feature has.")
        if self.at is not None and self.site not in OF_SPLICES:
            raise PalscopeError(f"{self.site} is of no dictionary; leave at out.")
        # What an encoder–decoder makes of the silence behind a clip stands among its sound.
        silence = isinstance(self.tokens, Filler) and site.layers is not None
        if site.tokens != "any" and isinstance(self.tokens, Text) and not silence:
            raise PalscopeError(f"{self.site} holds sound only; address it by Sound(start, end).")
        if self.site != "pattern" and self.queries != Text():
            raise PalscopeError(f"{self.site} has no queries; only pattern has.")

    @property
    def key_tokens(self) -> Tokens | None:
        """`tokens`, with all sound where the site holds nothing else."""
        if self.tokens is None and SITES[self.site].tokens != "any":
            return Sound()
        return self.tokens


def _is_time(seconds: Any) -> bool:
    """Whether it is a finite number, of any library."""
    truth = isinstance(seconds, bool)
    return isinstance(seconds, Real) and not truth and math.isfinite(float(seconds))
