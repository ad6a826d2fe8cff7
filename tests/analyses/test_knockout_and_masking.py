"""The commands `attention_knockout.py` and `pathway_masking.py`, on a tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from palscope.audio import load_audio
from palscope.interventions import Sound
from tests.analyses.conftest import call, open_script

QUICK = ("--width", 2, "--step", 2)


@pytest.fixture(scope="module")
def knockout() -> Any:
    return open_script("attention_knockout")


@pytest.fixture(scope="module")
def masking() -> Any:
    return open_script("pathway_masking")


@pytest.fixture
def command(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda script, *arguments: call(script, monkeypatch, "--model", checkpoint, *arguments)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["path,domain,label,split"]
    for domain, labels in (("sound", ("dog", "rain", "dog")), ("speech", ("six", "two"))):
        for number, label in enumerate(labels):
            name = f"{domain}{number}.wav"
            soundfile.write(tmp_path / name, 0.1 * rng.normal(size=9600), 16000)
            lines.append(f"{name},{domain},{label},validation")
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a finished clip was measured again")


# -- masking ---------------------------------------------------------------------------------------


def test_every_pathway_is_scored_by_domain_and_resumed(
    command: Any,
    masking: Any,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    given = (masking, "--manifest", manifest, "--limit", 2, "--out", out)
    assert command(*given) == 0
    assert "4 clip(s) measured, 0 left out" in capsys.readouterr().out
    table = pd.read_parquet(out / "masking.parquet")
    assert [len(rows) for _, rows in table.groupby("clip")] == [8] * 4
    assert set(table["masked"]) == {"nothing", "frames", "summary", "frames + summary"}
    assert set(table["answer"]) == {"dog", "rain", "six", "two"}
    scores: Any = pd.read_csv(out / "scores.csv").set_index(["domain", "way", "masked"])
    for way in ("knockout", "reroute"):
        for masked in set(table["masked"]):
            rows = table[(table["way"] == way) & (table["masked"] == masked)]
            assert scores.loc[("all", way, masked), "accuracy"] == rows["correct"].mean()
    assert set(scores.index.get_level_values("domain")) == {"sound", "speech", "all"}
    assert len(pd.read_csv(out / "contrasts.csv")) == 6
    for ending in ("html", "png", "svg", "csv"):
        assert (out / f"accuracy.{ending}").stat().st_size > 100
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["finished"]
    monkeypatch.setattr(masking, "pathway_masking", never)
    assert command(*given) == 2
    assert command(*given, "--resume") == 0


def test_one_way_of_masking_alone(
    command: Any, masking: Any, manifest: Path, tmp_path: Path
) -> None:
    given = ("--manifest", manifest, "--limit", 1, "--out", tmp_path / "out", "--way", "reroute")
    assert command(masking, *given) == 0
    assert set(pd.read_parquet(tmp_path / "out" / "masking.parquet")["way"]) == {"reroute"}


# -- knockout --------------------------------------------------------------------------------------


def test_a_manifests_clips_are_cut_by_window_and_step_and_resumed(
    command: Any,
    knockout: Any,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    given = (knockout, "--manifest", manifest, "--limit", 1, *QUICK, "--seconds", 0.3)
    assert command(*given, "--out", out) == 0
    assert "2 clip(s) measured, 0 left out" in capsys.readouterr().out
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
    monkeypatch.setattr(knockout, "attention_knockout", never)
    assert command(*given, "--out", out) == 2
    assert command(*given, "--out", out, "--resume") == 0


def test_pairs_are_asked_by_default_and_their_stretches_are_cut(
    command: Any, knockout: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ("--kind", "digit", "first_digit", "--limit", 1, *QUICK, "--queries", "last")
    assert command(knockout, *given, "--out", out) == 0
    table = pd.read_parquet(out / "knockout.parquet")
    assert list(table["group"].unique()) == ["digit", "first_digit"]
    named = table.dropna(subset=["segment"])
    assert set(named["group"]) == {"first_digit"}  # a single slot is the whole clip
    assert list(named["segment"].unique()) == ["first digit", "silence", "second digit"]
    assert len(knockout.chosen_pairs(type("", (), {"kind": None}))) == 20


def test_the_runner_up_is_the_likeliest_wrong_choice(checkpoint: Path, knockout: Any) -> None:
    import palscope
    from palscope.measures._choices import choice_logprobs

    model = palscope.load(checkpoint)
    clip = np.random.default_rng(0).normal(size=9600).astype(np.float32)
    inputs = model.inputs("what?", clip)
    choices = ("dog", "rain", "sea waves", "rooster")
    order = [choices[i] for i in np.argsort(-choice_logprobs(model, inputs, choices))]
    for answer, other in ((order[0], order[1]), (order[2], order[0])):
        question = knockout.Question("q", "g", "what?", answer, clip, None, choices, {})
        assert knockout.runner_up(model, inputs, question) == other
    question = knockout.Question("q", "g", "what?", "dog", clip, None, (), {})
    assert knockout.runner_up(model, inputs, question) is None


def test_only_clips_that_are_answered_right_are_drawn(
    command: Any,
    knockout: Any,
    checkpoint: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With answers that the random model gives, and one that it does not."""
    import palscope

    model = palscope.load(checkpoint)
    asked: list[Any] = []
    for number in range(5):
        clip = load_audio(manifest.parent / f"{('sound', 'speech')[number % 2]}{number // 2}.wav")
        inputs = model.inputs("what?", clip)
        said = model.tokenizer.decode([int(model(dict(inputs))[0, -1].argmax())])
        segments = {"begin": Sound(0, 0.3), "end": Sound(0.3, 0.6)}
        name = f"q{number}"
        asked.append(
            knockout.Question(name, "made", "what?", said, clip, "zzz", (), segments)
            if number
            else knockout.Question(name, "made", "what?", "rooster", clip, "dog", (), segments)
        )
        if number == 3:
            break
    monkeypatch.setattr(knockout, "questions", lambda given: asked)
    out = tmp_path / "out"
    given = ("--queries", "text", "generated", *QUICK)
    assert command(knockout, *given, "--out", out) == 0
    table: Any = pd.read_parquet(out / "knockout.parquet")
    right = int(table.groupby("clip")["solved"].first().sum())
    assert 1 <= right < 4  # what decodes to half a character is encoded as other tokens
    assert f"{right} of 4 clip(s) answered right" in capsys.readouterr().out
    for stem in ("depth_logprob_change", "depth_flipped"):
        for ending in ("html", "png", "svg", "csv"):
            assert (out / f"{stem}.{ending}").stat().st_size > 100
        assert set(pd.read_csv(out / f"{stem}.csv")["n"]) == {right}
    for pathway in ("frames", "summary", "all_audio"):
        stretches = pd.read_csv(out / f"segments_made_{pathway}.csv")
        assert list(stretches["segment"].unique()) == ["begin", "end"]
    effects = pd.read_csv(out / "effects.csv")
    assert set(effects["measure"]) == {"logprob_change", "logit_diff_change", "kl", "flipped"}
    assert set(effects["queries"]) == {"text", "generated", "summary"}


def test_steps_are_for_clips(
    command: Any, knockout: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(knockout, *QUICK, "--seconds", 1, "--out", tmp_path / "out") == 2
    assert "pairs have stretches by name" in capsys.readouterr().err
