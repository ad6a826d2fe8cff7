"""Whisper (arXiv 2212.04356): an encoder of 30 s, and a decoder that crosses it in every layer."""

from __future__ import annotations

import re
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import WhisperConfig

import palscope._models.whisper_decoder  # pyright: ignore[reportUnusedImport]  # noqa: F401
from palscope._published.transcriber import Transcriber
from palscope._published.whisper_tower import WINDOW, WhisperTowerFamily
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures
from palscope.encoders._whisper_words import MULTILINGUAL, TIMES
from palscope.errors import CheckpointError, PromptError, short

_START = "<|startoftranscript|>"
_MARKS = re.compile(r"(<\|[^|<>]+\|>)+")
_TASK = re.compile(r"<\|(?!en\|)([a-z]{2,3}|transcribe|translate)\|>")
"""A language that is not English, or a task."""
_TIME = re.compile(r"<\|\d+\.\d\d\|>")


class WhisperDecoderConfig(WhisperConfig):
    """A Whisper's settings as those of its decoder alone, by the names that decoders have."""

    attribute_map = {  # noqa: RUF012 (transformers has it so)
        "hidden_size": "d_model",
        "num_hidden_layers": "decoder_layers",
        "num_attention_heads": "decoder_attention_heads",
        "num_key_value_heads": "decoder_attention_heads",
        "intermediate_size": "decoder_ffn_dim",
    }

    @property
    def max_position_embeddings(self) -> int:
        """Columns of a prompt: the words', and those of a window of sound."""
        return self.max_target_positions + self.max_source_positions


class Whisper(Transcriber, WhisperTowerFamily):
    """An encoder–decoder: text reads sound in an attention of its own, in windows of 30 s.

    A prompt is what the decoder is forced to begin with: `ask("", clip)` for the published one,
    or marks (`<|de|><|transcribe|><|notimestamps|>`); what it says is the transcript.
    """

    model_types = ("whisper",)
    checkpoints = (
        ("openai/whisper-tiny.en", "39 M"),
        ("openai/whisper-base", "74 M"),
        ("openai/whisper-large-v3-turbo", "0.8 B"),
    )
    architecture = "WhisperForConditionalGeneration"
    tested_with = "real (tiny.en, base), random"
    filler = "<|silence|>"
    longest = 30.0
    answer_start = " "
    decoder_settings = WhisperDecoderConfig

    @property
    def filler_id(self) -> int:
        """The second."""
        return self.audio_token_id + 1

    @property
    def grid(self) -> TimeGrid:
        """Two feature frames a token, 1,500 tokens a window."""
        return TimeGrid(0.02)

    def tokens(self, frames: int) -> int:
        """One for every two frames begun."""
        return -(-frames // 2)

    def fillers(self, tokens: int) -> int:
        """The window's rest."""
        return WINDOW // 2 - tokens

    def written(self, tokens: int) -> str:
        """The clip's tokens, then those of the silence that fills its window."""
        return self.place * tokens + self.filler * self.fillers(tokens)

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel features of the window, the clip's and those of the silence behind it."""
        made = extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        return ClipFeatures(made["input_features"][0], -(-len(samples) // extractor.hop_length))

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """The encoder's output over the whole window."""
        return model.get_submodule(self.tower_path)(features[None]).last_hidden_state[0]

    def components(self) -> dict[str, Component]:
        """The encoder's, by Whisper's names."""
        parts = super().components()
        del parts[self.projector]
        return parts

    def tower_layers(self) -> tuple[Block, ...]:
        """The encoder's, a token each 20 ms."""
        return tuple(Block(f"blocks.{i}", self.grid) for i in range(self.config.encoder_layers))

    # -- prompts ----------------------------------------------------------------------------------

    @property
    def any_question(self) -> str:
        """What the published class begins with, for English: transcribed, without times."""
        task = "" if self.english_only else "<|en|><|transcribe|>"
        return f"{task}<|notimestamps|>"

    @property
    def english_only(self) -> bool:
        """Whether the checkpoint hears English alone, and so takes no language and no task."""
        return self.config.vocab_size < MULTILINGUAL

    def prepare_tokenizer(self, tokenizer: Any) -> None:
        """Add the words for sound behind all others; before them the times, where they lack.

        Raises `CheckpointError` for a tokenizer of another checkpoint.
        """
        missing = self.config.vocab_size - len(tokenizer)
        if missing == len(TIMES) and TIMES[0] not in tokenizer.get_vocab():
            tokenizer.add_tokens(list(TIMES))  # files of before 2023 have none
        self.add_places(tokenizer, self.place, self.filler)
        start, wanted = tokenizer.convert_tokens_to_ids(_START), self.config.decoder_start_token_id
        if start != wanted:
            raise CheckpointError(
                f"the tokenizer, a {type(tokenizer).__name__}, is of another checkpoint: "
                f"{_START} is its word {start}, the model begins with {wanted}. Give the model's "
                "own."
            )

    def chat(self, template: Any, question: str, clips: int, system: str | None) -> str:
        """The clip's place, and the marks that the decoder begins with.

        Args:
            question: "" for the published ones: English, transcribed, without times. Or marks, as
                they stand behind `<|startoftranscript|>`; or all of them, with that one.

        Raises:
            PromptError: it is a question; the checkpoint hears English alone and another language
                or a translation is asked for; there are several clips, or a system message.
        """
        del template
        self.check_alone(clips, system)
        marks = question or self.any_question
        if _MARKS.fullmatch(marks) is None and "<|startofprev|>" not in marks:
            raise PromptError(
                f"Whisper answers no question: it writes down what is said. Instead of "
                f"{short(question)} give '' or marks such as {self.any_question}."
            )
        if self.english_only and (asked := _TASK.search(marks)):
            raise PromptError(
                f"{asked[0]} is asked of a checkpoint that hears English alone (.en) and "
                "transcribes it. Leave it out, or load a multilingual checkpoint."
            )
        begins = "" if _START in marks else _START
        return f"{self.place * clips}{begins}{marks}"

    def check_heard(self, question: str) -> None:
        """Refuse to time words that no layer hears."""
        if asked := _TIME.search(question):
            raise PromptError(
                f"{asked[0]} asks for times, but the route mutes all sound: no layer reads the "
                "clip. Leave it out, or take a route on which one does."
            )
