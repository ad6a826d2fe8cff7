"""Taking turns on one model: blocks that change what it does, and passes through it.

A model is shared by all that hold it, threads among them, and what a block changes for its length
(hooks, gradients, what stands on modules) is changed for everybody. So a model is in one hand at a
time: while such a block is open, passes of others wait for its end, and so do blocks. What a pass
looks up as it begins (the route, cut edges, recorders) belongs to the context that opened the
block, and keeps nobody waiting: between two passes of one hand others have theirs, first come,
first served. A hand is a context (`contextvars`): a thread, or a task of asyncio. What a block's
body starts with a copy of its context (`asyncio.to_thread`, `contextvars.copy_context().run`)
belongs to it.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from palscope.errors import HookError

PATIENCE = 10.0
"""Seconds that others wait for a block in which nothing runs: a run may last as long as it will."""


LOOKED_UP = frozenset(
    {"route", "cut edges", "expected inputs", "recorded attention", "attach_clips"}
)
"""Kinds of blocks whose value alone counts, which passes of their own context look up."""


SPLICED = "spliced"
"""Kind of the blocks whose values are the dictionaries that are spliced in."""


@dataclass(eq=False)
class OpenBlock:
    """An open block: what it is called in messages, what it puts in force, who opened it."""

    kind: str
    value: Any
    thread: threading.Thread = field(default_factory=threading.current_thread)


_MINE: ContextVar[tuple[OpenBlock, ...]] = ContextVar("palscope_blocks", default=())
"""The blocks of this context, of any model; some may be closed already, from elsewhere."""


class Turns:
    """Who may use a model now. A copy of it, as of its model, begins with no block."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._blocks: tuple[OpenBlock, ...] = ()
        self._waiting: list[object] = []
        self._runner: threading.Thread | None = None
        self._depth = 0
        self._active = time.monotonic()

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()

    def values(self, kind: str) -> tuple[Any, ...]:
        """What open blocks of this kind and this context put in force, in order of opening."""
        mine = _MINE.get()
        return tuple(each.value for each in self._blocks if each.kind == kind and each in mine)

    @contextmanager
    def block(self, kind: str, value: Any = None) -> Generator[None, None, None]:
        """Within, the model is this context's alone, or what is looked up is `value`.

        Blocks may end in any order.

        Raises:
            HookError: a block of another context is open, and does not end.
        """
        block = OpenBlock(kind, value)
        if kind not in LOOKED_UP:
            before_turn()
        with self._changed:
            if kind not in LOOKED_UP:
                self._wait()
            self._blocks = (*self._blocks, block)
            self._active = time.monotonic()
        _MINE.set((*_MINE.get(), block))
        try:
            yield
        finally:
            with self._changed:
                self._blocks = tuple(each for each in self._blocks if each is not block)
                self._active = time.monotonic()
                self._changed.notify_all()
            # A generator may be closed in another context, whose blocks these are not.
            _MINE.set(tuple(each for each in _MINE.get() if each is not block))

    @contextmanager
    def passing(self) -> Generator[None, None, None]:
        """Within, the model runs, for this thread alone. Passes may be nested.

        Raises:
            HookError: a block of another context is open, and does not end.
        """
        before_turn()
        with self._changed:
            self._wait()
            self._runner, self._depth = threading.current_thread(), self._depth + 1
        try:
            yield
        finally:
            with self._changed:
                self._depth -= 1
                self._active = time.monotonic()
                self._changed.notify_all()

    def _wait(self) -> None:
        """Until no block of others is open, nothing runs for another thread, and it is one's turn.

        Who holds the model already does not wait behind those that wait for it.
        """
        me, ticket = threading.current_thread(), object()
        mine = [each for each in self._alone() if each in _MINE.get()]
        if not mine and not (self._depth and self._runner is me):
            self._waiting.append(ticket)
        try:
            while not self._free(me) or ticket in self._waiting[1:]:
                self._changed.wait(self._patience(me))
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _alone(self) -> list[OpenBlock]:
        """Open blocks for whose length the model is their context's alone."""
        return [each for each in self._blocks if each.kind not in LOOKED_UP]

    def _free(self, me: threading.Thread) -> bool:
        runs_for_other = self._depth and self._runner is not me
        return not runs_for_other and all(each in _MINE.get() for each in self._alone())

    def _patience(self, me: threading.Thread) -> float | None:
        """Seconds to wait for a change; None for as long as it takes."""
        others = [each for each in self._alone() if each not in _MINE.get()]
        if not others or (self._depth and self._runner is not me):
            return None
        left = self._active + PATIENCE - time.monotonic()
        if left <= 0 or any(each.thread is me for each in others):
            raise _in_use(others[0], me)
        return left


def before_turn() -> None:
    """Called whenever a context asks for its turn on a model, outside of any lock.

    A host that can be told to stop (the page) puts what looks for that in its place: what it raises
    ends the work between two passes.
    """


class _InTurns(Protocol):
    turns: Turns


P = ParamSpec("P")
R = TypeVar("R")
Model = TypeVar("Model", bound=_InTurns)


def in_turn(
    method: Callable[Concatenate[Model, P], R],
) -> Callable[Concatenate[Model, P], R]:
    """A method of a model that runs it: a pass."""

    @functools.wraps(method)
    def in_turn(model: Model, *args: P.args, **kwargs: P.kwargs) -> R:
        with model.turns.passing():
            return method(model, *args, **kwargs)

    return in_turn


def _in_use(block: OpenBlock, me: threading.Thread) -> HookError:
    where = (
        "in another task or context of this thread"
        if block.thread is me
        else f"in thread {block.thread.name!r}, and nothing ran in it for {PATIENCE:g} s"
    )
    return HookError(
        f"the model is in use: a block of {block.kind} is open {where}. It would change what is "
        "computed here. Leave that block first, or call the model in it (in a thread of its own: "
        "contextvars.copy_context().run)."
    )
