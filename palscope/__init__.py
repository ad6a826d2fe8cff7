"""palscope: where, when and through which pathway does sound enter the text of an audio LLM?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from palscope._lazy import lazily
from palscope._versions import CHECKED, check_versions

if TYPE_CHECKING:
    from palscope._connectors import ConnectorConfig, LFSTConfig, ProjectorConfig, QFormerConfig
    from palscope._hooks import HookedAudioModel, load
    from palscope._models import AudioStream, PalscopeForConditionalGeneration, PalscopeProcessor
    from palscope._models.base_weights import find_base
    from palscope._published import PublishedFamily, register_published
    from palscope._routing import Level, Route, RouteCell, Stream
    from palscope.audio import load_audio

__version__ = "0.1.0"

check_versions(*CHECKED)

__all__ = [
    "AudioStream",
    "ConnectorConfig",
    "HookedAudioModel",
    "LFSTConfig",
    "Level",
    "PalscopeForConditionalGeneration",
    "PalscopeProcessor",
    "ProjectorConfig",
    "PublishedFamily",
    "QFormerConfig",
    "Route",
    "RouteCell",
    "Stream",
    "find_base",
    "load",
    "load_audio",
    "register_published",
]

_HOMES = {
    "AudioStream": "palscope._models",
    "ConnectorConfig": "palscope._connectors",
    "LFSTConfig": "palscope._connectors",
    "ProjectorConfig": "palscope._connectors",
    "QFormerConfig": "palscope._connectors",
    "HookedAudioModel": "palscope._hooks",
    "load": "palscope._hooks",
    "PalscopeForConditionalGeneration": "palscope._models",
    "PalscopeProcessor": "palscope._models",
    "find_base": "palscope._models.base_weights",
    "PublishedFamily": "palscope._published",
    "register_published": "palscope._published",
    "Level": "palscope._routing",
    "Route": "palscope._routing",
    "RouteCell": "palscope._routing",
    "Stream": "palscope._routing",
    "load_audio": "palscope.audio",
}

# TransformerLens and nnsight take seconds, and a route needs neither.
__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return list(__all__)
