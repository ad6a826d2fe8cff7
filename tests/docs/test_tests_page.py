"""The list of faults and tests in `tests/README.md`: each test that it names is there."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

ROWS = [
    row
    for row in (ROOT / "tests/README.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\|.*::", row)
]


def test_there_is_a_list() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS)
def test_the_test_that_holds_a_fault_is_there(row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    assert len(named) == 1, "a row names one test: `folder/test_file.py::test_name`"
    file, name = named[0]
    assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
