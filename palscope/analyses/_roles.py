"""What each candidate answer is to a clip: the right one, the other clip's, or another."""

from __future__ import annotations

from typing import Any

import pandas as pd

from palscope.analyses._analysis import Results
from palscope.analyses._items import AskedClip
from palscope.plots._choices import OTHER, REST, RIGHT


def with_roles(results: Results[Any, AskedClip], table: str) -> pd.DataFrame:
    """A table that has a `choice` a row, with `clip`, how the clip is called, and its `role`."""
    parts: list[pd.DataFrame] = []
    for clip in results.items:
        rows = results.of_item(table, clip.name)
        known: dict[Any, str] = {clip.other: OTHER, clip.answer: RIGHT}
        called = f"{clip.side} clip (“{clip.answer}”)" if clip.side else clip.name
        roles = [known.get(choice, REST) for choice in rows["choice"]]
        parts.append(rows.assign(clip=called, role=roles))
    return pd.concat(parts, ignore_index=True)
