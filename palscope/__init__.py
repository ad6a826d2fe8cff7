"""palscope: where, when and through which pathway does sound enter the text of an audio LLM?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palscope.versions import CHECKED, check_versions

if TYPE_CHECKING:
    from palscope.audio import load_audio
    from palscope.hooks import HookedAudioModel, load
    from palscope.routing import Level, Route, Stream

__version__ = "0.1.0"

check_versions(*CHECKED)

_HOMES = {
    "HookedAudioModel": "palscope.hooks",
    "load": "palscope.hooks",
    "Level": "palscope.routing",
    "Route": "palscope.routing",
    "Stream": "palscope.routing",
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
