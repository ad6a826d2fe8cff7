"""Gradient attribution of pairs and its checks, on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.analyses.conftest import open_script

FEW = ("--points", 8, "--stride", 2, "--windows", 3, "--orders", 2)
GRADIENTS, TOGETHER = "integrated gradients", "integrated gradients, all layers"


@pytest.mark.slow
def test_pairs_are_attributed_and_checked(analyse: Callable[..., Path], own_pairs: Path) -> None:
    script = open_script("attribution")
    out = analyse("attribution", "--pairs", own_pairs, *FEW)
    table = pd.read_parquet(out / "attributions.parquet")
    assert table["pair"].nunique() == 2
    by_patching = table[table["method"] == script.PATCHING]
    sites = {"audio_state", "connector_output", "encoder_output", "mel"}
    assert set(by_patching["site"]) == sites
    complete = pd.read_csv(out / "completeness.csv")
    tokens = complete[complete["site"] == "audio_state"]
    np.testing.assert_allclose(tokens["attribution"], tokens["difference"], atol=0.05)
    assert (tokens["difference"].abs() > 0.01).any()
    cells = pd.read_parquet(out / "cells.parquet")
    # 0.6 s in two steps, for two pairs: by layer (0 and 2 see both streams) and at the mel
    # spectrogram by two methods, at the connector's output, and in all layers of each stream.
    assert len(cells) == 2 * 2 * ((2 * 2 + 1) * 2 + 1 + 2)
    assert set(cells.loc[cells["method"] == GRADIENTS, "layer"]) == {0, 2}
    best = pd.read_csv(out / "agreement.csv").set_index(["method", "site"])["pearson"]
    assert best[GRADIENTS, "audio_state"] > 0.9 and best[TOGETHER, "audio_state"] > 0.9
    assert pd.read_parquet(out / "curves.parquet")["order"].nunique() == 4 + 2


def test_against_silence_the_log_probability_counts(
    analyse: Callable[..., Path], own_pairs: Path
) -> None:
    given = ("--pairs", own_pairs, "--against", "silence", "--n", 1, "--check", "deletion", *FEW)
    out = analyse("attribution", *given)
    assert not (out / "cells.parquet").exists()
    curves = pd.read_parquet(out / "curves.parquet")
    ends = curves[(curves["curve"] == "deletion") & (curves["order"] == "attention mass")]
    ends = ends.set_index("step")["logprob"]
    complete = pd.read_csv(out / "completeness.csv")
    # From silence to the clip: the same difference, whatever it is shared out over.
    whole = complete[complete["method"] == TOGETHER]["difference"]
    np.testing.assert_allclose(whole, ends[0] - ends[3], atol=1e-4)
