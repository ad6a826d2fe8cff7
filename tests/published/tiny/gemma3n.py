"""A tiny random Gemma 3n: causal conformer, AltUp, Laurel, per-layer inputs, shared keys.

Time is as published: 128 bins each 10 ms, tokens of 160 ms, 188 places a clip however long it is.
The vision tower needs timm; a stand-in that hears and sees nothing takes its place.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModel,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    Gemma3nProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nVisionConfig
from transformers.models.gemma3n.feature_extraction_gemma3n import Gemma3nAudioFeatureExtractor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

SPECIAL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<start_of_audio>",
    "<unused0>",
    # From here on ids are of the vision tower's table, then of the audio tower's.
    "<end_of_image>",
    "<image_soft_token>",
    "<unused1>",
    "<unused2>",
    "<end_of_audio>",
    "<audio_soft_token>",
    "<unused3>",
    "<unused4>",
)
"""The published tokenizer's special tokens; here they follow the 256 bytes."""

ID = {token: 256 + place for place, token in enumerate(SPECIAL)}

CHAT_TEMPLATE = (
    "<bos>{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'audio' %}<audio_soft_token>"
    "{% elif item['type'] == 'image' %}<image_soft_token>"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


class BlindTower(PreTrainedModel):
    """Stands where the published class has a network of timm's; never called without images."""

    config_class = Gemma3nVisionConfig
    _supports_sdpa = _supports_flex_attn = _supports_flash_attn = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.nothing = nn.Linear(1, 1)
        self.post_init()


# The published config's class is kept, so that folders written with it are read again.
AutoModel.register(Gemma3nVisionConfig, BlindTower, exist_ok=True)


def config() -> Gemma3nConfig:
    """Five layers of width 32, the last two with the keys of the second and third; tower of 24."""
    return Gemma3nConfig(
        text_config={
            "vocab_size": 256 + len(SPECIAL),
            "vocab_size_per_layer_input": ID["<end_of_image>"],
            "hidden_size": 32,
            "hidden_size_per_layer_input": 6,
            "intermediate_size": 48,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 8192,
            "layer_types": [
                "sliding_attention",
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
            "sliding_window": 64,
            "num_kv_shared_layers": 2,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0],
            "laurel_rank": 4,
            "final_logit_softcapping": 30.0,
            "pad_token_id": ID["<pad>"],
            "eos_token_id": ID["<eos>"],
            "bos_token_id": ID["<bos>"],
        },
        audio_config={
            "vocab_size": 4,
            "vocab_offset": ID["<end_of_audio>"],
            "hidden_size": 24,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 2,
            "sscp_conv_channel_size": (6, 4),
        },
        vision_config={"hidden_size": 16, "vocab_size": 4, "vocab_offset": ID["<end_of_image>"]},
        boi_token_id=ID["<start_of_image>"],
        eoi_token_id=ID["<end_of_image>"],
        image_token_id=ID["<image_soft_token>"],
        boa_token_id=ID["<start_of_audio>"],
        eoa_token_id=ID["<end_of_audio>"],
        audio_token_id=ID["<audio_soft_token>"],
    )


def model(seed: int = 0) -> Gemma3nForConditionalGeneration:
    """Random weights, large enough that another sound gives other words."""
    torch.manual_seed(seed)
    made = Gemma3nForConditionalGeneration(config())
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "embed_tokens." in name:
                weight.normal_(std=32**-0.5)  # the class scales them by the root of the width
            elif "embed" in name and "embedding_projection" not in name and weight.ndim > 1:
                weight.normal_()
            elif weight.ndim > 1:
                weight.normal_(std=1.5 / weight[0].numel() ** 0.5)
            elif "correct_output_scale" in name:
                weight.normal_()
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
        made.model.language_model.norm.weight.mul_(3.0)
    return made.eval()


def processor() -> Gemma3nProcessor:
    """The published processor with a tokenizer of bytes; of its image half nothing is real."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE(vocab={c: place for place, c in enumerate(alphabet)}, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "image_token": "<image_soft_token>",
            "eoi_token": "<end_of_image>",
            "boa_token": "<start_of_audio>",
            "audio_token": "<audio_soft_token>",
            "eoa_token": "<end_of_audio>",
        },
        padding_side="left",
        add_bos_token=True,
        name_or_path="tiny",
    )
    return Gemma3nProcessor(
        Gemma3nAudioFeatureExtractor(),
        SiglipImageProcessorPil(),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
