"""Labelled clips, and the questions and examples that are made of them."""

from __future__ import annotations

from palscope.datasets._examples import Example
from palscope.datasets._manifest import Corpus, read_manifest

__all__ = [
    "Corpus",
    "Example",
    "read_manifest",
]
