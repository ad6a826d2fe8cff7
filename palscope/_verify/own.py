"""Prompts through a published class's own processor, as the class's documentation calls it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoProcessor

from palscope._models.scoring import UserTurn
from palscope._published import PublishedFamily
from palscope.audio import load_audio
from palscope.errors import CheckpointError, short


class OwnPrompt(NamedTuple):
    """A row as a class's own processor makes it.

    `made`: its tensors; `ids`: its ids, with those places as words that hold no sound, or of an
    encoder–decoder those that the decoder begins with; `end`: its tokenizer's end of text.
    """

    made: dict[str, Tensor]
    ids: Int[Tensor, "columns"]
    end: int | None


def own_prompt(processor: Any, family: PublishedFamily, row: UserTurn) -> OwnPrompt:
    """A row through the class's own processor.

    Args:
        row: clips that `load_audio` takes, and the question.

    Raises:
        CheckpointError: the processor does not serve: it needs a package that is not installed.
    """
    clips, question = row
    samples = [load_audio(clip, sample_rate=family.sample_rate).samples for clip in clips]
    try:
        made = own_inputs(processor, family, [(samples, question)])
    except Exception as error:  # whatever it raises, the rest can be checked
        raise _unfit(f"here a {type(processor).__name__}, does not serve", error) from error
    ids = made["decoder_input_ids" if family.crosses else "input_ids"]
    ids = same_places(ids, made, family, len(clips))
    return OwnPrompt(made, ids[0], processor.tokenizer.eos_token_id)


def open_own(folder: Path) -> Any:
    """The class's own processor.

    Raises:
        CheckpointError: it does not open.
    """
    try:
        return AutoProcessor.from_pretrained(folder)
    except Exception as error:  # whatever transformers raises, the rest can be checked
        raise _unfit("does not open", error) from error


def _unfit(what: str, error: Exception) -> CheckpointError:
    said = short(" ".join(str(error).split()))
    return CheckpointError(
        f"the class's own processor {what} ({type(error).__name__}: {said}); install what it needs"
    )


def own_inputs(
    processor: Any, family: PublishedFamily, rows: Sequence[UserTurn]
) -> dict[str, Tensor]:
    """The tensors that the class's own processor makes of rows, clips and question.

    Args:
        processor: the class's.
        family: says which class.
    """
    return _WAYS.get(family.architecture, _by_template)(processor, family, rows)


def same_places(ids: Tensor, own: dict[str, Tensor], family: PublishedFamily, clips: int) -> Tensor:
    """The class's own `ids`, with those places as words that hold no sound.

    Of all classes but Gemma 3n these are the ids themselves. It has 188 places a clip, and fills
    those past a clip's end with the last word of its vocabulary; palscope has that word there.

    Args:
        own: what `own_inputs` made.
        clips: how many there are.
    """
    if family.architecture != "Gemma3nForConditionalGeneration" or not clips:
        return ids
    config = family.config
    count = config.audio_soft_tokens_per_image
    places = (ids == config.audio_token_id).nonzero().view(clips, count, 2)
    ids = ids.clone()
    for its, frames in zip(places, own["input_features_mask"], strict=True):
        rest = its[-(-int(frames.sum()) // 16) :]
        ids[rest[:, 0], rest[:, 1]] = config.text_config.vocab_size - 1
    return ids


def _asked(family: PublishedFamily, row: UserTurn) -> list[dict[str, Any]]:
    """The conversation; templates know a clip's place by different keys, or by its text."""
    clips, question = row
    if family.architecture in _WRITTEN:
        return [{"role": "user", "content": family.place * len(clips) + question}]
    place = {"type": "audio", "audio": "clip.wav", "audio_url": "clip.wav"}
    sounds, text = [dict(place) for _ in clips], {"type": "text", "text": question}
    if family.architecture in _SAID_BEFORE:
        return [{"role": "system", "content": [text]}, {"role": "user", "content": sounds}]
    return [{"role": "user", "content": [*sounds, text]}]


def _by_template(
    processor: Any, family: PublishedFamily, rows: Sequence[UserTurn], **words: Any
) -> dict[str, Tensor]:
    """Texts of the chat template, and the clips beside them."""
    beside = processor.chat_template is None and processor.tokenizer.chat_template is not None
    renders = processor.tokenizer if beside else processor
    texts = [
        renders.apply_chat_template(_asked(family, row), tokenize=False, add_generation_prompt=True)
        for row in rows
    ]
    clips = [clip for row, _ in rows for clip in row]
    audio: dict[str, Any] = {"audio": None}  # Qwen3-ASR's wants to be told
    if clips:
        audio = {"audio": clips, "sampling_rate": family.sample_rate}
    if family.architecture in _NO_RATE:
        audio.pop("sampling_rate", None)
    words = {"padding": True, **words}
    return dict(processor(text=texts, return_tensors="pt", text_kwargs=words, **audio))


def _by_conversation(
    processor: Any, family: PublishedFamily, rows: Sequence[UserTurn]
) -> dict[str, Tensor]:
    """Voxtral's takes clips in conversations alone, as files."""
    with tempfile.TemporaryDirectory() as folder:
        asked: list[list[dict[str, Any]]] = []
        for number, (clips, question) in enumerate(rows):
            paths = [f"{folder}/{number}-{place}.wav" for place in range(len(clips))]
            for path, clip in zip(paths, clips, strict=True):
                soundfile.write(path, clip, family.sample_rate, subtype="FLOAT")
            content = [*({"type": "audio", "path": path} for path in paths)]
            content.append({"type": "text", "text": question})
            asked.append([{"role": "user", "content": content}])
        return dict(processor.apply_chat_template(asked))


def _with_start_in_template(
    processor: Any, family: PublishedFamily, rows: Sequence[UserTurn]
) -> dict[str, Tensor]:
    """Gemma's chat format has a start mark, which the tokenizer would add once more."""
    return _by_template(processor, family, rows, add_special_tokens=False)


def _with_start(
    processor: Any, family: PublishedFamily, rows: Sequence[UserTurn], marks: Sequence[int] = ()
) -> dict[str, Tensor]:
    """Encoder–decoders: one clip, and what the decoder begins with; nobody is asked anything."""
    (((clip,), _),) = rows
    made = processor(audio=clip, sampling_rate=family.sample_rate, return_tensors="pt")
    start = [family.config.decoder_start_token_id, *marks]
    return {**made, "decoder_input_ids": torch.tensor([start])}


def _with_marks(
    processor: Any, family: PublishedFamily, rows: Sequence[UserTurn]
) -> dict[str, Tensor]:
    """Whisper's: transcribed, of those that know languages as English; without times."""
    known = family.any_question != "<|notimestamps|>"
    said = {"language": "en", "task": "transcribe"} if known else {}
    marks = [mark for _, mark in processor.get_decoder_prompt_ids(**said)]
    return _with_start(processor, family, rows, marks)


_WAYS: dict[str, Callable[[Any, PublishedFamily, Sequence[UserTurn]], dict[str, Tensor]]] = {
    "VoxtralForConditionalGeneration": _by_conversation,
    "Gemma3nForConditionalGeneration": _with_start_in_template,
    "WhisperForConditionalGeneration": _with_marks,
    "MoonshineForConditionalGeneration": _with_start,
}
_GRANITE = ("GraniteSpeechForConditionalGeneration", "GraniteSpeechPlusForConditionalGeneration")
_WRITTEN = (*_GRANITE, "Phi4MultimodalForCausalLM")
"""A clip's place is part of the message's text."""
_SAID_BEFORE = ("Qwen3ASRForConditionalGeneration",)
"""Words stand in the system message."""
_NO_RATE = _GRANITE
"""The feature extractor takes no sampling rate."""
