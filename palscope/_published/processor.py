"""The processor of a published model: its tokenizer and feature extractor, used clip by clip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature

from palscope._models.chat_format import PROMPT_DATE, chat_prompt, check_places, check_said
from palscope._models.processor import (
    AudioInput,
    as_clips,
    as_texts,
    check_prompts,
    check_question,
    check_system,
    padded_features,
    tokenised,
    with_tokens,
)
from palscope._published.family import PublishedFamily
from palscope.encoders._config import GivenClip
from palscope.encoders._front_end import checked
from palscope.errors import AudioError, CheckpointError, PromptError

_MARK = re.compile(r"<\|[^|<>]+\|>")
_WORD = "palscope"
"""No template has this word of its own."""


class PublishedProcessor:
    """Tokenises prompts of a published model and makes the features of clips.

    The published processor's tokens and features, for each clip as if it were alone. `<|audio|>`
    of palscope's own models is the class's `place` here: one of it is one clip's place.

    Args:
        family: of the class.
        tokenizer: the checkpoint's.
        feature_extractor: the checkpoint's.
        chat_template: of the checkpoint's processor; None for the class's own, or the tokenizer's.

    Attributes:
        system: system message of `chat`; None leaves it to the template.
        date: what the template takes for today's, where it asks for it: the same on every day.

    Raises:
        CheckpointError: the tokenizer does not know the audio's place, or there is no chat template
            that writes it.
    """

    def __init__(
        self,
        family: PublishedFamily,
        tokenizer: Any,
        feature_extractor: Any,
        chat_template: str | None = None,
    ) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.chat_template = chat_template or family.default_template(tokenizer, feature_extractor)
        self.system: str | None = None
        self.date = PROMPT_DATE
        family.prepare_tokenizer(tokenizer)
        read = tokenizer(family.place, add_special_tokens=False)["input_ids"]
        if list(read) != [family.audio_token_id]:
            raise CheckpointError(
                f"the tokenizer of {family.architecture}, a {type(tokenizer).__name__}, reads "
                f"{family.place} as {list(read)[:9]}; expected [{family.audio_token_id}], the "
                f"config's audio token.{family.about_tokenizer}"
            )
        tokenizer.padding_side = "left"  # so that the last column is each row's last token
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.chat(_WORD if family.takes_questions else self.any_question)
        self.turn_end = self._turn_end()

    @property
    def audio_token(self) -> str:
        """A clip's place in a prompt."""
        return self.family.place

    @property
    def takes_questions(self) -> bool:
        """Whether a prompt holds a question; a transcriber's holds settings alone."""
        return self.family.takes_questions

    @property
    def answer_start(self) -> str:
        """What each answer begins with."""
        return self.family.answer_start

    @property
    def any_question(self) -> str:
        """A question that is none in particular."""
        return self.family.any_question

    @property
    def audio_token_id(self) -> int:
        """Id of an audio token's place."""
        return self.family.audio_token_id

    @property
    def sample_rate(self) -> int:
        """Hz that clips are resampled to."""
        return self.family.sample_rate

    def chat(self, question: str, clips: int = 1) -> str:
        """A prompt in the checkpoint's chat format: the clips' places, then the question.

        Raises:
            PromptError: the question is empty, or it or the system message holds an audio place
                itself; a transcriber is given a mark that its tokenizer does not know; the class
                knows no system message; or the date is none.
            CheckpointError: the template is none, loses a clip or words, or does not end within
                bounds.
        """
        if self.family.takes_questions:
            check_question(question, self.audio_token)
        else:
            self._check_marks(question)
        check_system(self.system, self.audio_token)
        prompt = self.family.chat(self._render, question.strip(), clips, self.system)
        check_places(prompt, self.audio_token, clips, self._source)
        check_said(prompt, (question, self.system), self._source)
        return prompt

    def _check_marks(self, marks: str) -> None:
        for mark in _MARK.findall(marks):
            if len(self.tokenizer(mark, add_special_tokens=False)["input_ids"]) != 1:
                raise PromptError(
                    f"{mark} is no mark of this checkpoint: its tokenizer would spell it. Give one "
                    "of model.processor.tokenizer.added_tokens_decoder."
                )

    def _render(self, messages: Any, *, goes_on: bool = True) -> str:
        return chat_prompt(
            self.tokenizer,
            messages,
            template=self.chat_template,
            date=self.date,
            goes_on=goes_on,
        )

    @property
    def _source(self) -> Any:
        return self.chat_template or getattr(self.tokenizer, "chat_template", None)

    def _turn_end(self) -> int:
        """What the chat format writes behind an answer; where it writes none, the text's end.

        It may be another token than the tokenizer's end: `<end_of_turn>`, `<|end|>`.
        """
        said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _WORD}]
        try:
            behind = self._render(said, goes_on=False).rpartition(_WORD)[2].strip()
        except CheckpointError:  # no template, or one that takes no answers
            behind = ""
        ids: list[int] = []
        if behind:
            ids = self.tokenizer(behind, add_special_tokens=False)["input_ids"]
        marked = bool(ids) and ids[0] in self.tokenizer.added_tokens_decoder
        return int(ids[0] if marked else self.tokenizer.eos_token_id)

    def __call__(
        self,
        text: str | Sequence[str],
        audio: AudioInput | Sequence[AudioInput] | None = None,
        *,
        sampling_rate: int | None = None,
        max_seconds: float | None = None,
    ) -> BatchFeature:
        """Tensors of a batch, as `PalscopeProcessor` makes them.

        Args:
            text: a prompt or a batch of them, with one `audio_token` for each of its clips.
            audio: the batch's clips in reading order, in one list; each is whatever `load_audio`
                takes.
            sampling_rate: Hz of arrays, tensors and lists.
            max_seconds: longest clip allowed.

        Returns:
            `input_ids` and `attention_mask` `[batch, columns]`; with clips also `input_features`
            `[clips, bins, columns]` and `feature_lengths` `[clips]` in feature frames.

        Raises:
            PromptError: places and clips differ in number, a prompt is empty, or ends in a clip.
            AudioError: a clip cannot be used, or is longer or shorter than the class hears.
        """
        texts, clips = as_texts(text), as_clips(audio)
        place = self.audio_token
        check_prompts(texts, len(clips), place)
        features = [self._extract(GivenClip(clip, sampling_rate, max_seconds)) for clip in clips]
        counts = [self.family.tokens(frames) for _, frames in features]
        written = [self.family.written(count) for count in counts]
        whole = with_tokens(texts, place, written)
        made = tokenised(self.tokenizer, whole, marks=self.family.adds_marks)
        made["input_ids"] = self.family.read(made["input_ids"], counts)
        return BatchFeature({**made, **padded_features(features)})

    def _extract(self, clip: GivenClip) -> Any:
        sound = clip.waveform(self.sample_rate)
        seconds, longest = sound.seconds, self.family.longest
        if seconds > longest:
            raise AudioError(
                f"{sound.source} lasts {seconds:.2f} s, but {self.family.architecture} hears "
                f"{longest:g} s at most and would drop the rest. Cut it, or ask about its parts."
            )
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
            features = checked(self.family.extract(self.feature_extractor, sound.samples))
        if self.family.tokens(features.frames) < 1:
            raise AudioError(
                f"{sound.source} lasts {seconds * 1000:.0f} ms, of which "
                f"{self.family.architecture} makes no token. Give a longer one."
            )
        return features
