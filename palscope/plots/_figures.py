"""Saving figures: for screens and for print, with their numbers beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from palscope._files import make_folder, writing


def save_figure(path: Path, screen: go.Figure, paper: Figure, data: pd.DataFrame) -> list[Path]:
    """Write `path` with the endings `.html`, `.png`, `.svg`, and what is drawn as `.csv`.

    The HTML pages of one folder share `plotly.min.js`, which is written beside them: they open
    without a network. Returns the files. Raises `PalscopeError` where they cannot be written.
    """
    files = {ending: path.with_name(f"{path.name}.{ending}") for ending in ("html", "png", "svg")}
    make_folder(path.parent)
    page: Any = screen
    numbers = path.with_name(f"{path.name}.csv")
    with writing(path):
        page.write_html(files["html"], include_plotlyjs="directory", div_id="figure")
        paper.savefig(files["png"], dpi=150)
        paper.savefig(files["svg"], metadata={"Date": None})
        data.to_csv(numbers, index=False)
    return [*files.values(), numbers]
