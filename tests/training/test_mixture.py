"""Mixtures: shares as stated, every row in turn, and nothing that hangs on who asks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DataLoader

from palscope.errors import DataError
from palscope.training._mixture import QuestionRows, pattern_of


class Sounds:
    """Stands for a cache: each file's sound is its number."""

    def __getitem__(self, file: str) -> np.ndarray:
        return np.full(int(file), float(file), np.float32)


ROWS = pd.DataFrame(
    [
        (n, str(n + 1), f"q{n}", f"a{n}", domain, task, "")
        for n, (domain, task) in enumerate(
            [("clotho", "caption")] * 5 + [("fsd", "label")] * 20 + [("fsd", "caption")] * 3
        )
    ],
    columns=["row", "audio", "question", "answer", "domain", "task", "split"],
)


def mixed(size: int, mix: dict[str, float], seed: int = 0) -> QuestionRows:
    waveforms: Any = Sounds()
    return QuestionRows(ROWS, waveforms, size=size, mix=mix, seed=seed)


def test_without_a_mix_every_row_comes_once_a_pass() -> None:
    rows = mixed(28 * 3 + 5, {})
    passes = [rows.rows[start : start + 28].tolist() for start in (0, 28, 56)]
    assert all(sorted(each) == list(range(28)) for each in passes)
    assert passes[0] != passes[1] != list(range(28))


def test_shares_are_kept_and_each_kind_is_gone_through_before_it_comes_again() -> None:
    rows = mixed(3000, {"clotho/*": 0.7, "*/caption": 0.3})
    kinds = Counter("clotho" if row < 5 else "other" for row in rows.rows)
    assert kinds["clotho"] / 3000 == pytest.approx(0.7, abs=0.03)
    assert not any(5 <= row < 25 for row in rows.rows)  # fits no pattern
    captions = [row for row in rows.rows if row >= 25]
    assert all(
        sorted(captions[n : n + 3]) == [25, 26, 27] for n in range(0, len(captions) // 3 * 3, 3)
    )


def test_an_example_is_a_function_of_seed_and_index() -> None:
    mix = {"fsd/*": 0.5, "clotho/*": 0.5}
    rows = mixed(40, mix)
    example = rows[7]
    row = ROWS.iloc[int(rows.rows[7])]
    assert (example.question, example.answer) == (row["question"], row["answer"])
    assert example.kind == f"{row['domain']}/{row['task']}"
    assert len(example.waveforms[0]) == row["row"] + 1
    assert mixed(40, mix).rows.tolist() == rows.rows.tolist()
    assert mixed(40, mix, seed=1).rows.tolist() != rows.rows.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_gives_the_same(workers: int) -> None:
    rows = mixed(30, {"fsd/*": 0.5, "clotho/*": 0.5})
    loader: Any = DataLoader(rows, batch_size=4, num_workers=workers, collate_fn=list)
    heard = [example.question for batch in loader for example in batch]
    assert heard == [f"q{row}" for row in rows.rows]


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no row is of 'esc/\*'.*'clotho/caption', 'fsd/caption'"):
        mixed(10, {"esc/*": 0.5, "fsd/*": 0.5})
    with pytest.raises(DataError, match="an earlier pattern takes them all"):
        mixed(10, {"fsd/*": 0.5, "fsd/label": 0.5})


def test_the_first_pattern_that_fits() -> None:
    mix = {"a/*": 0.5, "*/x": 0.5}
    assert pattern_of("a", "x", mix) == "a/*"
    assert pattern_of("b", "x", mix) == "*/x"
    assert pattern_of("b", "y", mix) is None
    assert pattern_of("", "", {"*": 1.0}) == "*"
