"""Whether tiny models can have adapters here."""

from __future__ import annotations

from pathlib import Path

import pytest

from palscope._published.adapters import check_peft
from palscope.errors import CheckpointError


def peft_or_skip() -> None:
    """Skip where the installed transformers wants a newer peft than there is."""
    try:
        check_peft(Path("a tiny model"))
    except CheckpointError as error:
        pytest.skip(str(error))
