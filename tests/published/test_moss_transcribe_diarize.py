"""MOSS-Transcribe-Diarize: the seconds that are written between a clip's tokens."""

from __future__ import annotations

import pytest

import palscope
from tests.published.contract import noise
from tests.published.tiny import moss_transcribe_diarize as tiny


def test_marks_are_text_between_tokens_whose_seconds_go_on() -> None:
    hooked = palscope.load(tiny.model(), processor=tiny.processor())
    inputs = hooked.inputs("what?", noise(4.5))
    table = hooked.layout(inputs).table(0)
    frames = table[table["stream"] == "frames"]
    assert frames["token"].tolist() == list(range(57))
    assert frames["start_s"].tolist() == pytest.approx([0.08 * i for i in range(57)])
    assert frames["end_s"].iloc[-1] == pytest.approx(4.5)
    between = table.loc[frames.index[0] : frames.index[-1]].drop(frames.index)
    assert between["stream"].tolist() == ["text"] * 2
    marks = inputs["input_ids"][0, between["column"].tolist()]
    assert hooked.processor.tokenizer.decode(marks) == "24"
    assert frames["token"][frames["column"].diff() == 2].tolist() == [25, 50]
