"""Chat templates: a checkpoint's program, tried out with bounds before it is used.

A template is a Jinja program of whoever made the checkpoint. transformers keeps it from touching
anything (a sandbox), not from running or growing without end. So the first time one is used it runs
in a forked process, which may have so many seconds and megabytes.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from palscope.errors import CheckpointError

CPU_SECONDS = 2
"""Of a template, which usually takes a thousandth of one."""
_WALL_SECONDS = 30.0
_MEGABYTES = 512
_LONGEST = 1_000_000
"""Characters of a prompt without its question."""

_tried: set[str] = set()


def rendered(render: Callable[[], str], template: object, content: int) -> str:
    """What a chat template makes of a conversation.

    Args:
        render: runs the template.
        template: its source, which names it.
        content: characters of the conversation.

    Raises:
        CheckpointError: it is no template, asks for an error, or does not end within bounds.
    """
    source = repr(template)
    if source not in _tried:
        if hasattr(os, "fork"):
            _try_out(render)
        _tried.add(source)
    try:
        text = render()
    except Exception as error:  # whatever the template and Jinja raise
        raise _refused(_told(error)) from error
    if len(text) > _LONGEST + 4 * content:
        raise _refused(f"it makes {len(text)} characters of a conversation of {content}")
    return text


def _refused(why: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint's chat template cannot be used: {why}. Mend chat_template.jinja, or set "
        "tokenizer.chat_template."
    )


def _told(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"it asks for more than {_MEGABYTES} MB"
    return f"{type(error).__name__}, {' '.join(str(error).split())[:300]}"


def _try_out(render: Callable[[], str]) -> None:
    """Run a template in a process of its own. Raises `CheckpointError` where it does not end."""
    heard, says = os.pipe()
    with warnings.catch_warnings():
        # The child runs this template alone and leaves: no other thread's lock is asked for.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run_and_leave(render, says)
    os.close(says)
    try:
        answer = os.read(heard, 4096) if select.select([heard], [], [], _WALL_SECONDS)[0] else b""
    finally:
        os.close(heard)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if answer != b"ok":
        raise _refused(answer.decode(errors="replace") or f"it does not end within {CPU_SECONDS} s")


def _run_and_leave(render: Callable[[], str], says: int) -> None:
    """The child's whole life."""
    try:
        _limit()
        render()
        answer = "ok"
    except BaseException as error:
        answer = _told(error)
    try:
        os.write(says, answer.encode(errors="replace")[:4000])
    finally:
        os._exit(0)


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    if sys.platform == "linux":  # elsewhere the bound is not kept
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + (_MEGABYTES << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
