"""A tiny Fun-ASR-Nano: SenseVoice's layers at 60 ms, two layers in its projector, a Qwen3.

The published feature extractor needs torchaudio for one thing, Kaldi's filter banks. Where that is
missing, transformers' own are put in its place.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import FunAsrNanoConfig, FunAsrNanoForConditionalGeneration, FunAsrNanoProcessor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function
from transformers.utils.import_utils import is_torchaudio_available

from tests.published.tiny.qwen2_5_omni import ids_of, loud, tokenizer

_HOME = "transformers.models.fun_asr_nano"
published: Any = importlib.import_module(f"{_HOME}.feature_extraction_fun_asr_nano")

SPECIAL = {
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "start_token": "<|im_start|>",
    "audio_token": "<|object_ref_start|>",
}

TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- for part in message.content if part.type == 'audio' -%}<|object_ref_start|>{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""As published, clips stand behind the words."""


def config() -> FunAsrNanoConfig:
    """A tower of three layers of width 24, of which one for timestamps; three decoder layers."""
    ids = ids_of(SPECIAL)
    return FunAsrNanoConfig(
        audio_config={
            "model_type": "fun_asr_nano_encoder",
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_timestamp_prediction_layers": 1,
            "num_attention_heads": 2,
        },
        adaptor_config={
            "hidden_size": 32,
            "intermediate_size": 8,
            "num_attention_heads": 2,
            "projector_hidden_size": 40,
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": len(tokenizer(SPECIAL)),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "pad_token_id": ids["pad_token"],
            "eos_token_id": ids["eos_token"],
            "tie_word_embeddings": False,
        },
        audio_token_id=ids["audio_token"],
        tie_word_embeddings=False,
    )


def model(seed: int = 0) -> FunAsrNanoForConditionalGeneration:
    """Random weights to which the sound matters."""
    torch.manual_seed(seed)
    made: Any = loud(FunAsrNanoForConditionalGeneration(config()))
    layers = [*made.model.audio_tower.layers, *made.model.multi_modal_projector.layers]
    with torch.no_grad():  # sound stays mostly in place
        for layer in layers:
            layer.self_attn.o_proj.weight.mul_(0.2)
            if layer.self_attn.fsmn is not None:
                layer.self_attn.fsmn.conv.weight.mul_(0.2)
    return made


def fbank(samples: Tensor, **settings: Any) -> Tensor:
    """What `torchaudio.compliance.kaldi.fbank` computes with the class's settings."""
    assert settings.pop("window_type") == "hamming"
    rate, bins = settings.pop("sample_frequency"), settings.pop("num_mel_bins")
    length, hop = (settings.pop(n) * rate // 1000 for n in ("frame_length", "frame_shift"))
    assert not settings
    kaldi: Any = {"mel_scale": "kaldi", "triangularize_in_mel_space": True}
    filters = mel_filter_bank(257, bins, 20.0, rate / 2, rate, norm=None, **kaldi)
    values = spectrogram(
        samples[0].numpy(),
        window_function(length, "hamming", periodic=False),
        frame_length=length,
        hop_length=hop,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    )
    return torch.from_numpy(values.T.astype("float32"))


def processor() -> FunAsrNanoProcessor:
    """The published processor; its tokenizer knows printable characters one by one."""
    if not is_torchaudio_available():
        kaldi = SimpleNamespace(fbank=fbank)
        published.torchaudio = SimpleNamespace(compliance=SimpleNamespace(kaldi=kaldi))
        found: Any = importlib.import_module(_HOME)  # where AutoFeatureExtractor looks
        found.FunAsrNanoFeatureExtractor = published.FunAsrNanoFeatureExtractor
    return FunAsrNanoProcessor(
        published.FunAsrNanoFeatureExtractor(), tokenizer(SPECIAL), chat_template=TEMPLATE
    )
