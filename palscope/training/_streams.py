"""Questions streamed from a Hugging Face dataset: nothing is stored, rows are read as they come."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from palscope.audio import load_audio
from palscope.audio._compose import SAMPLE_RATE
from palscope.datasets._examples import Example
from palscope.errors import AudioError, DataError
from palscope.training._mixture import pattern_of, row_example
from palscope.training._recipe import COLUMNS, Data
from palscope.training._rows import REPORT, why_unfit

SHUFFLED = 1000
"""Rows that are shuffled among each other, of a stream that cannot be shuffled as a whole."""
ENOUGH = 200
"""Rows after which their share of bad ones is judged."""

_log = logging.getLogger(__name__)


class StreamedQuestions(IterableDataset[Example]):
    """`size` examples of a dataset, by the shares of `mix`, the same for any number of processes.

    Each kind of rows is a pass of its own over the dataset, begun again at its end; every process
    reads all and keeps its part.

    Args:
        rows: a `datasets.IterableDataset`; its audio column is decoded here.
        data: columns and limits.
        size: number of examples.
        mix: share of each pattern of `domain/task`; empty for all rows alike.
        seed: of shuffling and draws.
        report: gets a line a bad row; None for none.

    Raises:
        DataError: on reading, a column is missing, a pattern fits no row, or more rows than
            `data.max_bad` are bad.
    """

    def __init__(
        self,
        rows: Any,
        data: Data,
        *,
        size: int,
        mix: Mapping[str, float],
        seed: int = 0,
        report: Path | None = None,
    ) -> None:
        self.rows = rows
        self.data = data
        self.size = size
        self.mix = dict(mix) or {"*": 1.0}
        self.seed = seed
        self.report = report
        self.met = 0
        self.bad: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Example]:
        self.met, self.bad = 0, Counter()
        if self.report is not None:
            self.report.write_text(",".join(REPORT) + "\n", encoding="utf-8")
        sources = {pattern: self._of_kind(pattern) for pattern in self.mix}
        rng = np.random.default_rng(self.seed)
        shares = np.array(list(self.mix.values())) / sum(self.mix.values())
        for _ in range(self.size):
            yield next(sources[list(self.mix)[int(rng.choice(len(shares), p=shares))]])

    def _of_kind(self, pattern: str) -> Iterator[Example]:
        """The examples of one pattern, without end."""
        passes = 0
        while True:
            rows = self.rows.shuffle(seed=self.seed + passes, buffer_size=SHUFFLED)
            found = 0
            for number, entry in enumerate(rows, 1):
                row = self._named(entry)
                if pattern_of(row["domain"], row["task"], self.mix) != pattern:
                    continue
                example = self._example(number, row)
                if example is not None:
                    found += 1
                    yield example
            if not found:
                raise DataError(f"mix: no usable row of the dataset is of {pattern!r}.")
            passes += 1

    def _named(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for field in COLUMNS:
            theirs = self.data.columns.get(field, field)
            if theirs not in entry and field in ("audio", "question", "answer"):
                raise DataError(
                    f"the dataset has no column {theirs!r} ({field}); it has "
                    f"{', '.join(map(str, entry))}. Name it in data.columns."
                )
            given = entry.get(theirs)
            row[field] = given if field == "audio" else "" if given is None else str(given).strip()
        return row

    def _example(self, number: int, row: dict[str, Any]) -> Example | None:
        self.met += 1
        why = why_unfit(row["question"], row["answer"], self.data)
        if why is None:
            try:
                return row_example(row, self._samples(row["audio"]))
            except AudioError as error:
                why = "unreadable audio", str(error)
        self.bad[why[0]] += 1
        self._tell(number, *why)
        return None

    def _tell(self, number: int, reason: str, detail: str) -> None:
        if self.report is not None:
            with self.report.open("a", encoding="utf-8") as file:
                detail = detail.replace('"', "'")
                file.write(f'{number},,{reason},"{detail}"\n')
        _log.warning("row %d of the stream left out: %s. %s", number, reason, detail)
        bad = sum(self.bad.values())
        if self.met >= ENOUGH and bad > self.data.max_bad * self.met:
            told = ", ".join(f"{each} {count}" for each, count in self.bad.items())
            raise DataError(
                f"{bad} of {self.met} rows of the stream cannot be used ({told}): more than "
                f"data.max_bad = {self.data.max_bad:g} allows."
            )

    def _samples(self, audio: Any) -> np.ndarray:
        """Samples of a cell: bytes or path as `datasets` stores them, or decoded by it."""
        if audio is None or isinstance(audio, str | float):
            raise AudioError(f"the audio cell is {audio!r}; expected a sound.")
        sound = load_audio(audio, sample_rate=SAMPLE_RATE)
        return sound.samples[: round(self.data.max_seconds * SAMPLE_RATE)]


def open_stream(name: str, data: Data) -> Any:
    """The rows of a dataset by hub id or folder, streamed, sound as stored.

    Args:
        name: a hub id; a folder that `save_to_disk` wrote, or of data files that `datasets` reads.
        data: says which split.

    Raises:
        DataError: `datasets` is not installed, or cannot open it.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "data of format datasets needs the library datasets, which is not installed: "
            "pip install 'palscope[training]'."
        ) from error
    library: Any = datasets
    try:
        if (Path(name) / "state.json").is_file():
            rows = library.load_from_disk(name).to_iterable_dataset()
        else:
            rows = library.load_dataset(name, split=data.split, streaming=True)
    except Exception as error:  # whatever the library, the hub or a file's reader raises
        raise DataError(f"the dataset {name!r} cannot be opened: {error}") from error
    column = data.columns.get("audio", "audio")
    features = rows.features or {}
    if isinstance(features.get(column), library.Audio):
        # As stored: decoded here, by the same rules as any other sound.
        rows = rows.cast_column(column, library.Audio(decode=False))
    return rows
