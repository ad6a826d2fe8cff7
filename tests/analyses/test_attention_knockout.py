"""Attention knockout of clips and pairs, on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import palscope
from palscope.analyses import AskedClip, analysis_of, main
from palscope.audio import load_audio
from palscope.interventions import Sound
from palscope.measures._choices import choice_logprobs
from tests.analyses.conftest import open_script

QUICK = ("--width", 2, "--stride", 2)


def test_a_manifest_s_clips_are_cut_by_window_and_step(
    analyse: Callable[..., Path], manifest: Path
) -> None:
    out = analyse("attention_knockout", "--audio", manifest, "--n", 1, *QUICK, "--step", 0.3)
    table = pd.read_parquet(out / "knockout.parquet")
    assert set(table["group"]) == {"sound", "speech"}
    whole = table[table["segment"].isna() & (table["run"] == "cut")]
    edges = {(row.queries, row.pathway) for row in whole.itertuples()}
    assert edges == {
        *((reader, read) for reader in ("text", "last") for read in ("frames", "summary")),
        *((reader, read) for reader in ("text", "last") for read in ("all audio", "text")),
        ("summary", "frames"),
        ("summary", "summary"),
    }
    windows = set(zip(whole["first_layer"], whole["last_layer"], strict=True))
    assert windows == {(0, 1), (2, 3), (0, 3)}
    control = whole[whole["pathway"] == "text"]
    assert control["keys"].gt(0).all() and control["keys"].max() <= whole["keys"].max()
    parts = table[table["segment"].notna()]
    assert set(parts["segment"]) == {"0.00 to 0.30 s", "0.30 to 0.60 s"}
    assert set(parts["queries"]) == {"text"}
    for _, clip in table.groupby("clip"):
        assert clip["run"].eq("plain").sum() == 1
        assert clip["answer"].nunique() == clip["other"].nunique() == 1
        assert clip["answer"].iloc[0] != clip["other"].iloc[0]


def test_stretches_of_pairs_are_cut_by_their_names(analyse: Callable[..., Path]) -> None:
    given = ("--kind", "digit", "first_digit", "--n", 1, *QUICK, "--queries", "last")
    table = pd.read_parquet(analyse("attention_knockout", *given) / "knockout.parquet")
    assert list(table["group"].unique()) == ["digit", "first_digit"]
    named = table.dropna(subset=["segment"])
    assert set(named["group"]) == {"first_digit"}  # a single slot is the whole clip
    assert list(named["segment"].unique()) == ["first digit", "silence", "second digit"]


def test_the_runner_up_is_the_likeliest_wrong_choice(checkpoint: Path) -> None:
    script = open_script("attention_knockout")
    model = palscope.load(checkpoint)
    clip = np.random.default_rng(0).normal(size=9600).astype(np.float32)
    inputs = model.inputs("what?", clip)
    choices = ("dog", "rain", "sea waves", "rooster")
    order = [choices[i] for i in np.argsort(-choice_logprobs(model, inputs, choices))]
    asked = AskedClip("q", "g", "what?", Path("unused.wav"), choices=choices)
    for answer, other in ((order[0], order[1]), (order[2], order[0])):
        assert script.runner_up(model, inputs, replace(asked, answer=answer)) == other
    assert script.runner_up(model, inputs, replace(asked, answer="dog", choices=())) is None


def test_only_clips_that_are_answered_right_are_drawn(
    checkpoint: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With answers that the random model gives, and one that it does not."""
    model = palscope.load(checkpoint)
    parts = {"begin": Sound(0, 0.3), "end": Sound(0.3, 0.6)}
    asked: list[AskedClip] = []
    for name in ("sound0", "sound1", "speech0", "speech1"):
        clip = load_audio(manifest.parent / f"{name}.wav")
        inputs = model.inputs("what?", clip)
        said = model.tokenizer.decode([int(model(dict(inputs))[0, -1].argmax())])
        asked.append(AskedClip(name, "made", "what?", clip, said, other="zzz", segments=parts))
    asked[0] = replace(asked[0], answer="rooster", other="dog")
    analysis = replace(analysis_of("attention_knockout"), items=lambda options: asked)
    words = ["--model", checkpoint, "--queries", "text", "generated", *QUICK, "--out", tmp_path]
    assert main(analysis, words=[*map(str, words)]) == 0
    table: Any = pd.read_parquet(tmp_path / "knockout.parquet")
    right = int(table.groupby("clip")["solved"].first().sum())
    assert 1 <= right < 4  # what decodes to half a character is encoded as other tokens
    assert f"{right} of 4 clip(s) answered right" in capsys.readouterr().out
    for stem in ("depth_logprob_change", "depth_flipped"):
        assert set(pd.read_csv(tmp_path / f"{stem}.csv")["n"]) == {right}
    for pathway in ("frames", "summary", "all_audio"):
        stretches = pd.read_csv(tmp_path / f"segments_made_{pathway}.csv")
        assert list(stretches["segment"].unique()) == ["begin", "end"]
    effects = pd.read_csv(tmp_path / "effects.csv")
    assert set(effects["measure"]) == {"logprob_change", "logit_diff_change", "kl", "flipped"}
    assert set(effects["queries"]) == {"text", "generated", "summary"}


def test_one_stretch_is_cut_beside_the_others_of_its_length(
    analyse: Callable[..., Path], manifest: Path, checkpoint: Path
) -> None:
    given = ("--n", 1, "--seconds", 0.1, 0.25, "--streams", "frames", "--layers", 1, 2)
    out = analyse("attention_knockout", "--audio", manifest, *given, "--queries", "text")
    table: Any = pd.read_parquet(out / "knockout.parquet")
    cuts = table[table["run"] == "cut"]
    for _, clip in cuts.groupby("clip"):
        mine, others = clip.iloc[0], clip.iloc[1:]
        assert (mine["segment"], mine["start_s"], mine["end_s"]) == ("selected", 0.1, 0.25)
        # Frames of 0.1 s: the stretch takes those up to 0.3 s, and no control touches them.
        assert len(others) and others["start_s"].min() >= 0.3
        np.testing.assert_allclose(others["end_s"] - others["start_s"], 0.15)
    assert set(zip(cuts["first_layer"], cuts["last_layer"], strict=True)) == {(1, 2)}
    assert set(cuts["pathway"]) == {"frames"} and not (out / "depth_flipped.csv").exists()


def test_seconds_that_are_no_stretch_are_refused(
    refused: Callable[..., str], manifest: Path
) -> None:
    for given in ((1.2, 0.5), (1.2,), (0.1, 0.2, 0.3)):
        said = refused("attention_knockout", "--audio", manifest, "--n", 1, "--seconds", *given)
        assert "a START and a later END" in said
