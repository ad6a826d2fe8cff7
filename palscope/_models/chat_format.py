"""Chat templates: a checkpoint's program, tried out with bounds before it is used, on a fixed date.

A template is a Jinja program of whoever made the checkpoint. transformers keeps it from touching
anything (a sandbox), not from running or growing without end. So the first time one is used it runs
in a forked process, which may have so many seconds and megabytes.
"""

from __future__ import annotations

import datetime
import os
import re
import select
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from palscope.errors import CheckpointError, PromptError, short

PROMPT_DATE = "2024-12-19"
"""What templates that ask for today's date are told, so that a prompt is the same on every day."""

CPU_SECONDS = 2
"""Of a template, which usually takes a thousandth of one."""
_WALL_SECONDS = 30.0
_MEGABYTES = 512
_LONGEST = 1_000_000
"""Characters of a prompt without its question."""

_TODAY = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")

_tried: set[str] = set()


def chat_prompt(
    tokenizer: Any,
    messages: Sequence[Any],
    *,
    template: str | None = None,
    date: str = PROMPT_DATE,
    goes_on: bool = True,
) -> str:
    """A conversation in a checkpoint's chat format.

    Args:
        messages: as `apply_chat_template` takes them.
        template: the tokenizer's where None.
        date: that the template takes for today's, as 2024-12-19.
        goes_on: whether an answer is to follow.

    Raises:
        PromptError: there is no such date.
        CheckpointError: as `rendered`.
    """
    try:
        today = datetime.date.fromisoformat(date)
    except (TypeError, ValueError) as error:
        raise PromptError(
            f"the processor's date is {short(date)}; expected one as {PROMPT_DATE}."
        ) from error

    def render() -> str:
        made = tokenizer.apply_chat_template(
            list(messages),
            chat_template=_dated(tokenizer.get_chat_template(template), today),
            tokenize=False,
            add_generation_prompt=goes_on,
        )
        return str(made)

    source = template or getattr(tokenizer, "chat_template", None)
    return rendered(render, source, sum(_characters(each["content"]) for each in messages))


def prompt_settings(processor: Any) -> dict[str, str | None]:
    """What a processor's prompts depend on beside questions: `system`, `date` where it is asked."""
    source = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    asked = "strftime_now" in str(source)
    return {"system": processor.system, "date": processor.date if asked else None}


def check_places(prompt: str, place: str, clips: int, template: object) -> None:
    """Raise `CheckpointError` where a template did not write each clip's `place` once."""
    written = prompt.count(place)
    if written != clips:
        raise _refused(
            f"it writes {written} time(s) {place} for {clips} clip(s), so that what is heard would "
            f"not be what is asked about ({short(template)})"
        )


def check_said(prompt: str, said: Sequence[str | None], template: object) -> None:
    """Raise `CheckpointError` where a template left out what is said: question, system message."""
    for words in said:
        if words is not None and words.strip() not in prompt:
            raise _refused(
                f"it leaves out {short(words)}, so that the model would not be asked what you ask "
                f"({short(template)})"
            )


def _dated(template: str, today: datetime.date) -> str:
    """A template with this date where it asks for today's.

    transformers' function looks at the clock, and a template can be given no other one.
    """
    return _TODAY.sub(lambda asked: repr(today.strftime(asked["format"])), template)


def _characters(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(text) for item in content for text in item.values())


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
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        # The child runs this template alone and leaves: no other thread's lock is asked for.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run_and_leave(render, write_end)
    os.close(write_end)
    try:
        ready = select.select([read_end], [], [], _WALL_SECONDS)[0]
        answer = os.read(read_end, 4096) if ready else b""
    finally:
        os.close(read_end)
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
