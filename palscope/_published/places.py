"""Words for sound, of classes whose vocabulary has none: encoder–decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from palscope.errors import CheckpointError


def add_places(tokenizer: Any, places: Sequence[str], words: int) -> None:
    """Add words for sound behind all others, where they are not there yet.

    Args:
        words: how many the model knows.

    Raises:
        CheckpointError: the tokenizer knows more, or fewer.
    """
    own = len(tokenizer) - sum(place in tokenizer.get_vocab() for place in places)
    if own != words:
        raise CheckpointError(
            f"the tokenizer, a {type(tokenizer).__name__}, is of another checkpoint: its "
            f"vocabulary has {own} words, the model's {words}. Give the model's own."
        )
    tokenizer.add_tokens(list(places), special_tokens=True)
