"""Encoded clips, and what else is kept for further calls: finite, and of the weights of now."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from palscope._finite import all_finite, cause
from palscope._models.cache import AudioCache
from palscope._models.clips import AudioClips
from palscope._models.stamps import Stamp, stamp_contents, stamp_identity
from palscope._models.turns import SPLICED, Turns, in_turn
from palscope.errors import AudioError, PalscopeError

_CHECKED: ContextVar[object] = ContextVar("palscope_checked", default=None)
"""The model whose weights what this context decodes from was held against already."""


class Encoding(nn.Module):
    """Mixed into a model: how clips are encoded, and when what is kept may be used."""

    turns: Turns

    @in_turn
    def encode_audio(
        self,
        input_features: Float[Tensor, "clips bins frames"],
        feature_lengths: Int[Tensor, "clips"],
    ) -> AudioClips:
        """Clips as the decoder reads them, to be given to several calls as `audio=`.

        Raises:
            AudioError: features and lengths do not fit, or features are not finite.
            PalscopeError: what is made of them is not.
        """
        clips = self._encoded(input_features, feature_lengths)
        clips.made_of = self.encoding_stamp()
        return clips

    @in_turn
    def _encoded(self, input_features: Tensor, feature_lengths: Tensor) -> AudioClips:
        clips = self._encode(input_features, feature_lengths)
        self.check_clips(clips, input_features)
        return clips

    def encoding_stamp(self) -> Stamp:
        """What clips' tokens are made of now: weights, whether in training, and dictionaries."""
        spliced = [each for block in self.turns.values(SPLICED) for each in block if each.encodes]
        return (self.training, *stamp_contents(self._encoding_parts()), *spliced)

    @abstractmethod
    def _encoding_parts(self) -> list[nn.Module]:
        """What makes clips' tokens: all but the decoder, and what is read from them later."""

    def check_clips(self, clips: AudioClips, features: Tensor) -> None:
        """Raise where tokens of clips, made of these features, hold NaN or infinity."""
        wrong = [name for name, tokens in clips.streams.items() if not all_finite(tokens)]
        if not wrong:
            return
        # Asked only now: behind a clip's end features may be anything, and are not read.
        if not all_finite(features):
            raise AudioError(
                "input_features hold NaN or infinity. Make them of finite samples, with the "
                "processor."
            )
        raise PalscopeError(
            f"the {', '.join(wrong)} tokens that encoder and connector made of the clips hold NaN "
            f"or infinity. {cause(self)}"
        )

    @abstractmethod
    def _encode(
        self,
        input_features: Float[Tensor, "clips bins frames"],
        feature_lengths: Int[Tensor, "clips"],
    ) -> AudioClips:
        """As `encode_audio`."""

    def check_cache(self, cache: AudioCache) -> None:
        """Raise `PalscopeError` where a cache was made with other weights than the model's now."""
        if cache.made_of is None or _CHECKED.get() is self:
            return
        if cache.made_of != stamp_identity([self]):
            raise PalscopeError(
                "the cache was made with other weights, or other adapters: they were changed "
                "since. Start again without it."
            )

    def check_encoded(self, clips: AudioClips) -> None:
        """Raise `PalscopeError` where clips were encoded with other weights than those of now."""
        if clips.made_of is None or _CHECKED.get() is self:
            return
        trained, *rest = self.encoding_stamp()
        before, *made_of = clips.made_of
        if made_of != rest or (before and not trained):
            raise PalscopeError(
                "these clips were encoded with other weights of encoder or connector than the "
                "model has now, in training mode, or with another dictionary spliced in. Encode "
                "them again (encode_audio)."
            )

    @contextmanager
    def checked_once(self) -> Generator[None, None, None]:
        """Within, in this context, its weights are not looked at again: decoding is many calls."""
        token = _CHECKED.set(self)
        try:
            yield
        finally:
            _CHECKED.reset(token)
