"""Asking a model every item, and keeping each answer as it comes, so that a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from palscope._files import (
    LARGEST_TEXT,
    make_folder,
    read_object,
    write_json,
    write_text,
    writing,
)
from palscope._sweeps.store import check_same, taken
from palscope.errors import AudioError, PalscopeError
from palscope.evaluation._items import EvaluationItem
from palscope.evaluation._ranking import Answerer, ChoiceQuestion, rankings

Prediction = dict[str, Any]
"""One line of `predictions.jsonl`: the item's `key`, `domain`, `question`, `answer` and `heard`,
then `best` (the likeliest choice) and `logprobs` (nats, by choice) where there are choices, and
`greedy` (the text the model writes), or `error` where the audio could not be read."""


def predict(
    items: Sequence[EvaluationItem],
    answerer: Answerer,
    folder: str | Path,
    *,
    settings: dict[str, Any],
    resume: bool = False,
    batch_size: int = 8,
    progress: bool = True,
) -> list[Prediction]:
    """Ask every item and return the predictions in the items' order.

    They are written to `predictions.jsonl` in `folder` batch by batch, and `settings` (what the
    run depends on: JSON values) to `settings.json`. With `resume`, only what is still unanswered in
    `folder` is asked. An item whose audio cannot be read gets a prediction with `error` instead of
    an answer.

    Raises:
        PalscopeError: `folder` holds a run and `resume` is off, or that run's settings are others.
    """
    store = _Store(Path(folder), settings, resume)
    open_items = [item for item in items if item.key not in store.done]
    with tqdm(
        total=len(items),
        initial=len(items) - len(open_items),
        desc="answering",
        unit="clip",
        disable=not progress,
    ) as bar:
        for start in range(0, len(open_items), batch_size):
            batch = open_items[start : start + batch_size]
            store.add(_answer(batch, answerer))
            bar.update(len(batch))
    return [store.done[item.key] for item in items]


def _answer(items: Sequence[EvaluationItem], answerer: Answerer) -> list[Prediction]:
    predictions: list[Prediction] = []
    readable: list[Prediction] = []
    asked: list[ChoiceQuestion] = []
    for item in items:
        prediction: Prediction = {
            "key": item.key,
            "domain": item.domain,
            "question": item.question,
            "answer": item.answer,
            "heard": list(item.in_audio),
        }
        predictions.append(prediction)
        try:
            asked.append(item.asked())
            readable.append(prediction)
        except AudioError as error:
            prediction["error"] = str(error)
    if asked:
        closed = [n for n, each in enumerate(asked) if each.choices]
        if closed:
            for n, ranking in zip(
                closed, rankings(answerer, [asked[n] for n in closed]), strict=True
            ):
                readable[n]["best"] = ranking.best
                readable[n]["logprobs"] = dict(zip(ranking.choices, ranking.logprobs, strict=True))
        for prediction, text in zip(readable, answerer.answer(asked), strict=True):
            prediction["greedy"] = text.strip()
    return predictions


def goes_on(folder: Path, settings: dict[str, Any], *, resume: bool) -> bool:
    """Whether `folder`, which is made where there is none, holds a run with these settings.

    Raises:
        PalscopeError: it holds a run and `resume` is off, or that run's settings are others.
    """
    make_folder(folder)
    kept = folder / "settings.json"
    if not kept.is_file():
        return False
    if not resume:
        raise taken(folder, "answers stand in it")
    stored = read_object(kept, "a run's settings", PalscopeError, largest=LARGEST_TEXT)
    check_same(folder, {"config": stored}, {"config": json.loads(json.dumps(settings))})
    return True


class _Store:
    """The predictions so far, in memory and on disk."""

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self.path = folder / "predictions.jsonl"
        self.done: dict[str, Prediction] = {}
        if goes_on(folder, settings, resume=resume) and self.path.is_file():
            self.done = _read(self.path)
        # Written back whole: a kill may have torn the last line, and appending would join to it.
        # First the lines of no known settings go, then the settings come.
        write_text(self.path, "".join(map(_line, self.done.values())))
        write_json(folder / "settings.json", settings)

    def add(self, predictions: Sequence[Prediction]) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, predictions)))
        self.done |= {prediction["key"]: prediction for prediction in predictions}


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction, ensure_ascii=False) + "\n"


def _read(path: Path) -> dict[str, Prediction]:
    done: dict[str, Prediction] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            prediction: Prediction = json.loads(line)
        except ValueError:
            continue  # torn by a kill; its item is asked again
        if isinstance(prediction, dict) and "key" in prediction:  # pyright: ignore[reportUnnecessaryIsInstance]
            done[str(prediction["key"])] = prediction
    return done
