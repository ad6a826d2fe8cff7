"""Whisper: folders and prompts that are not what they should be are told in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import WhisperForAudioClassification, WhisperForConditionalGeneration

import palscope
from palscope.errors import AudioError, CheckpointError, PromptError
from tests.published.contract import noise
from tests.published.tiny import whisper


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    return whisper.model()


@pytest.mark.parametrize(
    ("marks", "unknown"),
    [
        ("<|xx|><|transcribe|>", r"<\|xx\|>"),  # no language of anybody's
        ("<|notimestamps|><|31.00|>", r"<\|31\.00\|>"),  # behind the window
        ("<|startofprev|> Hi<|nothing|>", r"<\|nothing\|>"),
    ],
)
def test_marks_that_the_tokenizer_would_spell_are_refused(
    model: WhisperForConditionalGeneration, marks: str, unknown: str
) -> None:
    hooked = palscope.load(whisper.model(), processor=whisper.processor())
    assert hooked.inputs("<|notimestamps|><|30.00|>", noise(0.2))["input_ids"].shape == (1, 1503)
    with pytest.raises(PromptError, match=f"{unknown} is no mark of this checkpoint"):
        hooked.inputs(marks, noise(0.2))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_of_the_model_is_told_from_the_whole(
    model: WhisperForConditionalGeneration, part: str, tmp_path: Path
) -> None:
    model.get_submodule(f"model.{part}").save_pretrained(tmp_path)
    whisper.processor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"a Whisper{part.title()}, a part of the model"):
        palscope.load(tmp_path)


def test_the_model_without_its_unembedding_which_is_that_of_words_opens(
    model: WhisperForConditionalGeneration, tmp_path: Path
) -> None:
    model.model.save_pretrained(tmp_path)
    whisper.processor().save_pretrained(tmp_path)
    whole = palscope.load(whisper.model(), processor=whisper.processor())
    inputs = whole.inputs("", noise(0.2))
    assert palscope.load(tmp_path)(inputs).equal(whole(inputs))


def test_a_loaded_part_of_the_model_is_told_from_the_whole(
    model: WhisperForConditionalGeneration,
) -> None:
    with pytest.raises(CheckpointError, match="a WhisperModel is a part of a WhisperForCond"):
        palscope.load(model.model, processor=whisper.processor())
    sorter = WhisperForAudioClassification(model.config)
    with pytest.raises(CheckpointError, match=r"a WhisperForAudioC.* give the whole, which writes"):
        palscope.load(sorter, processor=whisper.processor())


def test_times_are_not_asked_for_where_no_layer_hears() -> None:
    hooked = palscope.load(whisper.model(), processor=whisper.processor())
    clip = noise(0.2)
    with hooked.route(hooked.current_route.mute("frames", [0, 1])):
        assert isinstance(hooked.ask("<|0.00|>", clip, max_new_tokens=1), str)
    with hooked.route(hooked.current_route.mute("frames")):
        assert isinstance(hooked.ask("<|notimestamps|>", clip, max_new_tokens=1), str)
        with pytest.raises(PromptError, match=r"<\|0\.00\|> asks for times, .* mutes all sound"):
            hooked.ask("<|0.00|>", clip)


def test_a_clip_that_is_too_long_is_named(tmp_path: Path) -> None:
    hooked = palscope.load(whisper.model(), processor=whisper.processor())
    soundfile.write(tmp_path / "talk.wav", np.full(31 * 16_000, 0.1), 16_000)
    with pytest.raises(AudioError, match=r"talk\.wav lasts 31\.00 s, but .* hears 30 s at most"):
        hooked.inputs("", tmp_path / "talk.wav")


def test_a_folder_of_another_program_is_told_how_it_is_converted(tmp_path: Path) -> None:
    for name in ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=r"CTranslate2.*model\.bin OUT --whole`"):
        palscope.load(tmp_path)
