"""Attention to spoken words: as the plain class gives it, and of a head that was planted."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import ByT5Tokenizer

import palscope
from palscope._routing import Route
from palscope._statistics import auroc
from palscope.audio._compose import LabelledSpan
from palscope.errors import PalscopeError, PromptError
from palscope.interventions import Address, Knockout, Sound, intervene
from palscope.measures import attention_mass, by_seconds, published_heads, spoken_attention
from palscope.measures._alignment import MARK, ForcedWords, word_scores
from palscope.measures._alignment_cuts import word_cuts
from palscope.measures._word_times import risen_onsets, warped_onsets
from tests.hooks.conftest import noise
from tests.published.tiny import whisper

SPOKEN = (
    LabelledSpan("ab", 0.2, 0.42),
    LabelledSpan("c", 0.56, 0.7),
    LabelledSpan("def", 0.9, 1.24),
)
PLANTED = (1, 2)


class Listening:
    """A tiny Whisper under palscope, the plain class, and what is written of a clip of 1.3 s."""

    def __init__(self) -> None:
        self.plain: Any = whisper.model()
        self.hooked = palscope.load(whisper.model(), processor=whisper.processor())
        self.inputs = self.hooked.inputs("", noise(1.3))
        self.forced = ForcedWords.behind(self.hooked, self.inputs, [each[0] for each in SPOKEN])
        self.table = spoken_attention(self.hooked, self.inputs, SPOKEN)

    def plain_run(self) -> Any:
        layout = self.hooked.layout(self.forced.inputs)
        words = self.forced.inputs["input_ids"][:, layout.stream[0] == -1]
        self.plain.set_attn_implementation("eager")
        with torch.no_grad():
            features = self.inputs["input_features"]
            return self.plain(features, decoder_input_ids=words, output_attentions=True)

    def word_under(self, number: int, cuts: Any) -> tuple[float, int]:
        """Log-probability of a word's first token, and the likeliest token there."""
        place = self.forced.starts[number]
        with intervene(self.hooked, self.forced.inputs, cuts), torch.no_grad():
            logits = self.hooked(self.forced.inputs, logits_to_keep=len(self.forced.ids))
        best = logits[0, place - len(self.forced.ids)].argmax()
        return float(self.forced.logprobs_by(logits)[place]), int(best)


@pytest.fixture(scope="module")
def listening() -> Listening:
    return Listening()


def test_each_word_is_written_in_one_form(listening: Listening) -> None:
    forced = listening.forced
    said = listening.hooked.tokenizer.decode(forced.ids[:-1])
    assert said == " ab, c, def." and forced.ids[-1] == whisper.ID["<|endoftext|>"]
    assert [forced.words.count(number) for number in (0, 1, 2)] == [3, 2, 4]
    assert forced.starts == [0, 4, 7]
    assert forced.queries == [forced.first - 1 + place for place in range(13)]


def test_masses_and_log_probabilities_are_those_of_the_plain_class(listening: Listening) -> None:
    table, run = listening.table, listening.plain_run()
    ids = torch.tensor(listening.forced.ids)[:, None]
    tokens = len(ids)
    logprobs = run.logits[0, -tokens:].log_softmax(-1).gather(1, ids)[:, 0]
    heard = table.drop_duplicates("token")["heard"]
    np.testing.assert_allclose(heard, logprobs, atol=1e-4)
    for _, row in table.iterrows():
        layer, head, token = row["layer"], row["head"], row["token"]
        wanted = run.cross_attentions[layer][0, head, token - tokens]
        np.testing.assert_allclose(row["pattern"], wanted[:65], atol=1e-6)
        if row["word"] == MARK:
            assert np.isnan(row["mass"])
            continue
        span = SPOKEN[row["word"]]
        first, last = (round(edge / 0.02) for edge in span[1:])
        assert row["mass"] == pytest.approx(float(wanted[first:last].sum()), abs=1e-6)
    assert len(table) == tokens * 3 * 4


def test_what_is_written_unheard_is_written_without_cross_attention(listening: Listening) -> None:
    def nothing(module: Any, args: Any, out: Any) -> Any:
        return (module.out_proj.bias.expand_as(out[0]), *out[1:])

    handles = [
        layer.encoder_attn.register_forward_hook(nothing)
        for layer in listening.plain.model.decoder.layers
    ]
    try:
        logits = listening.plain_run().logits
    finally:
        for handle in handles:
            handle.remove()
    ids = torch.tensor(listening.forced.ids)[:, None]
    wanted = logits[0, -len(ids) :].log_softmax(-1).gather(1, ids)[:, 0]
    by_token = listening.table.drop_duplicates("token")
    np.testing.assert_allclose(by_token["written"], wanted, atol=1e-4)
    assert (by_token["written"] - by_token["heard"]).abs().max() > 0.1


def test_a_word_s_score_is_its_first_query_s_and_its_log_probability_the_sum(
    listening: Listening,
) -> None:
    words = word_scores(listening.table)
    assert len(words) == 3 * 3 * 4 and words["text"].unique().tolist() == ["ab", "c", "def"]
    row: Any = words[(words["word"] == 2) & (words["layer"] == 1) & (words["head"] == 3)].iloc[0]
    of_head: Any = listening.table[(listening.table["layer"] == 1) & (listening.table["head"] == 3)]
    first: Any = of_head[of_head["token"] == 7].iloc[0]
    assert row["mass"] == first["mass"]
    assert row["share"] == pytest.approx(first["mass"] / first["pattern"].sum())
    peak = (first["pattern"].argmax() + 0.5) * 0.02
    assert row["distance_s"] == pytest.approx(abs(peak - 1.07))
    word = of_head[of_head["word"] == 2]
    assert row["heard"] == pytest.approx(word["heard"].sum())
    assert row["written"] == pytest.approx(word["written"].sum())


# -- a head that was planted ----------------------------------------------------------------------


@pytest.fixture
def planted(listening: Listening) -> Generator[pd.DataFrame]:
    """One head gives each word's query, and the next ones, the word's seconds evenly."""

    def listens(pattern: Any, hook: Any) -> Any:
        pattern = pattern.clone()
        tokens = len(listening.forced.ids)
        starts = listening.forced.starts
        for token in range(tokens):
            number = sum(start <= token for start in starts) - 1
            first, last = (round(edge / 0.02) for edge in SPOKEN[number][1:])
            pattern[:, PLANTED[1], token - tokens] = 0
            pattern[:, PLANTED[1], token - tokens, first:last] = 1 / (last - first)
        return pattern

    listening.hooked.add_hook(f"blocks.{PLANTED[0]}.cross_attn.hook_pattern", listens)
    yield spoken_attention(listening.hooked, listening.inputs, SPOKEN)
    listening.hooked.reset_hooks()


def test_the_planted_head_comes_first(planted: pd.DataFrame) -> None:
    words = word_scores(planted)
    means: Any = words.groupby(["layer", "head"])[["mass", "share", "distance_s"]].mean()
    assert means.loc[PLANTED, "mass"] == pytest.approx(1, abs=1e-5)
    listed = np.array([head == PLANTED for head in means.index])
    assert auroc(means["share"].to_numpy(), listed) == 1
    assert auroc(means["mass"].to_numpy(), listed) == 1
    assert means["share"].nlargest(2).iloc[1] < 0.9


def test_words_begin_where_the_planted_head_begins(planted: pd.DataFrame) -> None:
    rows: Any = planted[(planted["layer"] == 1) & (planted["head"] == 2)]
    patterns = np.stack(rows["pattern"].tolist())[None]
    begins = [each.start for each in SPOKEN]
    np.testing.assert_allclose(risen_onsets(patterns, [0, 4, 7], 0.02), begins, atol=1e-6)
    # The published path passes silence in one word or the other, and smooths over 7 tokens.
    late = warped_onsets(patterns, [0, 4, 7], 0.02) - begins
    assert late[0] == -begins[0] and (np.abs(late[1:]) < 0.25).all()


# -- other models, cuts, and bad input ------------------------------------------------------------


def test_a_decoder_that_reads_sound_among_words_is_asked_alike(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(1.3))
    table = spoken_attention(pal, inputs, SPOKEN[:2])
    assert sorted(table["layer"].unique()) == [0, 2], "where frames are seen"
    forced = ForcedWords.behind(pal, inputs, ["ab", "c"])
    query = forced.queries[forced.starts[1]]
    masses: Any = attention_mass(pal, forced.inputs, queries=(query,))
    frames = masses[masses["pathway"] == "frames"]
    wanted = by_seconds(frames, *SPOKEN[1][1:]).set_index(["layer", "head"])["mass"]
    words: Any = word_scores(table)
    got = words[words["word"] == 1].set_index(["layer", "head"])["mass"]
    np.testing.assert_allclose(got, wanted.loc[got.index], atol=1e-6)
    assert published_heads(pal) == []


def test_cuts_are_those_of_each_by_itself(listening: Listening) -> None:
    sets = {"both": [(1, 0), (2, 3)], "one": [(0, 1)]}
    table = word_cuts(listening.hooked, listening.inputs, SPOKEN, sets)
    assert len(table) == 6

    for number, beside in ((0, 1), (2, 1)):
        plain, _ = listening.word_under(number, [])
        rows: Any = table[(table["word"] == number) & (table["heads"] == "both")]
        for what, at in (("own", number), ("other", beside)):
            where = Sound(*SPOKEN[at][1:])
            cuts = [
                Knockout(Address("pattern", where, (layer,), (head,)))
                for layer, head in sets["both"]
            ]
            logprob, _ = listening.word_under(number, cuts)
            assert rows[what].iloc[0] == pytest.approx(logprob - plain, abs=1e-4)
        assert rows["heard"].iloc[0] == pytest.approx(plain, abs=1e-4)
    assert (table["own"].abs() > 1e-4).all()


def test_a_word_changes_where_another_token_becomes_the_likeliest(listening: Listening) -> None:
    hooked, forced = listening.hooked, listening.forced

    def sharper(query: torch.Tensor, hook: Any) -> torch.Tensor:
        return 30 * query  # so that the tiny model's answers hang on a few keys

    try:
        for layer in range(3):
            hooked.add_hook(f"blocks.{layer}.cross_attn.hook_q", sharper)
        every = {"every": [(layer, head) for layer in range(3) for head in range(4)]}
        table = word_cuts(hooked, listening.inputs, SPOKEN, every)
        for row, start, beside in zip(table.itertuples(), forced.starts, (1, 2, 1), strict=True):
            _, plain = listening.word_under(row.Index, [])
            for at, changes in ((row.Index, row.own_changes), (beside, row.other_changes)):
                cut = Knockout(Address("pattern", Sound(*SPOKEN[at][1:])))
                assert changes == (listening.word_under(row.Index, [cut])[1] != plain)
            assert row.likeliest == (plain == forced.ids[start])
    finally:
        hooked.reset_hooks()
    assert set(table["own_changes"]) == {False, True}


def test_the_checkpoint_s_list_is_read(listening: Listening) -> None:
    assert published_heads(listening.hooked) == []
    model = whisper.model()
    model.generation_config.alignment_heads = [[1, 2], [2, 0]]
    assert published_heads(palscope.load(model, processor=whisper.processor())) == [(1, 2), (2, 0)]


def test_what_cannot_be_measured_is_refused(listening: Listening) -> None:
    hooked, inputs = listening.hooked, listening.inputs
    with pytest.raises(PalscopeError, match=r"no token of sound overlaps 'c', 1\.40 to 1\.50 s"):
        spoken_attention(hooked, inputs, [LabelledSpan("c", 1.4, 1.5)])
    with pytest.raises(PromptError, match="no word was given"):
        spoken_attention(hooked, inputs, [])
    slow: Any = SimpleNamespace(
        processor=SimpleNamespace(answer_start="", tokenizer=ByT5Tokenizer())
    )
    with pytest.raises(
        PromptError,
        match=r"a ByT5Tokenizer, does not tell .* tokenizers \(with a tokenizer\.json\)",
    ):
        ForcedWords.behind(slow, inputs, ["ab"])
    with (
        hooked.route(Route.crossed(3, [])),
        pytest.raises(PalscopeError, match="no layer sees the clip's frames"),
    ):
        spoken_attention(hooked, inputs, SPOKEN)
