"""palscope: where, when and through which pathway does sound enter the text of an audio LLM?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palscope._versions import CHECKED, check_versions

if TYPE_CHECKING:
    from palscope._hooks import HookedAudioModel, load
    from palscope._routing import Level, Route, Stream
    from palscope.audio import load_audio

__version__ = "0.1.0"

check_versions(*CHECKED)

_HOMES = {
    "HookedAudioModel": "palscope._hooks",
    "load": "palscope._hooks",
    "Level": "palscope._routing",
    "Route": "palscope._routing",
    "Stream": "palscope._routing",
    "load_audio": "palscope.audio",
}

__all__ = [
    "HookedAudioModel",
    "Level",
    "Route",
    "Stream",
    "load",
    "load_audio",
]


def __getattr__(name: str) -> Any:
    """Import on first use: TransformerLens and nnsight take seconds, and a route needs neither."""
    if name not in _HOMES:
        raise AttributeError(f"module 'palscope' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
