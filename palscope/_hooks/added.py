"""Hook points that a model has for the length of a block: of a dictionary that is spliced in."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transformer_lens.hook_points import HookPoint

from palscope.errors import PalscopeError

if TYPE_CHECKING:
    from palscope._hooks.bridge import HookedAudioModel

ACTS, ERROR = "hook_sae_acts_post", "hook_sae_error"
"""Behind the name of a site: its latents, and what they leave. SAELens's names."""


def hook_site(name: str) -> str:
    """The hook point behind whose name one of a dictionary stands; any other name as it is."""
    site, _, last = name.rpartition(".")
    return site if last in (ACTS, ERROR) else name


@contextmanager
def hook_points_added(
    model: HookedAudioModel, points: Mapping[str, HookPoint]
) -> Generator[None, None, None]:
    """Within the block, caches, hooks and addresses find `points` by their names.

    Raises:
        PalscopeError: the model has one of that name.
    """
    registry = model._hook_registry  # pyright: ignore[reportPrivateUsage]
    if taken := points.keys() & registry.keys():
        raise PalscopeError(f"{hook_site(min(taken))} has a dictionary spliced in already.")
    for name, point in points.items():
        point.name = name
    registry.update(points)
    model.forget_hook_points()
    try:
        yield
    finally:
        for name in points:
            del registry[name]
        model.forget_hook_points()
