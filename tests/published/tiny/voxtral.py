"""A tiny Voxtral: Whisper's tower in windows of 30 s, four frames to a token of 80 ms, a Llama.

The published tokenizer is mistral-common's, which is no part of what tests need. Its place is taken
by a tokenizer that lays a conversation out in the same way, token for token: special ids are
Mistral's own, a clip is `[BEGIN_AUDIO]` and 375 `[AUDIO]` for each 30 s begun, and clips are padded
to that length before the processor sees them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import soundfile
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    VoxtralProcessor,
    WhisperFeatureExtractor,
)

SPECIAL = {
    "<unk>": 0,
    "<s>": 1,
    "</s>": 2,
    "[INST]": 3,
    "[/INST]": 4,
    "<pad>": 11,
    "[AUDIO]": 24,
    "[BEGIN_AUDIO]": 25,
    "[TRANSCRIBE]": 34,
}
"""Mistral's ids; the processor has the audio's written into its code."""

WORDS = ("what", "do", "you", "hear", "?", "say", "again", "and", "in", "this", "sound", "lang:en")
VOCABULARY = 64

SAMPLES_A_WINDOW, TOKENS_A_WINDOW = 480_000, 375


def config() -> VoxtralConfig:
    return VoxtralConfig(
        audio_config={
            "model_type": "voxtral_encoder",
            "hidden_size": 24,
            "intermediate_size": 96,  # four frames side by side: the class joins them by this width
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_mel_bins": 128,
            "max_source_positions": 1500,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,  # as published, heads are together wider than the decoder
            "max_position_embeddings": 4096,
            "rope_theta": 100000000.0,
            "pad_token_id": 11,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        audio_token_id=SPECIAL["[AUDIO]"],
        projector_hidden_act="gelu",
    )


def model(seed: int = 0) -> VoxtralForConditionalGeneration:
    torch.manual_seed(seed)
    made: Any = VoxtralForConditionalGeneration(config())
    with torch.no_grad():  # large enough that different sounds differ at the decoder
        for name, weight in made.named_parameters():
            if "embed_positions" in name:
                weight.normal_(std=0.3)
            elif weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "embed_tokens" in name:
                weight.normal_()
            else:
                # What a place hears of others is small, so sound stays mostly in place.
                spreads = "audio_tower" in name and "out_proj" in name
                weight.normal_(std=(0.3 if spreads else 1.4) / math.sqrt(weight[0].numel()))
    return made.eval()


class ConversationTokenizer(PreTrainedTokenizerFast):
    """Lays out conversations as mistral-common does, and hands on the clips in them."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:  # pyright: ignore
        batched = isinstance(conversation[0], (list, tuple))
        audios: list[np.ndarray] = []
        texts = [
            self._laid_out(one, audios) for one in (conversation if batched else [conversation])
        ]
        if not kwargs.pop("tokenize", True):
            return texts if batched else texts[0]
        kwargs.pop("return_dict", None)
        out = self(texts, add_special_tokens=False, **kwargs)
        if audios:
            out["audio"] = audios
        return out

    def _laid_out(self, conversation: Any, audios: list[np.ndarray]) -> str:
        text = "<s>"
        for message in conversation:
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            body = " ".join(self._part(part, audios) for part in content)
            text += f"[INST]{body}[/INST]" if message["role"] == "user" else f"{body}</s>"
        return text

    def _part(self, part: dict[str, Any], audios: list[np.ndarray]) -> str:
        if part["type"] != "audio":
            return part["text"]
        samples = part.get("audio")
        if samples is None:
            samples, _ = soundfile.read(part["path"], dtype="float32")
        samples = np.asarray(samples, dtype=np.float32)
        windows = -(-len(samples) // SAMPLES_A_WINDOW)
        audios.append(np.pad(samples, (0, windows * SAMPLES_A_WINDOW - len(samples))))
        return "[BEGIN_AUDIO]" + "[AUDIO]" * (windows * TOKENS_A_WINDOW)


def tokenizer() -> ConversationTokenizer:
    ids = dict(SPECIAL)
    for word in WORDS:
        ids[word] = 35 + len(ids) - len(SPECIAL)
    whole = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole.add_special_tokens([AddedToken(each, special=True) for each in SPECIAL])
    return ConversationTokenizer(
        tokenizer_object=whole,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        add_bos_token=True,
        name_or_path="tiny",
    )


def processor() -> VoxtralProcessor:
    return VoxtralProcessor(WhisperFeatureExtractor(feature_size=128), tokenizer())
