"""Phi-4-multimodal (arXiv 2503.01743): a conformer, two linear maps, Phi-4-mini with adapters."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from palscope._published.adapters import (
    has_adapters,
    open_adapter,
    save_with_adapters,
    switch_adapters,
)
from palscope._published.family import PublishedFamily
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures
from palscope.errors import CheckpointError

_EMBED = "model.embed_tokens_extend.audio_embed"
_FRAMES_PER_TOKEN = 8
_WINDOW = 0.025
"""Seconds of samples that a feature frame hears; it starts every 10 ms."""


class Phi4Multimodal(PublishedFamily):
    """A token is 80 ms; the conformer attends within 40 s. Of its adapters, that for speech is on.

    The tower's mask of padding adds to scores where it should forbid, so in a batch of the class's
    own a clip hears what pads it. Here it is encoded alone.
    """

    model_types = ("phi4_multimodal",)
    refused_types: ClassVar[dict[str, str]] = {
        "phi4mm": "these are the weights of the code that came with them; open the revision that "
        "was converted for transformers, of microsoft/Phi-4-multimodal-instruct "
        "revision='refs/pr/70'"
    }
    checkpoints = (("microsoft/Phi-4-multimodal-instruct@refs/pr/70", "5.6 B"),)
    architecture = "Phi4MultimodalForCausalLM"
    decoder_path = "model"
    tower_path = f"{_EMBED}.encoder"
    projector = "projector"
    place = "<|audio|>"
    subfolders = ("speech-lora",)

    @property
    def audio_token_id(self) -> int:
        """Id of `place`."""
        return int(self.config.audio_config.audio_token_id)

    @property
    def grid(self) -> TimeGrid:
        """Eight feature frames a token."""
        return TimeGrid(_FRAMES_PER_TOKEN * self.seconds_per_frame)

    def tokens(self, frames: int) -> int:
        """The last may hear a single frame."""
        return math.ceil(frames / _FRAMES_PER_TOKEN)

    def seconds(self, frames: int) -> float:
        """To the end of what the last frame hears, or of the last token."""
        covered = (frames - 1) * self.seconds_per_frame + _WINDOW
        return min(covered, self.grid.span(self.tokens(frames) - 1)[1])

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel features; none of a clip that is shorter than the window of a frame."""
        if len(samples) < extractor.win_length:
            return ClipFeatures(torch.zeros(extractor.feature_size, 0), 0)
        made = extractor(samples, sampling_rate=self.sample_rate)
        features = made["audio_input_features"][0]
        return ClipFeatures(features.T, len(features))

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """As the class does it while it merges words and sound, for which it has no method."""
        audio = model.get_submodule(_EMBED)
        states = audio.encoder(features.T[None].contiguous(), None)
        return audio.down_proj_for_speech(functional.gelu(audio.up_proj_for_speech(states)))[0]

    def components(self) -> dict[str, Component]:
        """The stem, the conformer's layers, and the two maps of the projector."""
        projections = {name: Component(f"{name}_proj") for name in ("q", "k", "v", "o")}
        feed_forward = {
            "ln": Component("layer_norm"),
            "in": Component("gate_up_proj"),
            "out": Component("down_proj"),
        }
        layer = {
            "mlp1": Component("feed_forward_in", parts=feed_forward),
            "ln1": Component("layer_norm_att"),
            "attn": Component("self_attn", parts=projections),
            "conv": Component("conv"),
            "mlp2": Component("feed_forward_out", parts=feed_forward),
            "ln": Component("layer_norm"),
        }
        return {
            "stem": Component(f"{self.tower_path}.embed.out"),
            "blocks": Component(f"{self.tower_path}.encoders", each=True, parts=layer),
            self.projector: Component(f"{_EMBED}.up_proj_for_speech"),
            "projected": Component(f"{_EMBED}.down_proj_for_speech"),
        }

    def tower_layers(self) -> tuple[Block, ...]:
        """All of the conformer's; of a clip longer than 40 s, windows follow one another."""
        count = self.config.audio_config.num_blocks
        return tuple(Block(f"blocks.{i}", self.tower_grid) for i in range(count))

    def content(self, question: str, clips: int) -> str:
        """As published: the clips' places are part of the message's text."""
        return self.place * clips + question

    @property
    def adapted(self) -> bool:
        """Always."""
        return True

    def complete(self, model: Any, folder: Path) -> None:
        """The adapter "speech"; that for images stays where it is."""
        open_adapter(model, folder, self.subfolders[0], "speech", inside=self.decoder_path)

    def check_adapters(self, model: Any) -> None:
        """The adapter "speech", under that name."""
        if not has_adapters(model) or "speech" not in model.peft_config:
            raise CheckpointError(
                "this Phi-4-multimodal has no adapter called speech, without which it does not "
                "hear as it was trained to. Load it into the model first: "
                "model.load_adapter(folder, adapter_name='speech', "
                "adapter_kwargs={'subfolder': 'speech-lora'}); or give palscope.load the folder."
            )

    def prepare(self, model: Any, *, audio: bool) -> None:
        """The adapter "speech" for a batch with sound, none without."""
        switch_adapters(model, on=audio, name="speech")

    def save(self, model: Any, folder: str | os.PathLike[str], **kwargs: Any) -> None:
        """Weights, and each adapter in a folder of its own, as published."""
        if has_adapters(model):
            names = {name: f"{name}-lora" for name in model.peft_config}
            save_with_adapters(model, folder, names, **kwargs)
        else:
            super().save(model, folder, **kwargs)
