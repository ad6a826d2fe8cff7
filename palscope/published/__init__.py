"""Published audio language models under palscope's routes, hooks and measures."""

from palscope.published import gemma3n as _gemma3n
from palscope.published import qwen2_audio as _qwen2_audio
from palscope.published.family import PublishedFamily, TowerLayer
from palscope.published.model import PublishedAudioModel
from palscope.published.processor import PublishedProcessor
from palscope.published.registry import published_families, published_family, register_published

_ = _gemma3n, _qwen2_audio

__all__ = [
    "PublishedAudioModel",
    "PublishedFamily",
    "PublishedProcessor",
    "TowerLayer",
    "published_families",
    "published_family",
    "register_published",
]
