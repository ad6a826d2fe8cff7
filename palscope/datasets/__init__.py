"""Labelled clips, and the questions and examples that are made of them."""

from __future__ import annotations

from palscope.datasets._examples import Example
from palscope.datasets._manifest import read_manifest

__all__ = [
    "Example",
    "read_manifest",
]
