"""The figures of probes show every score, its control and where recordings are not apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from palscope.plots import Caption, Line, Points
from palscope.plots._probes import accuracy_by_layer, accuracy_over_time
from tests.plots.reading import agree, named

SCORES = pd.DataFrame(
    {
        "hook_point": hook_point,
        "site": site,
        "layer": layer,
        "start": start,
        "end": start + 0.2,
        "domain": domain,
        "n": 40,
        "recordings": 40,
        "apart": "clip" if domain == "music" else "recording",
        "accuracy": 0.5 + layer / 10 if layer == layer else 0.9,
        "low": 0.4,
        "high": 0.9,
        "control": 0.3 if domain == "sound" else np.nan,
        "control_low": 0.2,
        "control_high": 0.4,
        "chance": 0.1,
    }
    for hook_point, site, layer in [
        ("audio_blocks.2.hook_out", "audio_blocks.*.hook_out", 2),
        ("audio_blocks.0.hook_out", "audio_blocks.*.hook_out", 0),
        ("audio_pool.hook_in", "audio_pool.hook_in", np.nan),
    ]
    for start in (0.0, 0.2)
    for domain in ("sound", "music")
)
CAPTION = Caption("demo/pal", "which label?", 80)


def test_layers_stand_in_order_beside_their_control() -> None:
    figure = accuracy_by_layer(SCORES[SCORES["start"] == 0], caption=CAPTION)
    shown = agree(figure)
    assert [each["title"] for each in shown][:2] == [
        "audio_blocks.*.hook_out\nsound",
        "audio_blocks.*.hook_out\nmusic",
    ]
    marks = named(figure, 0)
    label = marks["the label, of unseen recordings"]
    assert isinstance(label, Line) and list(label.x) == [0, 2]
    np.testing.assert_allclose(label.y, [0.5, 0.7])
    np.testing.assert_allclose(marks["control task: labels drawn at random"].y, [0.3, 0.3])
    assert marks["the commonest label"].at == 0.1
    single = named(figure, 2)["the label, of unseen recordings"]
    assert isinstance(single, Points) and list(single.y) == [0.9]
    assert "All of music is one recording" in figure.note


def test_stretches_stand_at_their_middle() -> None:
    figure = accuracy_over_time(SCORES, caption=CAPTION)
    agree(figure)
    line = named(figure, 0)["the label, of unseen recordings"]
    np.testing.assert_allclose(line.x, [0.1, 0.3])
