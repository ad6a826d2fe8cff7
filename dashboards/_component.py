"""What the page's own components share: where their files lie, and whose word counts.

Python gives a component a value, and the visitor changes it in the browser. While one run of the
page computes, the visitor may be drawing on; so a value that merely comes back from an earlier
run must not undo what was drawn since. `follow` tells such an echo from a new value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components import v2

FILES = Path(__file__).resolve().parent / "components"


def component(name: str, *scripts: str) -> Any:
    """The component made of `components/NAME.js` and `.css`; call it to show it.

    `scripts` names more scripts, put before it: the browser gets them as one module.
    """
    texts = [(FILES / f"{each}.js").read_text(encoding="utf-8") for each in (*scripts, name)]
    style = FILES / f"{name}.css"
    return v2.component(
        f"palscope_{name}",
        html=f'<div class="{name}"></div>',
        css=style.read_text(encoding="utf-8") if style.exists() else None,
        js="\n".join(texts),
    )


@dataclass(frozen=True)
class Shown:
    """A component's value, between two runs of the page.

    Attributes:
        about: what the value belongs to (a clip, a checkpoint); others have their own.
        given: what Python gave last.
        first: what the browser starts from in this revision.
        value: what counts now.
        revision: goes up whenever Python's value replaces the browser's.
        reported: whether the browser has sent a value in this revision.
    """

    about: Any
    given: Any
    first: Any
    value: Any
    revision: int = 0
    reported: bool = False

    def restarted(self, about: Any, given: Any, first: Any) -> Shown:
        """The next revision, from `first`."""
        return Shown(about, given, first, first, self.revision + 1)


def follow(
    before: Shown | None, about: Any, given: Any, report: tuple[int, Any] | None, *, leftover: Any
) -> Shown:
    """What counts in this run of the page.

    Args:
        before: what counted in the run before; None in the first.
        about: what `given` belongs to.
        given: Python's value now.
        report: revision and value that the browser sent last, if any.
        leftover: shown when `about` changed while `given` did not.
    """
    if before is None:
        return Shown(about, given, given, given)
    new = given not in (before.given, before.value)
    if about != before.about:
        return before.restarted(about, given, given if new else leftover)
    if new:
        return before.restarted(about, given, given)
    if report is not None and report[0] == before.revision:
        return replace(before, given=given, value=report[1], reported=True)
    if before.reported:  # Streamlit forgets the state of what was off the page for a run
        return before.restarted(about, given, before.value)
    return replace(before, given=given)


def remembered(key: str, about: Any, given: Any, report: Any, *, leftover: Any) -> Shown:
    """`follow`, with what counted kept in this visitor's session under `key`."""
    memory = f"{key} shown"
    shown = follow(st.session_state.get(memory), about, given, report, leftover=leftover)
    st.session_state[memory] = shown
    return shown


def state_of(key: str, name: str) -> tuple[int, Any] | None:
    """Revision and value that the browser sent as state `name`; None where there is none.

    The browser is not trusted: what is no pair of a number and a value counts as nothing.
    """
    state = st.session_state.get(key)
    sent = state.get(name) if state else None
    if not isinstance(sent, dict) or not isinstance(sent.get("revision"), int):
        return None
    return sent["revision"], sent.get("value")
