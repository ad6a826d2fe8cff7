"""Clips that share passes have the rows that each has alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import palscope
from palscope._models import scoring
from palscope.analyses import AskedClip, Work, analysis_of, run
from palscope.analyses._registry import analyses
from palscope.audio import Waveform
from tests.hooks.conftest import noise

LENGTHS = (0.5, 1.3, 0.1)
"""Seconds of clips, so that prompts are padded."""


def asked(lengths: Sequence[float] = LENGTHS) -> list[AskedClip]:
    """Clips of unequal lengths, questions and numbers of choices."""
    offered = [("dog", "sea waves"), ("crackling fire", "rain", "dog"), ("one", "two")]
    return [
        AskedClip(
            f"clip {number}",
            "sound",
            "what " * number + "is it?",
            Waveform(noise(seconds, number), 16_000, "made"),
            answer=offered[number][0],
            choices=offered[number],
        )
        for number, seconds in enumerate(lengths)
    ]


def work(model: Any, options: Any) -> Work[Any]:
    return Work(model, model.current_route, options, rows=lambda *_: None, whole=lambda _: None)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return palscope.load(str(checkpoint))


SHARE = [
    ("attention_mass", {}),
    ("attention_mass", {"token": 1}),
    ("pathway_masking", {}),
    ("injection_depth", {}),
    ("audio_queries", {}),
]


@pytest.mark.parametrize(("name", "given"), SHARE)
def test_rows_are_those_of_each_clip_alone(
    model: Any, checkpoint: Path, name: str, given: dict[str, Any]
) -> None:
    analysis = analysis_of(name)
    options = analysis.options(model=(str(checkpoint),), **given)
    table = analysis.tables[0]
    assert table.shares_passes
    together = list(table.measure(work(model, options), asked()))
    for clip, rows in zip(asked(), together, strict=True):
        (alone,) = table.measure(work(model, options), [clip])
        pd.testing.assert_frame_equal(rows, alone, rtol=0, atol=1e-4)
        assert len(rows)


def test_each_answer_ends_by_itself(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a batch, those that end first are padded."""
    end, pad = scoring.end_tokens(model.model, model.processor)[0], 0
    rows = [[5, end, pad, pad], [6, 7, 8, end], [6, 7, 8, 9]]
    monkeypatch.setattr(scoring, "greedy_tokens", lambda *_: torch.tensor(rows))
    found = scoring.greedy_answers(model.model, model.processor, {})
    assert found == [[5, end], rows[1], rows[2]]


def test_those_that_share_say_so_by_their_options() -> None:
    for analysis in analyses().values():
        shares = any(table.shares_passes for table in analysis.tables)
        assert shares == ("batch" in analysis.options.__dataclass_fields__), analysis.name


def test_a_clip_that_cannot_be_measured_leaves_the_others_in(
    checkpoint: Path, tmp_path: Path
) -> None:
    """A whole run: the table of a batch, of one by one, and the batch in the record."""
    analysis = analysis_of("pathway_masking")
    clips = [*asked(), replace(asked()[0], name="nothing to choose", choices=())]
    tables = []
    for batch in (4, 1):
        given = {"model": [str(checkpoint)], "batch": batch}
        (results,) = run(replace(analysis, items=lambda _: clips), given, tmp_path / str(batch))
        assert list(results.left_out) == ["nothing to choose"]
        tables.append(results.rows("choices"))
        record = (tmp_path / str(batch) / "run.json").read_text(encoding="utf-8")
        assert f'"batch": {batch}' in record
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-4)
