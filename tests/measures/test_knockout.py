"""Attention knockout: only what was planted matters, and a cut lasts through decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope._models.scoring import answer_ids, continued
from palscope._routing import FULL, PROJECTED, Route
from palscope._statistics import wilson
from palscope.errors import PalscopeError
from palscope.interventions import Address, Knockout, Sound, Text, intervene
from palscope.measures import _grids as grids
from palscope.measures._knockout import (
    Edges,
    attention_knockout,
    audio_to_audio,
    generated_knockout,
    knockout_effects,
    sliding_windows,
    text_to_audio,
    text_to_text,
)
from palscope.measures._metrics import Answers
from tests import flex, tiny
from tests.hooks.conftest import make_hooked
from tests.measures.conftest import padded_batch
from tests.planted import LAYERS, Pathway, Planted, plant

AT = 5  # the token of the event: 0.5 to 0.6 s
SINGLE = sliding_windows(LAYERS, 1, 1)


def knocked(planted: Planted, edges: list[Edges], windows: Any = SINGLE) -> Any:
    answers = Answers((), *planted.answers)
    return attention_knockout(
        planted.model, planted.inputs("A", AT), edges, windows, answers=answers
    )


def cuts(table: Any, **labels: Any) -> Any:
    """The cut rows with these labels."""
    rows = table[table["run"] == "cut"]
    for name, value in labels.items():
        rows = rows[rows[name] == value]
    assert len(rows)
    return rows


def test_windows_slide_to_the_top_and_leave_no_layer_out() -> None:
    assert sliding_windows(10, 4, 2) == [range(0, 4), range(2, 6), range(4, 8), range(6, 10)]
    assert sliding_windows(10, 4, 3) == [range(0, 4), range(3, 7), range(6, 10)]
    assert sliding_windows(10, 4, 4) == [range(0, 4), range(4, 8), range(6, 10)]
    assert sliding_windows(3, 3, 1) == [range(3)]
    for width, step in ((0, 1), (4, 1), (2, 3), (2, 0)):
        with pytest.raises(PalscopeError, match="do not cover 3 layers"):
            sliding_windows(3, width, step)


# -- planted circuits ------------------------------------------------------------------------------


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits", "decoy"])
@pytest.mark.parametrize("layer", [1, 2])
def test_only_the_planted_stream_and_layer_matter(pathway: Pathway, layer: int) -> None:
    planted = plant(pathway, layer=layer)
    table = knocked(planted, text_to_audio(planted.model.current_route))
    whole = table["logit_diff"].iloc[0]
    assert whole > 5
    names = {"lal": 3, "summary": 3, "plits": 1, "decoy": 3}[pathway]  # both, and all together
    assert len(cuts(table)) == names * 2 * LAYERS
    for row in cuts(table).to_dict("records"):
        hit = row["pathway"] in (planted.stream, "all audio") and row["first_layer"] == layer
        assert row["logit_diff"] == (0 if hit else whole), row
        assert row["logit_diff_change"] == row["logit_diff"] - whole
        assert (row["logprob_change"] < -0.5) == hit
        assert (row["kl"] > 0.5) == hit
        assert row["first_layer"] == row["last_layer"] and row["layers"] == 1


def test_windows_that_hold_the_planted_layer_matter_and_only_they() -> None:
    planted = plant("plits", layer=2)
    windows = [*sliding_windows(LAYERS, 2, 1), range(LAYERS)]
    table = knocked(planted, text_to_audio(planted.model.current_route, readers=["text"]), windows)
    found = {
        (row["first_layer"], row["last_layer"]): row["flipped"]
        for row in cuts(table).to_dict("records")
    }
    assert found == {(0, 1): False, (1, 2): True, (2, 3): True, (0, 3): True}


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits"])
def test_only_the_planted_seconds_matter(pathway: Pathway) -> None:
    planted = plant(pathway)
    segments = grids.steps(1.2, 0.3)  # whole summary tokens
    edges = text_to_audio(planted.model.current_route, readers=["text"], segments=segments)
    table = knocked(planted, edges, [range(LAYERS)])
    mine = cuts(table, pathway=planted.stream)
    assert mine["segment"].tolist() == list(segments)
    assert mine["start_s"].tolist() == [0.0, 0.3, 0.6, pytest.approx(0.9)]
    assert mine["end_s"].tolist() == pytest.approx([0.3, 0.6, 0.9, 1.2])
    assert mine["logit_diff_change"].ne(0).tolist() == [False, True, False, False]
    assert mine["keys"].tolist() == [1 if pathway == "summary" else 3] * 4


def test_a_relay_is_cut_at_each_of_its_steps_and_nowhere_else() -> None:
    planted = plant("relay")
    assert planted.other is not None
    word = Text(planted.relay_column())
    edges = [
        *text_to_audio(planted.model.current_route),
        Edges(((word, Sound()),), {"queries": "word", "pathway": "all audio"}),
        Edges(((Text(-1), word),), {"queries": "last", "pathway": "word"}),
    ]
    table = knocked(planted, edges)
    # The last token reads no sound, yet the answer comes from it.
    assert cuts(table, queries="last", pathway="all audio")["logit_diff_change"].eq(0).all()
    for queries, pathway, layer in (
        ("text", "frames", planted.layer),
        ("word", "all audio", planted.layer),
        ("last", "word", planted.other[0]),
    ):
        rows = cuts(table, queries=queries, pathway=pathway)
        assert rows.loc[rows["logit_diff"].abs() < 1e-6, "first_layer"].tolist() == [layer]
        assert rows["logit_diff_change"].eq(0).sum() == LAYERS - 1


@pytest.mark.parametrize("other", [None, (1, 3), (2, 0)])
def test_a_decoys_head_can_be_cut_and_the_reading_head_cannot(other: Any) -> None:
    """By head, also where both share one head of keys and values."""
    planted = plant("decoy", other=other)
    assert planted.other is not None
    edges = [Edges(((Text(), Sound()),), {"head": head}, heads=(head,)) for head in range(4)]
    table = cuts(knocked(planted, edges))
    hit = table["head"].eq(planted.head) & table["first_layer"].eq(planted.layer)
    assert hit.sum() == 1
    assert table.loc[hit, "logit_diff"].tolist() == [0]
    assert table.loc[~hit, "logit_diff_change"].eq(0).all()


def test_sound_cut_off_from_sound_changes_nothing_where_only_text_reads() -> None:
    for pathway, read in (
        ("plits", {("frames", "frames")}),
        ("lal", {("summary", "frames"), ("summary", "summary")}),
    ):
        planted = plant(pathway)
        table = cuts(knocked(planted, audio_to_audio(planted.model, planted.inputs("A", AT))))
        assert set(zip(table["queries"], table["pathway"], strict=True)) == read
        assert table["logit_diff_change"].eq(0).all()
        assert table["flipped"].eq(False).all()


# -- which edges are cut ---------------------------------------------------------------------------


def cut_edges(model: Any, inputs: Any, edges: Edges, layer: int) -> Any:
    """Where the pattern of a layer is zero that was not: `[queries, keys]`, columns of each."""
    columns = model.layout(inputs).layer_columns(model.current_route, layer)
    name = f"blocks.{layer}.attn.hook_pattern"
    patterns = []
    knockouts = [
        Knockout(Address("pattern", keys, layers=(layer,), queries=queries))
        for queries, keys in edges.cuts
    ]
    for each in ([], knockouts):
        with torch.no_grad(), intervene(model, inputs, each):
            patterns.append(model.run_with_cache(dict(inputs), names_filter=[name])[1][name][0])
    before, after = patterns
    assert torch.allclose(after.sum(-1), torch.ones_like(after.sum(-1)), atol=1e-5)
    gone = ((before > 0) & (after == 0)).all(0)
    assert torch.equal(gone, ((before > 0) & (after == 0)).any(0))
    running, keys = columns.running[0].tolist(), columns.keys[0].tolist()
    return {(running[q], keys[k]) for q, k in gone.nonzero().tolist()}


def test_sound_is_cut_off_from_what_is_before_it_and_keeps_itself(make: Any) -> None:
    model = make(tiny.both_streams(PROJECTED, FULL))
    inputs = model.inputs("what?", np.zeros(16_000, np.float32))
    own, other = (
        next(e for e in audio_to_audio(model, inputs) if e.labels["pathway"] == name)
        for name in ("summary", "frames")
    )
    layout = model.layout(inputs)
    summary, frames = (
        (layout.stream[0] == layout.stream_index(name)).nonzero()[:, 0].tolist()
        for name in ("summary", "frames")
    )
    assert cut_edges(model, inputs, own, 1) == {(q, k) for q in summary for k in summary if q > k}
    assert cut_edges(model, inputs, other, 1) == {(q, k) for q in summary for k in frames if q > k}


def test_the_control_cuts_as_many_text_tokens_but_no_tokens_own_key(make: Any) -> None:
    model = make(Route.plits(tiny.LAYERS))
    inputs = model.inputs("what is it that can be heard?", np.zeros(16_000, np.float32))
    text = (model.layout(inputs).stream[0] == -1).nonzero()[:, 0].tolist()
    drawn: set[tuple[int, ...]] = set()
    plain = Answers((), 1, 2)
    for seed in range(3):
        last = text_to_text(model, inputs, 6, answers=plain, reader="last", seed=seed)
        found = cut_edges(model, inputs, last, 2)
        keys = tuple(sorted(k for _, k in found))
        assert len(keys) == 6 and set(keys) <= set(text[1:-1])
        assert {q for q, _ in found} == {text[-1]}
        every = text_to_text(model, inputs, 6, answers=plain, reader="text", seed=seed)
        assert cut_edges(model, inputs, every, 2) == {(q, k) for q in text for k in keys if q > k}
        drawn.add(keys)
    assert len(drawn) == 3
    many = text_to_text(model, inputs, 1000, answers=plain, reader="last", seed=0)
    assert {k for _, k in cut_edges(model, inputs, many, 2)} == set(text[1:-1])


@pytest.mark.parametrize("reader", ["text", "last"])
@pytest.mark.parametrize(("shared", "seed"), [(1, 0), (2, 1), (3, 2)])
def test_the_control_cuts_the_token_that_decides_between_answers_that_begin_alike(
    make: Any, shared: int, seed: int, reader: Any
) -> None:
    model = make(Route.plits(tiny.LAYERS))
    inputs = model.inputs("what is it?", np.zeros(8_000, np.float32))
    answers = Answers(tuple(range(3, 3 + shared)), 1, 2)
    longer = answers.behind(inputs)
    text = (model.layout(longer).stream[0] == -1).nonzero()[:, 0].tolist()
    edges = text_to_text(model, inputs, 4, answers=answers, reader=reader, seed=seed)
    found = cut_edges(model, longer, edges, 1)
    keys = {k for q, k in found if q == text[-1]}
    assert len(keys) == 4 and keys <= set(text[1:-1])
    if reader == "text":
        assert found == {(q, k) for q in text for k in keys if q > k}
    # and so its logits move: the cut is where they are read
    table = attention_knockout(model, inputs, [edges], [range(tiny.LAYERS)], answers=answers)
    assert cuts(table)["kl"].iloc[0] > 0


def test_text_reads_no_sound_and_sound_goes_on_reading(make: Any) -> None:
    model = make(Route.plits(tiny.LAYERS))
    inputs = model.inputs("what?", np.zeros(16_000, np.float32))
    layout = model.layout(inputs)
    sound = (layout.stream[0] >= 0).nonzero()[:, 0].tolist()
    text = (layout.stream[0] == -1).nonzero()[:, 0].tolist()
    (by_text, by_last) = text_to_audio(model.current_route)
    assert (by_text.labels["queries"], by_last.labels["queries"]) == ("text", "last")
    assert cut_edges(model, inputs, by_text, 1) == {(q, k) for q in text for k in sound if q > k}
    assert cut_edges(model, inputs, by_last, 1) == {(text[-1], k) for k in sound}


def test_a_stream_that_the_route_leaves_out_is_no_pathway() -> None:
    route = Route.pal(4, [0, 2])
    assert {e.labels["pathway"] for e in text_to_audio(route)} == {"frames", "summary", "all audio"}
    muted = text_to_audio(route.mute("summary"), readers=["text"])
    assert [e.labels["pathway"] for e in muted] == ["frames"]


# -- the table -------------------------------------------------------------------------------------


def test_windows_without_such_edges_have_no_row(pal: Any) -> None:
    """Frames stand in layers 0 and 2 alone, the summary in all four."""
    inputs = pal.inputs("what?", np.zeros(16_000, np.float32))
    edges = text_to_audio(pal.current_route, readers=["text"])
    windows = [*sliding_windows(4, 1, 1), range(4)]
    answers = Answers.of(pal.processor, "dog", "rain")
    table = attention_knockout(pal, inputs, edges, windows, answers=answers)
    frames, both = cuts(table, pathway="frames"), cuts(table, pathway="all audio")
    assert frames["first_layer"].tolist() == [0, 2, 0]
    assert frames["layers"].tolist() == [1, 1, 2]
    assert both["layers"].tolist() == [1, 1, 1, 1, 4]
    assert frames["keys"].unique().tolist() == [10]
    assert both["keys"].unique().tolist() == [14]


def test_each_row_is_the_run_under_its_knockouts(pal: Any) -> None:
    """Against one run a cut by itself, behind the answers' common beginning."""
    inputs = pal.inputs("what?", np.random.default_rng(0).normal(size=16_000).astype(np.float32))
    answers = Answers.of(pal.processor, "sea waves", "sea lions")
    assert answers.prefix
    edges = text_to_audio(pal.current_route, readers=["last"])
    table = attention_knockout(
        pal, inputs, edges, [range(2), range(4)], answers=answers, batch_size=3
    )
    longer = continued(inputs, answers.prefix)
    plain = pal(dict(longer))[0, -1].log_softmax(-1).detach()
    assert table["logprob"].iloc[0] == pytest.approx(float(plain[answers.clean]), abs=1e-4)
    for row in cuts(table).to_dict("records"):
        stream = None if row["pathway"] == "all audio" else row["pathway"]
        layers = [
            layer
            for layer in range(int(row["last_layer"]) + 1)
            if stream != "frames" or layer in (0, 2)
        ]
        address = Address("pattern", Sound(stream=stream), tuple(layers), queries=Text(-1))
        with torch.no_grad(), intervene(pal, longer, [Knockout(address)]):
            logits = pal(dict(longer))[0, -1].double()
        logp = logits.log_softmax(-1)
        assert row["logprob"] == pytest.approx(float(logp[answers.clean]), abs=1e-4)
        change = logp[answers.clean] - plain[answers.clean]
        assert row["logprob_change"] == pytest.approx(float(change), abs=1e-4)
        assert row["flipped"] == (int(logits.argmax()) != int(plain.argmax()))
        difference = float(logits[answers.clean] - logits[answers.corrupt])
        assert row["logit_diff"] == pytest.approx(difference, abs=1e-4)


def test_nothing_to_cut_is_an_error() -> None:
    planted = plant("plits")
    edges = text_to_audio(planted.model.current_route)
    for lacking in ([], SINGLE), (edges, []):
        with pytest.raises(PalscopeError, match="needs edges to cut and windows"):
            knocked(planted, *lacking)


def test_generated_text_is_cut_off_by_itself(make: Any) -> None:
    """The whole answer's tokens but the first, under cuts from its tokens alone."""
    model = make(Route.plits(tiny.LAYERS))
    inputs = model.inputs("what?", np.random.default_rng(1).normal(size=8_000).astype(np.float32))
    ids = answer_ids(model.processor, "crackling fire")
    assert len(ids) > 2
    table = generated_knockout(model, inputs, [range(2), range(4)], answer="crackling fire")
    assert table["queries"].dropna().unique().tolist() == ["generated"]
    whole = continued(inputs, ids[:-1])
    width = inputs["input_ids"].shape[1]
    written = Text(tuple(range(width, width + len(ids) - 1)))
    wanted = []
    for layers in ((), (0, 1), (0, 1, 2, 3)):
        made = [Knockout(Address("pattern", Sound(), layers, queries=written))] if layers else []
        with torch.no_grad(), intervene(model, whole, made):
            logp = model(dict(whole))[0, -len(ids) :].double().log_softmax(-1)
        wanted.append(float(logp[torch.arange(1, len(ids)), ids[1:]].sum()))
    assert table["logprob"].tolist() == pytest.approx(wanted, abs=1e-4)
    assert abs(wanted[2] - wanted[0]) > 1e-3
    changes = [value - wanted[0] for value in wanted]
    assert table["logprob_change"].tolist() == pytest.approx(changes, abs=1e-4)


# -- over clips ------------------------------------------------------------------------------------


def made_table(values: dict[str, list[float]]) -> pd.DataFrame:
    rows = [{"run": "plain", "logprob_change": 0.0, "flipped": False}]
    for pathway, changes in values.items():
        for clip, change in enumerate(changes):
            rows.append(
                {
                    "run": "cut",
                    "clip": clip,
                    "pathway": pathway,
                    "logprob_change": change,
                    "logit_diff_change": float("nan"),
                    "flipped": change < -1,
                }
            )
    return pd.DataFrame(rows)


def test_effects_are_means_over_clips_with_an_interval_that_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        table = made_table({"frames": list(rng.normal(-2, 1, size=40))})
        (row,) = knockout_effects(table, ["pathway"]).to_dict("records")
        hits += row["low"] <= -2 <= row["high"]
        assert row["n"] == 40 and row["low"] < row["effect"] < row["high"]
    assert 88 <= hits <= 99
    table = made_table({"frames": [-2.0, -0.5, -3.0, 0.5], "summary": [-4.0]})
    shares = knockout_effects(table, ["pathway"], effect="flipped").set_index("pathway")
    assert shares["effect"].tolist() == [0.5, 1.0]
    # all of one clip, and two of four, by Wilson
    assert shares.loc["summary", ["low", "high"]].tolist() == pytest.approx(wilson(1, 1))
    assert shares.loc["frames", ["low", "high"]].tolist() == pytest.approx(wilson(2, 4))
    changes = knockout_effects(table, ["pathway"]).set_index("pathway")
    assert np.isnan(changes[["low", "high"]]).all(axis=None)
    assert changes.loc["frames", "values"].numbers == (-2.0, -0.5, -3.0, 0.5)
    # several rows of one clip are one value
    twice = pd.concat([table, table])
    assert knockout_effects(twice, ["pathway"])["n"].tolist() == [4, 1]
    with pytest.raises(PalscopeError, match="no effect 'rank'"):
        knockout_effects(table, ["pathway"], effect="rank")
    with pytest.raises(PalscopeError, match="missing in every row"):
        knockout_effects(table, ["pathway"], effect="logit_diff_change")


# -- decoding --------------------------------------------------------------------------------------

NEW = 5


def prefilled(model: Any, inputs: Any, knockouts: list[Knockout]) -> torch.Tensor:
    """Greedy decoding without a cache: every token by a pass over all of the text before it."""
    inputs = dict(inputs)
    width = inputs["input_ids"].shape[1]
    for _ in range(NEW):
        with intervene(model, inputs, knockouts):
            word = model.model(**inputs).logits[:, -1:].argmax(-1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], word], 1)
        mask = inputs["attention_mask"]
        inputs["attention_mask"] = torch.cat([mask, torch.ones_like(word)], 1)
    return inputs["input_ids"][:, width:]


def generated(model: Any, inputs: Any, knockouts: list[Knockout], new: int = NEW) -> torch.Tensor:
    settings = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with intervene(model, inputs, knockouts):
        out = model.model.generate(**inputs, **settings)
    return out[:, inputs["input_ids"].shape[1] :]


KNOCKOUTS = {
    "all text, all layers": [Address("pattern", Sound(0.1, 0.3))],
    "a stream in one layer": [Address("pattern", Sound(stream="frames"), (2,))],
    "two heads of a group of keys": [Address("pattern", Sound(), (0, 2), (2, 3))],
    "one head, and another stream": [
        Address("pattern", Sound(), (0,), (1,)),
        Address("pattern", Sound(stream="summary"), (1, 3)),
    ],
}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", KNOCKOUTS)
@torch.no_grad()
def test_decoding_under_a_knockout_is_the_full_prefill_under_it(
    make: Any, implementation: str, name: str
) -> None:
    """Exact ids, for rows of different length of which one is padded."""
    model = make()
    model.model.language_model.set_attn_implementation(implementation)
    batch = padded_batch(model)
    assert int(batch["attention_mask"].sum(1).min()) < batch["input_ids"].shape[1]
    made = [Knockout(address) for address in KNOCKOUTS[name]]
    assert torch.equal(generated(model, batch, made), prefilled(model, batch, made))


@torch.no_grad()
def test_a_knockout_goes_on_in_decoding(make: Any) -> None:
    """Cut in the prompt alone, other words come than cut in every step."""
    model = make(Route.lal(tiny.LAYERS))
    differ = 0
    for seed in range(4):
        samples = np.random.default_rng(seed).normal(size=16_000).astype(np.float32)
        inputs = model.inputs("what?", samples)
        width = inputs["input_ids"].shape[1]
        prompt = tuple(
            int(i) for i in (model.layout(inputs).stream[0] == -1).nonzero()[:, 0] if i < width
        )
        always = [Knockout(Address("pattern", Sound()))]
        once = [Knockout(Address("pattern", Sound(), queries=Text(prompt)))]
        assert torch.equal(generated(model, inputs, once), prefilled(model, inputs, once))
        differ += not torch.equal(generated(model, inputs, always), generated(model, inputs, once))
    assert differ


@torch.no_grad()
def test_flex_attention_decodes_as_sdpa(make: Any) -> None:
    tokenizer = make().processor.tokenizer
    batch: Any = None
    found: list[torch.Tensor] = []
    for implementation in ("sdpa", "flex_attention"):
        model = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), head_dim=16)
        model.model.language_model.set_attn_implementation(implementation)
        batch = padded_batch(model) if batch is None else batch
        made = [Knockout(Address("pattern", Sound(), (0, 2), (2, 3)))]
        with flex.unfused():
            found.append(generated(model, batch, made, new=2))
    assert torch.equal(*found)
