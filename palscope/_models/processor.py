"""The processor: sound and text in, tensors for the model out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from palscope._hub import hub_name
from palscope._models.chat_format import PROMPT_DATE, chat_prompt, check_places, check_said
from palscope._models.finding import Checkpoint, CheckpointLike, checkpoint_here, with_revision
from palscope._routing import Stream
from palscope._stored import check_folder, reading
from palscope.audio import Waveform
from palscope.audio._given import is_one_clip
from palscope.audio._timegrid import SECONDS_PER_FEATURE, TimeGrid
from palscope.encoders._config import ClipFeatures, GivenClip
from palscope.encoders._front_end import extract
from palscope.errors import CheckpointError, PromptError, short

AUDIO_TOKEN = "<|audio|>"
_MOST_TOKENS = 10_000
"""A stream's in a second of sound, or in a clip where they stand for the whole of it."""
AudioInput = str | Path | bytes | np.ndarray | torch.Tensor | Waveform | Mapping[str, Any]


class AudioProcessor(Protocol):
    """What asks a model about clips: palscope's own processor, or a published model's."""

    tokenizer: Any
    system: str | None
    date: str

    @property
    def audio_token_id(self) -> int:
        """Id of an audio token's place."""
        ...

    @property
    def takes_questions(self) -> bool:
        """Whether a prompt holds a question; a transcriber's holds settings alone."""
        ...

    @property
    def answer_start(self) -> str:
        """What each answer begins with: a transcript's first word, a space."""
        ...

    @property
    def any_question(self) -> str:
        """A question that is none in particular."""
        ...

    @property
    def turn_end(self) -> int:
        """Id of the token that ends an answer."""
        ...

    @property
    def sample_rate(self) -> int:
        """Hz that clips are resampled to."""
        ...

    def chat(self, question: str, clips: int = 1) -> str:
        """A prompt in the model's chat format: the clips' places, then the question."""
        ...

    def __call__(
        self,
        text: str | Sequence[str],
        audio: AudioInput | Sequence[AudioInput] | None = None,
        *,
        sampling_rate: int | None = None,
        max_seconds: float | None = None,
    ) -> BatchFeature:
        """Tensors of a batch."""
        ...


class PalscopeProcessor(ProcessorMixin):
    """Tokenises prompts and turns clips into the features of the model's encoder.

    Each `<|audio|>` in a text is one clip's place; it becomes one column for each audio token of
    the checkpoint's streams, so that text has the same positions under every route.

    Args:
        feature_extractor: the encoder's (`Encoder.feature_extractor`).
        tokenizer: the decoder's.
        features_per_frame: feature frames (10 ms) in one step of the frame tokens' time grid; None
            where they stand for the whole clip.
        stream_ratios: frame tokens in one token of each of the checkpoint's streams.
        system: system message of `chat`; None leaves it to the tokenizer's template.
        frames_per_step: frame tokens that share a step.
        date: what the template takes for today's, where it asks for it.
    """

    attributes: ClassVar[list[str]] = ["feature_extractor", "tokenizer"]

    def __init__(
        self,
        feature_extractor: Any = None,
        tokenizer: Any = None,
        features_per_frame: float | None = 10,
        stream_ratios: Sequence[int] = (1,),
        system: str | None = None,
        frames_per_step: int = 1,
        date: str = PROMPT_DATE,
        **kwargs: Any,
    ) -> None:
        self.features_per_frame = features_per_frame
        self.frames_per_step = frames_per_step
        self.stream_ratios = list(stream_ratios)
        self.system = system
        self.date = date
        self._check_counts()
        super().__init__(feature_extractor, tokenizer, **kwargs)
        tokenizer = self.tokenizer
        tokenizer.padding_side = "left"  # so that the last column is each row's last token
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Of one word: all 49,152 of them as a dictionary take 30 ms each time.
        if tokenizer.convert_tokens_to_ids(AUDIO_TOKEN) in (None, tokenizer.unk_token_id):
            tokenizer.add_tokens([AUDIO_TOKEN], special_tokens=True)

    def _check_counts(self) -> None:
        step, tokens = self.features_per_frame, self.frames_per_step
        seconds = math.inf if step is None else step * SECONDS_PER_FEATURE
        whole = all(type(each) is int and each >= 1 for each in (tokens, *self.stream_ratios))
        if not whole or not self.stream_ratios or not tokens <= _MOST_TOKENS * min(seconds, 1):
            raise CheckpointError(
                f"features_per_frame={step}, frames_per_step={tokens} and stream_ratios="
                f"{short(self.stream_ratios)} are no processor's: whole numbers from 1, of at most "
                f"{_MOST_TOKENS} tokens in a second of sound."
            )

    @classmethod
    def for_grid(
        cls,
        feature_extractor: Any,
        tokenizer: Any,
        grid: TimeGrid,
        streams: Sequence[Stream],
        system: str | None = None,
    ) -> PalscopeProcessor:
        """The processor of a model with these `streams` and this `frame_grid`.

        Before there is a model, its grid is `ConnectorConfig.frame_grid(encoder.emits)`.
        """
        features = None
        if not grid.whole_clip:
            features = round(grid.equal_step / SECONDS_PER_FEATURE, 6)
            features = int(features) if features.is_integer() else features
        return cls(
            feature_extractor,
            tokenizer,
            features_per_frame=features,
            stream_ratios=[stream.ratio for stream in streams],
            system=system,
            frames_per_step=grid.per_step,
        )

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: CheckpointLike, **kwargs: Any
    ) -> PalscopeProcessor:
        """The processor of a checkpoint: a folder, or what `find_checkpoint` finds.

        Takes `revision` of a hub id.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        given, revision = pretrained_model_name_or_path, kwargs.pop("revision", None)
        name = with_revision(given, revision)
        folder = given.folder if isinstance(given, Checkpoint) else checkpoint_here(name)
        if folder is not None:
            check_folder(folder)
            name = str(folder)
        elif place := hub_name(name):
            name, kwargs["revision"] = place
        with reading(Path(name), "a processor that palscope saved"):
            return cast(Any, super()).from_pretrained(name, **kwargs)

    @property
    def audio_token_id(self) -> int:
        """Id of an audio token's place."""
        return int(self.tokenizer.convert_tokens_to_ids(AUDIO_TOKEN))

    takes_questions = True
    """Whether a prompt holds a question."""
    answer_start = ""
    """What each answer begins with."""
    any_question = "?"
    """A question that is none in particular."""

    @property
    def turn_end(self) -> int:
        """Id of the token that ends an answer: the tokenizer's end, which training teaches."""
        return int(self.tokenizer.eos_token_id)

    @property
    def sample_rate(self) -> int:
        """Hz that clips are resampled to."""
        return int(self.feature_extractor.sampling_rate)

    def audio_tokens(self, feature_frames: int) -> int:
        """Columns that a clip of `feature_frames` takes, over all streams."""
        step = math.inf if self.features_per_frame is None else self.features_per_frame
        grid = TimeGrid(step * SECONDS_PER_FEATURE, self.frames_per_step)
        frames = grid.tokens(feature_frames * SECONDS_PER_FEATURE)
        return sum(-(-frames // ratio) for ratio in self.stream_ratios)

    def chat(self, question: str, clips: int = 1) -> str:
        """A prompt in the tokenizer's chat format: the clips' places, then the question.

        Raises:
            PromptError: the question is empty, or it or the system message holds an audio place
                itself; or the date is none.
            CheckpointError: the template is none, loses a clip or words, or does not end within
                bounds.
        """
        check_question(question, AUDIO_TOKEN)
        check_system(self.system, AUDIO_TOKEN)
        content = AUDIO_TOKEN * clips + question.strip()
        template = getattr(self.tokenizer, "chat_template", None)
        if template is None:
            prompt = f"{content}\n"
        else:
            messages = [{"role": "user", "content": content}]
            if self.system is not None:
                messages.insert(0, {"role": "system", "content": self.system})
            prompt = chat_prompt(self.tokenizer, messages, date=self.date)
        check_places(prompt, AUDIO_TOKEN, clips, template)
        check_said(prompt, (question, self.system), template)
        return prompt

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        text: str | Sequence[str],
        audio: AudioInput | Sequence[AudioInput] | None = None,
        *,
        sampling_rate: int | None = None,
        max_seconds: float | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Tensors of a batch.

        Args:
            text: a prompt or a batch of them, with one `<|audio|>` for each of its clips.
            audio: the batch's clips in reading order, in one list; each is whatever `load_audio`
                takes.
            sampling_rate: Hz of arrays, tensors and lists.
            max_seconds: longest clip allowed.

        Returns:
            `input_ids` and `attention_mask` `[batch, columns]`; with clips also `input_features`
            `[clips, bins, frames]` and `feature_lengths` `[clips]` in feature frames.

        Raises:
            PromptError: places and clips differ in number, a prompt is empty, or ends in a clip.
            AudioError: a clip cannot be used.
        """
        if return_tensors != "pt":
            raise PromptError(f"return_tensors={return_tensors!r}; only 'pt' is supported.")
        texts, clips = as_texts(text), as_clips(audio)
        check_prompts(texts, len(clips), AUDIO_TOKEN)
        features = [
            extract(self.feature_extractor, GivenClip(clip, sampling_rate, max_seconds))
            for clip in clips
        ]
        written = [AUDIO_TOKEN * self.audio_tokens(frames) for _, frames in features]
        expanded = with_tokens(texts, AUDIO_TOKEN, written)
        return BatchFeature({**self.tokenise(expanded), **padded_features(features)})

    def tokenise(self, prompts: Sequence[str]) -> dict[str, Any]:
        """`input_ids` and `attention_mask` `[batch, columns]` of whole prompts, padded on the left.

        Each `<|audio|>` is one column. A start mark is put first unless the prompts have it.
        """
        return tokenised(self.tokenizer, prompts)

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes of `__call__`'s tensors."""
        return ["input_ids", "attention_mask", "input_features", "feature_lengths"]


def as_texts(text: Any) -> list[str]:
    """The prompts of a batch as a list. Raises `PromptError` where one is no text."""
    texts: list[Any] = [text]
    if isinstance(text, Iterable) and not isinstance(text, str | bytes | Mapping):
        texts = list(cast("Iterable[Any]", text))
    if not all(isinstance(each, str) for each in texts):
        raise PromptError(
            f"text is {short(text)}; expected a prompt, or a list of prompts, each a str."
        )
    return texts


def as_clips(audio: AudioInput | Sequence[AudioInput] | None) -> list[AudioInput]:
    """The clips of a batch as a list, in which they may be given, or one alone, or none.

    Raises `PromptError` for a list of lists.
    """
    if audio is None:
        return []
    if is_one_clip(audio):
        return [cast("AudioInput", audio)]
    clips = list(cast("Sequence[AudioInput]", audio))
    lists = [cast("list[Any]", clip) for clip in clips if not is_one_clip(clip)]
    # Lists of whole numbers are no clips either, which `load_audio` says.
    if any(not isinstance(each, int) for clip in lists for each in clip[:1]):
        raise PromptError(
            "audio holds lists of clips; give the clips of all prompts in one flat list, in "
            "reading order."
        )
    return clips


def check_question(question: str, place: str) -> None:
    """Raise `PromptError` for a question that is empty or holds a clip's `place` itself."""
    if not isinstance(question, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PromptError(f"the question is {short(question)}; expected text.")
    if not question.strip():
        raise PromptError("the question is empty; ask something about the clip.")
    if place in question:
        raise PromptError(
            f"the question holds {place} itself; chat() puts the clips before it. To "
            "place clips yourself, give the whole prompt as text."
        )


def check_system(system: str | None, place: str) -> None:
    """Raise `PromptError` for a system message that is no text or holds a clip's `place`."""
    if system is None:
        return
    if not isinstance(system, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PromptError(f"the system message is {short(system)}; expected text, or None.")
    if place in system:
        raise PromptError(
            f"the system message holds {place} itself, but clips belong to the question."
        )


def check_prompts(texts: Sequence[str], clips: int, place: str) -> None:
    """Raise `PromptError` when clips do not fit the prompts, or one is empty or ends in a clip."""
    places = [prompt.count(place) for prompt in texts]
    if not texts or any(not prompt.replace(place, "").strip() for prompt in texts):
        raise PromptError("a prompt is empty; give some text beside the clips.")
    if sum(places) != clips:
        raise PromptError(
            f"{clips} clip(s) were given, but the text has {sum(places)} audio place(s) "
            f"({', '.join(map(str, places))} a prompt). Write {place} once for each clip."
        )
    for prompt in texts:
        if prompt.rstrip().endswith(place):
            raise PromptError(
                "a prompt ends in a clip: only text that comes after a clip can hear it. Put "
                f"the question, or the chat format's answer mark, behind {place}."
            )


def with_tokens(prompts: Sequence[str], place: str, written: Sequence[str]) -> list[str]:
    """Prompts with what is `written` for each clip, in reading order, where its `place` stands."""
    each = iter(written)
    return [
        "".join(
            part if index == 0 else next(each) + part
            for index, part in enumerate(prompt.split(place))
        )
        for prompt in prompts
    ]


def tokenised(tokenizer: Any, prompts: Sequence[str], *, marks: bool = True) -> dict[str, Any]:
    """`input_ids` and `attention_mask` of whole prompts; a start mark first unless they have it.

    Args:
        marks: False for prompts that have all of the tokenizer's own marks.
    """
    bos = tokenizer.bos_token
    marked = [bos is not None and prompt.startswith(bos) for prompt in prompts]
    has_bos = all(marked)
    if any(marked) and not has_bos and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        prompts = [prompt.removeprefix(str(bos)) for prompt in prompts]
    marks = marks and not has_bos
    data: dict[str, Any] = dict(
        tokenizer(list(prompts), padding=True, return_tensors="pt", add_special_tokens=marks)
    )
    data.pop("token_type_ids", None)
    return data


def padded_features(clips: Sequence[ClipFeatures]) -> dict[str, torch.Tensor]:
    """`input_features` `[clips, bins, columns]`, zeros behind short ones, and `feature_lengths`."""
    if not clips:
        return {}
    widest = max(values.shape[1] for values, _ in clips)
    batch = torch.zeros(len(clips), clips[0].values.shape[0], widest)
    for row, (values, _) in zip(batch, clips, strict=True):
        row[:, : values.shape[1]] = values
    return {"input_features": batch, "feature_lengths": torch.tensor([n for _, n in clips])}
