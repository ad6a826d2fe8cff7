"""Every encoder at a tiny size, with random weights large enough that sounds differ."""

from __future__ import annotations

from typing import Any

import torch

from palscope._connectors import ConnectorConfig, ProjectorConfig
from palscope._hooks import HookedAudioModel
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._routing import Route
from palscope.encoders import (
    AFWhisperConfig,
    ASTConfig,
    ClapConfig,
    ClipVisionConfig,
    EATConfig,
    Encoder,
    EncoderConfig,
    HubertConfig,
    SiglipVisionConfig,
    SSLAMConfig,
    Wav2Vec2Config,
    WavLMConfig,
    WhisperEncoderConfig,
    build_encoder,
)
from palscope.encoders._registry import _ENCODERS, encoder_kinds
from tests import planted, tiny

BUILT_IN = [
    kind
    for kind in encoder_kinds()
    if _ENCODERS[kind].encoder_class.__module__.startswith("palscope.")
]
"""The kinds that come with palscope: tests register others, in whatever order they are imported."""

SAMPLES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "window_frames": 200,
}
"""Of encoders of samples: convolutions as published, but for their width."""
OF_SAMPLES = ("wav2vec2", "hubert", "wavlm")

CONFIGS: dict[str, EncoderConfig] = {
    "whisper": WhisperEncoderConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=1500,
        layers=(1, 2),
    ),
    "af-whisper": AFWhisperConfig(
        num_mel_bins=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_size=16,
        max_source_positions=100,
    ),
    "clap": ClapConfig(
        num_mel_bins=16,
        spec_size=128,
        depths=(1, 2),
        num_attention_heads=(1, 2),
        patch_embeds_hidden_size=8,
    ),
    "clap-fused": ClapConfig(
        num_mel_bins=16,
        spec_size=128,
        depths=(1, 2),
        num_attention_heads=(1, 2),
        patch_embeds_hidden_size=8,
        enable_fusion=True,
    ),
    "eat": EATConfig(
        embed_dim=16, depth=2, num_heads=2, num_mel_bins=32, target_length=256, layers=(0, 2)
    ),
    "sslam": SSLAMConfig(
        embed_dim=16, depth=2, num_heads=2, num_mel_bins=32, target_length=256, layers=(2,)
    ),
    "ast": ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_length=256,
        num_mel_bins=32,
        layers=(1, 2),
    ),
    # Two norms of convolutions, two places of the layers' norms, with and without normalisation.
    "wav2vec2": Wav2Vec2Config(
        **SAMPLES, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True, layers=(2,)
    ),
    "hubert": HubertConfig(**SAMPLES, layers=(1, 2)),
    "wavlm": WavLMConfig(**SAMPLES, layers=(0, 2)),
    "clip-vision": ClipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=36,
        patch_size=8,
        layers=(2,),
    ),
    "siglip-vision": SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        layers=(0, 2),
    ),
}


def encoder(name: str, seed: int = 0) -> Encoder:
    """The tiny encoder of that name."""
    torch.manual_seed(seed)
    return randomised(build_encoder(CONFIGS[name]), seed)


def randomised(made: Encoder, seed: int = 0) -> Any:
    """`made` with weights far from their initial values, so that everything matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            fixed = "positions" in name
            if not fixed:
                scale = 0.3 if weight.ndim > 1 else 0.1
                weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return made.eval()


def whole(
    made: Encoder, route: Route | None = None, frames_per_token: int | None = None
) -> tuple[PalscopeForConditionalGeneration, PalscopeProcessor]:
    """A model of a tiny Llama and `made`: PAL, a frame token for each step of its grid."""
    route = route or Route.pal(tiny.LAYERS, [0, 2])
    shape = ProjectorConfig(hidden=16, depth=2)
    connector = ConnectorConfig.for_route(
        route,
        inputs=shape,
        layers=shape,
        summary_width=12,
        frames_per_token=frames_per_token or made.emits[0].grid.per_step,
    )
    processor = PalscopeProcessor.for_grid(
        made.feature_extractor(),
        planted.small_tokenizer(),
        connector.frame_grid(made.emits),
        route.streams,
    )
    torch.manual_seed(1)
    model = PalscopeForConditionalGeneration.from_parts(
        tiny.decoder(vocab_size=len(planted.WORDS)),
        made,
        route,
        connector,
        audio_token_id=processor.audio_token_id,
    )
    return model.eval(), processor


def hooked(
    made: Encoder, route: Route | None = None, frames_per_token: int | None = None
) -> HookedAudioModel:
    """The same under hooks."""
    return HookedAudioModel(*whole(made, route, frames_per_token))
