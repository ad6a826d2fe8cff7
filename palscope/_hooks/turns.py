"""What TransformerLens sets on a model for the length of a call or a block is the caller's alone.

Its hooks, and what its `generate` and `stop_at_layer` note on the modules, stand where every thread
passes, so whoever else calls the model meanwhile waits (`palscope._models.turns`). Hooks that are
to stay (`add_hook`) act on everybody's calls, as a route that is set does.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from palscope._hooks.registry import RegistryBridge
from palscope._models.turns import Turns


class BridgeInTurns(RegistryBridge):
    """A bridge to an `AudioLanguageModel`, whose turns it takes."""

    @property
    def turns(self) -> Turns:
        """The model's."""
        return cast(Any, self.original_model).turns

    @contextmanager
    def hooks(self, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        """TransformerLens's `hooks`."""
        with self.turns.block("hooks"), super().hooks(*args, **kwargs) as bridge:
            yield bridge

    def run_with_hooks(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `run_with_hooks`."""
        with self.turns.block("hooks"):
            return super().run_with_hooks(input, *args, **kwargs)

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `run_with_cache`."""
        with self.turns.block("hooks"):
            return super().run_with_cache(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `generate`."""
        with self.turns.block("generation"), cast(Any, self.original_model).checked_once():
            return super().generate(*args, **kwargs)

    def generate_stream(self, *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `generate_stream`."""
        with self.turns.block("generation"):
            yield from super().generate_stream(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `forward`."""
        with self.turns.passing():
            return super().forward(*args, **kwargs)
