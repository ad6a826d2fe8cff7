"""The benchmark's own parts: sets of nodes on a planted circuit, submissions, other wordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope import load
from palscope._circuits.exact import exact_effects
from palscope._circuits.gradients import eap
from palscope._circuits.halves import Asked
from palscope._circuits.runs import CircuitRuns
from palscope.analyses import Work, ear2word
from palscope.errors import PalscopeError
from palscope.measures import Answers
from palscope.pairs import bundled_pairs
from tests.circuits.known import known


@pytest.mark.parametrize("name", ["lal", "inhibitor", "order", "fed"])
def test_the_smallest_set_that_moves_everything_is_the_planted_one(name: str) -> None:
    one = known()[name]()
    graph, answers = one.graph(), Answers((), *one.planted.answers)
    exact = exact_effects(one.planted.model, *one.inputs(), graph, answers=answers).total
    runs = CircuitRuns(one.planted.model, *one.inputs(), graph, answers=answers)
    order = ear2word.inner_nodes(graph, exact)
    count = {"order": 2, "inhibitor": 2}.get(name, 1)
    assert ear2word.moved_by(runs, order[:count]) == pytest.approx(1, abs=1e-3)
    assert ear2word.moved_by(runs, order[count : count + 50]) == pytest.approx(0, abs=1e-3) or (
        name == "fed"  # head and network are one way: either alone moves it all
    )


def test_other_wordings_of_a_question() -> None:
    for pair in bundled_pairs():
        found = ear2word.other_wordings(pair, 2)
        assert len({pair.question, *found}) == 3
        assert not any("{" in each for each in found)
        if pair.kind == "first_digit":
            assert all("first" in each for each in found)
    with pytest.raises(PalscopeError, match="no other wordings are known"):
        ear2word.other_wordings(replace(bundled_pairs()[0], question="What?"), 1)


def test_a_submission_is_a_method_beside_the_others(checkpoint: Path, tmp_path: Path) -> None:
    pairs = [pair for pair in bundled_pairs() if pair.kind == "digit"][:2]
    told: Any = pd.DataFrame({"pair": [pair.name for pair in pairs], "kind": "digit", "shape": ""})
    told = told.assign(clean=1.0, corrupt=-1.0)
    model = load(checkpoint)

    def scored(*files: Path) -> pd.DataFrame:
        options = ear2word.BenchmarkOptions(model=str(checkpoint), submission=files)
        given = Work(model, model.current_route, options, lambda *_: told, lambda _: told)
        (rows,) = ear2word.scored(given, pairs[:1])
        return rows

    own = scored()
    path = tmp_path / "same.parquet"
    own.rename(columns={"EAP": "score"}).assign(pair=pairs[0].name).to_parquet(path)
    with_it = scored(path)
    assert list(with_it) == [*own, "same"]
    np.testing.assert_array_equal(with_it["same"], own["EAP"])
    assert own["EAP"].abs().max() > 0
    asked = Asked.of(model, pairs[0])
    np.testing.assert_allclose(own["EAP"], eap(**asked.given), rtol=1e-4, atol=1e-6)


def test_results_say_how_many_pairs_were_answered() -> None:
    """The one that is not is left out of all that follows, and counts among those asked."""
    names, columns = ["a", "b", "wrong"], ["pair", "kind", "clean", "corrupt"]
    leads = [[2.0, -1.0], [1.0, -1.0], [-1.0, -2.0]]
    told = [
        pd.DataFrame([[name, "digit", *lead]], columns=columns)
        for name, lead in zip(names, leads, strict=True)
    ]
    circuits = pd.DataFrame(
        [
            {"pair": pair, "kind": "digit", "method": "EAP", "edges": size, "faithful": value}
            for pair, more in (("a", 0.0), ("b", 0.1))
            for size, value in ((30, 0.7 + more), (100, 0.8 + more))
        ]
    ).assign(iou=1.0, overlap=0.5)
    stored = {name: (lambda rows=rows: rows) for name, rows in zip(names, told, strict=True)}
    results: Any = SimpleNamespace(stored={"graphs": stored}, rows=lambda table: circuits)
    (row,) = ear2word.results_table(results).to_dict("records")
    assert (row["answered"], row["pairs"], row["n"]) == (2, 3, 2)
    assert row["score"] == pytest.approx(0.8) and row["edges_80"] == 100
