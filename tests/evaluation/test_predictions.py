from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palscope.errors import AudioError, PalscopeError
from palscope.evaluation._items import EvaluationItem
from palscope.evaluation._predictions import predict
from palscope.evaluation._ranking import ChoiceQuestion


class Counting:
    """Answers the first choice, and stops like a killed process after so many batches."""

    def __init__(self, batches: int = 99) -> None:
        self.left = batches
        self.questions: list[str] = []

    def choice_logprobs(self, asked: list[ChoiceQuestion]) -> list[list[float]]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.questions += [each.question for each in asked]
        return [[-1.0, -2.0] for _ in asked]

    def answer(self, asked: list[ChoiceQuestion]) -> list[str]:
        return [" rain " for _ in asked]


def item(number: int, *, broken: bool = False) -> EvaluationItem:
    def audio() -> list[np.ndarray]:
        if broken:
            raise AudioError("x.wav: broken")
        return [np.zeros(3, np.float32)]

    return EvaluationItem(
        f"k{number}", "sound", f"q{number}", "dog", ("dog", "rain"), ("dog",), audio
    )


ITEMS = [item(number) for number in range(7)]


def test_each_answer_is_kept(tmp_path: Path) -> None:
    predictions = predict(ITEMS, Counting(), tmp_path, settings={}, batch_size=3, progress=False)
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == predictions
    assert predictions[6] == {
        "key": "k6",
        "domain": "sound",
        "question": "q6",
        "answer": "dog",
        "heard": ["dog"],
        "best": "dog",
        "logprobs": {"dog": -1.0, "rain": -2.0},
        "greedy": "rain",
    }


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict(ITEMS, Counting(2), tmp_path, settings={"a": 1}, batch_size=2, progress=False)
    file = tmp_path / "predictions.jsonl"
    assert len(file.read_text().splitlines()) == 4
    file.write_bytes(file.read_bytes()[:-9])  # the kill came while writing
    rest = Counting()
    again: dict[str, Any] = {"settings": {"a": 1}, "batch_size": 2, "progress": False}
    with pytest.raises(PalscopeError, match=r"holds a run already.*--resume"):
        predict(ITEMS, rest, tmp_path, **again)
    assert rest.questions == [] and len(file.read_text().splitlines()) == 4
    predictions = predict(ITEMS, rest, tmp_path, resume=True, **again)
    assert rest.questions == ["q3", "q4", "q5", "q6"]
    assert [each["key"] for each in predictions] == [each.key for each in ITEMS]
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 7


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    predict(ITEMS, Counting(), tmp_path, settings={"model": "a"}, progress=False)
    before = (tmp_path / "predictions.jsonl").read_bytes()
    other = Counting()
    with pytest.raises(PalscopeError, match=r"other settings \(config\.model: 'a', now 'b'\)"):
        predict(ITEMS[:2], other, tmp_path, settings={"model": "b"}, resume=True, progress=False)
    assert other.questions == [] and (tmp_path / "predictions.jsonl").read_bytes() == before


def test_lines_of_unknown_settings_do_not_count(tmp_path: Path) -> None:
    predict(ITEMS, Counting(), tmp_path, settings={"model": "a"}, progress=False)
    (tmp_path / "settings.json").unlink()
    other = Counting()
    predict(ITEMS[:2], other, tmp_path, settings={"model": "b"}, resume=True, progress=False)
    assert other.questions == ["q0", "q1"]
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 2


def test_unreadable_audio_is_noted_and_the_rest_is_answered(tmp_path: Path) -> None:
    items = [item(0), item(1, broken=True), item(2)]
    predictions = predict(items, Counting(), tmp_path, settings={}, progress=False)
    assert [each.get("error") for each in predictions] == [None, "x.wav: broken", None]
    assert "best" not in predictions[1] and predictions[2]["best"] == "dog"


@pytest.mark.parametrize("written", [0, 10, 200])
def test_a_full_disk_leaves_answers_that_are_gone_on_from(
    tmp_path: Path, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        """A file that takes so many characters."""

        def __init__(self, file: Any) -> None:
            super().__init__()
            self.file = file

        def write(self, text: str) -> int:
            self.file.write(text[:written])
            self.file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = real(self, mode, *args, **kwargs)
        return Full(file) if mode == "a" else file

    monkeypatch.setattr(Path, "open", opened)
    asking: dict[str, Any] = {"settings": {}, "batch_size": 3, "progress": False}
    with pytest.raises(PalscopeError, match=r"predictions\.jsonl cannot be written: no space"):
        predict(ITEMS, Counting(), tmp_path, **asking)
    monkeypatch.undo()
    whole = predict(ITEMS, Counting(), tmp_path / "whole", **asking)
    assert predict(ITEMS, Counting(), tmp_path, resume=True, **asking) == whole


def test_lines_that_are_no_predictions_are_asked_again(tmp_path: Path) -> None:
    asking: dict[str, Any] = {"settings": {}, "batch_size": 3, "progress": False}
    whole = predict(ITEMS, Counting(), tmp_path, **asking)
    with (tmp_path / "predictions.jsonl").open("a") as file:
        file.write('3\n[1]\n{"a": 1}\nnull\n{"key": "k1", "torn')
    assert predict(ITEMS, Counting(), tmp_path, resume=True, **asking) == whole
    (tmp_path / "settings.json").write_text("[")
    with pytest.raises(PalscopeError, match=r"settings\.json: not valid JSON"):
        predict(ITEMS, Counting(), tmp_path, resume=True, **asking)
