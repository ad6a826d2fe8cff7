"""All that TransformerLens has for the bridge works on it and equals what, or is refused and why.

A member that a new version of TransformerLens brings fails here until it has a row.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from transformer_lens.tools.analysis import attribution_patch

from palscope.audio._bundled import bundled_clips
from tests import demo, vocabulary
from tests.hooks.inherited import bridge_rows, cache_rows, tool_rows
from tests.hooks.inherited.bench import Bench
from tests.hooks.inherited.rows import Row, bridge_members, cache_members, tool_members

TABLES: dict[str, list[Row]] = {
    "bridge": bridge_rows.ROWS,
    "cache": cache_rows.ROWS,
    "tools": tool_rows.ROWS,
}
MEMBERS = {"bridge": bridge_members, "cache": cache_members, "tools": tool_members}


@pytest.mark.parametrize("table", TABLES)
def test_every_member_has_one_row(table: str) -> None:
    named = [name for row in TABLES[table] for name in row.names]
    assert len(named) == len(set(named))
    assert set(named) == MEMBERS[table]()


@pytest.fixture(scope="module", params=["plits", "lal", "published"])
def bench(request: Any) -> Bench:
    """With all words of the demo: some of TransformerLens's tools draw ids up to 20,000."""
    return Bench(request.param, vocabulary.whole_tokenizer())


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{table}-{row.names[0]}")
        for table, rows in TABLES.items()
        for row in rows
    ],
)
def test_members_do_what_their_row_says(bench: Bench, row: Row) -> None:
    row.tried(bench)


@pytest.mark.slow
def test_the_demo_does_what_the_rows_say() -> None:
    """A few of them: as it is loaded, its decoder and encoder have no gradients."""
    model: Any = demo.opened("demo/lal")
    assert model.tokenizer.encode(" dog") == [model.to_single_token(" dog")]
    assert [index for index, _ in model.blocks_with("attn")] == list(range(30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.W_Q.shape == (30, 9, 576, 64)
        assert len(model.attn_head_labels) == len(model.all_head_labels) == 30 * 9
    asked = ("What sound is this?", bundled_clips().path[0])
    clean = model.inputs(*asked)
    corrupt = clean | {"input_features": clean["input_features"].flip(-1)}
    ids = clean["input_ids"]
    labels = ids.masked_fill(ids == model.model.audio_token_id, -100)
    with torch.no_grad():
        wanted, own = (
            [model(each) for each in (clean, corrupt)],
            model.model(**clean, labels=labels),
        )
        torch.testing.assert_close(model(clean, return_type="loss"), own.loss)
    with model.attach_clips(clean, corrupt) as tokens:
        with torch.no_grad():
            for each, logits in zip(tokens, wanted, strict=True):
                assert torch.equal(model(each), logits)
        result = attribution_patch(model, *tokens, lambda logits: logits[0, -1, 5])
    assert result.top_nodes(1)[0][1] != 0
    written = model.generate(clean, max_new_tokens=4, return_type="str", verbose=False)
    assert written.endswith(
        model.ask("What sound is this?", bundled_clips().path[0], max_new_tokens=4)
    )
