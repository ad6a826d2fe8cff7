"""The map of heads' effects: what was cut, what is estimated, and what is not seen."""

from __future__ import annotations

import numpy as np
import pandas as pd

from palscope.audio import Waveform
from palscope.plots import Caption, Steps, head_effects_map
from palscope.plots._effects import effects_over_time
from tests.plots.reading import agree, colour_ends

NAN = float("nan")


def test_cut_heads_show_what_the_cut_did_and_have_a_dot_others_the_estimate() -> None:
    rows = [
        (1, 0, 0.3, -2.0, -3.0),
        (1, 1, 0.1, 0.5, 0.25),
        (2, 1, 0.2, 0.125, NAN),
        (2, 0, 0.0, 0.0, NAN),
        (0, 0, NAN, NAN, NAN),
        (0, 1, NAN, NAN, NAN),
    ]
    table = pd.DataFrame(rows, columns=pd.Index(["layer", "head", "mass", "estimate", "effect"]))
    figure = head_effects_map(table, caption=Caption("m", "“q”", 1))
    (shown,) = agree(figure)
    np.testing.assert_array_equal(shown["heats"][0], [[NAN, NAN], [-3, 0.25], [0, 0.125]])
    (dots,) = shown["curves"]
    np.testing.assert_array_equal(dots, [[0, 1], [1, 1]])
    assert colour_ends(figure) == {"nats of the answer's lead": (-3, 3)}
    said = figure.panels[0].heats[0].hover
    assert said is not None
    assert said[1, 0] == "layer 1, head 0: cut: -3.00 nats, estimated -2.00; gives it 30.0 %"
    assert said[2, 1].startswith("layer 2, head 1: not cut, estimated +0.12")
    assert said[0, 0] == "layer 0, head 0: does not see it"


def test_seconds_stand_above_the_spectrogram_on_one_axis() -> None:
    wave = Waveform(np.sin(np.arange(16_000) / 9).astype(np.float32), 16_000, "a tone")
    table = pd.DataFrame({"start_s": [0.5, 0.0], "end_s": [1.0, 0.5], "change": [-2.0, 0.5]})
    figure = effects_over_time(table, wave, caption=Caption("m", "“q”", 1))
    above, below = agree(figure)
    assert above["limits"][:2] == below["limits"][:2] == (0, 1)
    (steps,) = [mark for mark in figure.panels[0].marks if isinstance(mark, Steps)]
    assert list(steps.start) == [0, 0.5] and list(steps.y) == [0.5, -2]
    assert above["y"] == "nats of the answer's lead"
