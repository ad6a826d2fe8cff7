from __future__ import annotations

from string import Formatter

import numpy as np
import pytest

from palscope.datasets._questions import (
    GENERIC,
    HELDOUT,
    LABELS,
    TASK_OF_DOMAIN,
    TRAIN,
    ask,
    list_options,
)


def slots(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def test_every_task_has_enough_wordings_of_both_kinds() -> None:
    assert set(TRAIN) == set(HELDOUT)
    for task in TASK_OF_DOMAIN.values():
        assert len(TRAIN[task]) >= 12
        for table in (TRAIN, HELDOUT):
            listing = ["options" in slots(wording) for wording in table[task]]
            assert any(listing) and not all(listing)
    assert all(len(wordings) >= 4 for wordings in HELDOUT.values())


def test_no_wording_is_both_trained_on_and_held_out() -> None:
    trained = [wording.lower() for wordings in TRAIN.values() for wording in wordings]
    heldout = [wording.lower() for wordings in HELDOUT.values() for wording in wordings]
    assert len(set(trained)) == len(trained)
    assert len(set(heldout)) == len(heldout)
    assert not set(trained) & set(heldout)


@pytest.mark.parametrize("table", [TRAIN, HELDOUT])
def test_slots_fit_the_task(table: dict[str, tuple[str, ...]]) -> None:
    for task, wordings in table.items():
        for wording in wordings:
            ordinal = {"ordinal"} if task.endswith("_order") else set[str]()
            assert slots(wording) - {"options"} == ordinal, wording
    assert all(slots(wording) == {"options"} for wording in GENERIC)


def test_labels_are_short_lower_case_answers() -> None:
    for labels in LABELS.values():
        assert len(set(labels)) == len(labels)
        assert all(label == label.lower().strip() and len(label) <= 16 for label in labels)


def test_options_hold_every_choice_in_random_order() -> None:
    rng = np.random.default_rng(0)
    choices = ["sea waves", "dog", "rain"]
    firsts: set[str] = set()
    for _ in range(60):
        text = list_options(choices, rng)
        items = text.replace(" or ", ", ").replace(" / ", ", ").split(", ")
        assert sorted(items) == sorted(choices)
        firsts.add(items[0])
    assert firsts == set(choices)
    assert list_options(["dog"], rng) == "dog"


def test_a_task_nobody_knows_is_asked_with_its_options() -> None:
    question = ask("birds", ["wren", "owl"], np.random.default_rng(0), wordings="heldout")
    assert "wren" in question and "owl" in question
