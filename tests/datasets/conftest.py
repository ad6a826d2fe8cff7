"""A small corpus, shared with the tests of training."""

from tests.corpus import corpus

__all__ = ["corpus"]
