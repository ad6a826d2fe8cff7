"""Vision encoders, CLIP's and SigLIP's: an image in a clip's place.

Route, hooks and analyses hold as they are.

An image is looked at from left to right as a clip is heard: one column of its pixels, after it was
scaled to the encoder's size, stands where a frame of 10 ms stands with sound. So what is called
seconds everywhere else is hundredths of pixels here: the pixels 32 to 64 from the left are
`Sound(0.32, 0.64)`. A token for each row of patches shares such a step, the top row first.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from transformers import CLIPVisionConfig as HFClipConfig
from transformers import CLIPVisionModel, SiglipVisionModel
from transformers import SiglipVisionConfig as HFSiglipConfig

from palscope.audio._timegrid import SECONDS_PER_FEATURE, TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders._base import (
    WindowedEncoder,
    check_layers,
    hidden_states,
)
from palscope.encoders._config import ClipFeatures, EncoderConfig, GivenClip
from palscope.encoders._tower import Block, Component
from palscope.errors import PalscopeError

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)
"""The fields of the configs that `transformers` knows too, under the same names."""


@dataclass(frozen=True)
class VisionConfig(EncoderConfig):
    """Sizes under the names of `transformers`, and which layers make up a token's state.

    Attributes:
        mean, std: of the pixels' red, green and blue (0 to 1), which are standardised by them.
        layers: as in `WhisperEncoderConfig`: 0 enters the first layer.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 16
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    layers: tuple[int, ...] = (12,)

    def __post_init__(self) -> None:
        layers = check_layers(self.kind, self.layers, self.num_hidden_layers)
        object.__setattr__(self, "layers", layers)
        for name in ("mean", "std"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def side(self) -> int:
        """Patches in a row, and in a column."""
        return self.image_size // self.patch_size

    @abstractmethod
    def scaled(self, image: Image.Image) -> Image.Image:
        """The image at `image_size` × `image_size` pixels, as the published front end scales it."""

    def extract(self, clip: GivenClip) -> ClipFeatures:
        """Pixels of an image: a file, its bytes, or an array `[height, width, 3]` of bytes.

        `[3 * height, width]`: red, green and blue above one another.

        Raises:
            PalscopeError: it is no image.
        """
        pixels = np.asarray(self.scaled(read_image(clip.given)), dtype=np.float32) / 255
        standard = (pixels - np.array(self.mean)) / np.array(self.std)
        values = torch.from_numpy(standard.astype(np.float32)).permute(2, 0, 1)
        return ClipFeatures(values.reshape(-1, self.image_size), self.side * self.patch_size)

    def features(self, samples: Samples) -> ClipFeatures:
        """Refused: an image has no samples. Raises `PalscopeError`."""
        raise PalscopeError(f"the encoder {self.kind} sees images; sound has no pixels.")

    def blank(self) -> np.ndarray:
        """A black image."""
        return np.zeros((self.image_size, self.image_size, 3), dtype=np.uint8)


@dataclass(frozen=True)
class ClipVisionConfig(VisionConfig):
    """CLIP's, by default of ViT-B/16. The last layer's states are not normed, as published."""

    kind: ClassVar[str] = "clip-vision"

    def scaled(self, image: Image.Image) -> Image.Image:
        """The short side to the size, and the middle of the long one."""
        width, height = image.size
        size, short = self.image_size, min(width, height)
        # The long side's length is cut to a whole number.
        image = image.resize(
            (int(size * width / short), int(size * height / short)), Image.Resampling.BICUBIC
        )
        left, top = ((length - size) // 2 for length in image.size)
        return image.crop((left, top, left + size, top + size))

    def build(self) -> CLIPVisionModel:
        """The model of `transformers`, with random weights."""
        return CLIPVisionModel(HFClipConfig(**{name: getattr(self, name) for name in SIZES}))


@dataclass(frozen=True)
class SiglipVisionConfig(VisionConfig):
    """SigLIP's, by default of the base size. The last layer's states pass the final norm."""

    kind: ClassVar[str] = "siglip-vision"

    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def scaled(self, image: Image.Image) -> Image.Image:
        """Both sides to the size, whatever their proportion."""
        return image.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)

    def build(self) -> SiglipVisionModel:
        """The model of `transformers` without its pooling head, with random weights."""
        sizes = {name: getattr(self, name) for name in SIZES}
        return SiglipVisionModel(HFSiglipConfig(**sizes, vision_use_head=False))


class VisionEncoder(WindowedEncoder[ClipVisionConfig | SiglipVisionConfig]):
    """CLIP's or SigLIP's vision tower. `model` is that of `transformers`, and keeps its names.

    Tokens stand column by column of patches, the top one first; CLIP's CLS token runs along, first
    in every layer, and is not among the states.
    """

    def __init__(self, config: ClipVisionConfig | SiglipVisionConfig) -> None:
        super().__init__(config)
        self.seen = nn.Identity()
        self.model = config.build()

    @property
    def width(self) -> int:
        """`hidden_size` for each of the chosen layers."""
        return self.config.hidden_size * len(self.config.layers)

    @property
    def grid(self) -> TimeGrid:
        """Columns of patches in hundredths of pixels; their rows have no frequencies."""
        return TimeGrid(self.config.patch_size * SECONDS_PER_FEATURE, self.config.side)

    @property
    def window(self) -> int:
        """Columns of pixels in an image, as far as there are patches."""
        return self.config.side * self.config.patch_size

    @property
    def bins(self) -> int:
        """Rows of pixels, for each of three colours."""
        return 3 * self.config.image_size

    def columns(self, frames: int) -> int:
        """All columns of pixels."""
        return self.config.image_size

    def encode_window(
        self, features: Float[Tensor, "images bins columns"], lengths: Int[Tensor, " images"]
    ) -> Float[Tensor, "images tokens width"]:
        """States of images."""
        model, layers = cast(Any, self.model), self.config.layers
        pixels = self.seen(features).unflatten(1, (3, self.config.image_size))
        hidden = model.embeddings(pixels)
        if self._has_cls:
            hidden = model.pre_layrnorm(hidden)
        norm = None if self._has_cls else model.post_layernorm
        states = hidden_states(hidden, model.encoder.layers, layers, None, norm=norm)
        order = self._order.to(hidden.device)
        return torch.cat([state[:, order] for state in states], dim=-1)

    @property
    def _has_cls(self) -> bool:
        return isinstance(self.config, ClipVisionConfig)

    @property
    def _order(self) -> Int[Tensor, " tokens"]:
        """Places of an image's tokens, column by column: the model has them row by row."""
        side = self.config.side
        return int(self._has_cls) + torch.arange(side * side).view(side, side).T.flatten()

    def components(self) -> dict[str, Component]:
        """Pixels, patches, layers with their attention and MLP, and the norm that is applied."""
        attention = {name: Component(f"{name}_proj") for name in ("q", "k", "v")}
        layer = {
            "ln1": Component("layer_norm1"),
            "attn": Component("self_attn", parts=attention | {"o": Component("out_proj")}),
            "ln2": Component("layer_norm2"),
            "mlp": Component("mlp"),
            "mlp_in": Component("mlp.fc1"),
            "mlp_out": Component("mlp.fc2"),
        }
        norm = (
            {"ln_pre": Component("model.pre_layrnorm")}
            if self._has_cls
            else {"ln_final": Component("model.post_layernorm")}
        )
        return {
            "features": Component("seen"),
            "patches": Component("model.embeddings.patch_embedding"),
            "blocks": Component("model.encoder.layers", each=True, parts=layer),
            **norm,
        }

    @property
    def mel_hook(self) -> str:
        """The pixels."""
        return "features.hook_in"

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers, all on the grid of the output."""
        count = self.config.num_hidden_layers
        return tuple(Block(f"blocks.{i}", self.grid, self._order) for i in range(count))


def read_image(given: Any) -> Image.Image:
    """An image in red, green and blue, of a file, its bytes, or an array `[height, width, 3]`.

    Raises:
        PalscopeError: it is none.
    """
    try:
        if isinstance(given, str | Path):
            return Image.open(given).convert("RGB")
        if isinstance(given, bytes):
            return Image.open(io.BytesIO(given)).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise PalscopeError(f"this is no image that can be read: {error}.") from error
    array: Any = given
    shape = getattr(array, "shape", None)
    if shape is None or array.dtype != np.uint8 or array.shape[2:] != (3,):
        raise PalscopeError(
            f"a {type(array).__name__} of shape {shape} is no image; expected a file, its bytes, "
            "or an array [height, width, 3] of bytes."
        )
    return Image.fromarray(array)
