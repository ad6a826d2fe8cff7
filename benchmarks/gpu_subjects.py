"""What `benchmarks.gpu` measures: random models of two shapes, plain and hooked, and prompts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

import palscope
from benchmarks.integrations import SHAPES, build
from palscope._hooks import HookedAudioModel
from palscope._models import PalscopeProcessor
from palscope._models.finding import find_checkpoint
from palscope._published import PublishedAudioModel, published_family
from palscope.interventions._cells import with_encoded

QUESTION = "What sound is this?"
RATE = 16_000
FRAMES_PER_TOKEN = 5


@dataclass(frozen=True)
class Sizes:
    """How large and how often.

    Attributes:
        shape: of `integrations.SHAPES`.
        frames: N_a of the integrations.
        words: N_t.
        repeats: turns of every comparison.
        seconds: of the clip that Llama's shape hears; Qwen2-Audio's hears 30 s at most.
        minutes: lengths at which the stream is asked.
        cells: of a sweep, at most.
        qwen2_audio: sizes of its decoder, and of its tower where they are not the class's own.
        subjects: what hooks, masses and sweeps are measured of.
    """

    shape: str
    frames: tuple[int, ...]
    words: int
    repeats: int
    seconds: float
    minutes: tuple[float, ...]
    cells: int
    qwen2_audio: dict[str, Any]
    subjects: dict[str, Callable[[Sizes, str, torch.dtype], Subject]] = field(
        default_factory=lambda: dict(_SUBJECTS)
    )


@dataclass(frozen=True)
class Subject:
    """A model under hooks, the same one without, and two prompts whose clips are encoded.

    Attributes:
        stream: the stream of which each layer holds a state.
        seconds: of the clips.
    """

    hooked: HookedAudioModel
    plain: Any
    clean: dict[str, Any]
    corrupt: dict[str, Any]
    stream: str
    seconds: float


def _llama(integration: str) -> Callable[[Sizes, str, torch.dtype], Subject]:
    def make(sizes: Sizes, device: str, dtype: torch.dtype) -> Subject:
        tokenizer: Any = PalscopeProcessor.from_pretrained(find_checkpoint("demo/lal")).tokenizer
        shape = SHAPES[sizes.shape]
        shape = replace(shape, vocabulary=max(shape.vocabulary, len(tokenizer) + 1))
        model = build(shape, device, dtype, FRAMES_PER_TOKEN)[integration].eval()
        ratios = [stream.ratio for stream in model.route.streams]
        processor = PalscopeProcessor(
            WhisperFeatureExtractor(), tokenizer, 2 * FRAMES_PER_TOKEN, ratios
        )
        model.config.audio_token_id = processor.audio_token_id
        plain = copy.deepcopy(model)
        return _subject(HookedAudioModel(model, processor), plain, sizes.seconds)

    return make


def qwen2_audio(sizes: Sizes, device: str, dtype: torch.dtype) -> Subject:
    """Qwen2-Audio's class at its published sizes, with a tokenizer of bytes."""
    processor = _qwen2_processor()
    config = Qwen2AudioConfig(
        **sizes.qwen2_audio,
        audio_token_index=processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = Qwen2AudioForConditionalGeneration._from_config(config, dtype=dtype).eval()
    plain = PublishedAudioModel(copy.deepcopy(model), published_family(model.config))
    return _subject(palscope.load(model, processor=processor), plain, min(30.0, sizes.seconds))


def _qwen2_processor() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    bytes_alone = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.add_special_tokens(special)
    return Qwen2AudioProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=128),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=bytes_alone,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            padding_side="left",
        ),
        chat_template=(
            "{% for message in messages %}{% if message['content'] is string %}"
            "{{ message['content'] }}{% else %}{% for item in message['content'] %}"
            "{% if item['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
            "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
            "<|im_end|>{% endfor %}"
        ),
    )


def _subject(hooked: HookedAudioModel, plain: Any, seconds: float) -> Subject:
    rng = np.random.default_rng(0)
    clips = (rng.normal(size=(2, int(seconds * RATE))) * 0.1).astype(np.float32)
    clean, corrupt = (with_encoded(hooked, hooked.inputs(QUESTION, clip)) for clip in clips)
    return Subject(hooked, plain, clean, corrupt, hooked.current_route.streams[-1].name, seconds)


_SUBJECTS: dict[str, Callable[[Sizes, str, torch.dtype], Subject]] = {
    "llama-3.2-1b PLITS": _llama("PLITS"),
    "llama-3.2-1b LAL": _llama("LAL"),
    "qwen2-audio": qwen2_audio,
}

LARGE = Sizes(
    shape="llama-3.2-1b",
    frames=(256, 1024, 4096),
    words=128,
    repeats=5,
    seconds=100.0,
    minutes=(1, 2, 4, 7, 10),
    cells=128,
    qwen2_audio={
        "text_config": {
            "model_type": "qwen2",
            "vocab_size": 156_032,
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 8192,
        },
    },
)
TOY = Sizes(
    shape="toy",
    frames=(16,),
    words=20,
    repeats=1,
    seconds=0.8,
    minutes=(0.1, 0.2),
    cells=6,
    qwen2_audio={
        "audio_config": {
            "d_model": 24,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
        },
        "text_config": {
            "model_type": "qwen2",
            "vocab_size": 300,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        },
    },
)
