"""palscope's own model: any supported decoder, an audio encoder and a connector."""

from __future__ import annotations

import os
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from palscope._connectors import Connector, ConnectorConfig
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.checkpoints import (
    load_checkpoint,
    own_state,
    read_config,
)
from palscope._models.clips import AudioClips
from palscope._models.config import PalscopeConfig
from palscope._models.devices import device_of
from palscope._models.families import FAMILIES, PUBLISHED, family_of
from palscope._models.finding import CheckpointLike, find_checkpoint
from palscope._models.memory import check_room
from palscope._routing import Route
from palscope._stored import UNKNOWN, check_sizes
from palscope.audio._timegrid import SECONDS_PER_FEATURE, TimeGrid
from palscope.encoders import Component, Encoder, build_encoder
from palscope.errors import CheckpointError, RouteError


class PalscopeForConditionalGeneration(AudioLanguageModel):
    """palscope's own model: any supported decoder, an audio encoder, and a connector.

    Built from a config with random weights, from pretrained parts by `from_parts`, or from a
    checkpoint by `from_pretrained`.
    """

    config_class = PalscopeConfig
    config: PalscopeConfig
    connector: Connector
    encoder: Encoder
    decoder_path = "language_model.model"
    head_path = "language_model.lm_head"
    _tied_weights_keys: ClassVar[dict[str, str]] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        "language_model.lm_head.weight": "language_model.model.embed_tokens.weight"
    }

    def __init__(
        self,
        config: PalscopeConfig,
        language_model: PreTrainedModel | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(config)
        text_config: Any = config.text_config
        family_of(text_config)
        if text_config.model_type in PUBLISHED:
            raise CheckpointError(
                f"decoder family {text_config.model_type!r} serves in published models alone; "
                f"palscope's own take one of {', '.join(sorted(FAMILIES))}."
            )
        route = config.parsed_route()
        if route.n_layers != text_config.num_hidden_layers:
            raise RouteError(
                f"the route has {route.n_layers} layers, the decoder "
                f"{text_config.num_hidden_layers}; make the route for this decoder."
            )
        if language_model is None:
            language_model = AutoModelForCausalLM.from_config(text_config)
        capped = getattr(text_config, "attn_logit_softcapping", None) is not None
        if capped and cast(Any, language_model).config._attn_implementation == "sdpa":
            # SDPA drops the soft cap silently; eager applies it.
            cast(Any, language_model).set_attn_implementation("eager")
        self.language_model: Any = language_model
        if encoder is None:
            encoder = build_encoder(config.parsed_encoder())
        self.encoder = encoder  # pyright: ignore[reportIncompatibleVariableOverride]
        self.connector = Connector(
            config.parsed_connector(), self.encoder.emits, text_config.hidden_size, route.streams
        )
        self._begin(route)
        # Each on one device, whatever the device map; the decoder adds its layers' class.
        self._no_split_modules = [type(self.encoder).__name__, type(self.connector).__name__]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Every part initialises itself."""

    @classmethod
    def from_parts(
        cls,
        language_model: PreTrainedModel,
        encoder: Encoder,
        route: Route,
        connector: ConnectorConfig,
        *,
        audio_token_id: int,
        text_base: str | None = None,
        encoder_base: str | None = None,
    ) -> PalscopeForConditionalGeneration:
        """A model of a pretrained decoder and encoder, and a fresh connector.

        Args:
            language_model: a causal language model of a supported family.
            audio_token_id: the processor's.
            text_base: hub id or folder to refer to when saving without the decoder's weights.
            encoder_base: likewise for the encoder; when both are given, that is how it is saved.

        Raises:
            CheckpointError: the connector has no sizes of a model, or does not fit into memory.
        """
        config = PalscopeConfig(
            text_config=language_model.config,
            encoder=encoder.config.to_dict(),
            connector=connector.to_dict(),
            route=route.to_dict(),
            audio_token_id=audio_token_id,
            text_base=text_base,
            encoder_base=encoder_base,
            store_base=text_base is None or encoder_base is None,
        )
        check_sizes(config.connector, "the connector's settings", UNKNOWN)
        hidden = language_model.config.get_text_config().hidden_size
        with torch.device("meta"):
            planned = Connector(connector, encoder.emits, hidden, route.streams)
        check_room(sum(each.numel() for each in planned.parameters()), "the connector")
        model = cls(config, language_model, encoder)
        model.take_generation(language_model.generation_config)
        return cast(Any, model).to(language_model.device)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: CheckpointLike, *args: Any, **kwargs: Any
    ) -> PalscopeForConditionalGeneration:
        """Load a checkpoint: a folder, a hub id, or one of `demo/plits`, `demo/lal`, `demo/pal`.

        Takes the usual keywords: `dtype`, `attn_implementation`, `device_map` ("auto" spreads the
        decoder over the devices there are), `quantization_config` (8 or 4 bits for the decoder's
        linear maps; encoder and connector stay as they are), and `revision` of a hub id.

        Raises:
            CheckpointError: it cannot be found, is no safetensors checkpoint, or has missing,
                foreign or misshapen tensors.
        """
        found = find_checkpoint(pretrained_model_name_or_path, kwargs.pop("revision", None))
        config = read_config(found, kwargs.pop("config", None))
        whole: Any = super().from_pretrained
        return load_checkpoint(cls, whole, config, found.folder, *args, **kwargs)

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, save_directory: str | os.PathLike[str], **kwargs: Any
    ) -> None:
        """Save as safetensors, with the bases' weights or referring to them (`config.store_base`).

        Raises:
            CheckpointError: the bases would be referred to, but may have been trained.
        """
        if not self.config.store_base:
            kwargs["state_dict"] = own_state(self, kwargs.get("state_dict"))
        super().save_pretrained(save_directory, **kwargs)

    def freeze_bases(self) -> None:
        """Let training change nothing but the connector."""
        self.language_model.requires_grad_(False)
        self.encoder.requires_grad_(False)

    # -- what a model consists of -----------------------------------------------------------------

    @property
    def audio_token_id(self) -> int:
        """The processor's."""
        return self.config.audio_token_id

    @property
    def frame_grid(self) -> TimeGrid:
        """Which seconds of the clip each frame token stands for."""
        return self.connector.grid

    def audio_components(self) -> dict[str, Component]:
        """The encoder's own, by their names there, and what the connector consists of."""
        parts = {name: each.within("encoder") for name, each in self.encoder.components().items()}
        connector = self.connector
        path_of = {module: name for name, module in connector.named_modules()}
        for number, attention in enumerate(connector.pool.attentions):
            parts[f"attn_{number}"] = Component(f"connector.{path_of[attention]}", pattern=True)
        first, *others = self.encoder_entries
        parts[first] = Component("connector.pool")
        for number, name in enumerate(others):
            parts[name] = Component(f"connector.others.{number}")
        for stream in connector.summaries:
            parts[stream] = Component(f"connector.summaries.{stream}")
        for stream in connector.input_projectors:
            parts[f"input_{stream}"] = Component(f"connector.input_projectors.{stream}")
        for stream, layers in connector.config.projected_layers.items():
            for layer in layers:
                parts[f"projector_{stream}_{layer}"] = Component(
                    f"connector.layer_projectors.{stream}.layer_{layer}"
                )
        return parts

    @property
    def encoder_entries(self) -> list[str]:
        """What standardises each encoder's output; the pool does so for the first."""
        return ["pool", *(f"standard_{i + 1}" for i in range(len(self.connector.others)))]

    def frame_tokens(self, feature_frames: int) -> int:
        """How many frame tokens come of a clip of so many feature frames of 10 ms."""
        return self.frame_grid.tokens(self.seconds_covered(feature_frames))

    def seconds_covered(self, feature_frames: int) -> float:
        """Seconds of a clip of so many feature frames of 10 ms."""
        return feature_frames * SECONDS_PER_FEATURE

    def _encoding_parts(self) -> list[nn.Module]:
        connector = self.connector
        return [self.encoder, connector.pool, connector.others, connector.summaries]

    def _encode(
        self,
        input_features: Float[Tensor, "clips bins frames"],
        feature_lengths: Int[Tensor, "clips"],
    ) -> AudioClips:
        device = device_of(self.encoder)
        outputs = self.encoder.outputs(input_features.to(device), feature_lengths.to(device))
        streams = self.connector(outputs)
        lengths = cast(Any, feature_lengths).tolist()
        frames = tuple(self.frame_tokens(n) for n in lengths)
        seconds = tuple(self.seconds_covered(n) for n in lengths)
        return AudioClips(streams, frames, seconds, tuple(range(len(frames))))
