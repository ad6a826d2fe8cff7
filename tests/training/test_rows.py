"""Rows of questions: read, and every one that cannot be used is counted with its reason."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from palscope.audio import load_audio
from palscope.datasets import _decoded as decoded
from palscope.errors import DataError
from palscope.training._recipe import Data
from palscope.training._rows import AudioFolder, SourceRows, read_rows

RATE = 16_000
CSV = Data(format="csv", max_bad=1.0)
OPENAQA = Data(format="openaqa", max_bad=1.0)


def tone(path: Path, seconds: float = 0.2, rate: int = RATE, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.3 * np.sin(np.arange(round(seconds * rate)) / 5)
    sf.write(path, np.stack([samples] * channels, 1), rate)
    return path


def csv(folder: Path, *lines: str, header: str = "path,question,answer,domain,task,split") -> Path:
    file = folder / "q.csv"
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return file


def test_a_csv_with_all_that_can_be_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tone(tmp_path / "a.wav")
    tone(tmp_path / "b.wav", 0.3, rate=44_100, channels=2)
    sf.write(tmp_path / "nan.wav", np.full(100, np.nan, np.float32), RATE, subtype="FLOAT")
    sf.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    sf.write(tmp_path / "silence.wav", np.zeros(4000), RATE)
    tone(tmp_path / "8bit.wav").unlink()
    sf.write(tmp_path / "8bit.wav", 0.3 * np.sin(np.arange(4000)), RATE, subtype="PCM_U8")
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    file = csv(
        tmp_path,
        "a.wav, what? ,dog,sound,label,train",
        'b.wav,"what, then?",NA,sound,label,',
        "silence.wav,what?,nothing,sound,label,",
        "8bit.wav,what?,tone,sound,label,",
        "gone.wav,what?,dog,sound,label,",
        "broken.wav,what?,dog,sound,label,",
        "nan.wav,what?,dog,sound,label,",
        "empty.wav,what?,dog,sound,label,",
        "a.wav,,dog,sound,label,",
        "a.wav,what?,  ,sound,label,",
        f"a.wav,what?,{'x' * 3000},sound,label,",
        ",what?,dog,sound,label,",
    )
    rows = read_rows(CSV, file, None)
    waveforms = rows.decoded(CSV, tmp_path / "cache")
    good = rows.good
    assert good["row"].tolist() == [2, 3, 4, 5]
    assert good[["question", "answer"]].values.tolist()[:2] == [
        ["what?", "dog"],
        ["what, then?", "NA"],  # no missing value, but a word
    ]
    assert [waveforms.seconds(file) for file in good["audio"]] == [0.2, 0.3, 0.25, 0.25]
    expected = load_audio(tmp_path / "b.wav", sample_rate=RATE).samples
    np.testing.assert_array_equal(waveforms[str(tmp_path / "b.wav")], expected)

    with caplog.at_level(logging.WARNING):
        rows.report(tmp_path / "skipped.csv", 1.0)
    assert "8 of 12 rows left out" in caplog.text
    told = pd.read_csv(tmp_path / "skipped.csv")
    assert told[["row", "reason"]].values.tolist() == [
        [6, "missing audio"],
        [7, "unreadable audio"],
        [8, "unreadable audio"],
        [9, "unreadable audio"],
        [10, "empty question"],
        [11, "empty answer"],
        [12, "text too long"],
        [13, "missing audio"],
    ]
    for reason, count in told["reason"].value_counts().items():
        assert f"{reason} {count}" in caplog.text
    with pytest.raises(DataError, match=r"8 of 12 .*more than data\.max_bad = 0\.6 allows"):
        rows.report(tmp_path / "skipped.csv", 0.6)
    rows.report(tmp_path / "skipped.csv", 0.67)


def test_no_bad_row_leaves_an_empty_report(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    rows = read_rows(CSV, csv(tmp_path, "a.wav,what?,dog,,,"), None)
    rows.decoded(CSV, tmp_path / "cache")
    rows.report(tmp_path / "skipped.csv", 0.0)
    assert (tmp_path / "skipped.csv").read_text() == "row,audio,reason,detail\n"


def test_without_a_good_row_there_is_no_training(tmp_path: Path) -> None:
    rows = read_rows(CSV, csv(tmp_path, "gone.wav,what?,dog,,,"), None)
    rows.decoded(CSV, tmp_path / "cache")
    with pytest.raises(DataError, match="no row to train on"):
        rows.report(tmp_path / "skipped.csv", 1.0)


def test_long_sound_is_cut_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tone(tmp_path / "long.wav", 2.0)
    tone(tmp_path / "short.wav", 0.2)
    data = Data(format="csv", max_seconds=0.5)
    rows = read_rows(data, csv(tmp_path, "long.wav,a,b,,,", "short.wav,a,b,,,"), None)
    with caplog.at_level(logging.WARNING):
        waveforms = rows.decoded(data, tmp_path / "cache")
    assert "1 of 2 sounds are longer than 0.5 s and were cut" in caplog.text
    assert [waveforms.seconds(file) for file in rows.good["audio"]] == [0.5, 0.2]


def test_sound_is_decoded_once_bad_ones_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone(tmp_path / "a.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    file = csv(tmp_path, "a.wav,one,b,,,", "a.wav,two,b,,,", "broken.wav,a,b,,,")
    read_rows(CSV, file, None).decoded(CSV, tmp_path / "cache")

    def again(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoded, "load_audio", again)
    rows = read_rows(CSV, file, None)
    assert len(rows.decoded(CSV, tmp_path / "cache")) == 1
    assert len(rows.good) == 2 and rows.bad["reason"].tolist() == ["unreadable audio"]
    with pytest.raises(AssertionError, match="decoded again"):  # another length is another cache
        rows.decoded(Data(format="csv", max_seconds=1), tmp_path / "cache")


def test_other_columns_by_name_and_those_that_lack(tmp_path: Path) -> None:
    tone(tmp_path / "wav" / "a.wav")
    file = csv(tmp_path, "a.wav,what?,dog", header="file,prompt,label")
    data = Data(format="csv", columns={"audio": "file", "question": "prompt", "answer": "label"})
    rows = read_rows(data, file, tmp_path / "wav")
    assert rows.good["audio"].tolist() == [str(tmp_path / "wav" / "a.wav")]
    assert rows.good["domain"].tolist() == [""]
    with pytest.raises(DataError, match=r"path, question, answer missing.*file, prompt, label"):
        read_rows(CSV, file, None)
    with pytest.raises(DataError, match="no such file"):
        read_rows(CSV, tmp_path / "none.csv", None)
    with pytest.raises(DataError, match="no such folder"):
        read_rows(CSV, file, tmp_path / "none")
    (tmp_path / "q.csv").write_bytes(b"\xff\xfe\x00path\x81")
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_rows(CSV, file, None)


# --- OpenAQA --------------------------------------------------------------------------------------


def entry(audio: str, **changes: Any) -> dict[str, Any]:
    return {
        "instruction": "What is heard?",
        "input": "",
        "audio_id": audio,
        "dataset": "audiocaps",
        "task": "caption",
        "output": "A dog barks.",
    } | changes


def openaqa(folder: Path, entries: Any) -> Path:
    file = folder / "q.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    return file


def test_openaqa(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    tone(audio / "as" / "Y-1.5x.flac")
    tone(audio / "clotho" / "7.wav")
    tone(audio / "fsd" / "7.wav")
    file = openaqa(
        tmp_path,
        [
            entry("/data/sls/audioset/as/Y-1.5x.flac"),
            entry("Y-1.5x", dataset=None),
            entry("/elsewhere/fsd/7.wav", input="I am sad"),
            entry("7.wav"),
            entry("nothing.wav"),
            entry("as/Y-1.5x.flac", output=3),
            "a word",
            {"instruction": "a"},
            entry("as/Y-1.5x.flac", output=" "),
        ],
    )
    rows = read_rows(OPENAQA, file, audio)
    assert rows.good["row"].tolist() == [1, 2, 3]
    assert [Path(each).relative_to(audio).as_posix() for each in rows.good["audio"]] == [
        "as/Y-1.5x.flac",
        "as/Y-1.5x.flac",
        "fsd/7.wav",
    ]
    assert rows.good["question"].tolist()[1:] == [
        "What is heard?",
        "What is heard?\n\n### Input:\nI am sad",
    ]
    assert rows.good[["domain", "task"]].values.tolist()[:2] == [
        ["audiocaps", "caption"],
        ["", "caption"],
    ]
    assert rows.bad[["row", "reason"]].values.tolist() == [
        [4, "ambiguous audio"],
        [5, "missing audio"],
        [6, "malformed row"],
        [7, "malformed row"],
        [8, "malformed row"],
        [9, "empty answer"],
    ]


def test_openaqa_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a list of objects, found a dict"):
        read_rows(OPENAQA, openaqa(tmp_path, {"a": 1}), None)
    (tmp_path / "q.json").write_text("[{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_rows(OPENAQA, tmp_path / "q.json", None)


def test_a_file_is_found_by_name_ending_and_folders(tmp_path: Path) -> None:
    for name in ("x/1.wav", "x/1.flac", "y/1.wav"):
        tone(tmp_path / name)
    folder = AudioFolder(tmp_path)
    assert folder.find("/far/x/1.flac") == str(tmp_path / "x/1.flac")
    assert folder.find("/far/y/1.mp3") == str(tmp_path / "y/1.wav")  # another ending
    assert folder.find("z/1.flac") == str(tmp_path / "x/1.flac")
    assert folder.find("1.wav")[0] == "ambiguous audio"
    assert folder.find("")[0] == folder.find("2.wav")[0] == "missing audio"


# --- held out -------------------------------------------------------------------------------------


def rows_of(splits: list[str], clips: int = 10) -> SourceRows:
    table = pd.DataFrame(
        [(n, f"{n % clips}.wav", "q", "a", "d", "t", split) for n, split in enumerate(splits)],
        columns=["row", "audio", "question", "answer", "domain", "task", "split"],
    )
    return SourceRows("here", table, pd.DataFrame(columns=["row", "audio", "reason", "detail"]))


def test_validation_rows_are_held_out_where_there_are_some() -> None:
    rows = rows_of(["train"] * 6 + ["validation"] * 3 + ["test"])
    train, held = rows.split_off(CSV, 2, seed=0)
    assert train["row"].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(held) == 2 and set(held["split"]) == {"validation"}
    with pytest.raises(DataError, match=r"no row is of split 'dev'.*'test', 'train', 'validation'"):
        rows.split_off(Data(format="csv", split="dev"), 2, seed=0)


def test_else_some_rows_are_and_no_other_question_about_their_sound_is_trained_on() -> None:
    rows = rows_of([""] * 30)
    train, held = rows.split_off(CSV, 3, seed=0)
    assert len(held) == 3 and len(train) == 30 - 3 * held["audio"].nunique()
    assert not set(train["audio"]) & set(held["audio"])
    again, _ = rows.split_off(CSV, 3, seed=0)
    assert train.equals(again)
    whole, none = rows.split_off(CSV, 0, seed=0)
    assert len(whole) == 30 and len(none) == 0
