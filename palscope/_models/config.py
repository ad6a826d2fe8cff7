"""The config of a palscope model: a decoder, an encoder, a connector and a route."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig

from palscope._connectors import ConnectorConfig
from palscope._routing import Route
from palscope.encoders import EncoderConfig, encoder_config
from palscope.errors import CheckpointError


class PalscopeConfig(PretrainedConfig):
    """Settings of `PalscopeForConditionalGeneration`.

    Attributes:
        text_config: config of the decoder, a Hugging Face causal language model.
        encoder: settings of the audio encoder (`EncoderConfig.to_dict`).
        connector: settings of the connector (`ConnectorConfig.to_dict`).
        route: the route that the checkpoint was trained with (`Route.to_dict`). Its streams are the
            checkpoint's: their tokens own positions in every prompt, under any route.
        audio_token_id: id that marks an audio token's place in `input_ids`.
        text_base: hub id or folder of the pretrained decoder.
        encoder_base: hub id or folder of the pretrained encoder.
        store_base: whether a saved checkpoint holds the decoder's and the encoder's weights, or
            refers to them by these names.
    """

    model_type = "palscope"
    sub_configs: ClassVar[Any] = {"text_config": AutoConfig}

    def __init__(
        self,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
        connector: dict[str, Any] | None = None,
        route: dict[str, Any] | None = None,
        audio_token_id: int = -1,
        text_base: str | None = None,
        encoder_base: str | None = None,
        store_base: bool = True,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            settings = dict(text_config)
            text_config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        self.text_config = text_config
        self.encoder = encoder
        self.connector = connector
        self.route = route
        self.audio_token_id = audio_token_id
        self.text_base = text_base
        self.encoder_base = encoder_base
        self.store_base = store_base
        # Setting the whole's attention implementation sets its parts' too: keep the decoder's.
        kwargs.setdefault("attn_implementation", getattr(text_config, "_attn_implementation", None))
        kwargs.setdefault("tie_word_embeddings", getattr(text_config, "tie_word_embeddings", False))
        super().__init__(**kwargs)

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> PretrainedConfig:
        """The decoder's config, from which generation reads sizes."""
        return self if self.text_config is None else self.text_config

    def parsed_route(self) -> Route:
        """`route` as a `Route`. Raises `RouteError` when it is none."""
        return Route.from_dict(self._given("route"))

    def parsed_connector(self) -> ConnectorConfig:
        """`connector` as a `ConnectorConfig`."""
        return ConnectorConfig.from_dict(self._given("connector"))

    def parsed_encoder(self) -> EncoderConfig:
        """`encoder` as an `EncoderConfig`."""
        return encoder_config(self._given("encoder"))

    def _given(self, name: str) -> dict[str, Any]:
        value = getattr(self, name)
        if value is None:
            raise CheckpointError(
                f"this config has no {name!r}; a palscope checkpoint's config.json must. Was it "
                "saved with save_pretrained?"
            )
        return value
