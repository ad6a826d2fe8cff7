"""Streams of Hugging Face datasets: sound decoded here, bad rows counted, the order fixed."""

from __future__ import annotations

import io
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from palscope.errors import DataError
from palscope.training._curriculum import TrainingPaths, train_recipe
from palscope.training._recipe import Data
from palscope.training._recipe_files import read_recipe
from palscope.training._streams import StreamedQuestions, open_stream
from tests.training import small

datasets: Any = pytest.importorskip("datasets")
DATA = Data(format="datasets", max_bad=1.0, max_seconds=0.2)


def wav(seconds: float, pitch: float = 300.0) -> bytes:
    file = io.BytesIO()
    time = np.arange(round(seconds * small.RATE)) / small.RATE
    sf.write(file, 0.3 * np.sin(2 * np.pi * pitch * time), small.RATE, format="WAV")
    return file.getvalue()


def entry(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "audio": {"bytes": wav(0.1 + 0.01 * number), "path": None},
        "question": "which tone is this",
        "answer": f"a{number}",
        "domain": "edge" if number % 2 else "centre",
        "task": "pitch",
    } | changes


def saved(folder: Path, entries: list[dict[str, Any]]) -> str:
    """A folder that `datasets` wrote, whose audio it would decode."""
    stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    words = {name: datasets.Value("string") for name in ("question", "answer", "domain", "task")}
    features = datasets.Features({"audio": stored} | words)
    rows = datasets.Dataset.from_list(entries, features=features)
    rows = rows.cast_column("audio", datasets.Audio())  # without torchcodec it cannot encode
    rows.save_to_disk(str(folder))
    return str(folder)


def stream(folder: Path, entries: list[dict[str, Any]], **changes: Any) -> StreamedQuestions:
    settings: dict[str, Any] = {"size": len(entries), "mix": {}, "report": folder / "bad.csv"}
    settings |= changes
    data = settings.pop("data", DATA)
    return StreamedQuestions(open_stream(saved(folder / "set", entries), data), data, **settings)


def test_every_row_once_a_pass_and_the_same_again(tmp_path: Path) -> None:
    rows = stream(tmp_path, [entry(n) for n in range(6)], size=12)
    heard = [example.answer for example in rows]
    assert sorted(heard[:6]) == sorted(heard[6:]) == [f"a{n}" for n in range(6)]
    assert heard[:6] != heard[6:]
    assert [example.answer for example in rows] == heard
    seconds = {example.answer: len(example.waveforms[0]) / small.RATE for example in rows}
    assert seconds["a3"] == pytest.approx(0.13)
    assert stream(tmp_path, [entry(15)]).__iter__().__next__().waveforms[0].size == 3200  # cut


def test_shares_of_a_mix(tmp_path: Path) -> None:
    mix = {"edge/*": 0.8, "centre/*": 0.2}
    rows = stream(tmp_path, [entry(n) for n in range(4)], size=1000, mix=mix)
    kinds = Counter(example.kind for example in rows)
    assert kinds["edge/pitch"] / 1000 == pytest.approx(0.8, abs=0.03)
    with pytest.raises(DataError, match=r"no usable row of the dataset is of 'x/\*'"):
        list(stream(tmp_path, [entry(n) for n in range(4)], mix={"x/*": 1.0}))


def test_bad_rows_are_counted_told_and_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [
        entry(0),
        entry(1, answer=" "),
        entry(2, audio={"bytes": b"RIFF nothing", "path": None}),
        entry(3, audio=None),
        entry(4, question=None),
        entry(5),
    ]
    rows = stream(tmp_path, entries, size=2)
    with caplog.at_level(logging.WARNING):
        assert sorted(example.answer for example in rows) == ["a0", "a5"]
        list(stream(tmp_path, entries, size=20))
    assert rows.bad and set(rows.bad) <= {"empty answer", "unreadable audio", "empty question"}
    report = (tmp_path / "bad.csv").read_text().splitlines()
    assert report[0] == "row,audio,reason,detail"
    assert sum("unreadable audio" in line for line in report) >= 2
    strict = Data(format="datasets", max_bad=0.5)
    with pytest.raises(DataError, match=r"rows of the stream cannot be used.*max_bad = 0\.5"):
        list(stream(tmp_path, entries, size=200, data=strict))


def test_columns_and_datasets_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data(format="datasets", columns={"answer": "label"})
    with pytest.raises(DataError, match=r"no column 'label' \(answer\); it has audio, question"):
        list(stream(tmp_path, [entry(0)], data=data))
    with pytest.raises(DataError, match="cannot be opened"):
        open_stream(str(tmp_path / "nothing"), DATA)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"palscope\[training\]"):
        open_stream(str(tmp_path / "set"), DATA)


def test_a_training_on_a_stream_goes_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    names = list(small.PITCH)
    entries = [
        entry(
            n,
            audio={"bytes": wav(0.2, small.PITCH[names[n % 3]]), "path": None},
            answer=names[n % 3],
        )
        for n in range(10)
    ]
    source = saved(tmp_path / "set", entries)
    content = small.recipe(
        small.write_bases(tmp_path),
        data={"format": "datasets"},
        samples={"every": 4, "count": 1, "max_new_tokens": 1},
    )
    recipe = read_recipe(str(small.write_recipe(tmp_path / "r.yaml", content)))

    def train(out: str) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        paths = TrainingPaths([source], tmp_path / out, tmp_path / "cache", workers=1)
        (folder,) = train_recipe(recipe, paths)
        assert (folder / "skipped_rows.csv").is_file()
        return load_file(folder / "model.safetensors")

    whole = train("whole")
    step, done = Trainer.training_step, []

    def killed(*args: Any, **kwargs: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return step(*args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train("killed")
    monkeypatch.setattr(Trainer, "training_step", step)
    resumed = train("killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
