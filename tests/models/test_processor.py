"""The processor: prompts and clips in, tensors out; and prompts that cannot be meant."""

from __future__ import annotations

import functools
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from nnsight import NNsight
from transformers import AutoProcessor, AutoTokenizer, WhisperFeatureExtractor

from palscope._models import AUDIO_TOKEN, PalscopeProcessor
from palscope._models.base_weights import find_base
from palscope._models.scoring import (
    batched_choice_logprobs,
    generate_answers,
    prompt_batch,
    with_answers,
)
from palscope._published import published_family
from palscope._published.processor import PublishedProcessor
from palscope._routing import Route
from palscope.audio import Waveform
from palscope.errors import AudioError, PalscopeError, PromptError
from tests import tiny
from tests.published.tiny import qwen2_audio

RATE = 16_000
A = AUDIO_TOKEN


@lru_cache
def processor(system: str | None = None) -> PalscopeProcessor:
    return PalscopeProcessor(
        WhisperFeatureExtractor(feature_size=8),
        AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct")),
        features_per_frame=10,
        stream_ratios=(1, 3),
        system=system,
    )


@lru_cache
def model() -> Any:
    made = tiny.model(Route.pal(4, [0, 2]), vocab_size=49152)
    made.config.audio_token_id = processor().audio_token_id
    return made


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * RATE))
    return samples.astype(np.float32)


def places(batch: Any) -> list[int]:
    return (batch["input_ids"] == processor().audio_token_id).sum(1).tolist()


def test_a_place_becomes_a_column_for_each_audio_token() -> None:
    batch = processor()(f"{A} what?", sound(0.34), sampling_rate=RATE)
    assert places(batch) == [4 + 2]
    assert batch["input_features"].shape == (1, 8, 34)
    assert batch["feature_lengths"].tolist() == [34]
    assert processor().tokenizer.decode(batch["input_ids"][0][6:]).strip() == "what?"
    model().layout(batch["input_ids"], feature_lengths=batch["feature_lengths"])


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 1599, 1600, 1601, 480_000, 480_001])
def test_places_are_what_the_model_makes_of_the_clip(samples: int) -> None:
    batch = processor()(f"{A} what?", np.full(samples, 0.1, np.float32), sampling_rate=RATE)
    lengths = batch["feature_lengths"]
    made = tiny.model(Route.pal(4), max_position_embeddings=8192)
    made.config.audio_token_id = processor().audio_token_id
    assert made.layout(batch["input_ids"], feature_lengths=lengths).clip_row == (0,)


def test_a_batch_of_prompts_with_several_clips_and_none() -> None:
    texts = [f"{A} or {A}: which came first?", "no sound at all", f"{A} what?"]
    clips = [sound(0.3, 1), sound(1.0, 2), sound(0.55, 3)]
    batch = processor()(texts, clips, sampling_rate=RATE)
    assert places(batch) == [4 + 14, 0, 8]
    assert batch["feature_lengths"].tolist() == [30, 100, 55]
    assert batch["attention_mask"][:, -1].all() and not batch["attention_mask"][1, 0]
    one = processor()(texts[2], clips[2], sampling_rate=RATE)
    torch.testing.assert_close(batch["input_features"][2, :, :55], one["input_features"][0])
    assert not batch["input_features"][2, :, 55:].any()
    with torch.no_grad():
        wanted, got = model()(**one).logits[0, -1], model()(**batch).logits[2, -1]
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_a_clip_may_come_in_any_form(tmp_path: Path) -> None:
    samples = sound(0.5)
    path = tmp_path / "clip.wav"
    sf.write(path, samples, RATE, subtype="FLOAT")
    forms: list[Any] = [str(path), path, path.read_bytes(), samples, Waveform(samples, RATE, "")]
    forms += [
        torch.from_numpy(samples),
        samples.tolist(),
        (samples, RATE),
        io.BytesIO(path.read_bytes()),
    ]
    forms += [{"array": samples, "sampling_rate": RATE}, np.stack([samples, samples], 1)]
    forms += [[form] for form in forms]
    features = [
        processor()(f"{A} what?", form, sampling_rate=RATE)["input_features"] for form in forms
    ]
    for other in features[1:]:
        torch.testing.assert_close(other, features[0])


@functools.cache
def published() -> PublishedProcessor:
    family = published_family(qwen2_audio.config())
    own = qwen2_audio.processor()
    return PublishedProcessor(family, own.tokenizer, own.feature_extractor, own.chat_template)


@pytest.mark.parametrize("made", [processor, published])
@pytest.mark.parametrize(
    ("text", "audio", "told"),
    [
        (None, None, "text is None; expected a prompt"),
        ([], None, "a prompt is empty"),
        (b"what?", None, "text is b'what"),
        ([["what?"]], None, r"each a str"),
        ({"text": "what?"}, None, "expected a prompt"),
        (3, None, "text is 3"),
        (["what?", None], None, "each a str"),
        ("A what?", [[sound(0.1)], [sound(0.1)]], "in one flat list"),
        ("A what?", [], r"0 clip\(s\)"),
        ("A what?", [0, 1, 2], r"3 clip\(s\)"),
        (
            ["A what?", "A why?", "who?"],
            [sound(0.1)],
            r"1 clip\(s\) were given, but the text has 2",
        ),
        ("A what?", "https://example.org/a.wav", "is an address"),
        ("A what?", {"path": "https://example.org/a.wav"}, "is an address"),
        ("A what?", [[0, 1, 2]], "a list is no sound"),
        ("A what?", [None], "NoneType is no sound"),
        ("A what?", torch.zeros(2, 400), "Transpose"),
        ("A what?", 3.5, "float is no sound"),
    ],
)
def test_what_no_processor_can_take_is_told(made: Any, text: Any, audio: Any, told: str) -> None:
    place = A if made is processor else published().audio_token
    if isinstance(text, list):
        text = [each.replace("A", place) if isinstance(each, str) else each for each in text]
    with pytest.raises(PalscopeError, match=told):
        rate = RATE if torch.is_tensor(audio) else None
        made()(
            text.replace("A", place) if isinstance(text, str) else text, audio, sampling_rate=rate
        )


@pytest.mark.parametrize("made", [processor, published])
@pytest.mark.parametrize("question", [None, b"what?", ["what?"], 3])
def test_a_question_that_is_no_text_is_told(made: Any, question: Any) -> None:
    with pytest.raises(PromptError, match=r"the question is .*; expected text"):
        made().chat(question)


def test_a_batch_under_one_name_is_told() -> None:
    batch = processor()(f"{A} what?", sound(0.2), sampling_rate=RATE)
    with pytest.raises(PalscopeError, match=r"not a BatchFeature.*trace\(\*\*inputs\)"):
        model()(batch)
    with (
        pytest.raises(PalscopeError, match=r"not a dict.*model\(\*\*inputs\)"),
        NNsight(model()).trace(dict(batch)),
    ):
        pass


def test_chat_puts_the_clips_before_the_question() -> None:
    text = processor().chat("  What do you hear?  ", clips=2)
    assert f"{A}{A}What do you hear?<|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n")
    spoken = processor("Be brief.").chat("What?")
    assert "<|im_start|>system\nBe brief.<|im_end|>" in spoken
    batch = processor()(text, [sound(0.2), sound(0.2)], sampling_rate=RATE)
    decoded = processor().tokenizer.decode(batch["input_ids"][0])
    assert decoded.count("<|im_start|>") == text.count("<|im_start|>")  # no second start token


def test_chat_without_clips_is_a_text_prompt() -> None:
    batch = processor()(processor().chat("What is sound?", clips=0))
    assert places(batch) == [0] and "input_features" not in batch


@pytest.mark.parametrize(
    ("question", "message"),
    [("", "question is empty"), ("  \n", "question is empty"), (f"{A} what?", "holds <|audio|>")],
)
def test_questions_that_chat_refuses(question: str, message: str) -> None:
    with pytest.raises(PromptError, match=message.replace("|", r"\|")):
        processor().chat(question)


@pytest.mark.parametrize(
    ("text", "clips", "message"),
    [
        ("what?", 1, r"1 clip\(s\) were given, but the text has 0 audio place"),
        (f"{A}{A} what?", 1, "the text has 2 audio place"),
        (f"{A} what?", 0, r"0 clip\(s\) were given, but the text has 1"),
        (f"{A} what?", 2, r"2 clip\(s\)"),
        ([f"{A} what?", "what?"], 2, r"\(1, 0 a prompt\)"),
        ("", 0, "prompt is empty"),
        (A, 1, "prompt is empty"),
        ([], 0, "prompt is empty"),
        (["what?", " "], 0, "prompt is empty"),
        (f"what is this: {A}", 1, "ends in a clip"),
        (f"what is this: {A} \n", 1, "ends in a clip"),
    ],
)
def test_prompts_and_clips_that_do_not_fit(text: Any, clips: int, message: str) -> None:
    audio = [sound(0.2)] * clips
    with pytest.raises(PromptError, match=message):
        processor()(text, audio or None, sampling_rate=RATE)


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (np.zeros(0, np.float32), {"sampling_rate": RATE}, "empty|no samples|sample"),
        (np.array([0, np.nan, 0], np.float32), {"sampling_rate": RATE}, "(?i)nan|finite"),
        (np.array([0, np.inf, 0], np.float32), {"sampling_rate": RATE}, "(?i)inf|finite"),
        (np.zeros(1600, np.float32), {}, "(?i)rate"),
        (
            np.zeros((3, 4, 5), np.float32),
            {"sampling_rate": RATE},
            "(?i)mono|channel|dimension|axes",
        ),
        (np.zeros(32000, np.float32), {"sampling_rate": RATE, "max_seconds": 1.0}, "(?i)second| s"),
        (b"", {}, "(?i)format"),
        (b"not a sound", {}, "(?i)format|read"),
    ],
)
def test_sounds_that_cannot_be_heard(samples: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        processor()(f"{A} what?", samples, **options)


def test_silence_is_heard_as_silence() -> None:
    batch = processor()(f"{A} what?", np.zeros(8000, np.float32), sampling_rate=RATE)
    with torch.no_grad():
        assert model()(**batch).logits.isfinite().all()


def test_other_tensors_than_torchs_are_refused() -> None:
    with pytest.raises(PromptError, match="'np'"):
        processor()("what?", return_tensors="np")


@pytest.mark.parametrize("load", [PalscopeProcessor.from_pretrained, AutoProcessor.from_pretrained])
def test_a_saved_processor_comes_back(tmp_path: Path, load: Any) -> None:
    own = PalscopeProcessor(
        WhisperFeatureExtractor(feature_size=8),
        AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct")),
        features_per_frame=20,
        stream_ratios=(1, 4),
        system="Be brief.",
    )
    own.save_pretrained(tmp_path)
    tiny.model().config.save_pretrained(tmp_path)
    back = load(tmp_path)
    assert isinstance(back, PalscopeProcessor)
    assert (back.features_per_frame, back.stream_ratios, back.system) == (20, [1, 4], "Be brief.")
    assert back.audio_token_id == own.audio_token_id
    text = own.chat("What?")
    assert back.chat("What?") == text
    a, b = (p(text, sound(0.4), sampling_rate=RATE) for p in (own, back))
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_choices_are_scored_as_whole_answers() -> None:
    asked = [([sound(0.4, 1)], "What?"), ([sound(0.9, 2), sound(0.2, 3)], "Which of the two?")]
    choices = [["sea", "sea waves"], ["first", "second", "both at the same time"]]
    scores = batched_choice_logprobs(
        model(),
        processor(),
        [(clips, question, c) for (clips, question), c in zip(asked, choices, strict=True)],
    )
    for (clips, question), options, row in zip(asked, choices, scores, strict=True):
        for option, score in zip(options, row, strict=True):
            batch = prompt_batch(processor(), [(clips, question)])
            batch = with_answers(processor(), batch, [option])
            with torch.no_grad():
                loss = model()(**batch).loss
            count = int((batch["labels"] != -100).sum())
            assert score == pytest.approx(-loss.item() * count, abs=1e-3)


def test_answers_do_not_depend_on_their_batch() -> None:
    asked = [([sound(0.4, 1)], "What?"), ([sound(1.2, 2)], "What else do you hear?")]
    together = generate_answers(model(), processor(), asked, max_new_tokens=4)
    assert together == [
        generate_answers(model(), processor(), [one], max_new_tokens=4)[0] for one in asked
    ]
