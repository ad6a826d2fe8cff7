"""Words where nobody speaks: counted by hand, written as the plain class writes, stopped by a plan.

The oracle of transcripts and first tokens is the plain class; the direction is planted: the end's
own unembedding, which no random model's first token survives.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

import palscope
from palscope.interventions import Address, Filler, Knockout, Sound, Text
from palscope.measures import _nonspeech
from palscope.measures._nonspeech import (
    along,
    cuts_of_sound,
    dropped,
    first_token,
    no_speech_probability,
    spoken_words,
    transcripts,
    without_head,
    word_error,
)
from tests.published.contract import noise
from tests.published.tiny import whisper

END = whisper.ID["<|endoftext|>"]
FORBIDDEN = [whisper.ID["<|en|>"], 65]
TOKENS = 5


class Opened:
    """A tiny Whisper under palscope, the plain class with its weights, and a prompt."""

    def __init__(self) -> None:
        self.plain: Any = whisper.model()
        self.hooked = palscope.load(whisper.model(), processor=whisper.processor())
        self.inputs = self.hooked.inputs("", noise(1.3))
        start = whisper.ID["<|startoftranscript|>"]
        first = int((self.inputs["input_ids"][0] == start).nonzero()[0])
        self.prompt = self.inputs["input_ids"][:, first:]

    @torch.no_grad()
    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        features = self.inputs["input_features"]
        return self.plain(input_features=features, decoder_input_ids=ids).logits[0].float()


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()


# -- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (" [MUSIC]", []),
        (" (water splashing)", []),
        (" (cut off at the li", []),
        (" *sighs* You", ["you"]),
        (" ... ♪ !", []),
        (" 72, Oh-no; I'm 3.", ["seven", "two", "oh", "no", "i'm", "three"]),
        ("", []),
    ],
)
def test_tags_are_no_words_and_digits_are(said: str, words: list[str]) -> None:
    assert spoken_words(said) == words


def test_a_word_error_counts_what_must_be_put_in_left_out_or_exchanged() -> None:
    wanted = ["three", "seven", "one"]
    assert word_error(wanted, wanted) == 0
    assert word_error(["three", "one"], wanted) == pytest.approx(1 / 3)
    assert word_error(["oh", "three", "six", "one"], wanted) == pytest.approx(2 / 3)
    assert word_error([], wanted) == 1
    assert word_error(["you"] * 6, wanted) == 2
    with pytest.raises(ValueError, match="needs words"):
        word_error(["you"], [])


def test_the_published_rule_needs_both() -> None:
    assert dropped(0.61, -1.01)
    assert not dropped(0.6, -2.0) and not dropped(0.9, -1.0) and not dropped(math.nan, -2.0)


# -- against the plain class ----------------------------------------------------------------------


@pytest.mark.parametrize("settings", _nonspeech.SETTINGS)
def test_what_is_written_is_what_the_plain_class_writes(opened: Opened, settings: Any) -> None:
    (made,) = transcripts(opened.hooked, opened.inputs, [[]], settings, TOKENS)
    forbidden = [] if settings == "greedy" else FORBIDDEN
    begin = [66] if settings == "published" else []
    ids, logprobs = opened.prompt, list[float]()
    for step in range(TOKENS):
        logits = opened.logits(ids)[-1]
        logits[forbidden + (begin if step == 0 else [])] = -torch.inf
        chosen = int(logits.argmax())
        logprobs.append(float(logits.log_softmax(-1)[chosen]))
        ids = torch.cat([ids, torch.tensor([[chosen]])], 1)
        if chosen == END:
            break
    tokenizer = opened.hooked.processor.tokenizer
    written = tokenizer.decode(ids[0, opened.prompt.shape[1] :], skip_special_tokens=True)
    assert made.text == written.strip()
    assert made.logprob == pytest.approx(sum(logprobs) / len(logprobs), abs=1e-4)


def test_the_first_token_may_end_a_transcript_only_where_it_is_let(opened: Opened) -> None:
    own = opened.hooked.model.checkpoint_generation
    assert own.begin_suppress_tokens == [66]
    chosen: GenerationConfig = _nonspeech._generation(opened.hooked, "may stop", 1)
    assert chosen.begin_suppress_tokens is None and chosen.suppress_tokens == FORBIDDEN
    assert own.begin_suppress_tokens == [66]  # the model's own stay


def test_no_speech_is_read_where_the_transcript_starts(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert math.isnan(no_speech_probability(opened.hooked, opened.inputs))
    shares = opened.logits(opened.prompt).softmax(-1)
    likeliest = int(shares[0].argmax())
    name = opened.hooked.processor.tokenizer.convert_ids_to_tokens(likeliest)
    monkeypatch.setattr(_nonspeech, "_NO_SPEECH_TOKENS", ("<|nospeech|>", name))
    wanted, behind = shares[:, likeliest].tolist()
    assert behind != pytest.approx(wanted, rel=1e-2)
    found = no_speech_probability(opened.hooked, opened.inputs)
    assert found == pytest.approx(wanted, rel=1e-4)


def test_cells_together_write_what_each_writes_alone(opened: Opened) -> None:
    _, cells = cuts_of_sound(opened.hooked)
    some = [cells[0], cells[1], cells[5]]
    together = transcripts(opened.hooked, opened.inputs, some, "published", TOKENS)
    for cell, made in zip(some, together, strict=True):
        (alone,) = transcripts(opened.hooked, opened.inputs, [cell], "published", TOKENS)
        assert made.text == alone.text
        assert made.logprob == pytest.approx(alone.logprob, abs=1e-4)
    assert together[0].logprob != pytest.approx(together[1].logprob, abs=1e-3)


def test_cut_off_everywhere_no_clip_is_told_from_another(opened: Opened) -> None:
    labels, cells = cuts_of_sound(opened.hooked)
    cuts = [label["cut"] for label in labels]
    assert cuts.count("head") == 3 * 4 and cuts.count("layer") == cuts.count("others") == 3
    other = opened.hooked.inputs("", noise(0.7, 3))
    one, two = (first_token(opened.hooked, each, cells) for each in (opened.inputs, other))
    assert one["end"][1] == pytest.approx(two["end"][1], abs=1e-4)
    assert one["end"][0] != pytest.approx(two["end"][0], abs=1e-3)
    assert one["same"].tolist()[0]


# -- planted --------------------------------------------------------------------------------------


def test_a_planted_direction_stops_before_the_first_word_and_its_reverse_does_not(
    opened: Opened,
) -> None:
    layers = opened.hooked.cfg.n_layers
    weights = opened.plain.proj_out.weight.detach()
    end = weights[END] - weights.mean(0)
    planted = {dose: along(end, layers - 1, dose) for dose in (0.0, 40.0, -40.0)}
    table = first_token(opened.hooked, opened.inputs, list(planted.values()))
    assert table["stops"].tolist() == [False, True, False]
    assert table["same"].tolist()[:2] == [True, False]
    assert table["end"][1] > table["end"][0] > table["end"][2]
    made = transcripts(opened.hooked, opened.inputs, list(planted.values()), "may stop", TOKENS)
    # Nothing is written but the end.
    assert made[1].text == "" and made[1].logprob == pytest.approx(table["end"][1], abs=1e-4)
    assert made[0].logprob != pytest.approx(table["end"][0], abs=1e-2)


def test_without_all_of_a_head_it_is_as_cut_off_from_all_sound(opened: Opened) -> None:
    cut = [
        Knockout(Address("pattern", each, (1,), (2,), queries=Text(-1)))
        for each in (Sound(), Filler())
    ]
    cells = [without_head(opened.hooked, 1, 2, dose) for dose in (0.0, 0.5, 1.0)]
    table = first_token(opened.hooked, opened.inputs, [*cells, cut])
    assert table["first"][2] == pytest.approx(table["first"][3], abs=1e-4)
    assert len(set(table["first"].round(4))) == 3  # each dose does something of its own
