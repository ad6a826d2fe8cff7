"""The clips that come with the package: free recordings to try a model on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

CLIPS_FOLDER = Path(str(files("palscope") / "assets" / "clips"))


def bundled_clips() -> pd.DataFrame:
    """The bundled clips, one row a clip.

    Columns: `path` (absolute), `domain`, `label`, `author`, `title`, `source` (address of the
    recording it was cut from), `licence`, `duration_s` (seconds).

    The same table with relative paths, `assets/clips/clips.csv`, is a manifest that
    `analyses/evaluate.py` can score. Source: ESC-10, see `assets/clips/ATTRIBUTION.md`.
    """
    table = cast(Any, pd).read_csv(CLIPS_FOLDER / "clips.csv")
    table["path"] = [str(CLIPS_FOLDER / name) for name in table["path"]]
    return table
