"""A tiny Granite Speech: a conformer in blocks of 4 s, three tokens from each 300 ms, a Granite.

The decoder has low-rank adapters that the class switches on for prompts with audio, and Granite's
own multipliers; the audio's id lies outside of its vocabulary. The published feature extractor
needs torchaudio for one thing, the mel spectrogram. Where that is missing, the same spectrogram is
computed here.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    GraniteSpeechConfig,
    GraniteSpeechFeatureExtractor,
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechProcessor,
    PreTrainedTokenizerFast,
)
from transformers.audio_utils import mel_filter_bank
from transformers.models.granite_speech import feature_extraction_granite_speech as published
from transformers.utils.import_utils import is_torchaudio_available

from tests.published.tiny.adapters import peft_or_skip

SPECIAL = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>")
WORDS = (
    *("<unk>", "user", "assistant", "what", "do", "you", "hear", "?"),
    *("say", "again", "and", "in", "this", "sound"),
)
VOCABULARY = 48
AUDIO_TOKEN_ID = VOCABULARY

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|start_of_role|>{{ message.role }}<|end_of_role|>
{%- if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'audio' -%}<|audio|>{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|end_of_text|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|start_of_role|>assistant<|end_of_role|>{%- endif -%}
"""


def config() -> GraniteSpeechConfig:
    return GraniteSpeechConfig(
        encoder_config={
            "model_type": "granite_speech_encoder",
            "input_dim": 160,  # two frames of 80 mel bins
            "num_layers": 2,  # the CTC head's guess is fed back behind the first
            "hidden_dim": 24,
            "feedforward_mult": 2,
            "num_heads": 2,
            "dim_head": 12,
            "output_dim": 10,
            "context_size": 200,
            "max_pos_emb": 512,
            "conv_kernel_size": 15,
            "conv_expansion_factor": 2,
        },
        projector_config={
            "model_type": "blip_2_qformer",
            "hidden_size": 16,
            "encoder_hidden_size": 24,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "cross_attention_frequency": 1,
            "vocab_size": 4,
            "max_position_embeddings": 8,
        },
        text_config={
            "model_type": "granite",
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.25,
            "residual_multiplier": 0.22,
            "logits_scaling": 8.0,
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "tie_word_embeddings": True,
        },
        audio_token_index=AUDIO_TOKEN_ID,
        downsample_rate=5,
        window_size=15,
        has_lora_adapter=True,
    )


def model(seed: int = 0) -> GraniteSpeechForConditionalGeneration:
    peft_or_skip()
    torch.manual_seed(seed)
    made: Any = GraniteSpeechForConditionalGeneration(config())
    made.add_adapter(
        LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model\..*\.(q_proj|v_proj)")
    )
    return enlarge(made)


def enlarge(made: Any) -> Any:
    """`made` with weights of a size that makes sound matter."""
    with torch.no_grad():  # large enough that different sounds differ at the decoder
        for name, weight in made.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "embed_tokens" in name:  # the head's too, and multiplied at the bottom
                weight.normal_(std=0.15)
            elif "projector.linear" in name:  # multiplied at the bottom, as words are
                weight.normal_(std=0.15 / math.sqrt(weight.shape[1]))
            elif "language_model" in name:  # residual_multiplier makes these small again
                weight.normal_(std=3.0 / math.sqrt(weight.shape[1]))
            elif "to_out" in name or "down_conv" in name:  # sound stays mostly in place
                weight.normal_(std=0.3 / math.sqrt(weight.shape[1]))
            elif "projector.query" not in name:
                weight.normal_(std=1.4 / math.sqrt(weight[0].numel()))
        for layer in made.model.encoder.layers:
            layer.conv.batch_norm.running_mean.normal_(std=0.1)
    return made.eval()


def tokenizer() -> PreTrainedTokenizerFast:
    ids = {each: number for number, each in enumerate((*SPECIAL[:-1], *WORDS))}
    for number in range(len(ids), AUDIO_TOKEN_ID):
        ids[f"<filler{number}>"] = number
    ids[SPECIAL[-1]] = AUDIO_TOKEN_ID
    whole = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole.add_special_tokens([AddedToken(each, special=True) for each in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        unk_token="<unk>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
        padding_side="left",
    )


class MelSpectrogram(nn.Module):
    """What `torchaudio.transforms.MelSpectrogram` computes by default: HTK's scale, power 2."""

    def __init__(
        self, sample_rate: int, n_fft: int, win_length: int, hop_length: int, n_mels: int
    ) -> None:
        super().__init__()
        self.sizes = {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length}
        filters = mel_filter_bank(
            n_fft // 2 + 1, n_mels, 0.0, sample_rate / 2, sample_rate, norm=None, mel_scale="htk"
        )
        self.filters: Tensor = nn.Buffer(torch.tensor(filters, dtype=torch.float32))
        self.window: Tensor = nn.Buffer(torch.hann_window(win_length))

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, window=self.window, return_complex=True, **self.sizes)
        return (spectrum.abs() ** 2).mT.matmul(self.filters).mT


def processor() -> GraniteSpeechProcessor:
    if not is_torchaudio_available():
        stands_in: Any = published
        stands_in.torchaudio = SimpleNamespace(
            transforms=SimpleNamespace(MelSpectrogram=MelSpectrogram)
        )
        stands_in.requires_backends = lambda *_: None
    return GraniteSpeechProcessor(
        GraniteSpeechFeatureExtractor(), tokenizer(), chat_template=CHAT_TEMPLATE
    )
