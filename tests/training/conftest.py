"""A small corpus, shared with the tests of datasets."""

from tests.corpus import corpus

__all__ = ["corpus"]
