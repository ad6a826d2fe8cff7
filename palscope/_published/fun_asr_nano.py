"""Fun-ASR-Nano (arXiv 2509.12508): SenseVoice's encoder at 60 ms, two layers between, Qwen3."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._published.family import PublishedFamily
from palscope._published.layers import encoder_layer, projections
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures

_FRAMES_A_TOKEN, _SHIFT, _WINDOW = 6, 0.01, 0.025
"""Filter-bank frames from one token to the next; seconds between them, and of each."""


class FunAsrNano(PublishedFamily):
    """A token is seven filter-bank frames of every six; attention runs over the whole clip.

    Its projector attends, too: two layers of its own stand between tower and decoder, where a token
    may hear of all others. They get no mask of padding, so in a batch of the class's own a clip
    hears what pads it. Here it is encoded alone.
    """

    model_types = ("fun_asr_nano",)
    checkpoints = (("FunAudioLLM/Fun-ASR-Nano-2512-hf", "0.8 B"),)
    architecture = "FunAsrNanoForConditionalGeneration"
    projector = "projector"
    place = "<|object_ref_start|>"
    package = "torchaudio"  # for its filter banks
    seconds_per_frame = _FRAMES_A_TOKEN * _SHIFT
    longest = 122.88  # there are positions for so many tokens

    @property
    def grid(self) -> TimeGrid:
        """60 ms a token, each in its span 17.5 ms before the middle.

        The seven frames that it is made of are centred 12.5 ms behind the span's beginning, and
        reach 42.5 ms to either side.
        """
        return TimeGrid(self.seconds_per_frame, centres=(_WINDOW / 2,))

    def tokens(self, frames: int) -> int:
        """One a feature frame."""
        return frames

    def seconds(self, frames: int) -> float:
        """To the end of the last filter-bank frame of the longest clip with so many frames."""
        return frames * self.seconds_per_frame - _SHIFT + _WINDOW

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Stacked filter banks; none of a clip that is shorter than one of their frames."""
        if len(samples) < _WINDOW * self.sample_rate:
            bins = extractor.feature_size * extractor.num_frames_lfr
            return ClipFeatures(torch.zeros(bins, 0), 0)
        made = extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        features = made["input_features"][0]
        return ClipFeatures(features.T, len(features))

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """By the class's own method."""
        heard = torch.ones(1, frames, dtype=torch.long, device=features.device)
        return model.get_audio_features(features.T[None], heard, return_dict=True).pooler_output

    def components(self) -> dict[str, Component]:
        """The tower's layers, with their memory (`fsmn`), and the projector with its own."""
        layer = encoder_layer()
        memory = Component("self_attn", parts={**projections(), "fsmn": Component("fsmn")})
        projector = "model.multi_modal_projector"
        return {
            "blocks": Component(
                f"{self.tower_path}.layers", each=True, parts={**layer, "attn": memory}
            ),
            "adaptor": Component(f"{projector}.layers", each=True, parts=layer),
            self.projector: Component(projector),
        }

    def tower_layers(self) -> tuple[Block, ...]:
        """All of the tower's."""
        count = self.config.audio_config.num_hidden_layers
        return tuple(Block(f"blocks.{i}", self.grid) for i in range(count))
