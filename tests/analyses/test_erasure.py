"""The command that erases labels and asks again: what it writes and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from palscope.audio import load_audio
from palscope.features import LabelledClip, collect_activations
from palscope.interventions import Address
from tests.analyses.conftest import call, open_script

TONES = {"dog": 400.0, "rain": 1500.0}
HOOK = "audio_blocks.0.hook_out"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of short tones with noise: two labels of "sound", two of "speech"."""
    folder, drawn = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    lines = ["path,domain,label,split,group"]
    for domain, labels in (("sound", ("dog", "rain")), ("speech", ("one", "two"))):
        for label, hertz in zip(labels, TONES.values(), strict=True):
            for number in range(8):
                name = f"{domain}-{label}-{number}.wav"
                seconds = np.arange(4800) / 16_000
                wave = 0.2 * np.sin(2 * np.pi * hertz * seconds) + drawn.normal(0, 0.02, 4800)
                soundfile.write(folder / name, wave, 16_000)
                split = "train" if number < 6 else "validation"
                lines.append(f"{name},{domain},{label},{split},{label} {number}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def store(clips: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import palscope

    table: Any = pd.read_csv(clips)
    every = [
        LabelledClip(
            row["path"],
            load_audio(clips.parent / row["path"]),
            **{name: row[name] for name in ("domain", "label", "split", "group")},
        )
        for row in table.to_dict("records")
    ]
    out = tmp_path_factory.mktemp("rows") / "run"
    collect_activations(
        palscope.load(checkpoint), every, [Address("encoder_block", layers=(0,))], out
    )
    return out


def test_what_is_decodable_stands_beside_what_is_used(
    store: Path,
    clips: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    script = open_script("erasure")
    words = ["--model", checkpoint, "--audio", clips, "--at", "encoder_block:0", "--n", 2]
    assert call(script, monkeypatch, store, *words, "--out", tmp_path / "out") == 0
    table: Any = pd.read_csv(tmp_path / "out" / "erasure.csv")
    told = table.set_index(["question", "of", "erased"]).sort_index()
    for domain in ("sound", "speech"):
        assert told.accuracy["decodable", domain, "nothing"] == 1.0  # two tones
        assert told.accuracy["decodable", domain, "labels"] <= 0.75
        assert told["rank"]["decodable", domain, "labels"] == 1
        for question in ("used", "elsewhere"):
            assert told.n[question, domain].tolist() == [2, 2, 2]
    answers: Any = pd.read_csv(tmp_path / "out" / "answers.csv")
    assert len(answers) == 4 * 2 * 3 and set(answers["domain"]) == {"sound", "speech"}
    used = answers[(answers["of"] == "sound") & (answers["domain"] == "sound")]
    by_hand = used.groupby("erased")["right"].mean()
    for erased in ("nothing", "labels", "random"):
        assert told.accuracy["used", "sound", erased] == by_hand[erased]
    # Each eraser acted in the model, and no two the same.
    for _, clip in answers.groupby("clip"):
        assert clip["logprob"].nunique() == 5
    said = capsys.readouterr().out
    assert "sound, labels erased: probe" in said and "answers about other domains" in said
    for ending in ("html", "png", "svg", "csv"):
        assert (tmp_path / "out" / f"erasure.{ending}").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--at", "encoder_block"], "is at several hook points"),
        (["--at", "encoder_block:1"], "has no 'audio_blocks.1.hook_out'"),
        (["--at", "encoder_block:0", "--domain", "music"], "no clips of domain 'music'"),
        (["--at", "encoder_block:0", "--train", "first"], "of sound and split 'first'"),
    ],
)
def test_what_does_not_fit_is_told(
    store: Path,
    clips: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    words: list[str],
    says: str,
) -> None:
    script = open_script("erasure")
    given = ["--model", checkpoint, "--audio", clips, *words, "--out", tmp_path / "out"]
    assert call(script, monkeypatch, store, *given) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()
