"""Saved figures: the picture in each format, and its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.image import imread

from palscope.plots import _attention as attention
from palscope.plots import _paper as paper
from palscope.plots._figures import save_figure
from palscope.plots._tables import layer_means


def test_a_figure_is_saved_in_each_format_with_its_numbers(table: Any, tmp_path: Path) -> None:
    numbers = layer_means(table)
    files = save_figure(
        tmp_path / "new" / "mass.v1",
        attention.mass_by_layer(table),
        paper.mass_by_layer(table),
        numbers,
    )
    assert [file.name for file in files] == [
        f"mass.v1.{ending}" for ending in ("html", "png", "svg", "csv")
    ]
    picture = imread(files[1])
    assert picture.shape[1] > 600 and picture.std() > 0.01
    assert files[2].read_text(encoding="utf-8").count("<svg") == 1
    page = files[0].read_text(encoding="utf-8")
    assert "share of attention" in page and "https://" not in page.split("plotly.min.js")[0]
    assert (files[0].parent / "plotly.min.js").is_file()  # the page opens without a network
    read = pd.read_csv(files[3])
    pd.testing.assert_series_equal(read["mean"], numbers["mean"])
