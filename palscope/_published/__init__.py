"""Published audio language models under palscope's routes, hooks and measures."""

from palscope._published import audio_flamingo3 as _audio_flamingo3
from palscope._published import gemma3n as _gemma3n
from palscope._published import glm_asr as _glm_asr
from palscope._published import granite_speech as _granite_speech
from palscope._published import music_flamingo as _music_flamingo
from palscope._published import phi4_multimodal as _phi4_multimodal
from palscope._published import qwen2_5_omni as _qwen2_5_omni
from palscope._published import qwen2_audio as _qwen2_audio
from palscope._published import qwen3_omni as _qwen3_omni
from palscope._published import voxtral as _voxtral
from palscope._published.family import PublishedFamily, TowerLayer
from palscope._published.model import PublishedAudioModel
from palscope._published.processor import PublishedProcessor
from palscope._published.registry import (
    published_families,
    published_family,
    register_published,
    unread_prefixes,
)

_ = (
    _audio_flamingo3,
    _gemma3n,
    _glm_asr,
    _granite_speech,
    _music_flamingo,
    _phi4_multimodal,
    _qwen2_5_omni,
    _qwen2_audio,
    _qwen3_omni,
    _voxtral,
)

__all__ = [
    "PublishedAudioModel",
    "PublishedFamily",
    "PublishedProcessor",
    "TowerLayer",
    "published_families",
    "published_family",
    "register_published",
    "unread_prefixes",
]
