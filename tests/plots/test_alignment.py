"""Figures of heads that listen in time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from palscope.plots import Caption
from palscope.plots._alignment import alignment_map, onset_errors
from tests.plots.reading import agree

CAPTION = Caption("m", "“q”", 5)


def test_listed_heads_have_a_dot() -> None:
    rows = [(0, 0, False, 0.1), (0, 1, True, 0.7), (1, 0, True, 0.4), (1, 1, False, 0.2)]
    table = pd.DataFrame(rows, columns=pd.Index(["layer", "head", "listed", "mean"])).assign(n=5)
    (shown,) = agree(alignment_map(table, "AUROC 0.75", caption=CAPTION))
    np.testing.assert_array_equal(shown["heats"][0], [[0.1, 0.7], [0.4, 0.2]])
    (dots,) = shown["curves"]
    np.testing.assert_array_equal(dots, [[1, 0], [0, 1]])
    assert shown["title"] == "AUROC 0.75"
    unlisted = alignment_map(table.assign(listed=False), "", caption=CAPTION)
    assert not agree(unlisted)[0]["curves"]


def test_each_rule_is_a_line_of_shares() -> None:
    rows = [("a", 0.0, 0.1), ("a", 0.1, 0.9), ("b", 0.0, 0.0), ("b", 0.1, 0.4)]
    table = pd.DataFrame(rows, columns=pd.Index(["rule", "within_s", "mean"])).assign(n=5)
    (shown,) = agree(onset_errors(table, caption=CAPTION))
    np.testing.assert_array_equal(shown["curves"][0], [[0, 0.1], [0.1, 0.9]])
    np.testing.assert_array_equal(shown["curves"][1], [[0, 0.1], [0, 0.4]])
