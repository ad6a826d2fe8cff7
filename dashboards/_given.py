"""What links and visitors give: a choice that is not here is said, and a text has a length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import streamlit as st

from palscope.errors import PalscopeError

QUESTION_CHARACTERS = 300
CANDIDATES, CANDIDATE_CHARACTERS = 64, 80
FOLDER_CHARACTERS = 500
NAMED = 5
"""So many of the choices that are not here are named."""

_TOP: ContextVar[Any] = ContextVar("top of the page", default=None)


# -- said on top ----------------------------------------------------------------------------------


@contextmanager
def told_on_top() -> Generator[None]:
    """Within, `say` writes where the page begins, whatever was drawn since."""
    held = _TOP.set(st.container())
    try:
        yield
    finally:
        _TOP.reset(held)


def say(sentence: str) -> None:
    """Tell the visitor what went wrong."""
    top = _TOP.get()
    (st if top is None else top).error(sentence)


@contextmanager
def as_sentences() -> Generator[None]:
    """Within, an error becomes a sentence, and ends what it happened in."""
    try:
        yield
    except PalscopeError as error:
        say(str(error))
    except Exception as error:
        logging.getLogger("palscope").exception("a page failed")
        say(
            f"This should not have happened: {type(error).__name__}, {short(str(error))}. "
            "The terminal that runs this page has the details; reloading the page starts "
            "afresh."
        )


def short(text: str, most: int = 60) -> str:
    """A text as an error quotes it."""
    return text if len(text) <= most else f"{text[:most]}…"


# -- choices --------------------------------------------------------------------------------------


def pick(
    widget: Callable[..., Any],
    label: str,
    options: Sequence[Any],
    *,
    key: str,
    what: str,
    **given: Any,
) -> Any:
    """A choice among `options`, kept in the address; None where the address asks for another.

    Streamlit drops what is no option, and shows its default instead. So what a link asks for is an
    option, which is chosen and of no use, until the visitor chooses another.

    Args:
        widget: of Streamlit. One for several gives those that are here.
        label: its label.
        options: what is here.
        key: its name in the address.
        what: a choice is, in words.
        given: more for the widget.
    """
    here = set(map(str, options))
    strange = [each for each in _asked(key) if each not in here and not once_here(key, each)]
    chosen = widget(label, [*options, *strange], key=key, bind="query-params", **given)
    several = isinstance(chosen, list)
    every = [each for each in (chosen if several else [chosen]) if each is not None]
    missing = [f"“{short(each)}”" for each in every if each in strange]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        say(f"There is no {what} {', '.join(missing[:NAMED])}{more} here: choose another.")
    found = [each for each in every if each not in strange]
    for each in found:
        note_here(key, each)
    return found if several else next(iter(found), None)


def _asked(key: str) -> list[str]:
    """What the address or another page's widget of that key names, each once."""
    held = st.session_state.get(key)
    named = [*st.query_params.get_all(key), *(held if isinstance(held, list | tuple) else [held])]
    return [each for each in dict.fromkeys(named) if isinstance(each, str) and each]


def once_here(key: str, value: Any) -> bool:
    """Whether this visitor had it before: then no link asks for it, but a change left it over."""
    return str(value) in _seen(key)


def note_here(key: str, value: Any) -> None:
    """Remember that the visitor has had it."""
    _seen(key).add(str(value))


def _seen(key: str) -> set[str]:
    seen: dict[str, set[str]] = st.session_state.setdefault("once here", {})
    return seen.setdefault(key, set())


def tell_dropped(key: str, label: str, asked: str | None, value: Any) -> None:
    """Say that a number or a switch of the address is none, or outside of its bounds."""
    if asked is None:
        return
    try:
        kept = {"true": 1.0, "false": 0.0}.get(asked.lower())
        same = (float(asked) if kept is None else kept) == float(value)
    except (TypeError, ValueError):
        same = False
    if not same:
        say(f"The address gives “{short(asked)}” for “{label}”, which it cannot be: now {value}.")


# -- texts ----------------------------------------------------------------------------------------


def typed(label: str, *, key: str, most: int, **given: Any) -> str | None:
    """A text that the visitor types or the address holds; None where it is too long.

    Not cut: the model would be asked something else than what is there.
    """
    text = (st.text_input(label, key=key, **given) or "").strip()
    if len(text) <= most:
        return text
    say(f"“{label}” has {len(text):,} characters, {most} at most: shorten it.")
    return None


def check_question(question: str) -> None:
    """Raises `PalscopeError` where a question is too long to be asked for a visitor."""
    if len(question) > QUESTION_CHARACTERS:
        raise PalscopeError(
            f"the question has {len(question):,} characters, {QUESTION_CHARACTERS} at most."
        )


def check_candidates(choices: Sequence[str]) -> None:
    """Raises `PalscopeError` where there are too many to be ranked for a visitor, or too long ones.

    All are run beside each other, each as wide as the longest.
    """
    longest = max(map(len, choices), default=0)
    if len(choices) > CANDIDATES or longest > CANDIDATE_CHARACTERS:
        raise PalscopeError(
            f"{len(choices):,} candidate answers, the longest of {longest:,} characters: "
            f"{CANDIDATES} of {CANDIDATE_CHARACTERS} characters each at most."
        )
