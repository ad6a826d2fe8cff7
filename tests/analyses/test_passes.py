"""What analyses say that they cost, beside the rows that they then run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from palscope import load
from palscope._sweeps.memory import Memory
from palscope.analyses import Work, analysis_of
from palscope.analyses import _passes as passes
from palscope.analyses._items import sides
from palscope.analyses._measured import measured
from palscope.analyses._options import options_of
from palscope.analyses._registry import analyses
from palscope.pairs import bundled_pairs

PAIR = next(pair for pair in bundled_pairs() if pair.kind == "first_digit")


def run(checkpoint: Path, name: str, **given: Any) -> tuple[float, Any]:
    """Passes that are said, and the first table that is then measured."""
    analysis, model = analysis_of(name), load(checkpoint)
    options = options_of(analysis.options, {"model": str(checkpoint)} | given)
    item: Any = PAIR if analysis.takes == "pair" else sides(PAIR)[0]
    work: Any = Work(
        model, model.current_route, options, lambda table, item: None, lambda table: None
    )
    assert analysis.passes is not None
    said = analysis.passes(work, item)
    asked = analysis, name, options, model, model.current_route
    return said, measured(*asked, [item], Memory()).rows(analysis.tables[0].name)


@pytest.mark.parametrize(
    "given",
    [{"grid": "layers", "width": 1}, {"grid": "streams", "width": 2}, {"grid": "heads"}],
)
def test_patching_costs_a_row_a_cell_from_its_layer_up(
    checkpoint: Path, given: dict[str, Any]
) -> None:
    fixed = 6 + 2 * passes.ANSWER
    said, table = run(checkpoint, "activation_patching", **given)
    cells = table[table["run"].isin(["patch", "other"])]
    run_through = 1 - cells["layer"] / (table["layer"].max() + given.get("width", 1))
    rows = run_through.where(cells["place"] != "last token", passes.LAST_TOKEN * run_through)
    assert said - fixed == pytest.approx(passes.ROW * rows.sum())


def test_knockout_costs_a_row_a_window_from_its_lowest_layer_up(checkpoint: Path) -> None:
    said, table = run(checkpoint, "attention_knockout", width=2, stride=1)
    cuts = table[table["run"] == "cut"]
    every = (1 - cuts["first_layer"] / (table["last_layer"].max() + 1)).sum()
    # Edges that stand in no layer of a window have no row.
    assert len(cuts) > 20
    assert 0.8 * passes.ROW * every <= said - 3 <= 1.5 * passes.ROW * every


def test_every_analysis_of_the_page_says_what_it_costs() -> None:
    assert all(each.passes for each in analyses().values() if each.takes is not None)
