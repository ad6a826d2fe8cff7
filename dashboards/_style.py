"""What Streamlit's theme leaves open of the pages' looks."""

from __future__ import annotations

import streamlit as st

# Streamlit writes white on its primary colour, which is bright on dark, and code in colours of less
# than 4.5 : 1. A figure of several columns would have titles over each other on a telephone.
STYLE = """
.stMainBlockContainer { padding-top: 3.5rem }
@media (min-width: 40rem) and (max-width: 75rem) {
    .stMainBlockContainer { padding-inline: 2rem }
}
[class*="st-key-unseen-"] { position: absolute }
[class*="st-key-wide-"] [data-testid="stFullScreenFrame"] { min-width: 45rem }
.stCode .token { color: light-dark(#00598f, #7cc4f0) !important }
.stCode .token:is(.comment, .operator, .punctuation, .interpolation) { color: inherit !important }
button[kind^="primary"]:not(:disabled), .stMultiSelect [data-tag] {
    color: light-dark(#fff, #171614) !important
}
"""


def show_style() -> None:
    """The same on every page."""
    st.html(f"<style>{STYLE}</style>")
