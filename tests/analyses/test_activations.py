"""The command that stores activations: which clips and sites it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from palscope.features import ActivationStore
from tests.analyses.conftest import call, open_script


def test_sites_and_clips_are_those_that_are_named(
    checkpoint: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = open_script("activations")
    out = tmp_path / "run"
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    words: list[Any] = ["--model", checkpoint, "--audio", manifest, tmp_path / "broken.wav"]
    words += ["--at", "encoder_block:0,1", "resid_post:2", "--out", out, "--shard", 2]
    assert call(script, monkeypatch, *words) == 0
    told = capsys.readouterr()
    assert "broken.wav" in told.err and "6 clip(s), 1 left out" in told.out
    assert "blocks.2.hook_resid_post: 10 rows of 32" in told.out  # two summaries a clip
    store = ActivationStore(out)
    assert list(store.hook_points) == [
        "audio_blocks.0.hook_out",
        "audio_blocks.1.hook_out",
        "blocks.2.hook_resid_post",
    ]
    assert set(store.clips.label) == {"dog", "rain", "six", "two", ""}
    assert set(store.clips.split) == {"validation", ""} and len(store.left_out) == 1
    assert call(script, monkeypatch, *words) == 2
    assert "go on with it by --resume" in capsys.readouterr().err
    assert call(script, monkeypatch, *words, "--resume") == 0


def test_patterns_are_those_of_the_query_that_predicts_the_answer(
    checkpoint: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    words: list[Any] = ["--model", checkpoint, "--audio", manifest, "--at", "pattern:0,2"]
    assert call(open_script("activations"), monkeypatch, *words, "--out", out) == 0
    store = ActivationStore(out)
    assert "queries=Text(what=-1)" in store.record["config"]["addresses"][0]
    assert {layer for layer, _ in store["pattern.summary"].heads or ()} == {0, 2}


@pytest.mark.parametrize(
    ("at", "says"), [("encoder_block:a", "layers are numbers"), ("nowhere:1", "no site 'nowhere'")]
)
def test_a_site_that_is_none_is_told(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at: str,
    says: str,
) -> None:
    script = open_script("activations")
    words = ["--model", checkpoint, "--at", at, "--out", tmp_path / "run"]
    assert call(script, monkeypatch, *words) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "run").exists()
