"""Controls of activation patching, on tables by hand: what is off is told, on either side."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from palscope.errors import PalscopeError
from palscope.measures._patching import check_controls

SPANS = {"wide": 10.0, "narrow": -0.1}
UNIT = (10.0 + 0.1) / 2
"""The mean difference between source and target, by which every pair's deviation is told."""


def table(**off: float) -> Any:
    """Both pairs' runs; `wide_self=0.1` sets a control of a pair off by so many nats."""
    rows: list[dict[str, Any]] = []
    for pair, span in SPANS.items():
        ends = {"target": 2.0, "source": 2.0 + span}
        controls = {
            "self": ends["target"] + off.get(f"{pair}_self", 0.0),
            "full": ends["source"] + off.get(f"{pair}_full", 0.0),
        }
        rows += [
            {"pair": pair, "direction": "denoising", "run": run, "logit_diff": value}
            for run, value in (ends | controls).items()
        ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("pair", SPANS)
@pytest.mark.parametrize("control", ["self", "full"])
def test_a_control_may_be_off_by_a_thousandth_of_the_mean_span(
    control: str, pair: str, sign: int
) -> None:
    allowed = table(**{f"{pair}_{control}": sign * 0.9e-3 * UNIT})
    found = check_controls(allowed).set_index("control")
    assert found["worst"].drop(control).item() == pytest.approx(0, abs=1e-12)
    assert found.loc[control, "worst"] == pytest.approx(0.9e-3)
    assert found.loc[control, "pair"] == pair and (found["n"] == len(SPANS)).all()
    broken = table(**{f"{pair}_{control}": sign * 1.1e-3 * UNIT})
    with pytest.raises(PalscopeError, match=f"'{control}' of pair {pair} is 0.0011 off"):
        check_controls(broken)


def test_the_worst_pair_is_named_whichever_side_it_is_off() -> None:
    found = check_controls(table(wide_self=1e-3, narrow_self=-2e-3)).set_index("control")
    assert found.loc["self", "pair"] == "narrow"
    assert found.loc["self", "worst"] == pytest.approx(2e-3 / UNIT)
