"""Metrics of circuits against numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from palscope._circuits.metrics import (
    SIZES,
    cmd,
    completeness,
    cpr,
    edge_auroc,
    faithfulness,
    minimality,
    overlap,
    seconds_iou,
)
from palscope.errors import PalscopeError


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    # True edges score 3 and -1, others 2, 1 and 0: 3 beats three; |-1| beats 0, ties with 1.
    scores = np.array([3.0, 2.0, -1.0, 1.0, 0.0])
    true = np.array([True, False, True, False, False])
    assert edge_auroc(scores, true) == pytest.approx((3 + 1.5) / 6)
    assert edge_auroc(np.zeros(5), true) == 0.5
    assert edge_auroc(true * -2.0, true) == 1.0
    for none in (np.zeros(5, bool), np.ones(5, bool)):
        with pytest.raises(PalscopeError, match="some not"):
            edge_auroc(scores, none)


@pytest.mark.parametrize(
    ("found", "true", "share"),
    [
        ([(0.0, 1.0)], [(0.5, 1.5)], 0.5 / 1.5),
        ([(0.0, 1.0), (0.5, 2.0)], [(0.0, 2.0)], 1.0),  # what overlaps counts once
        ([(0.0, 1.0)], [(1.0, 2.0)], 0.0),
        ([(0.0, 1.0), (2.0, 3.0)], [(0.5, 2.5)], 1.0 / 3.0),
        ([], [(0.0, 1.0)], 0.0),
        ([], [], 1.0),
    ],
)
def test_seconds_found(
    found: list[tuple[float, float]], true: list[tuple[float, float]], share: float
) -> None:
    assert seconds_iou(found, true) == pytest.approx(share)
    assert seconds_iou(true, found) == pytest.approx(share)


def test_faithfulness_is_the_way_gone() -> None:
    assert faithfulness(1.0, -2.0, 4.0) == 0.5
    assert faithfulness(-5.0, -2.0, 4.0) == -0.5
    assert faithfulness(7.0, -2.0, 4.0) == 1.5
    with pytest.raises(PalscopeError, match="with all of its edges and with none"):
        faithfulness(1.0, 2.0, 2.0)


def test_areas_by_hand() -> None:
    # From 0.1 to 0.5 and on to 1: trapezoids of 0.4 and 0.5 wide.
    sizes, faithful = (0.1, 0.5, 1.0), (0.0, 1.5, 1.0)
    assert cpr(faithful, sizes) == pytest.approx(0.4 * 0.75 + 0.5 * 1.25)
    assert cmd(faithful, sizes) == pytest.approx(0.4 * (1 + 0.5) / 2 + 0.5 * 0.5 / 2)
    assert cpr([1.0] * len(SIZES)) == pytest.approx(0.999)
    assert cmd([1.0] * len(SIZES)) == 0
    # A curve that crosses 1 between two sizes is not nearer to 1 for it.
    assert cmd((0.5, 1.5), (0.0, 1.0)) == 0.5


WHOLE = frozenset(range(4))


def either(edges: frozenset[int]) -> float:
    """Edges 0 and 1 do the same; 2 adds to it; 3 does nothing."""
    return float(bool(edges & {0, 1})) + 2.0 * (2 in edges)


def subsets(edges: frozenset[int]) -> list[frozenset[int]]:
    sizes = range(len(edges) + 1)
    return [frozenset(each) for n in sizes for each in itertools.combinations(edges, n)]


def test_completeness_sees_the_spare_that_a_circuit_lacks() -> None:
    with_spare, without = frozenset({0, 1, 2}), frozenset({0, 2})
    assert completeness(either, with_spare, WHOLE, subsets(with_spare)) == 0
    assert completeness(either, without, WHOLE, []) == 0  # whole, it does as the model
    assert completeness(either, without, WHOLE, subsets(without)) == 1
    assert completeness(either, frozenset({0}), WHOLE, []) == 2


def test_minimality_sees_one_of_two_that_do_the_same() -> None:
    needed = minimality(either, WHOLE, lambda edge: [frozenset({1 - edge})] if edge < 2 else [])
    assert needed == {0: 1, 1: 1, 2: 2, 3: 0}
    assert minimality(either, WHOLE, lambda edge: [])[0] == 0


def test_what_two_circuits_share_is_told_of_all_that_either_has() -> None:
    assert overlap(np.array([3, 1, 2]), np.array([2, 9])) == pytest.approx(1 / 4)
    assert overlap(np.array([5, 7]), np.array([7, 5])) == 1
    assert overlap(np.array([5]), np.array([7])) == 0
