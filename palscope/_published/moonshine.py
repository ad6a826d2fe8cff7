"""Moonshine (arXiv 2410.15608): an encoder of samples, and a decoder that crosses it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import MoonshineConfig

import palscope._models.moonshine_decoder  # pyright: ignore[reportUnusedImport]  # noqa: F401
from palscope._published.layers import encoder_layer
from palscope._published.transcriber import Transcriber
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures
from palscope.errors import PromptError, short

_COLUMN, _STEP = 64, 384
"""Samples from one frame of the first convolution to the next, and from one token to the next."""
_REACH = 127
"""Samples that such a frame is made of."""


class MoonshineDecoderConfig(MoonshineConfig):
    """A Moonshine's settings as those of its decoder alone."""

    attribute_map = MoonshineConfig.attribute_map | {
        "max_target_positions": "max_position_embeddings"
    }


class Moonshine(Transcriber):
    """An encoder–decoder that hears samples, clips of any length, and nothing behind them.

    A token is made of 56 ms of samples, from where its 24 ms begin: it is 16 ms before its middle,
    and the clip's last 32 to 56 ms have none. What is called features are the samples themselves,
    4 ms of them in a column. A norm over time stands behind the first convolution, so that every
    token hears how loud all of the clip is; and in a batch of the class's own, of what pads it.
    """

    model_types = ("moonshine",)
    checkpoints = (
        ("UsefulSensors/moonshine-tiny", "27 M"),
        ("UsefulSensors/moonshine-base", "61 M"),
    )
    architecture = "MoonshineForConditionalGeneration"
    seconds_per_frame = _COLUMN / 16_000
    decoder_settings = MoonshineDecoderConfig
    _start: str

    @property
    def any_question(self) -> str:
        """The mark that the decoder begins with: there is nothing that could be asked."""
        return self._start

    @property
    def grid(self) -> TimeGrid:
        """24 ms a token."""
        return TimeGrid(_STEP / self.sample_rate)

    def tokens(self, frames: int) -> int:
        """What the second and the third convolution leave of the first one's frames."""
        second = (frames - 1 - 7) // 3 + 1
        return max(0, (second - 3) // 2 + 1)

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """The samples that are heard, and one more: whole columns, one more than frames."""
        made = extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        heard = made["input_values"][0]
        columns = max(0, (len(heard) - _REACH) // _COLUMN + 1) + 1
        missing = max(0, columns * _COLUMN - len(heard))
        heard = torch.nn.functional.pad(heard, (0, missing))[: columns * _COLUMN]
        return ClipFeatures(heard.view(columns, _COLUMN).T, columns)

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """The encoder's output."""
        samples = features.T.reshape(1, -1)
        return model.get_submodule(self.tower_path)(samples).last_hidden_state[0]

    def components(self) -> dict[str, Component]:
        """Convolutions and their norm, layers with their attention and MLP, final norm."""
        return {
            "conv1": Component(f"{self.tower_path}.conv1"),
            "groupnorm": Component(f"{self.tower_path}.groupnorm"),
            "conv2": Component(f"{self.tower_path}.conv2"),
            "conv3": Component(f"{self.tower_path}.conv3"),
            "blocks": Component(f"{self.tower_path}.layers", each=True, parts=encoder_layer()),
            "ln_final": Component(f"{self.tower_path}.layer_norm"),
        }

    def tower_layers(self) -> tuple[Block, ...]:
        """The encoder's."""
        count = self.config.encoder_num_hidden_layers
        return tuple(Block(f"blocks.{i}", self.grid) for i in range(count))

    def prepare_tokenizer(self, tokenizer: Any) -> None:
        """Add the word for sound behind all others."""
        self.add_places(tokenizer, self.place)
        self._start = tokenizer.convert_ids_to_tokens(self.config.decoder_start_token_id)

    def chat(self, template: Any, question: str, clips: int, system: str | None) -> str:
        """The clip's place, and the mark that the decoder begins with.

        Args:
            question: "", or that mark.

        Raises:
            PromptError: there is one; there are several clips, or a system message.
        """
        del template
        self.check_alone(clips, system)
        if question not in ("", self._start):
            raise PromptError(
                f"Moonshine answers no question: it writes down what is said. Instead of "
                f"{short(question)} give ''."
            )
        return f"{self.place * clips}{self._start}"
