"""Hooks for the length of a block, every one of which must fire."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformer_lens.hook_points import HookPoint

from palscope.errors import HookError

if TYPE_CHECKING:
    from palscope._hooks.bridge import HookedAudioModel


class MustFire:
    """Hooks, each of which must fire at one at least of the places where it is set."""

    def __init__(self) -> None:
        self._points: dict[Hashable, set[str]] = {}
        self._fired: set[Hashable] = set()

    def at(self, place: str, hook: Hashable) -> Callable[..., None]:
        """Expect `hook` at `place`; what is returned is called, with anything, as it fires."""
        self._points.setdefault(hook, set()).add(place)

        def fired(*_passed: Any) -> None:
            self._fired.add(hook)

        return fired

    def check(self) -> None:
        """Raise `HookError` where a hook has fired nowhere."""
        never = self._points.keys() - self._fired
        require_fired({place for hook in never for place in self._points[hook]})


def require_fired(missing: Collection[str]) -> None:
    """Raise `HookError` where hooks did not fire at the places `missing`."""
    if missing:
        raise HookError(
            f"these hooks did not fire: {', '.join(sorted(missing))}. Was the model called? "
            "Encoder and connector hooks fire only when a call encodes clips itself, audio hooks "
            "only when there is a clip."
        )


@contextmanager
def hooked(
    model: HookedAudioModel, hooks: Mapping[str, Callable[..., Any]]
) -> Generator[None, None, None]:
    """Within the block, `hooks` (by name of the hook point) are set; others stay as they are.

    Raises:
        HookError: a hook point does not exist, cannot fire under the route, or did not fire in any
            call within the block.
    """
    if not hooks:  # nothing is set that others would see
        yield
        return
    firing = MustFire()
    with model.turns.block("hooks"):
        points = model.find_hook_points(hooks)
        noted = {name: noting(hook, firing.at(name, name)) for name, hook in hooks.items()}
        with hooks_at((points[name], hook) for name, hook in noted.items()):
            yield
    firing.check()


@contextmanager
def hooks_at(
    hooks: Iterable[tuple[HookPoint, Callable[..., Any]]],
) -> Generator[None, None, None]:
    """Within the block, hooks are set at their hook points."""
    # A level, as within TransformerLens's `hooks`: to fire once within the block will do.
    handles = [(point, point.add_hook(hook, level=1)) for point, hook in hooks]
    try:
        yield
    finally:
        for point, handle in handles:
            handle.hook.remove()
            point.fwd_hooks.remove(handle)


def noting(hook: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
    """`hook`, which also calls `note` when it fires."""

    def noted(tensor: Any, hook: Any, _inner: Callable[..., Any] = hook) -> Any:
        note()
        return _inner(tensor, hook=hook)

    return noted
