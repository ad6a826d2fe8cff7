"""What alignment_heads makes of its tables, where the right answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.analyses import AskedClip, Results
from palscope.analyses import alignment_heads as script
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.interventions import Sound
from palscope.measures._alignment import MARK, word_scores

pytestmark = pytest.mark.slow

HEADS = [(layer, head) for layer in range(2) for head in range(3)]
PLANTED = (1, 2)
STEP_S = 0.02


def planted(number: int, rng: np.random.Generator) -> tuple[AskedClip, pd.DataFrame]:
    """Two words and the end; one head gives each word's seconds all, the others give anything."""
    begins, ends = rng.integers([5, 30], [12, 40]), rng.integers([18, 46], [28, 55])
    rows: list[dict[str, Any]] = []
    for token, word in enumerate((0, 1, MARK)):
        start, end = (STEP_S * each[word] if word != MARK else np.nan for each in (begins, ends))
        for head in HEADS:
            pattern = rng.dirichlet(np.ones(60))
            if head == PLANTED and word != MARK:
                pattern = np.zeros(60)
                pattern[begins[word] : ends[word]] = 1 / (ends[word] - begins[word])
            mass = np.nan if word == MARK else pattern[begins[word] : ends[word]].sum()
            about = {"token": token, "word": word, "text": f" w{word}", "step_s": STEP_S}
            about |= {"start_s": start, "end_s": end, "layer": head[0], "head": head[1]}
            rows.append({**about, "mass": mass, "pattern": pattern, "heard": -1.0, "written": -9.0})
    clip = AskedClip(
        name=f"string {number}",
        group=script.HELD_OUT if number % 2 else script.FIT,
        question="q",
        sound=Waveform(np.zeros(19_200, np.float32), 16_000, "s"),
        segments={"w0": Sound(0, 0.5), "w1": Sound(0.5, 1)},
    )
    return clip, pd.DataFrame(rows)


@pytest.fixture(scope="module")
def results() -> Any:
    rng = np.random.default_rng(0)
    items, stored = [], {"tokens": {}, "words": {}}
    for number in range(44):
        clip, tokens = planted(number, rng)
        heads = zip(tokens["layer"], tokens["head"], strict=True)
        listed = dict(zip(heads, tokens["layer"] * 3 + tokens["head"] == 5, strict=True))
        words: Any = word_scores(tokens).assign(half=clip.group)
        words["listed"] = [listed[at] for at in zip(words["layer"], words["head"], strict=True)]
        items.append(clip)
        stored["tokens"][clip.name] = lambda table=tokens: table
        stored["words"][clip.name] = lambda table=words: table
    rows = [
        ("a", "best", -4.0, 0.0, True, True, False),
        ("a", "best", -2.0, 0.0, True, False, False),
        ("b", "best", -1.0, 0.5, True, True, True),
        ("b", "best", -1.0, 0.5, False, False, False),
    ]
    columns = ("clip", "heads", "own", "other", "likeliest", "own_changes", "other_changes")
    cuts = pd.DataFrame(rows, columns=pd.Index(columns)).assign(heard=-1)
    stored["cuts"] = {"all": lambda: cuts}
    options = script.AlignmentOptions(model="m", heads=1)
    return Results(options, "m", "", items, "clips", stored)


def test_the_planted_head_leads_on_both_halves(results: Any) -> None:
    table = results.derived(script.measures)
    assert len(table) == 6 and (table[["auroc", "low", "high"]] == 1).all().all()
    assert (table["strings"] == 22).all() and (table["words"] == 44).all()
    heads = script.heads(results)
    for _, rows in heads.groupby("half"):
        best = rows.loc[rows["mean"].idxmax()]
        assert (best["layer"], best["head"]) == PLANTED and best["mean"] == pytest.approx(1)
        assert best["listed"] and rows["listed"].sum() == 1
        assert best["heard"] == -1 and best["written"] == -9
    tables = results.derived(script.halves)[script.FIT]
    assert script.best_heads(tables)[0] == PLANTED


def test_onsets_are_the_planted_ones_and_only_of_what_is_held_out(results: Any) -> None:
    table: Any = results.derived(script.onsets)
    assert set(table["clip"]) == {f"string {number}" for number in range(1, 44, 2)}
    found = table[table["rule"] == script.FOUND]
    np.testing.assert_allclose(found["error_s"], 0, atol=1e-9)
    times: Any = results.derived(script.word_times).set_index("rule")
    assert times.loc[script.FOUND, "median_s"] == pytest.approx(0, abs=1e-9)
    assert times.loc[script.FOUND, "within"] == 1
    other = table[table["rule"] == script.LISTED]["error_s"].abs()
    assert times.loc[script.LISTED, "median_s"] == pytest.approx(np.median(other))
    assert times.loc[script.LISTED, "within"] == pytest.approx((other <= 0.1).mean())
    difference = times.loc["difference"]
    assert difference["median_s"] == pytest.approx(-np.median(other))
    assert difference["median_s_low"] <= difference["median_s"] <= difference["median_s_high"] < 0
    shares: Any = script.shares_within(results).set_index(["rule", "within_s"])["mean"]
    assert (shares[script.FOUND] == 1).all()
    assert shares[script.LISTED][0.1] == pytest.approx((other <= 0.1).mean())


def test_a_cut_is_averaged_within_each_string(results: Any) -> None:
    (row,) = script.cut_heads(results).to_dict("records")
    assert row["own"] == -2 and row["other"] == 0.25 and row["words"] == 4
    assert row["own_changes"] == 0.75 and row["other_changes"] == 0.5 and row["likeliest"] == 3
    assert any("cut from best: own -2.00 nats" in line for line in script.notes(results))


def test_a_half_without_strings_is_told(results: Any) -> None:
    alone = Results(results.options, "m", "", results.items[1::2], "clips", results.stored)
    with pytest.raises(PalscopeError, match="half “finds heads”"):
        script.halves(alone)
    with pytest.raises(PalscopeError, match="ask for more strings"):
        script.best_heads([])
