"""The pages, each with its errors as sentences."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st
from _attention_view import view as attention_view
from _circuits_view import view as circuits_view
from _clips_view import view as clips_view
from _features_view import view as features_view
from _given import as_sentences, told_on_top
from _interventions_view import view as interventions_view
from _runs_view import view as runs_view
from _style import show_style


def guarded(view: Callable[[], None]) -> Callable[[], None]:
    """A page whose errors are sentences."""

    def page() -> None:
        with told_on_top(), as_sentences():
            view()

    return page


def show_pages() -> None:
    """The one that the visitor is on."""
    show_style()
    st.navigation(
        [
            st.Page(guarded(attention_view), title="Attention", url_path="attention", default=True),
            st.Page(guarded(interventions_view), title="Interventions", url_path="interventions"),
            st.Page(guarded(circuits_view), title="Circuits", url_path="circuits"),
            st.Page(guarded(clips_view), title="Many clips", url_path="clips"),
            st.Page(guarded(features_view), title="Features", url_path="features"),
            st.Page(guarded(runs_view), title="Stored runs", url_path="runs"),
        ],
        position="top",
    ).run()
