"""Granite Speech (arXiv 2505.08699): a conformer, a Q-Former on windows of 300 ms, Granite."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palscope._published.adapters import has_adapters, save_with_adapters, switch_adapters
from palscope._published.family import PublishedFamily
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures
from palscope.errors import CheckpointError


class GraniteSpeech(PublishedFamily):
    """Three latents read each window of 15 encoder frames; adapters are on where there is sound.

    No latent has a third of its window to itself, so all three stand for the whole 300 ms. The
    conformer attends within blocks of 4 s; its convolutions reach across. Nothing is masked: what
    fills the last window is read as zeros.
    """

    model_types = ("granite_speech",)
    checkpoints = (
        ("ibm-granite/granite-speech-3.3-2b", "3 B"),
        ("ibm-granite/granite-speech-3.3-8b", "9 B"),
    )
    architecture = "GraniteSpeechForConditionalGeneration"
    tower_path = "model.encoder"
    projector = "projector"
    place = "<|audio|>"
    package = "torchaudio"  # for its mel spectrogram
    floor_db = 40.0  # Whisper's scale: one unit is four decades
    seconds_per_frame = 0.02  # two log-mel columns make one of the encoder's frames
    divides_logits = False  # logits_scaling is left out, unlike in GraniteForCausalLM

    @property
    def grid(self) -> TimeGrid:
        """A window's seconds, which its latents share."""
        window = self.config.window_size
        return TimeGrid(
            window * self.seconds_per_frame, per_step=window // self.config.downsample_rate
        )

    @property
    def tower_grid(self) -> TimeGrid:
        """A token a frame."""
        return TimeGrid(self.seconds_per_frame)

    def tokens(self, frames: int) -> int:
        """Those of whole windows; the last may hear a single frame."""
        return self.grid.per_step * math.ceil(frames / self.config.window_size)

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel columns, two on top of each other; none of a clip too short to be mirrored."""
        if len(samples) <= extractor.melspec_kwargs["n_fft"] // 2:
            return ClipFeatures(torch.zeros(self.config.encoder_config.input_dim, 0), 0)
        features = extractor(samples)["input_features"][0]
        return ClipFeatures(features.T, len(features))

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """The class's own way, of one clip."""
        # The tower adds to this layer's output in place: a hook keeps what left the layer.
        layers: nn.ModuleList = model.model.encoder.layers
        handle = layers[len(layers) // 2 - 1].register_forward_hook(_cloned)
        try:
            made = model.model.get_audio_features(features.T[None].contiguous())
        finally:
            handle.remove()
        return made.pooler_output[0]

    def components(self) -> dict[str, Component]:
        """The conformer's layers, and the Q-Former's with their self- and cross-attention."""
        feed_forward = {"norm": Component("pre_norm"), "in": Component("up_proj")}
        feed_forward["out"] = Component("down_proj")
        attention = {"norm": "pre_norm", "q": "to_q", "kv": "to_kv", "o": "to_out"}
        conformer = {
            "mlp1": Component("ff1", parts=feed_forward),
            "attn": Component("attn", parts=_named(attention)),
            "conv": Component("conv"),
            "mlp2": Component("ff2", parts=feed_forward),
            "ln": Component("post_norm"),
        }
        projections = _named({"q": "query", "k": "key", "v": "value"})
        latents = {
            "attn": Component("attention.attention", parts=projections),
            "cross_attn": Component("crossattention.attention", parts=projections),
            "mlp_in": Component("intermediate_query"),
            "mlp_out": Component("output_query"),
        }
        if self.config.projector_config.cross_attention_frequency > 1:
            del latents["cross_attn"]  # not every layer has it
        return {
            "input": Component("model.encoder.input_linear"),
            "blocks": Component("model.encoder.layers", each=True, parts=conformer),
            "qformer": Component("model.projector.qformer.encoder.layer", each=True, parts=latents),
            self.projector: Component("model.projector"),
        }

    def tower_layers(self) -> tuple[Block, ...]:
        """All of the conformer's, a token each 20 ms."""
        count = self.config.encoder_config.num_layers
        return tuple(Block(f"blocks.{i}", self.tower_grid) for i in range(count))

    def content(self, question: str, clips: int) -> str:
        """As published: the clips' places are part of the message's text."""
        return self.place * clips + question

    @property
    def adapted(self) -> bool:
        """By its config."""
        return bool(self.config.has_lora_adapter)

    def check_adapters(self, model: Any) -> None:
        """One, where the config says so."""
        if self.adapted and not has_adapters(model):
            raise CheckpointError(
                "this Granite Speech's config says that it hears with an adapter, and it has none: "
                "transformers leaves it out where peft is not installed. Install peft and load it "
                "again; or, where the adapter is merged, set config.has_lora_adapter = False."
            )

    def complete(self, model: Any, folder: Path) -> None:
        """The class opens its adapter by itself, or goes on without it."""
        if self.adapted and not has_adapters(model):
            raise CheckpointError(
                f"{folder} has no adapter_config.json and adapter_model.safetensors, but its "
                "config says that the model hears with an adapter. Put them there."
            )

    def prepare(self, model: Any, *, audio: bool) -> None:
        """Adapters on for a batch with sound, off without, as the class's `generate` leaves it."""
        switch_adapters(model, on=audio)

    def save(self, model: Any, folder: str | os.PathLike[str], **kwargs: Any) -> None:
        """Weights and adapter in one folder, as published."""
        if has_adapters(model):
            save_with_adapters(model, folder, {next(iter(model.peft_config)): ""}, **kwargs)
        else:
            super().save(model, folder, **kwargs)


def _named(paths: dict[str, str]) -> dict[str, Component]:
    return {name: Component(path) for name, path in paths.items()}


def _cloned(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
    return out.clone()
