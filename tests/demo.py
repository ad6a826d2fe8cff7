"""The demo's trained models: opening one takes seconds, so the last one opened is kept."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import palscope
from palscope._hooks import HookedAudioModel
from palscope._hooks import load as load_anew


@functools.lru_cache(maxsize=1)
def opened(name: str) -> HookedAudioModel:
    """`palscope.load(name)`, for who leaves it as it was."""
    return load_anew(name)


@contextmanager
def shared() -> Iterator[None]:
    """Within, `palscope.load("demo/…")` gives the one that is kept; what was changed is dropped."""
    before: dict[str, Any] = {}

    def load(name: Any, **given: Any) -> HookedAudioModel:
        if given or not str(name).startswith("demo/"):
            return load_anew(name, **given)
        before.setdefault(name, _state(opened(name)))
        return opened(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(palscope, "load", load)
        yield
    if any(_state(opened(name)) != state for name, state in before.items()):
        opened.cache_clear()


def _state(model: HookedAudioModel) -> Any:
    weights = [(w._version, w.requires_grad, w.grad is None) for w in model.parameters()]
    hooks = sum(len(hook.fwd_hooks) + len(hook.bwd_hooks) for hook in model.hook_dict.values())
    return model.current_route, model.model.config.to_json_string(), model.training, weights, hooks
