"""Flex attention without its compiler, which takes some ten seconds for each mask and shape.

The masks are ours and the same; `models/test_paths.py` compiles the kernel once.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def unfused() -> Generator[None, None, None]:
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", "flex_attention called without", UserWarning)
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        yield
