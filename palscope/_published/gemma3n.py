"""Gemma 3n: a causal conformer with a token each 160 ms, and a decoder of four streams a token.

The vision tower is timm's. Where timm is not installed, a stand-in without weights takes its place
when palscope opens a checkpoint, so that sound needs nothing of it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModel, PreTrainedModel
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nVisionConfig

import palscope._models.gemma3n_decoder  # pyright: ignore[reportUnusedImport]  # noqa: F401
from palscope._models.families import raw
from palscope._published.family import PublishedFamily
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures
from palscope.errors import PalscopeError

_WINDOW, _HOP, _MULTIPLE = 513, 160, 128
"""Samples that a feature frame needs, between frames, and of which clips are a multiple."""
_FRAMES_A_TOKEN = 16


class BlindTower(PreTrainedModel):
    """Stands where the published class has timm's vision network. It has no weights."""

    config_class = Gemma3nVisionConfig
    _supports_sdpa = _supports_flex_attn = _supports_flash_attn = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Refused with `PalscopeError`: there is nothing that could see."""
        raise PalscopeError(
            "this Gemma 3n was opened without its vision tower, because timm is not installed; "
            "install timm and load it again to give it pictures."
        )


class Gemma3n(PublishedFamily):
    """A clip has 188 places, however short: the class fills those past its end with one word.

    Here these are that word, so that the clip has its true number of audio tokens.
    """

    model_types = ("gemma3n",)
    checkpoints = (
        ("google/gemma-3n-E2B-it", "5.4 B"),
        ("google/gemma-3n-E4B-it", "7.8 B"),
    )
    architecture = "Gemma3nForConditionalGeneration"
    projector = "projector"
    place = "<audio_soft_token>"
    longest = 30.0

    @property
    def grid(self) -> TimeGrid:
        """Sixteen frames a token. What sounds in a span's last 68 ms first shows in the next one.

        A token is a state of the tower, which hears 92 ms from the span's beginning on, and through
        attention and convolutions what came before; nothing later.
        """
        return TimeGrid(0.16)

    def tokens(self, frames: int) -> int:
        """One for every sixteen frames that were begun."""
        return math.ceil(frames / _FRAMES_A_TOKEN)

    def seconds(self, frames: int) -> float:
        """Of the longest clip with so many frames, at most 18 ms longer than the shortest."""
        return (frames * _HOP + _WINDOW - 1) / self.sample_rate

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel features of the clip, filled to a multiple of 128 samples as in the class."""
        filled = math.ceil(len(samples) / _MULTIPLE) * _MULTIPLE
        if filled < _WINDOW:
            return ClipFeatures(torch.zeros(extractor.feature_size, 0), 0)
        made = extractor([samples], sampling_rate=self.sample_rate, return_tensors="pt")
        features = made["input_features"][0][made["input_features_mask"][0]]
        return ClipFeatures(features.T, len(features))

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """As `Gemma3nModel.get_audio_features` does it."""
        no_padding = torch.zeros(1, frames, dtype=torch.bool, device=features.device)
        states = model.model.audio_tower(features.T[None], no_padding).last_hidden_state
        return model.model.embed_audio(inputs_embeds=states)[0]

    def components(self) -> dict[str, Component]:
        """The tower's convolutions and layers, and the projector."""
        blocks = {
            "ffn_start": Component("ffw_layer_start"),
            "attn": Component("attention"),
            "conv": Component("lconv1d"),
            "ffn_end": Component("ffw_layer_end"),
        }
        return {
            "conv": Component(f"{self.tower_path}.subsample_conv_projection"),
            "blocks": Component(f"{self.tower_path}.conformer", True, blocks),
            self.projector: Component("model.embed_audio"),
        }

    def tower_layers(self) -> tuple[Block, ...]:
        """All, a token each 40 ms."""
        count = self.config.audio_config.conf_num_hidden_layers
        return tuple(Block(f"blocks.{i}", TimeGrid(0.04)) for i in range(count))

    @property
    def filler_id(self) -> int:
        """The last of the ids, which are no text's."""
        return int(self.config.text_config.vocab_size) - 1

    # -- words ------------------------------------------------------------------------------------

    def written(self, tokens: int) -> str:
        """All of the class's places between its marks."""
        places = self.place * self.config.audio_soft_tokens_per_image
        return f"\n\n<start_of_audio>{places}<end_of_audio>\n\n"

    def read(
        self, input_ids: Int[Tensor, "batch columns"], tokens: list[int]
    ) -> Int[Tensor, "batch columns"]:
        """Places past a clip's end are the word whose embedding the class puts there."""
        rows, columns = (input_ids == self.audio_token_id).nonzero(as_tuple=True)
        each = self.config.audio_soft_tokens_per_image
        number = torch.arange(each).repeat(len(tokens))
        empty = number >= torch.tensor(tokens, dtype=torch.long).repeat_interleave(each)
        ids = input_ids.clone()
        ids[rows[empty], columns[empty]] = self.filler_id
        return ids

    def embed(
        self, model: Any, input_ids: Int[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch columns d_model"]:
        """Ids above the words are in tables of the towers' own, as in `Gemma3nModel.forward`."""
        whole = model.model
        # Not through the hooks of the projector, which are sound's.
        vision, audio = raw(whole.embed_vision), raw(whole.embed_audio)
        embedded = whole.language_model.embed_tokens(input_ids)
        for table, end in (
            (vision, audio.vocab_offset),
            (audio, self.config.text_config.vocab_size),
        ):
            own = (input_ids >= table.vocab_offset) & (input_ids < end)
            ids = input_ids.masked_fill(~own, table.vocab_offset)
            embedded = torch.where(own[..., None], table(input_ids=ids).to(embedded), embedded)
        return embedded

    @contextmanager
    def loading(self) -> Generator[None, None, None]:
        """Without timm, the stand-in where its network would be."""
        if importlib.util.find_spec("timm") is not None:
            yield
            return
        known: dict[Any, Any] = cast(Any, AutoModel)._model_mapping._extra_content
        before = known.get(Gemma3nVisionConfig)
        AutoModel.register(Gemma3nVisionConfig, BlindTower, exist_ok=True)
        try:
            yield
        finally:
            known.pop(Gemma3nVisionConfig, None)
            if before is not None:
                known[Gemma3nVisionConfig] = before
