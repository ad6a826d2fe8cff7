"""A bridge on which a hook that does not fire is an error.

One rule holds for every entrance: a place that is named must be able to fire
(`palscope._hooks.hook_points`), and what is set at it must have fired when the call is over; of
what a function stands for, one place at least.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, cast

import torch
from transformer_lens.hook_points import HookPoint, LensHandle

from palscope._hooks.attention import AUDIO_HOOKS
from palscope._hooks.hook_points import AUDIO_PARTS, HookName, HookPointsBridge, of_audio
from palscope._hooks.hooked import MustFire, hooks_at, noting, require_fired
from palscope.errors import HookError

Hook = Callable[..., Any]
HookDirection = Literal["fwd", "bwd"]


class FiringBridge(HookPointsBridge):
    """TransformerLens's bridge, in which every hook must fire."""

    # -- TransformerLens's entrances --------------------------------------------------------------

    def run_with_hooks(
        self,
        input: Any,
        fwd_hooks: Iterable[tuple[HookName, Hook]] = (),
        bwd_hooks: Iterable[tuple[HookName, Hook]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        return_type: str | None = "logits",
        stop_at_layer: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """TransformerLens's `run_with_hooks`, in which every hook must fire.

        Raises:
            HookError: a place does not exist, cannot fire in this call, or did not fire; a function
                matches no hook point that can.
        """
        with self._each_fires(fwd_hooks, stop_at_layer) as forward:
            return super().run_with_hooks(
                input,
                cast(Any, forward),
                cast(Any, self._placed(bwd_hooks, stop_at_layer)),
                reset_hooks_end,
                clear_contexts,
                return_type,
                stop_at_layer,
                **kwargs,
            )

    def hooks(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        fwd_hooks: Iterable[tuple[HookName, Hook]] = (),
        bwd_hooks: Iterable[tuple[HookName, Hook]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> AbstractContextManager[Any]:
        """TransformerLens's `hooks`: each forward hook must fire within the block.

        Raises:
            HookError: as `run_with_hooks`; hooks that are left set (`reset_hooks_end=False`) must
                be able to fire.
        """
        backward = self._placed(bwd_hooks)
        entered = self._each_fires(fwd_hooks, required=reset_hooks_end)
        given = super().hooks

        @contextmanager
        def block() -> Generator[Any, None, None]:
            with entered as forward, given(forward, backward, reset_hooks_end, clear_contexts):
                yield self

        return block()

    def add_hook(
        self,
        name: HookName,
        hook_fn: Hook,
        dir: HookDirection = "fwd",
        is_permanent: bool = False,
    ) -> None:
        """TransformerLens's `add_hook`: the hook must fire in every call until it is removed.

        Of a function that matches several places, one at least.

        Raises:
            HookError: no such place can fire under the current route.
        """
        one = noting(hook_fn, _nothing)
        for place in self.hook_names(name):
            super().add_hook(place, one, dir, is_permanent)

    def run_with_cache(
        self,
        input: Any,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        names_filter: HookName | Collection[str] | None = None,
        stop_at_layer: int | None = None,
        start_at_layer: int | None = None,
        pos_slice: Any = None,
        **kwargs: Any,
    ) -> Any:
        """TransformerLens's `run_with_cache`, in which every named activation must arrive.

        Args:
            names_filter: a name, several, or a function of names; by default all that fire.
            pos_slice: of the tokens that run in a layer; the last is each row's last word. By
                default of the decoder's own places only.

        Raises:
            HookError: a name does not exist, cannot fire in this call, or did not fire; nothing
                that a function matches did; `pos_slice` is asked of audio's places.
        """
        known = self.hook_dict
        names = self.wanted(names_filter, known, stop_at_layer, sliced=pos_slice is not None)
        given: Any = names
        if names_filter is None and pos_slice is None:
            given = None
        elif names_filter is None or callable(names_filter):
            given = set(names).__contains__  # keys as matched; of a list they are doubled
        out = super().run_with_cache(
            input,
            return_cache_object,
            remove_batch_dim,
            names_filter=given,
            stop_at_layer=stop_at_layer,
            start_at_layer=start_at_layer,
            pos_slice=pos_slice,
            **kwargs,
        )
        if names_filter is not None:
            missing = {name for name in names if name not in out[1]}
            if not callable(names_filter) or len(missing) == len(names):
                require_fired(missing)
        return out

    def get_caching_hooks(
        self, names_filter: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], list[Any], list[Any]]:
        """TransformerLens's `get_caching_hooks`, of places that can fire.

        Raises `HookError` as `run_with_cache`.
        """
        allowed = set(self.wanted(names_filter, self.hook_dict))
        cache, forward, backward = super().get_caching_hooks(names_filter, *args, **kwargs)
        return (
            cache,
            [(name, hook) for name, hook in forward if name in allowed],
            [(name, hook) for name, hook in backward if name in allowed],
        )

    def add_caching_hooks(
        self, names_filter: Any = None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """TransformerLens's `add_caching_hooks`: those of a function, or of all, are one hook.

        Raises `HookError` as `run_with_cache`.
        """
        cache, forward, backward = self.get_caching_hooks(names_filter, *args, **kwargs)
        named = isinstance(names_filter, str | Sequence)
        together: list[Hook] = []
        for direction, hooks in (("fwd", forward), ("bwd", backward)):
            for name, hook in hooks:
                one = noting(hook, _nothing)
                setattr(one, _ENTRY, one if named else together)
                super().add_hook(name, one, cast(HookDirection, direction))
        return cache

    # -- firing -----------------------------------------------------------------------------------

    def _placed(
        self, hooks: Iterable[tuple[HookName, Hook]], stop_at_layer: int | None = None
    ) -> list[tuple[str, Hook]]:
        """Hooks by name, in which functions have become the places that they stand for."""
        known = self.hook_dict
        return [
            (n, hook) for place, hook in hooks for n in self.hook_names(place, known, stop_at_layer)
        ]

    @contextmanager
    def _each_fires(
        self,
        hooks: Iterable[tuple[HookName, Hook]],
        stop_at_layer: int | None = None,
        *,
        required: bool = True,
    ) -> Generator[list[tuple[str, Hook]], None, None]:
        """Hooks by name, each of which must fire within the block."""
        firing = MustFire()
        known = self.hook_dict
        placed: list[tuple[str, Hook]] = []
        for number, (place, hook) in enumerate(hooks):
            told = firing.at(place if isinstance(place, str) else "those of a function", number)
            placed += [
                (name, noting(self._within_columns(name, hook), told))
                for name in self.hook_names(place, known, stop_at_layer)
            ]
        yield placed
        if required:
            firing.check()

    def _within_columns(self, name: str, hook: Hook) -> Hook:
        """`hook`, in which a position that does not run is an error that says so."""

        def within(tensor: Any, hook: Any, _inner: Hook = hook) -> Any:
            try:
                return _inner(tensor, hook=hook)
            except IndexError as error:
                run = self.model.current_run
                if run is None:
                    raise
                raise HookError(
                    f"a hook at {name!r} takes a place that is not there ({error}). Of the "
                    f"{run.layout.width} columns of input_ids some do not run under this route: "
                    "layout(inputs).layer_columns(route, layer) gives those that a layer holds. "
                    "Patch by address (palscope.interventions), or under a route that runs all."
                ) from error

        return within

    @contextmanager
    def _added_fire(
        self, stop_at_layer: int | None = None, *, no_clip: bool = False
    ) -> Generator[bool, None, None]:
        """One call, in which every hook that `add_hook` set must fire; gives whether any is set.

        Args:
            no_clip: the call goes on from a cache that holds the clips, past audio's places.
        """
        with self.turns.passing():
            entries: dict[int, list[tuple[str, HookPoint]]] = {}
            hooked = False
            for name, point in self._distinct_points:
                if not (point.fwd_hooks or point.bwd_hooks):
                    continue
                hooked = True
                for handle in (*point.fwd_hooks, *point.bwd_hooks):
                    if handle.context_level is None and not (no_clip and of_audio(name)):
                        entries.setdefault(_entry(handle), []).append((name, point))
            firing = MustFire()
            notes: list[Any] = []
            for entry, points in entries.items():
                reasons = {name: self._why_unreached(name, stop_at_layer) for name, _ in points}
                if all(reasons.values()):
                    name, reason = next(iter(reasons.items()))
                    raise HookError(
                        f"a hook is set at {name!r}, which cannot fire in this call: {reason}. "
                        "Remove it (reset_hooks), or call as it needs."
                    )
                # Before the hooks themselves: one that ends the call early has fired.
                notes += [
                    point.register_forward_hook(firing.at(name, entry), prepend=True)
                    for name, point in points
                ]
            try:
                yield hooked
            finally:
                for note in notes:
                    note.remove()
            firing.check()

    @functools.cached_property
    def _distinct_points(self) -> tuple[tuple[str, HookPoint], ...]:
        """Every hook point once; asked on every call, so it is looked up once."""
        points = {id(point): point for point in self._hook_registry.values()}
        return tuple((point.name or "", point) for point in points.values())

    def forget_hook_points(self) -> None:
        """Look hook points up again: there are others now."""
        for known in ("_distinct_points", "_encoder_points"):
            self.__dict__.pop(known, None)

    @functools.cached_property
    def _encoder_points(self) -> dict[str, HookPoint]:
        return {name: p for name, p in self._distinct_points if name.startswith(AUDIO_PARTS)}

    def _find_unreached(self, inputs: Mapping[str, Any]) -> frozenset[str]:
        """Names of hook points that a forward pass never reaches, found by one.

        What a route switches is left out; `_why_unreached` knows that.
        """
        fired: set[str] = set()
        asked = [
            (name, point)
            for name, point in self._distinct_points
            if self._gated_hook_reason(name) is None
        ]
        noted = (
            (point, noting(_unchanged, functools.partial(fired.add, name))) for name, point in asked
        )
        with hooks_at(noted), torch.no_grad():
            self(inputs, return_type=None)
        return frozenset(
            name
            for name, _ in asked
            if name not in fired
            and not name.endswith(AUDIO_HOOKS)
            and not name.startswith(("audio_projector_", "audio_input_"))
        )


_ENTRY = "entry"
"""Attribute of hooks that are one to `_added_fire`: what they have in common."""


def _entry(handle: LensHandle) -> int:
    hook = cast(Any, handle.user_hook)
    return id(getattr(hook, _ENTRY, hook))


def _unchanged(tensor: Any, hook: Any) -> None:
    return None


def _nothing() -> None:
    return None
