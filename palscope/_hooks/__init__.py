"""The hooked model: TransformerLens's bridge with audio's hook points."""

from palscope._hooks.bridge import HookedAudioModel, load

__all__ = ["HookedAudioModel", "load"]
