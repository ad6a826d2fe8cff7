"""Pathway masking: what is masked is gone, nothing else moves, and the sums are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from palscope._routing import FULL, PROJECTED, Route
from palscope._statistics import wilson
from palscope.errors import PalscopeError
from palscope.interventions import Address, Knockout, Sound, intervene
from palscope.measures._choices import choice_logprobs
from palscope.measures._masking import (
    NOTHING,
    domain_contrasts,
    masked_choices,
    masking,
    masking_scores,
    maskings,
    pathway_masking,
)
from tests import tiny
from tests.planted import WORDS, plant

SAMPLES = np.random.default_rng(0).normal(size=16_000).astype(np.float32)


def logits(model: Any, inputs: Any, made: list[Any]) -> torch.Tensor:
    """At every text token, in each row of the batch."""
    text = model.layout(inputs).stream == -1
    with torch.no_grad(), intervene(model, inputs, made):
        return model.model(**inputs).logits[text]


def both_ways(model: Any, inputs: Any, streams: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    knocked, rerouted = (
        logits(model, inputs, masking(model, inputs, streams, way))
        for way in ("knockout", "reroute")
    )
    return knocked, rerouted


def test_every_stream_is_masked_by_itself_and_all_together() -> None:
    pal = Route.pal(4, [0, 2])
    assert maskings(pal) == {
        NOTHING: (),
        "frames": ("frames",),
        "summary": ("summary",),
        "frames + summary": ("frames", "summary"),
    }
    assert list(maskings(pal.mute("summary"))) == [NOTHING, "frames"]
    assert list(maskings(Route.plits(4))) == [NOTHING, "frames"]


# -- the two ways ----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [Route.lal(4), Route.lal(4, [1, 3]), Route.plits(4)], ids=str)
def test_both_ways_agree_where_there_is_one_stream(make: Any, route: Route) -> None:
    model = make(route)
    inputs = model.inputs("what?", SAMPLES)
    knocked, rerouted = both_ways(model, inputs, ["frames"])
    assert torch.allclose(knocked, rerouted, atol=1e-5)
    assert not torch.allclose(knocked, logits(model, inputs, []), atol=1e-2)


def test_frames_agree_where_text_alone_reads_them(make: Any) -> None:
    """Keys only, beside a summary that does not read them: nobody else can carry them on."""
    route = tiny.both_streams(PROJECTED, FULL)
    model = make(Route(route.n_layers, route.rows, frame_readers="text"))
    inputs = model.inputs("what?", SAMPLES)
    for streams in (["frames"], ["summary"], ["frames", "summary"]):
        knocked, rerouted = both_ways(model, inputs, streams)
        assert torch.allclose(knocked, rerouted, atol=1e-5), streams


def test_frames_differ_by_what_the_summary_carries(pal: Any) -> None:
    """In PAL the summary reads the frames, and text the summary: a knockout leaves that way."""
    inputs = pal.inputs("what?", SAMPLES)
    assert pal.current_route.frame_readers == "all"
    knocked, rerouted = both_ways(pal, inputs, ["frames"])
    assert not torch.allclose(knocked, rerouted, atol=1e-2)
    carried = Knockout(Address("pattern", Sound(stream="frames"), queries=Sound(stream="summary")))
    alone = logits(pal, inputs, [*masking(pal, inputs, ["frames"], "knockout"), carried])
    assert torch.allclose(alone, rerouted, atol=1e-5)
    for streams in (["summary"], ["frames", "summary"]):  # frames, keys only, carry nothing
        knocked, rerouted = both_ways(pal, inputs, streams)
        assert torch.allclose(knocked, rerouted, atol=1e-5), streams


def test_a_summary_differs_by_what_running_frames_carry(make: Any) -> None:
    model = make(tiny.both_streams(FULL, FULL))
    inputs = model.inputs("what?", SAMPLES)
    knocked, rerouted = both_ways(model, inputs, ["summary"])
    assert not torch.allclose(knocked, rerouted, atol=1e-2)
    carried = Knockout(Address("pattern", Sound(stream="summary"), queries=Sound(stream="frames")))
    alone = logits(model, inputs, [*masking(model, inputs, ["summary"], "knockout"), carried])
    assert torch.allclose(alone, rerouted, atol=1e-5)


def test_every_clip_of_a_prompt_is_masked(pal: Any) -> None:
    other = np.random.default_rng(1).normal(size=8_000).astype(np.float32)
    inputs = pal.inputs("which?", SAMPLES, other)
    knocked, rerouted = both_ways(pal, inputs, ["summary"])
    assert torch.allclose(knocked, rerouted, atol=1e-5)


@pytest.mark.parametrize("way", ["knockout", "reroute"])
def test_nothing_of_a_masked_clip_is_left_but_its_length(pal: Any, way: Any) -> None:
    """Another sound of that length gives the same; without the clip's columns text would move."""
    silent = np.zeros_like(SAMPLES)
    streams = ["frames", "summary"]
    made: list[torch.Tensor] = []
    for samples in (SAMPLES, silent):
        inputs = pal.inputs("what?", samples)
        made.append(logits(pal, inputs, masking(pal, inputs, streams, way)))
    assert torch.allclose(made[0], made[1], atol=1e-5)
    inputs = pal.inputs("what?", SAMPLES)
    text = inputs["input_ids"] != pal.model.config.audio_token_id
    without = {name: inputs[name][text][None] for name in ("input_ids", "attention_mask")}
    assert not torch.allclose(made[0], logits(pal, without, []), atol=1e-3)


def test_masking_moves_no_position(pal: Any) -> None:
    """The position ids that every decoder layer gets for text are those of the whole prompt."""
    inputs = pal.inputs("what?", SAMPLES)
    layout = pal.layout(inputs)
    text = layout.stream[0] == -1
    wanted = text.nonzero()[:, 0]
    seen: list[torch.Tensor] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        run = pal.model.current_run
        index = next(i for i, each in enumerate(layers) if each is module)
        at = run.columns_of(index).running[0]
        seen.append(kwargs["position_ids"][0][text[at]])

    layers = list(pal.model.language_model.model.layers)
    handles = [each.register_forward_pre_hook(note, with_kwargs=True) for each in layers]
    try:
        for way in ("knockout", "reroute"):
            for streams in maskings(pal.current_route).values():
                seen.clear()
                logits(pal, inputs, masking(pal, inputs, streams, way))
                assert len(seen) == len(layers)
                assert all(torch.equal(positions, wanted) for positions in seen)
    finally:
        for handle in handles:
            handle.remove()
    assert int(wanted[-1]) > len(wanted)  # there is a gap for the clip


# -- the measure -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pathway", "needed"), [("lal", "frames"), ("summary", "summary"), ("plits", "frames")]
)
def test_masking_the_planted_stream_alone_loses_the_answer(pathway: Any, needed: str) -> None:
    planted = plant(pathway)
    for event, other in (("A", "B"), ("B", "A")):
        table = pathway_masking(planted.model, planted.inputs(event, 5), [other, event], event)
        assert len(table) == 2 * len(maskings(planted.model.current_route))
        for row in table.to_dict("records"):
            lost = needed in row["masked"].split(" + ")
            # Of equally likely choices the first is taken, which is the wrong one here.
            assert row["correct"] == (not lost), row
            assert row["best"] == (other if lost else event)
            assert row["margin"] == pytest.approx(0, abs=1e-5) if lost else row["margin"] > 5
            assert row["chance"] == 0.5
        # Knowing nothing, the model finds every word as likely: the answer, and the end.
        guessed = table.loc[~table["correct"], "logprob"]
        assert guessed.tolist() == pytest.approx([2 * np.log(1 / len(WORDS))] * len(guessed))


def test_choices_are_those_that_are_ranked(pal: Any) -> None:
    inputs = pal.inputs("what?", SAMPLES)
    choices = ["dog", "sea waves", "crackling fire"]
    (table,) = masked_choices(pal, inputs, [choices])
    whole = pathway_masking(pal, inputs, choices, "sea waves")
    assert len(table) == len(choices) * len(whole)
    for row in whole.to_dict("records"):
        rows = table[(table["way"] == row["way"]) & (table["masked"] == row["masked"])]
        logprobs = dict(zip(rows["choice"], rows["logprob"], strict=True))
        assert list(logprobs) == choices
        made = masking(pal, inputs, maskings(pal.current_route)[row["masked"]], row["way"])
        wanted = choice_logprobs(pal, inputs, choices, made)
        assert list(logprobs.values()) == pytest.approx(wanted.tolist(), abs=1e-4)
        right = logprobs.pop("sea waves")
        assert row["logprob"] == right
        assert row["margin"] == pytest.approx(right - max(logprobs.values()))
        assert row["correct"] == (row["best"] == "sea waves") == (row["margin"] > 0)


def test_the_answer_must_be_a_choice() -> None:
    planted = plant("plits")
    inputs = planted.inputs("A", 5)
    for choices in (["B", "it"], ["A"]):
        with pytest.raises(PalscopeError, match="one of several choices"):
            pathway_masking(planted.model, inputs, choices, "A")


# -- over clips ------------------------------------------------------------------------------------


def made_table() -> pd.DataFrame:
    """Two domains; masking x loses 6 of 8 in music (and wins one), nothing in speech."""
    rows = []
    outcomes = {
        "music": ([1] * 8 + [0] * 2, [1] * 2 + [0] * 6 + [1, 0]),
        "speech": ([1] * 5, [1] * 5),
    }
    for domain, (plain, masked) in outcomes.items():
        for name, correct in ((NOTHING, plain), ("x", masked)):
            for clip, right in enumerate(correct):
                rows.append(
                    {
                        "clip": f"{domain}{clip}",
                        "domain": domain,
                        "way": "reroute",
                        "masked": name,
                        "correct": bool(right),
                        "logprob": -1.0 if name == NOTHING else -1.0 - clip,
                        "chance": 0.1,
                    }
                )
    # Rows in another order must not change which clip is paired with which.
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_scores_are_accuracies_and_paired_losses() -> None:
    scores = masking_scores(made_table()).set_index(["domain", "masked"])
    assert set(scores.index.get_level_values("domain")) == {"music", "speech", "all"}
    music = scores.loc["music", "x"]
    assert (music["n"], music["accuracy"]) == (10, pytest.approx(0.3))
    assert (music["low"], music["high"]) == pytest.approx(wilson(3, 10))
    assert music["drop"] == pytest.approx(0.5)
    assert music["drop_low"] < 0.5 < music["drop_high"] <= 1
    assert music["p"] == pytest.approx(stats.binomtest(6, 7).pvalue)
    assert music["least_p"] == 2 / 2**7
    assert music["logprob_drop"] == pytest.approx(np.mean(range(10)))
    # ten clips are too few for an interval of nats
    assert np.isnan(music["logprob_drop_low"])
    assert sorted(music["logprob_drop_values"].numbers) == list(range(10))
    nothing = scores.loc["music", NOTHING]
    assert nothing["drop"] == 0 and np.isnan([nothing["drop_low"], nothing["p"]]).all()
    assert scores.loc["speech", "x"]["p"] == 1
    # that none of five changed does not say that none will
    assert scores.loc["speech", "x"]["drop_values"].numbers == (0.0,) * 5
    # three tests: of music, of speech and of both
    assert music["q"] == pytest.approx(min(1, 1.5 * music["p"]))
    everything = scores.loc["all", "x"]
    assert (everything["n"], everything["drop"]) == (15, pytest.approx(5 / 15))


def test_contrasts_say_which_domain_loses_more() -> None:
    (row,) = domain_contrasts(made_table()).to_dict("records")
    order = 1 if row["one"] == "music" else -1
    assert {row["one"], row["other"]} == {"music", "speech"}
    assert row["drop"] == pytest.approx(order * 0.5)
    assert np.isnan(row["drop_low"])  # five clips of speech
    assert row["logprob_drop"] == pytest.approx(order * (4.5 - 2.0))


def test_domains_are_set_against_each_other_in_the_table_s_order() -> None:
    table = made_table()
    for order in (["speech", "music"], ["music", "speech"]):
        given = pd.concat([table[table["domain"] == domain] for domain in order])
        (row,) = domain_contrasts(given).to_dict("records")
        assert [row["one"], row["other"]] == order


def test_contrast_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        rows = []
        for domain, loss in (("music", 2.0), ("speech", 1.0)):
            for clip in range(30):
                plain = rng.normal(-1, 1)
                for name, value in ((NOTHING, plain), ("x", plain - rng.normal(loss, 1))):
                    rows.append((f"{domain}{clip}", domain, "reroute", name, True, value, 0.1))
        names = ["clip", "domain", "way", "masked", "correct", "logprob", "chance"]
        (row,) = domain_contrasts(pd.DataFrame(rows, columns=names)).to_dict("records")
        hits += row["logprob_drop_low"] <= 1 <= row["logprob_drop_high"]
    assert 51 <= hits <= 60
