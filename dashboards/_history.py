"""The browser's history: an entry a view, so that Back returns to the one before."""

from __future__ import annotations

import streamlit as st
from _component import component

_show = component("history")


def keep_history() -> None:
    """Run the script that makes entries; it takes no place on the page."""
    st.html("<style>.st-key-history{position:absolute}</style>")
    with st.container(key="history"):
        _show(key="history of views")
