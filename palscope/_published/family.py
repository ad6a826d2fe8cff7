"""What palscope must know of a published class of audio language models: one small class each."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoTokenizer

from palscope.audio._timegrid import SECONDS_PER_FEATURE, TOUCH_S, TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures


class PublishedFamily(ABC):
    """A published class: its modules, its audio place, its time grid, and how it encodes a clip.

    An object knows the config alone, so that tokens can be counted before there are weights. Clips
    are encoded one by one, each as if it were alone: in some classes what stands beside a clip in
    a batch changes what is heard of it.

    Args:
        config: of the published model.
    """

    model_types: ClassVar[tuple[str, ...]]
    """Of the configs of its checkpoints; the first is that of the class itself."""
    refused_types: ClassVar[dict[str, str]] = {}
    """Model types of weights of this class that are not opened, and what to do instead."""
    architecture: ClassVar[str]
    """The transformers class."""
    checkpoints: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Published weights by hub id, and their size as their pages state it."""
    tested_with: ClassVar[str] = "random"
    """Which weights palscope's tests run it with, a tiny model's random ones or published ones."""
    decoder_path: ClassVar[str] = "model.language_model"
    """Module of the bare decoder: `embed_tokens`, `layers`, `norm`, `rotary_emb`."""
    tower_path: ClassVar[str] = "model.audio_tower"
    """Module of the audio tower."""
    head_path: ClassVar[str] = "lm_head"
    """Module that makes logits."""
    projector: ClassVar[str]
    """Name among `components` of the module that the tower's output enters."""
    place: ClassVar[str]
    """Text of one audio token."""
    package: ClassVar[str | None] = None
    """What its feature extractor needs beside what palscope does, to be installed by this name."""
    sample_rate: ClassVar[int] = 16_000
    """Hz of the samples that are heard."""
    seconds_per_frame: ClassVar[float] = SECONDS_PER_FEATURE
    """Of the features."""
    floor_db: ClassVar[float | None] = None
    """As `EncoderConfig.floor_db`: 40 where features have Whisper's scale."""
    longest: ClassVar[float] = float("inf")
    """Seconds of the longest clip that the class hears."""
    unread: ClassVar[tuple[str, ...]] = ()
    """Prefixes of a checkpoint's tensors that are of other parts than those that hear and write."""
    divides_logits: ClassVar[bool] = True
    """Whether the class divides logits where the decoder's own class does (Granite)."""
    subfolders: ClassVar[tuple[str, ...]] = ()
    """Folders of a checkpoint's repository that the model needs beside its top one."""
    crosses: ClassVar[bool] = False
    """Whether it is an encoder–decoder, whose layers read sound in an attention of its own."""
    takes_questions: ClassVar[bool] = True
    """Whether its prompts hold a question; a transcriber's hold settings alone."""
    answer_start: ClassVar[str] = ""
    """What each answer begins with, where its tokens have it: a transcript's first word a space."""
    adds_marks: ClassVar[bool] = True
    """Whether the tokenizer's own marks are put around a prompt that has none."""
    least_transformers: ClassVar[str] = "5.17"
    """The oldest transformers that opens its checkpoints rightly."""
    about_tokenizer: ClassVar[str] = ""
    """What to do, where a tokenizer does not know `place`: a sentence behind a space."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def decoder_config(self) -> Any:
        """The config that the decoder is run by: that of the model, nearly always."""
        return self.config

    @property
    def any_question(self) -> str:
        """A question that is none in particular."""
        return "?"

    def check_heard(self, question: str) -> None:
        """Raise `PromptError` for what cannot be asked on a route that mutes all sound."""
        del question

    @property
    def audio_token_id(self) -> int:
        """Id of `place`."""
        return int(self.config.audio_token_id)

    @property
    def filler_id(self) -> int | None:
        """Id of the word that fills a clip's places behind its sound, where the class has one."""
        return None

    @property
    @abstractmethod
    def grid(self) -> TimeGrid:
        """Which seconds an audio token stands for."""

    @abstractmethod
    def tokens(self, frames: int) -> int:
        """How many audio tokens come of a clip of `frames` feature frames."""

    def fillers(self, tokens: int) -> int:
        """How many tokens of silence follow the `tokens` of a clip, where windows are heard whole.

        They are the encoder's, behind the clip's own, and written as `filler_id`.
        """
        del tokens
        return 0

    def seconds(self, frames: int) -> float:
        """Seconds of such a clip; to the end of its last token, if that hears padding alone."""
        seconds = frames * self.seconds_per_frame
        start, end = self.grid.span(self.tokens(frames) - 1)
        return seconds if start < seconds - TOUCH_S else end

    def columns(self, frames: int) -> int:
        """Columns of the features that belong to a clip of `frames`: a window's filling, too."""
        return frames

    @abstractmethod
    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Features of one clip.

        Args:
            extractor: the checkpoint's feature extractor.
            samples: mono, at `sample_rate`, at most `longest` seconds.
        """

    @abstractmethod
    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """The audio tokens of one clip, as they take the place of words.

        Args:
            model: the published model.
            features: `columns(frames)` of them, on the tower's device and in its type.
            frames: the clip's own.
        """

    @abstractmethod
    def components(self) -> dict[str, Component]:
        """Parts of tower and projector that can be hooked, by name; paths from the model."""

    def tower_layers(self) -> tuple[Block, ...]:
        """The tower's layers, bottom first, in whose tensors token `i` of a clip is number `i`."""
        return ()

    @property
    def tower_grid(self) -> TimeGrid:
        """Which seconds the tokens that enter the projector stand for: nearly always `grid`'s."""
        return self.grid

    def written(self, tokens: int) -> str:
        """What stands in a prompt's text for a clip of so many audio tokens."""
        return self.place * tokens

    def read(
        self, input_ids: Int[Tensor, "batch columns"], tokens: list[int]
    ) -> Int[Tensor, "batch columns"]:
        """The ids of such texts, with as many `audio_token_id` as there are audio tokens.

        Args:
            tokens: of each clip of the batch.
        """
        del tokens
        return input_ids

    def embed(
        self, model: Any, input_ids: Int[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch columns d_model"]:
        """Embeddings of words; where sound stands, of anything."""
        return model.get_submodule(self.decoder_path).embed_tokens(input_ids)

    @property
    def adapted(self) -> bool:
        """Whether a checkpoint hears with low-rank adapters, so that opening it needs peft."""
        return False

    @contextmanager
    def loading(self) -> Generator[None, None, None]:
        """Within, the class can be made where it needs a package that sound does not."""
        yield

    def default_template(self, tokenizer: Any, extractor: Any) -> str | None:
        """The class's own chat template, for checkpoints that bring none; None for none."""
        del tokenizer, extractor
        return None

    def chat(self, template: Any, question: str, clips: int, system: str | None) -> str:
        """A prompt of `clips` audio places and a question.

        Args:
            template: renders a conversation, `apply_chat_template` of the checkpoint's tokenizer.
            system: what is said before; None leaves it to the template.
        """
        before = [] if system is None else [{"role": "system", "content": system}]
        return template([*before, {"role": "user", "content": self.content(question, clips)}])

    def content(self, question: str, clips: int) -> Any:
        """What the user says, as the class's templates take it.

        They tell a clip by `type`, or by a key `audio` or `audio_url`; a clip has all of them.
        """
        clip = {"type": "audio", "audio": "clip", "audio_url": "clip"}
        return [*(dict(clip) for _ in range(clips)), {"type": "text", "text": question}]

    def check_adapters(self, model: Any) -> None:
        """Check that a loaded model has the adapters that it hears with.

        Raises `CheckpointError` when it lacks one.
        """
        del model

    def complete(self, model: Any, folder: Path) -> None:
        """Open what the class leaves in a checkpoint's folder (adapters).

        Raises `CheckpointError` when it is not there.
        """
        del model, folder

    def audio_part(self, model: Any) -> Any:
        """Of a loaded model, the class that hears: all of it, nearly always."""
        return model

    def prepare_tokenizer(self, tokenizer: Any) -> None:
        """Teach the tokenizer what it must know to write places of sound, in place."""
        del tokenizer

    def read_tokenizer(self, folder: Path) -> Any:
        """The tokenizer of a checkpoint. Raises `OSError`, `ValueError` or `ImportError`."""
        return AutoTokenizer.from_pretrained(folder)

    def prepare(self, model: Any, *, audio: bool) -> None:
        """Set what the class switches by whether there is sound in the call (adapters)."""
        del model, audio

    def save(self, model: Any, folder: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save the model so that it opens again.

        Args:
            **kwargs: `save_pretrained`'s.
        """
        model.save_pretrained(folder, **kwargs)
