"""Whisper tiny.en with OpenAI's weights: what it does with speech whose times are known.

The oracles are the plain class, what is said when, and the heads that OpenAI published as those by
which words are aligned with seconds.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from palscope._models.scoring import greedy_tokens, prompt_batch
from palscope.audio._bundled import bundled_scenes
from palscope.interventions import Address, Knockout, Sound, intervene
from palscope.interventions._cells import with_encoded
from palscope.measures import Answers, head_effects
from tests import real_whisper

WORDS = " 3, 7, 1."
"""What tiny.en writes for "three, seven, one"."""
PLACES = {"three": 1, "seven": 3, "one": 5}
"""The column among the decoder's that decides each of them, the mark of the start being 0."""


class Real:
    """Model and plain class, on one clip, which is encoded once."""

    def __init__(self) -> None:
        self.hooked = real_whisper.opened()
        self.scene = bundled_scenes()[0]
        read: Any = WhisperForConditionalGeneration.from_pretrained
        self.plain: Any = read(real_whisper.needed())
        prompt = self._inputs("")
        with torch.no_grad():
            self.heard = self.plain.model.encoder(prompt["input_features"])
        self.prompt = with_encoded(self.hooked, prompt)
        self.forced = self.behind(WORDS)
        self.ids = self.forced["input_ids"][:, -8:]

    def _inputs(self, words: str) -> dict[str, Any]:
        processor: Any = self.hooked.processor
        return dict(processor(processor.chat("") + words, [self.scene.waveform]))

    def behind(self, words: str) -> dict[str, Any]:
        """The prompt with words behind it, and the clip as it was encoded."""
        inputs = self._inputs(words)
        text = ("input_ids", "attention_mask")
        return {name: inputs[name] for name in text} | {"audio": self.prompt["audio"]}

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Of the decoder's columns, the words forced."""
        return self.hooked(self.forced)[0, -8:]

    @torch.no_grad()
    def plain_run(self, **kwargs: Any) -> Any:
        return self.plain(encoder_outputs=self.heard, decoder_input_ids=self.ids, **kwargs)

    def rises(self, sound: Sound) -> dict[str, float]:
        """Nats by which each word is less likely when nothing reads those seconds."""
        cut = Knockout(Address("pattern", sound))
        heard = self.logits().log_softmax(-1)
        with intervene(self.hooked, self.forced, [cut]):
            deaf = self.logits().log_softmax(-1)
        lost = (heard - deaf)[:-1].gather(1, self.ids[0, 1:, None])
        return {word: float(lost[place]) for word, place in PLACES.items()}

    def seconds(self, word: str) -> Sound:
        (span,) = [span for span in self.scene.spans if span.label == word]
        return Sound(span.start, span.end)


@pytest.fixture(scope="module")
def real() -> Real:
    return Real()


def test_logits_are_those_of_the_plain_class_to_the_bit(real: Real) -> None:
    assert torch.equal(real.logits(), real.plain_run().logits[0])


@torch.no_grad()
@pytest.mark.parametrize(
    ("scene", "likeliest", "as_published"),
    [(0, "3, 7, 1.", "3, 7, 1."), (2, "(gasps)", "Huh?")],
    ids=["digits", "dog, then rain"],
)
def test_it_writes_what_the_plain_class_writes(
    real: Real, scene: int, likeliest: str, as_published: str
) -> None:
    """By OpenAI's settings, which suppress tokens; and without, so by the likeliest ones."""
    processor: Any = real.hooked.processor
    clip = bundled_scenes()[scene].waveform
    batch = prompt_batch(processor, [((clip,), "")])
    encoded = with_encoded(real.hooked, batch)
    for own, wanted in ((True, as_published), (False, likeliest)):
        said = greedy_tokens(real.hooked.model, processor, encoded, 8, own_settings=own)[0]
        written = processor.tokenizer.decode(said, skip_special_tokens=True)
        assert written.strip() == wanted
        if own:
            plain = real.plain.generate(batch["input_features"], max_new_tokens=8)[0]
            assert said[: len(plain)].tolist() == plain.tolist()


@torch.no_grad()
def test_patterns_are_the_plain_class_s(real: Real) -> None:
    real.plain.set_attn_implementation("eager")
    wanted = real.plain_run(output_attentions=True)
    real.plain.set_attn_implementation("sdpa")
    decoder = re.compile(r"blocks\.\d\.(cross_)?attn\.hook_pattern").fullmatch
    _, cache = real.hooked.run_with_cache(
        real.forced, names_filter=lambda name: decoder(name) is not None
    )
    for layer in range(4):
        for name, theirs in (
            ("attn", wanted.decoder_attentions[layer]),
            ("cross_attn", wanted.cross_attentions[layer]),
        ):
            got = cache[f"blocks.{layer}.{name}.hook_pattern"]
            torch.testing.assert_close(got, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("word", PLACES)
def test_the_seconds_of_a_word_decide_that_word_more_than_any_other(real: Real, word: str) -> None:
    rises = real.rises(real.seconds(word))
    assert rises[word] > 2.5  # 4.9, 6.3 and 2.6 nats
    assert all(rises[word] > 2 * rises[other] for other in PLACES if other != word)


def test_the_seconds_between_words_decide_none(real: Real) -> None:
    _, seven, one = real.scene.spans
    rises = real.rises(Sound(seven.end + 0.02, one.start - 0.02))
    assert max(map(abs, rises.values())) < 0.1


def test_without_its_seconds_a_word_is_not_written(real: Real) -> None:
    cut = Knockout(Address("pattern", real.seconds("seven")))
    with intervene(real.hooked, real.prompt, [cut]):
        said = real.hooked.model.generate(**real.prompt, max_new_tokens=8)[0]
    written = real.hooked.to_string(said[-8:])
    assert "7" not in written and "Three. One." in written


def test_the_heads_that_decide_are_among_those_by_which_openai_aligns(real: Real) -> None:
    published = {tuple(each) for each in real.plain.generation_config.alignment_heads}
    answers = Answers.of(real.hooked.processor, " 7", " 1")
    sounds = [real.seconds("seven")]
    table = head_effects(real.hooked, real.behind(" 3,"), answers=answers, sounds=sounds, checked=6)
    first = list(zip(table["layer"], table["head"], strict=True))
    assert first[0] == (3, 3) and table["effect"][0] < -3  # of 13 logits between 7 and 1
    assert len(published & set(first[:6])) >= 4
