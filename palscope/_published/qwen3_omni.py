"""Qwen3-Omni's thinker (arXiv 2509.17765): a tower of chunks of 1 s, and Qwen3's experts."""

from __future__ import annotations

from typing import Any

import torch

from palscope._published.qwen2_5_omni import OmniThinkerFamily
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Component
from palscope.encoders._config import ClipFeatures
from palscope.encoders._whisper import whisper_components

CHUNK = 100
"""Feature frames that the convolutions hear at once."""
_STRIDE = 8
"""Feature frames from one token of a chunk to the next."""
_TOKENS = 13
"""Tokens of a whole chunk: its hundred frames are no multiple of eight."""


class Qwen3Omni(OmniThinkerFamily):
    """Chunks of 1 s, which the convolutions do not cross; attention runs in windows of 8 s.

    A chunk has 13 tokens, centred on 0, 80, … 960 ms, so that its last one stands but 40 ms before
    the next chunk's first.
    """

    model_types = ("qwen3_omni_moe_thinker", "qwen3_omni_moe")
    checkpoints = (("Qwen/Qwen3-Omni-30B-A3B-Instruct", "35 B with its talker"),)
    architecture = "Qwen3OmniMoeThinkerForConditionalGeneration"
    place = "<|audio_pad|>"
    projector = "proj1"

    @property
    def grid(self) -> TimeGrid:
        """Thirteen uneven steps a second."""
        seconds = _STRIDE * self.seconds_per_frame
        centres = tuple(seconds * i for i in range(_TOKENS))
        return TimeGrid(CHUNK * self.seconds_per_frame / _TOKENS, centres=centres)

    def tokens(self, frames: int) -> int:
        """Three convolutions of stride 2, chunk by chunk."""
        chunks, rest = divmod(frames, CHUNK)
        return chunks * _TOKENS + -(-rest // _STRIDE)

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel features as of a clip alone: its end is mirrored, and a cut frame dropped."""
        if len(samples) <= extractor.n_fft // 2:
            # Too short to be mirrored; the class's own processor breaks here.
            return ClipFeatures(torch.empty(extractor.feature_size, 0), 0)
        made = extractor(
            samples,
            sampling_rate=self.sample_rate,
            padding=True,
            truncation=False,
            return_tensors="pt",
        )
        features = made["input_features"][0]
        return ClipFeatures(features, features.shape[1])

    def components(self) -> dict[str, Component]:
        """Convolutions, layers by Whisper's names, final norm, and the projector's two maps."""
        own = {
            "conv1": "conv2d1",
            "conv2": "conv2d2",
            "conv3": "conv2d3",
            "conv_out": "conv_out",
            "ln_final": "ln_post",
            "proj1": "proj1",
            "proj2": "proj2",
        }
        layers = whisper_components()["blocks"]
        return {
            **{name: Component(f"{self.tower_path}.{path}") for name, path in own.items()},
            "blocks": Component(f"{self.tower_path}.layers", True, layers.parts),
        }
