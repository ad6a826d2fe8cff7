"""Published audio language models under palscope's routes, hooks and measures."""

from palscope._published.audio_flamingo3 import AudioFlamingo3
from palscope._published.family import PublishedFamily
from palscope._published.fun_asr_nano import FunAsrNano
from palscope._published.gemma3n import Gemma3n
from palscope._published.glm_asr import GlmAsr
from palscope._published.granite_speech import GraniteSpeech
from palscope._published.granite_speech_plus import GraniteSpeechPlus
from palscope._published.model import PublishedAudioModel
from palscope._published.moonshine import Moonshine
from palscope._published.moss_transcribe_diarize import MossTranscribeDiarize
from palscope._published.music_flamingo import MusicFlamingo
from palscope._published.phi4_multimodal import Phi4Multimodal
from palscope._published.processor import PublishedProcessor
from palscope._published.qwen2_5_omni import Qwen25Omni
from palscope._published.qwen2_audio import Qwen2Audio
from palscope._published.qwen3_asr import Qwen3ASR
from palscope._published.qwen3_omni import Qwen3Omni
from palscope._published.registry import (
    published_families,
    published_family,
    register_published,
    unread_prefixes,
)
from palscope._published.voxtral import Voxtral
from palscope._published.whisper import Whisper

for _family in (
    AudioFlamingo3,
    FunAsrNano,
    Gemma3n,
    GlmAsr,
    GraniteSpeech,
    GraniteSpeechPlus,
    Moonshine,
    MossTranscribeDiarize,
    MusicFlamingo,
    Phi4Multimodal,
    Qwen25Omni,
    Qwen2Audio,
    Qwen3ASR,
    Qwen3Omni,
    Voxtral,
    Whisper,
):
    register_published(_family)

__all__ = [
    "PublishedAudioModel",
    "PublishedFamily",
    "PublishedProcessor",
    "published_families",
    "published_family",
    "register_published",
    "unread_prefixes",
]
