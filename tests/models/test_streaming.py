"""Sound in chunks: any chunks, at any time, give the answer of the whole clip at once."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import WhisperFeatureExtractor

from palscope._models import AudioStream, PalscopeProcessor
from palscope._models.families import FAMILIES
from palscope._models.scoring import greedy_tokens, prompt_batch
from palscope._routing import Route
from palscope.audio import Waveform
from palscope.errors import AudioError, PalscopeError, PromptError, RouteError
from tests import tiny, vocabulary
from tests.models.test_paths import close, half_close
from tests.routing.strategies import routes
from tests.shapes import unchecked

RATE = 16_000
QUESTION = "What is heard here?"
INTEGRATIONS = {
    "plits": Route.plits(4),
    "lal": Route.lal(4),
    "pal": Route.pal(4, [0, 2]),
    "queries": Route.plits(4).with_audio_queries(),
    "frozen": Route.plits(4).frozen_from(2),
}


@lru_cache
def parts(
    family: str = "llama",
    window: int = 1,
    streams: str = "pal",
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> tuple[Any, PalscopeProcessor]:
    """A tiny model that hears in windows of so many seconds, and its processor.

    Of 1 s come 50 encoder tokens, 10 frames and a third of a summary too many: some is left over.
    """
    made: Any = tiny.model(
        INTEGRATIONS[streams],
        family,
        vocab_size=vocabulary.COUNT,
        encoder_positions=50 * window,
        **changes,
    )
    ratios = [stream.ratio for stream in made.route.streams]
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=window)
    processor = PalscopeProcessor(extractor, vocabulary.tokenizer(), 10, ratios)
    made.config.audio_token_id = processor.audio_token_id
    return made.to(dtype), processor


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose loudness changes, so that windows differ in their spectrum's floor."""
    count = round(seconds * RATE)
    samples = np.random.default_rng(seed).normal(size=count)
    return (samples * np.linspace(0.01, 0.3, count)).astype(np.float32)


def chunks(samples: np.ndarray, cuts: list[float]) -> list[np.ndarray]:
    """`samples` cut at these shares of their length."""
    at = sorted({int(cut * len(samples)) for cut in cuts} - {0, len(samples)})
    return np.split(samples, at)


@torch.no_grad()
def at_once(made: Any, processor: Any, samples: np.ndarray, question: str = QUESTION) -> Tensor:
    """Logits of the question's words and what follows, the whole clip given at once."""
    batch = prompt_batch(processor, [([samples], question)])
    last = int((batch["input_ids"][0] == processor.audio_token_id).nonzero().max()) + 1
    return made(**batch).logits[:, last:]


def asked(made: Any, stream: AudioStream, question: str = QUESTION) -> Tensor:
    with stream.asking(question) as inputs:
        logits = made(**inputs).logits
    words = inputs["input_ids"][0] != made.config.audio_token_id
    return logits[:, words]


@settings(max_examples=20, derandomize=True)
@given(
    route=routes(),
    family=st.sampled_from(list(FAMILIES)),
    seconds=st.sampled_from([0.03, 0.7, 1.0, 2.98, 3.0, 3.31]),
    cuts=st.lists(st.floats(0, 1), max_size=6),
)
def test_any_chunks_under_any_route(
    route: Route, family: str, seconds: float, cuts: list[float]
) -> None:
    made, processor = parts(family)
    samples = sound(seconds)
    with made.routed(route), AudioStream(made, processor) as stream:
        for chunk in chunks(samples, cuts):
            stream.feed(chunk)
        assert stream.seconds == len(samples) / RATE
        close(asked(made, stream), at_once(made, processor, samples))


@pytest.mark.parametrize("name", list(INTEGRATIONS))
@pytest.mark.parametrize("window", [1, 3])
def test_questions_are_asked_while_sound_arrives(name: str, window: int) -> None:
    made, processor = parts(window=window, streams=name)
    samples = sound(6.47)
    ends = [0.4, 1.0, 2.96, 3.0, 6.47]
    heard: list[Tensor] = []
    with AudioStream(made, processor) as stream:
        before = 0
        for end in ends:
            upto = round(end * RATE)
            stream.feed(samples[before:upto])
            before = upto
            wanted = at_once(made, processor, samples[:upto])
            close(asked(made, stream), wanted)
            heard.append(wanted)
    assert (heard[0] - heard[-1]).abs().max() > 1e-2  # the sound does matter


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_kernels(attention: str) -> None:
    for name in ("plits", "lal", "pal"):
        made, processor = parts(streams=name, attn_implementation=attention)
        samples = sound(3.3)
        with AudioStream(made, processor) as stream:
            stream.feed(samples)
            close(asked(made, stream), at_once(made, processor, samples))


def test_half_precision() -> None:
    for name in ("plits", "lal", "pal"):
        made, processor = parts(streams=name, dtype=torch.bfloat16)
        samples = sound(3.3)
        with AudioStream(made, processor) as stream:
            stream.feed(samples)
            half_close(asked(made, stream), at_once(made, processor, samples))


def test_answers_are_those_of_the_whole_clip_and_leave_no_trace() -> None:
    for name in ("plits", "lal", "pal"):
        made, processor = parts(streams=name)
        samples = sound(2.5)
        stream, quiet = AudioStream(made, processor), AudioStream(made, processor)
        for chunk in chunks(samples, [0.3, 0.5, 0.8]):
            stream.feed(chunk)
            quiet.feed(chunk)
            size, layout = stream.nbytes, stream.layout
            answer = stream.ask(QUESTION, max_new_tokens=5)
            stream.ask("Something else?", max_new_tokens=12)
            assert answer == stream.ask(QUESTION, max_new_tokens=5)
            assert stream.nbytes == size and stream.layout is layout
        assert torch.equal(asked(made, stream), asked(made, quiet))  # to the bit
        batch = prompt_batch(processor, [([samples], QUESTION)])
        new = greedy_tokens(made, processor, batch, 5)
        assert answer == processor.tokenizer.decode(new[0], skip_special_tokens=True).strip()


def test_offloaded_keys_and_values_give_the_same() -> None:
    made, processor = parts()
    streams = [AudioStream(made, processor, offload=offload) for offload in (False, True)]
    for stream in streams:
        stream.feed(sound(2.5))
    assert torch.equal(asked(made, streams[0]), asked(made, streams[1]))
    kept: Any = streams[1]._cache
    assert {layer.store for layer in kept.layers} == {torch.device("cpu")}


def test_the_layout_is_the_whole_prompts() -> None:
    made, processor = parts(window=3)
    samples = sound(7.04)
    batch = prompt_batch(processor, [([samples], QUESTION)])
    whole = made.layout(batch["input_ids"], feature_lengths=batch["feature_lengths"])
    with AudioStream(made, processor) as stream:
        for chunk in chunks(samples, [0.2, 0.7]):
            stream.feed(chunk)
        with stream.asking(QUESTION) as inputs:
            layout = made.layout(
                inputs["input_ids"],
                inputs["attention_mask"],
                inputs["audio"],
                cache=inputs["cache"],
            )
    assert layout.clip_row == whole.clip_row
    for name in ("stream", "clip", "token", "position"):
        assert torch.equal(getattr(layout, name), getattr(whole, name)), name
    torch.testing.assert_close(layout.seconds, whole.seconds, atol=1e-5, rtol=0, equal_nan=True)


def test_each_window_is_encoded_once_and_only_the_latest_sound_again() -> None:
    made, processor = parts(window=3)
    encoded: list[int] = []
    handle = made.encoder.register_forward_hook(
        lambda _module, args, _out: encoded.append(int(args[1][0]))
    )
    try:
        stream = AudioStream(made, processor)
        for chunk in chunks(sound(7.0), [0.1, 0.5, 0.6]):
            stream.feed(chunk)
        assert encoded == [300, 300]
        asked(made, stream)
        asked(made, stream, "And now?")
        assert encoded == [300, 300, 100]
        stream.feed(sound(0.5))
        asked(made, stream)
        assert encoded == [300, 300, 100, 150]
    finally:
        handle.remove()


def test_memory_is_that_of_keys_and_values_alone() -> None:
    made, processor = parts(window=3, streams="lal")
    stream: Any = AudioStream(made, processor)
    sizes: list[int] = []
    for _ in range(5):
        stream.feed(sound(3.0))
        sizes.append(stream.nbytes)
    # 30 frames of 4 layers, 2 key-value heads of 8, keys and values, four bytes each.
    assert np.diff(sizes).tolist() == [30 * 4 * 2 * 8 * 2 * 4] * 4
    held = [value for value in vars(stream).values() if isinstance(value, Tensor | np.ndarray)]
    assert sum(value.nbytes for value in held) <= 3 * RATE * 4 + 1000  # one window of sound, ids


def test_lal_runs_no_token_of_sound() -> None:
    made, processor = parts(window=3, streams="lal")
    ran: list[int] = []
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _m, args: ran.append(args[0].shape[1]))
        for layer in made.language_model.model.layers
    ]
    try:
        stream = AudioStream(made, processor)
        ran.clear()
        stream.feed(sound(9.0))
        assert ran == []
    finally:
        for handle in handles:
            handle.remove()


def test_a_waveform_and_integers_are_heard_too() -> None:
    made, processor = parts()
    samples = (sound(1.5) * 32767).astype(np.int16)
    wanted: Tensor | None = None
    with unchecked():  # a waveform should be of floats
        clip = Waveform(samples, RATE, "a clip")
    for given_ in (samples, samples.astype(np.float32) / 32768, clip):
        with AudioStream(made, processor) as stream:
            stream.feed(given_)
            got = asked(made, stream)
        assert wanted is None or torch.equal(got, wanted)
        wanted = got


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.array([0.1, np.nan], np.float32), None, "NaN"),
        (np.zeros(0, np.float32), None, "no sound"),
        (np.zeros(100, np.float32), 44_100, "44100 Hz, but hears 16000 Hz"),
        (Waveform(np.zeros(100, np.float32), 8_000, "a clip"), None, "8000 Hz, but hears 16000 Hz"),
        (np.zeros((3, 100), np.float32), None, "more channels than samples"),
    ],
)
def test_what_cannot_be_heard_is_refused_and_changes_nothing(
    samples: Any, rate: int | None, message: str
) -> None:
    made, processor = parts()
    with AudioStream(made, processor) as stream:
        stream.feed(sound(1.4))
        wanted = asked(made, stream)
        with pytest.raises(AudioError, match=message):
            stream.feed(samples, rate)
        assert stream.seconds == 1.4
        assert torch.equal(asked(made, stream), wanted)


def test_questions_and_sound_at_the_wrong_time_are_refused() -> None:
    made, processor = parts()
    stream = AudioStream(made, processor)
    with pytest.raises(PromptError, match="nothing was fed yet"):
        stream.ask(QUESTION)
    stream.feed(sound(0.5))
    with pytest.raises(PromptError, match="question is empty"):
        stream.ask(" ")
    with stream.asking(QUESTION):
        with pytest.raises(PalscopeError, match="is being asked"):
            stream.feed(sound(0.5))
        with pytest.raises(PalscopeError, match="is being asked"):
            stream.ask(QUESTION)
    stream.feed(sound(0.6))
    with made.routed(made.route.mute("frames")):
        for call in (lambda: stream.feed(sound(0.9)), lambda: stream.ask(QUESTION)):
            with pytest.raises(RouteError, match="another route"):
                call()
    assert stream.seconds == 1.1
    stream.close()
    assert stream.nbytes == 0 and stream.layout is None
    for call in (lambda: stream.feed(sound(0.1)), lambda: stream.ask(QUESTION)):
        with pytest.raises(PalscopeError, match="closed"):
            call()


def test_an_error_within_a_window_leaves_the_windows_before() -> None:
    made, processor = parts()
    stream, wanted = AudioStream(made, processor), AudioStream(made, processor)
    samples = sound(3.5)
    calls = itertools.count()

    def fail(*_: Any) -> None:
        if next(calls) == 2:
            raise ZeroDivisionError

    handle = made.audio_taps[2].k.register_forward_hook(fail)
    try:
        with pytest.raises(ZeroDivisionError):
            stream.feed(samples)
    finally:
        handle.remove()
    assert stream.seconds == 2.0
    stream.feed(samples[2 * RATE :])
    wanted.feed(samples)
    assert torch.equal(asked(made, stream), asked(made, wanted))


def test_sound_beyond_the_decoders_positions_takes_a_knowing_step() -> None:
    made, processor = parts(max_position_embeddings=64)
    config = made.config.text_config
    with AudioStream(made, processor) as stream:
        stream.feed(sound(2.0))
        size = stream.nbytes
        with pytest.raises(PromptError, match=r"2\.0 s were heard.*max_position_embeddings"):
            stream.feed(sound(3.0))
        assert stream.seconds == 2.0 and stream.nbytes == size
        config.max_position_embeddings = 128
        try:
            stream.feed(sound(3.0))
            both = np.concatenate([sound(2.0), sound(3.0)])
            close(asked(made, stream), at_once(made, processor, both))
        finally:
            config.max_position_embeddings = 64


def test_angles_that_move_with_the_prompts_length_are_refused() -> None:
    made, processor = parts()
    config = made.config.text_config
    before = config.rope_parameters
    config.rope_parameters = {**before, "rope_type": "longrope"}
    try:
        with pytest.raises(PalscopeError, match="longrope"):
            AudioStream(made, processor)
    finally:
        config.rope_parameters = before


def test_chat_formats_that_start_with_the_clip() -> None:
    made, processor = parts()
    template = processor.tokenizer.chat_template
    processor.tokenizer.chat_template = None
    try:
        for seconds in (0.6, 2.2):
            with AudioStream(made, processor) as stream:
                assert stream.layout is None
                stream.feed(sound(seconds))
                close(asked(made, stream), at_once(made, processor, sound(seconds)))
                stream.feed(sound(1.2))
                assert stream.ask(QUESTION, max_new_tokens=2) is not None
        processor.tokenizer.chat_template = (
            "{{ messages[0]['content'] | length }}{{ messages[0]['content'] }}"
        )
        with AudioStream(made, processor) as stream:
            stream.feed(sound(0.5))
            with pytest.raises(PromptError, match="other text before the sound"):
                stream.ask(QUESTION)
    finally:
        processor.tokenizer.chat_template = template


def test_one_thread_hears_while_another_asks() -> None:
    """What is asked meanwhile is asked about what was heard by then, all of it or a piece less."""
    made, processor = parts()
    pieces = chunks(sound(3.2), [k / 8 for k in range(8)])
    with AudioStream(made, processor) as alone:
        wanted: list[Tensor] = []
        for piece in pieces:
            alone.feed(piece)
            wanted.append(asked(made, alone))
    found: list[Tensor] = []
    with AudioStream(made, processor) as stream, ThreadPoolExecutor(1) as other:
        stream.feed(pieces[0])
        hearing = other.submit(lambda: [stream.feed(piece) for piece in pieces[1:]])
        while not hearing.done():
            found.append(asked(made, stream))
        hearing.result()
        found.append(asked(made, stream))
    near = [[bool(torch.isclose(one, each, atol=1e-4).all()) for each in wanted] for one in found]
    assert all(any(row) for row in near) and near[-1][-1]
