"""The processor's side of an encoder: a feature extractor that its settings alone describe."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import WhisperFeatureExtractor
from transformers.feature_extraction_utils import FeatureExtractionMixin

from palscope._finite import all_finite
from palscope.audio._mel import log_mel
from palscope.encoders._config import ClipFeatures, EncoderConfig, GivenClip
from palscope.encoders._registry import encoder_config
from palscope.errors import AudioError


class EncoderFeatureExtractor(FeatureExtractionMixin):
    """Makes the features of the encoder with these settings; saved with the processor as JSON.

    Args:
        encoder: `EncoderConfig.to_dict`. Its kind must be registered when a saved one is read.
    """

    def __init__(self, encoder: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = dict(encoder or {})

    @property
    def encoder_config(self) -> EncoderConfig:
        """The settings, read. Raises `CheckpointError` when their kind is not registered."""
        return encoder_config(self.encoder)

    @property
    def sampling_rate(self) -> int:
        """Hz of the samples; of several encoders, the highest."""
        return self.encoder_config.sample_rate


def extract(extractor: Any, clip: GivenClip) -> ClipFeatures:
    """Features of one clip, by a feature extractor of ours or by Whisper's of `transformers`.

    Args:
        extractor: the processor's.

    Raises:
        AudioError: the clip cannot be used.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        if isinstance(extractor, WhisperFeatureExtractor):
            rate: Any = extractor.sampling_rate
            mel = log_mel(clip.waveform(rate).samples, extractor)
            return checked(ClipFeatures(mel, mel.shape[1]))
        return checked(extractor.encoder_config.extract(clip))


def checked(features: ClipFeatures) -> ClipFeatures:
    """Features that are finite.

    Raises:
        AudioError: they are not, as of samples whose energy overflows.
    """
    if not all_finite(features.values):
        raise AudioError(
            "a clip is so loud that its features overflow, though its samples are finite. Full "
            "scale is ±1: divide the samples by their peak."
        )
    return features
