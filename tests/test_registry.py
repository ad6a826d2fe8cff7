"""What is known by name is found by it, or the message says what there is."""

from __future__ import annotations

import pytest

from palscope._registry import add, find
from palscope.errors import BenchmarkError, CheckpointError

ENTRIES = {"one": 1, "two": 2}


def test_an_entry_is_found_by_its_name() -> None:
    assert [find(ENTRIES, name, "number") for name in ENTRIES] == [1, 2]


@pytest.mark.parametrize("name", ["three", None, 2, ["one"]])
def test_what_is_no_name_is_refused_with_those_that_are(name: object) -> None:
    with pytest.raises(BenchmarkError) as caught:
        find(ENTRIES, name, "number", error=BenchmarkError, hint="Count on.")
    assert str(caught.value) == f"there is no number {name!r}; expected one of one, two. Count on."


def test_a_name_is_given_once() -> None:
    def made(name: str) -> type:
        return type(name, (), {})

    known: dict[str, type] = {}
    add(known, "a", made("First"), "kind")
    again = made("First")  # a notebook's cell, run once more
    add(known, "a", again, "kind")
    assert known == {"a": again}
    with pytest.raises(CheckpointError, match=r"the kind 'a' is taken by .*First"):
        add(known, "a", made("Second"), "kind")
    assert known == {"a": again}
