"""A tiny Qwen2.5-Omni thinker with the published time structure.

128 mel bins, tower windows of 2 s (200 mel frames), tokens of 40 ms, mrope, no sliding window.
Features are padded to 80 s in place of the published 300 s, for speed.
"""

from __future__ import annotations

import string
from typing import Any, ClassVar

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    WhisperFeatureExtractor,
)
from transformers.video_processing_utils import BaseVideoProcessor

SPECIAL = {
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "start_token": "<|im_start|>",
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}

TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'audio' %}AUDIO{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def config() -> Qwen2_5OmniThinkerConfig:
    """Four decoder layers of width 64, a tower of two layers of width 24."""
    ids = ids_of(SPECIAL)
    given: dict[str, Any] = {
        "audio_config": {
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "d_model": 24,
            "max_source_positions": 1500,
            "n_window": 100,
            "output_dim": 64,
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [0],
        },
        "text_config": {
            "vocab_size": len(_vocabulary(SPECIAL)),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [2, 3, 3],
            },
            "pad_token_id": ids["pad_token"],
            "eos_token_id": ids["eos_token"],
            "tie_word_embeddings": False,
        },
        "audio_token_index": ids["audio_token"],
        "image_token_index": ids["image_token"],
        "video_token_index": ids["video_token"],
        "audio_start_token_id": ids["audio_bos_token"],
        "audio_end_token_id": ids["audio_eos_token"],
        "vision_start_token_id": ids["vision_bos_token"],
        "vision_end_token_id": ids["vision_eos_token"],
        "pad_token_id": ids["pad_token"],
        "eos_token_id": ids["eos_token"],
    }
    return Qwen2_5OmniThinkerConfig(**given)


def model(seed: int = 0) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The published class with random weights to which the sound matters."""
    torch.manual_seed(seed)
    return loud(Qwen2_5OmniThinkerForConditionalGeneration(config()))


def processor() -> Qwen2_5OmniProcessor:
    """The published processor; its tokenizer knows printable characters one by one."""
    return without_video(
        Qwen2_5OmniProcessor,
        WhisperFeatureExtractor(feature_size=128, chunk_length=80),
        tokenizer(SPECIAL),
        TEMPLATE.replace("AUDIO", "<|audio_bos|><|AUDIO|><|audio_eos|>"),
    )


def loud(made: Any) -> Any:
    """`made` with weights of the size of their inputs, so that attention is far from uniform."""
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "norm" in name or "ln_" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "embed_tokens" in name:
                weight.normal_()
            elif weight.ndim > 1:
                # Experts are stored in one tensor, outputs by inputs each.
                inputs = weight.shape[2] if "experts" in name else weight[0].numel()
                weight.normal_(std=1.4 * inputs**-0.5)
            else:
                weight.normal_(std=0.1)
    return made.eval()


def tokenizer(special: dict[str, str]) -> PreTrainedTokenizerFast:
    """A tokenizer of printable characters and `special`."""
    characters = Tokenizer(models.WordLevel(_vocabulary(special), unk_token="?"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    named = {name: token for name, token in special.items() if name in ("pad_token", "eos_token")}
    extra = {name: token for name, token in special.items() if name not in named}
    return PreTrainedTokenizerFast(
        tokenizer_object=characters, extra_special_tokens=extra, padding_side="left", **named
    )


class NoVideo(BaseVideoProcessor):
    """Stands where the processor wants a video processor; the published one needs torchvision."""

    model_input_names: ClassVar[list[str]] = ["pixel_values_videos"]

    def __init__(self) -> None:
        pass


def without_video(kind: type[Any], extractor: Any, words: Any, template: str) -> Any:
    """A processor of class `kind` that hears and reads.

    Without torchvision its constructor fails where it looks up the class of its video processor,
    whatever it is given: the look-up is left out.
    """
    made: Any = object.__new__(kind)
    made.check_argument_for_proper_class = lambda _name, _argument: None
    made.__init__(Qwen2VLImageProcessorPil(), NoVideo(), extractor, words, chat_template=template)
    del made.check_argument_for_proper_class
    return made


def _vocabulary(special: dict[str, str]) -> dict[str, int]:
    return {token: i for i, token in enumerate([*special.values(), *string.printable])}


def ids_of(special: dict[str, str]) -> dict[str, int]:
    """The id of each special token, by its name."""
    vocabulary = _vocabulary(special)
    return {name: vocabulary[token] for name, token in special.items()}
