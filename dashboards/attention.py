"""palscope's pages.

streamlit run dashboards/attention.py
"""

from __future__ import annotations

import sys

import streamlit as st
from _history import keep_history

from palscope._versions import check_versions

check_versions("streamlit")

st.set_page_config(page_title="palscope", page_icon="👂", layout="wide")
keep_history()
opening = st.empty()  # always there: what follows would move up at the second run, and begin anew
if not hasattr(sys.modules.get("_pages"), "show_pages"):  # the first visit to a fresh server
    opening.info("Opening palscope: PyTorch and the models' code are read, once.")

from _pages import show_pages  # noqa: E402  (after the visitor was told)

opening.empty()
show_pages()
