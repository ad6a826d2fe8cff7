"""A stream of the hooked model: hooks fire, patterns fit the columns, knockouts hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import WhisperFeatureExtractor

from palscope._hooks.hooked import hooked
from palscope._models import PalscopeProcessor
from palscope._routing import Route
from palscope.interventions import Address, Knockout, Patch, Scale, Sound, intervene
from palscope.measures import attention_mass, pathway_mass
from tests import tiny
from tests.hooks.conftest import make_hooked, noise

QUESTION = "What is heard here?"
SAMPLES = noise(3.2)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    """PAL with LAL in layers 0 and 2, which hears in windows of a second."""
    model = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), encoder_positions=50)
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    model.processor = PalscopeProcessor(extractor, tokenizer, 10, [1, 3])
    return model


@torch.no_grad()
def answer_logits(model: Any, samples: np.ndarray = SAMPLES) -> torch.Tensor:
    return model(model.inputs(QUESTION, samples))[:, -1]


@torch.no_grad()
def test_patterns_of_a_question_fit_the_streams_columns(model: Any) -> None:
    inputs = model.inputs(QUESTION, SAMPLES)
    logits, whole = model.run_with_cache(inputs)
    layout = model.layout(inputs)
    with model.audio_stream() as stream:
        stream.feed(SAMPLES[:20_000])
        stream.feed(SAMPLES[20_000:])
        with stream.asking(QUESTION) as asked:
            assert model.layout(asked).width == layout.width
            got, cache = model.run_with_cache(
                asked, names_filter=lambda name: name.endswith("hook_pattern")
            )
            columns = asked["cache"].columns
    torch.testing.assert_close(got[:, -1], logits[:, -1], atol=5e-5, rtol=0)
    for layer in range(tiny.LAYERS):
        at_once = layout.layer_columns(model.current_route, layer)
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0, :, -1]
        wanted = whole[f"blocks.{layer}.attn.hook_pattern"][0, :, -1]
        by_column = columns[layer].keys[0].argsort()
        assert torch.equal(columns[layer].keys[0][by_column], at_once.keys[0].sort().values)
        torch.testing.assert_close(
            pattern[:, by_column], wanted[:, at_once.keys[0].argsort()], atol=1e-5, rtol=0
        )


def test_attention_mass_of_a_question_is_that_of_the_whole_prompt(model: Any) -> None:
    wanted: Any = attention_mass(model, model.inputs(QUESTION, SAMPLES))
    sums: Any = pathway_mass(model, model.inputs(QUESTION, SAMPLES))
    with model.audio_stream() as stream:
        stream.feed(SAMPLES)
        with stream.asking(QUESTION) as asked:
            got: Any = attention_mass(model, asked)
        with stream.asking(QUESTION) as asked:
            got_sums: Any = pathway_mass(model, asked)
    # Words that were run before the sound are in the cache; their ids are not given again.
    sound = wanted["key"].isin(got.loc[got["pathway"] != "text", "key"])
    held = wanted["key"] < wanted.loc[sound, "key"].min()
    assert held.any() and (got.loc[held, "token"] == "").all()
    wanted.loc[held, "token"] = ""
    pd.testing.assert_frame_equal(got, wanted, atol=1e-5, rtol=0)
    pd.testing.assert_frame_equal(got_sums, sums, atol=1e-5, rtol=0)


@torch.no_grad()
def test_hooks_fire_while_sound_arrives(model: Any) -> None:
    tokens: list[int] = []

    def note(tensor: Any, hook: Any) -> None:
        tokens.append(tensor.shape[1])

    names = ("blocks.2.attn.hook_audio_k", "audio_blocks.1.hook_out", "blocks.1.hook_resid_post")
    with model.audio_stream() as stream, hooked(model, {name: note for name in names}):
        stream.feed(SAMPLES[:16_000])
    # A window: 50 tokens of the encoder, of which 45 are whole summaries: 9 frames, 3 summaries.
    assert tokens == [50, 3, 9]


@torch.no_grad()
def test_interventions_hold_in_a_stream(model: Any) -> None:
    inputs = model.inputs(QUESTION, SAMPLES)
    plain = answer_logits(model)
    second = Sound(1.0, 2.0, "frames")
    for intervention in (
        Knockout(Address("pattern", second, layers=(0, 2))),
        Patch(Address("audio_v", second, layers=(2,)), Scale(0.0)),
        Patch(Address("resid_post", Sound(0.0, 3.2, "summary"), layers=(1,)), Scale(0.5)),
    ):
        with intervene(model, inputs, [intervention]):
            wanted = answer_logits(model)
        with intervene(model, inputs, [intervention]), model.audio_stream() as stream:
            for first in range(0, len(SAMPLES), 9_000):
                stream.feed(SAMPLES[first : first + 9_000])
            with stream.asking(QUESTION) as asked:
                got = model(asked)[:, -1]
        assert (wanted - plain).abs().max() > 1e-3
        torch.testing.assert_close(got, wanted, atol=5e-5, rtol=0)
