"""Hooks for the length of a block, every one of which must fire."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from palscope.errors import HookError

if TYPE_CHECKING:
    from palscope._hooks.bridge import HookedAudioModel

Name = TypeVar("Name", bound=Hashable)


@contextmanager
def listening(
    model: HookedAudioModel, hooks: Mapping[str, Callable[..., Any]]
) -> Generator[None, None, None]:
    """Within the block, `hooks` (by name of the hook point) are set; others stay as they are.

    Raises:
        HookError: a hook point does not exist, cannot fire under the route, or did not fire in any
            call within the block.
    """
    fired: set[str] = set()
    with model.turns.block("hooks"):
        points = model.find_hook_points(hooks)
        handles = [
            # A level, as within TransformerLens's `hooks`: to fire once within the block will do.
            (point, point.add_hook(noting(name, hooks[name], fired), level=1))
            for name, point in points.items()
        ]
        try:
            yield
        finally:
            for point, handle in handles:
                handle.hook.remove()
                point.fwd_hooks.remove(handle)
    silent = sorted(set(hooks) - fired)
    if silent:
        raise HookError(
            f"these hooks did not fire: {', '.join(silent)}. Was the model called within the "
            "block? Encoder hooks fire only when a call encodes clips itself."
        )


def noting(name: Name, hook: Callable[..., Any], fired: set[Name]) -> Callable[..., Any]:
    """`hook`, which also puts `name` into `fired` when it is called."""

    def noted(tensor: Any, hook: Any, _inner: Callable[..., Any] = hook) -> Any:
        fired.add(name)
        return _inner(tensor, hook=hook)

    return noted
