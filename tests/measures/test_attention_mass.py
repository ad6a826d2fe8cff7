"""Attention mass against patterns computed another way, and against planted attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from palscope import measures
from palscope._models.families import FAMILIES
from palscope._routing import Route
from palscope.errors import PalscopeError, PromptError
from palscope.measures._columns import HEAD
from tests import tiny, vocabulary
from tests.hooks.conftest import noise
from tests.measures.conftest import PAL, padded_batch

# pandas is typed in part only; what tests do with tables is checked by running them.
attention_mass: Any = measures.attention_mass
by_pathway: Any = measures.by_pathway
over_time: Any = measures.over_time


def masses(table: Any, row: int, layer: int) -> np.ndarray:
    """`[heads, keys]` of the one query of a row, keys in the order of the columns."""
    mine = table[(table["row"] == row) & (table["layer"] == layer)]
    return mine.pivot(index="head", columns="key", values="mass").to_numpy()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_masses_sum_to_one_and_padding_never_counts(make: Any, family: str) -> None:
    model = make(PAL, family)
    inputs = padded_batch(model)
    table = attention_mass(model, inputs)
    sums = table.groupby(HEAD)["mass"].sum()
    assert len(sums) == 2 * tiny.LAYERS * 4
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    real = inputs["attention_mask"].bool()
    assert not real.all()
    assert all(real[row, key] for row, key in zip(table["row"], table["key"], strict=True))


def test_plits_equals_the_plain_model_s_own_attentions(make: Any) -> None:
    model = make(Route.plits(tiny.LAYERS))
    inputs = padded_batch(model)
    table = attention_mass(model, inputs)
    plain = tiny.decoder("llama", vocab_size=vocabulary.COUNT)
    plain.set_attn_implementation("eager")
    layout = model.layout(inputs)
    with torch.no_grad():
        embedded = model.model(**inputs, output_hidden_states=True).hidden_states[0]
        out = plain(
            inputs_embeds=embedded,
            attention_mask=inputs["attention_mask"],
            position_ids=layout.position,
            output_attentions=True,
        )
    for row in range(2):
        real = layout.real[row]
        for layer, pattern in enumerate(out.attentions):
            expected = pattern[row, :, -1][:, real].numpy()
            np.testing.assert_allclose(masses(table, row, layer), expected, atol=1e-5)


def test_lal_equals_attention_computed_by_hand(make: Any) -> None:
    """Layer 0, from the decoder's own modules: the norm, the projections, RoPE, a softmax."""
    model = make(Route.lal(tiny.LAYERS))
    inputs = model.inputs("what?", noise(0.5))
    table = attention_mass(model, inputs)
    layout = model.layout(inputs)
    columns = layout.layer_columns(model.current_route, 0)
    with torch.no_grad():
        _, cache = model.run_with_cache(inputs, names_filter="blocks.0.attn.hook_audio_state")
        plain = tiny.decoder("llama", vocab_size=vocabulary.COUNT)
        whole = plain.model.embed_tokens(inputs["input_ids"].clamp(max=vocabulary.COUNT - 1))
        whole[0, columns.memory[0]] = cache["blocks.0.attn.hook_audio_state"][0]
        layer = plain.model.layers[0]
        normed = layer.input_layernorm(whole)
        shape = (1, layout.width, -1, 8)
        q = layer.self_attn.q_proj(normed).view(shape).transpose(1, 2)
        k = layer.self_attn.k_proj(normed).view(shape).transpose(1, 2)
        q, k = apply_rotary_pos_emb(q, k, *plain.model.rotary_emb(whole, layout.position))
        k = k.repeat_interleave(2, 1)
        expected = (q[0, :, -1:] @ k[0].mT / math.sqrt(8)).softmax(-1)[:, 0]
    np.testing.assert_allclose(masses(table, 0, 0), expected.numpy(), atol=1e-5)


def test_a_planted_key_takes_all_attention_at_its_second(make: Any) -> None:
    """One head of layer 2 is given a key that equals its query: it hears 0.2 to 0.3 s only."""
    model = make()
    inputs = model.inputs("what?", noise(0.5))
    layout = model.layout(inputs)
    memory = layout.layer_columns(model.current_route, 2).memory[0]
    place = 2
    query: dict[str, Any] = {}

    def take(rotated: Any, hook: Any) -> None:
        query["q"] = rotated[0, -1, 0]  # [batch, place, head, d_head]

    with torch.no_grad():
        model.run_with_hooks(inputs, fwd_hooks=[("blocks.2.attn.hook_rot_q", take)])
        position = layout.position[:, memory[place : place + 1]]
        cos, sin = model.model.language_model.model.rotary_emb(torch.zeros(1), position)
        # Keys are rotated to their position later: turn the query back by as much first.
        q = query["q"][None, None, None]
        back = apply_rotary_pos_emb(q, q, cos, -sin)[0]

    def plant(k: Any, hook: Any) -> Any:
        k = k.clone()
        k[0, place, 0] = 1000 * back[0, 0, 0] / back.norm() ** 2
        return k

    with model.hooks(fwd_hooks=[("blocks.2.attn.hook_audio_k", plant)]):
        table = attention_mass(model, inputs)
    head = table[(table["layer"] == 2) & (table["head"] == 0)]
    times = over_time(head, "frames").set_index("start_s")["mass"]
    assert times[0.2] == pytest.approx(1, abs=1e-4)
    assert over_time(head)["mass"].sum() == pytest.approx(1, abs=1e-4)
    untouched = attention_mass(model, inputs)
    assert untouched[(untouched["layer"] == 2) & (untouched["head"] == 0)]["mass"].max() < 0.99


def test_padding_and_neighbours_change_nothing(pal: Any) -> None:
    batch = attention_mass(pal, padded_batch(pal))
    alone = attention_mass(pal, pal.inputs("what?", noise(0.5)))
    for layer in range(tiny.LAYERS):
        np.testing.assert_allclose(masses(batch, 0, layer), masses(alone, 0, layer), atol=1e-5)


def test_encoded_clips_serve_as_well(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    encoded = attention_mass(pal, ids | {"audio": pal.encode_audio(inputs)})
    pd.testing.assert_frame_equal(encoded, attention_mass(pal, inputs), atol=1e-6)


def test_several_clips_have_their_own_seconds(pal: Any) -> None:
    table = attention_mass(pal, padded_batch(pal))
    frames = table[(table["pathway"] == "frames") & (table["layer"] == 0) & (table["head"] == 0)]
    assert set(frames[frames["row"] == 0]["clip"]) == {0}
    second = frames[frames["row"] == 1]
    assert second.groupby("clip")["end_s"].max().to_dict() == {0: 0.75, 1: 0.3}
    assert second.groupby("clip").size().to_dict() == {0: 8, 1: 3}
    assert (second.groupby("clip")["start_s"].min() == 0).all()
    summary = table[(table["pathway"] == "summary") & (table["layer"] == 1) & (table["head"] == 0)]
    assert summary[summary["row"] == 1]["end_s"].tolist() == [0.3, 0.6, 0.75, 0.3]


def test_text_keys_bear_their_text(pal: Any) -> None:
    table = attention_mass(pal, pal.inputs("what is heard?", noise(0.3)))
    one = table[(table["layer"] == 0) & (table["head"] == 0)]
    text = one[one["pathway"] == "text"]
    assert " is" in set(text["token"])
    assert text["start_s"].isna().all() and (text["clip"] == -1).all()
    assert set(one[one["pathway"] != "text"]["token"]) == {""}
    assert one["key"].is_monotonic_increasing


def test_a_muted_stream_has_no_rows_and_no_mass(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))
    with pal.route(PAL.mute("frames")):
        table = attention_mass(pal, inputs)
    assert "frames" not in set(table["pathway"])
    shares = by_pathway(table)
    frames = shares[shares["pathway"] == "frames"]
    assert len(frames) == tiny.LAYERS * 4 and frames["mass"].isna().all()
    np.testing.assert_allclose(shares.groupby(HEAD)["mass"].sum(), 1, atol=1e-5)


def test_no_audio_at_all(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))
    with pal.route(PAL.mute("frames").mute("summary")):
        table = attention_mass(pal, inputs)
    assert set(table["pathway"]) == {"text"}
    assert over_time(table).empty and over_time(table, "frames").empty


def test_by_pathway_lists_every_pathway_in_every_layer(pal: Any) -> None:
    table = attention_mass(pal, pal.inputs("what?", noise(0.5)))
    shares = by_pathway(table)
    assert len(shares) == tiny.LAYERS * 4 * 3
    wide = shares.pivot(index=["layer", "head"], columns="pathway", values="mass")
    assert wide["frames"].loc[[1, 3]].isna().all()
    assert (wide["frames"].loc[[0, 2]] > 0).all() and (wide["summary"] > 0).all()
    direct = table[(table["layer"] == 2) & (table["head"] == 1) & (table["pathway"] == "frames")]
    assert wide["frames"].loc[2, 1] == pytest.approx(direct["mass"].sum())


def test_over_time_is_the_mean_over_the_layers_and_heads_given(pal: Any) -> None:
    table = attention_mass(pal, pal.inputs("what?", noise(0.5)))
    frames = table[table["pathway"] == "frames"]
    first = frames[frames["start_s"] == 0]["mass"].sum()
    times = over_time(table, "frames")
    assert times["start_s"].tolist() == [0, 0.1, 0.2, 0.3, 0.4]
    assert times["mass"].iloc[0] == pytest.approx(first / (tiny.LAYERS * 4))
    one = over_time(table[(table["layer"] == 0) & (table["head"] == 3)])
    assert one["mass"].sum() == pytest.approx(
        table[(table["layer"] == 0) & (table["head"] == 3) & (table["pathway"] != "text")][
            "mass"
        ].sum()
    )
    with pytest.raises(PalscopeError, match="frames, summary"):
        over_time(table, "frame")


def test_stored_tables_give_the_same(pal: Any, tmp_path: Any) -> None:
    with pal.route(PAL.mute("frames")):
        table = attention_mass(pal, pal.inputs("what?", noise(0.5)))
    table.to_parquet(tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")
    names = ["text", "frames", "summary"]
    pd.testing.assert_frame_equal(by_pathway(again, names), by_pathway(table))


def test_queries_are_columns_or_count_from_the_right(pal: Any) -> None:
    inputs = padded_batch(pal)
    width = inputs["input_ids"].shape[1]
    last = attention_mass(pal, inputs)
    both = attention_mass(pal, inputs, queries=(width - 1, -2, -1))
    assert sorted(both["query"].unique()) == [width - 2, width - 1]
    picked = both[both["query"] == width - 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(picked, last)
    earlier = both[both["query"] == width - 2]
    assert earlier["key"].max() < width  # the last token's column is seen with no mass
    assert (earlier[earlier["key"] == width - 1]["mass"] == 0).all()


def test_audio_can_ask_where_it_runs(make: Any, pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))
    stream = pal.layout(inputs).stream[0]
    frame = int((stream == 0).nonzero()[0])
    with pytest.raises(PromptError, match="runs in no layer"):
        attention_mass(pal, inputs, queries=(frame,))
    summary = int((stream == 1).nonzero()[0])
    assert set(attention_mass(pal, inputs, queries=(summary,))["layer"]) == set(range(tiny.LAYERS))
    frozen = make(Route.plits(tiny.LAYERS).frozen_from(2))
    inputs = frozen.inputs("what?", noise(0.5))
    frame = int((frozen.layout(inputs).stream[0] == 0).nonzero()[0])
    assert set(attention_mass(frozen, inputs, queries=(frame,))["layer"]) == {0, 1}


@pytest.mark.parametrize("query", [0, 500, -500])
def test_a_query_that_is_no_token_is_refused(pal: Any, query: int) -> None:
    with pytest.raises(PromptError, match="padding" if query == 0 else "does not exist"):
        attention_mass(pal, padded_batch(pal), queries=(query,))
    with pytest.raises(PromptError, match="no query"):
        attention_mass(pal, padded_batch(pal), queries=())


def test_patterns_that_do_not_sum_to_one_are_refused(pal: Any) -> None:
    def double(pattern: Any, hook: Any) -> Any:
        return 2 * pattern

    inputs = pal.inputs("what?", noise(0.5))
    with (
        pal.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", double)]),
        pytest.raises(PalscopeError, match=r"layer 1.*sums to 2"),
    ):
        attention_mass(pal, inputs)


def test_half_precision_sums_to_one_nearly(make: Any) -> None:
    model = make()
    model.model.to(torch.bfloat16)
    table = attention_mass(model, model.inputs("what?", noise(0.5)))
    np.testing.assert_allclose(table.groupby(HEAD)["mass"].sum(), 1, atol=2e-2)
