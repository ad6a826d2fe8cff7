"""A tiny random Phi-4-multimodal: log-mel, conformer, two-layer projector, Phi-3's decoder.

Time is as published: 80 bins each 10 ms, tokens of 80 ms, windows of 500 tokens. So are longrope,
the partial rotary, tied embeddings, and the LoRA adapters "speech" and "vision" on the decoder.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalForCausalLM,
    Phi4MultimodalProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.published.tiny.adapters import peft_or_skip

ADAPTED = r"model\.layers\.\d+\.(self_attn\.(qkv_proj|o_proj)|mlp\.(gate_up_proj|down_proj))"
"""What the adapters change; the audio tower has parts of the same names and stays as it is."""

SPECIAL = (
    "<|endoftext|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|image|>",
    "<|audio|>",
)
"""The published tokenizer's special tokens; here they follow the 256 bytes."""

ID = {token: 256 + place for place, token in enumerate(SPECIAL)}

TEMPLATE = """\
{%- for message in messages -%}
<|{{ message['role'] }}|>
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for item in message['content'] -%}
{%- if item['type'] == 'audio' -%}<|audio|>
{%- elif item['type'] == 'image' -%}<|image|>
{%- else -%}{{ item['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}<|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"""


def config() -> Phi4MultimodalConfig:
    """Three layers of width 32; the tower has two of width 24."""
    return Phi4MultimodalConfig(
        vocab_size=256 + len(SPECIAL) + 1,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        sliding_window=262144,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.2],
            "long_factor": [1.0, 4.0, 16.0],
        },
        bos_token_id=ID["<|endoftext|>"],
        eos_token_id=[ID["<|endoftext|>"], ID["<|end|>"]],
        pad_token_id=ID["<|endoftext|>"],
        audio_config={
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_blocks": 2,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 24,
            "depthwise_separable_out_channel": 24,
            "nemo_conv_channels": 6,
            "audio_token_id": ID["<|audio|>"],
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "crop_size": 28,
            "image_token_id": ID["<|image|>"],
        },
    )


def model(seed: int = 0) -> Phi4MultimodalForCausalLM:
    """The published class with its two adapters; "speech" is switched on."""
    from peft import LoraConfig

    peft_or_skip()
    torch.manual_seed(seed)
    made = Phi4MultimodalForCausalLM(config())
    adapter = LoraConfig(r=4, lora_alpha=8, target_modules=ADAPTED, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # it is the other one
        for name in ("vision", "speech"):  # the one added last is active
            made.add_adapter(adapter, name)
    tower: Any = made.model.embed_tokens_extend.audio_embed.encoder
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "bias_values" in name:
                weight.normal_()
            elif "embed_tokens." in name:
                weight.normal_(std=0.5)
            elif weight.ndim > 1:
                weight.normal_(std=1.5 * weight[0].numel() ** -0.5)
            elif "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
        # What the published buffers do: log-mel is about 16, give or take 4.
        tower.encoder_embedding.global_mean.fill_(16.0)
        tower.encoder_embedding.global_invstd.fill_(0.25)
    return made.eval()


def processor() -> Phi4MultimodalProcessor:
    """The published processor with a tokenizer of bytes; of its image half nothing is real."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE(vocab={c: place for place, c in enumerate(alphabet)}, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image|>", "audio_token": "<|audio|>"},
        padding_side="left",
    )
    return Phi4MultimodalProcessor(
        SiglipImageProcessorPil(),
        Phi4MultimodalFeatureExtractor(),
        tokenizer,
        chat_template=TEMPLATE,
    )
