"""Tools that pass tokens alone hear: one sound or two, padded rows, generation in any way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palscope._routing import Route
from palscope.errors import PalscopeError, PromptError
from tests import tiny
from tests.hooks.conftest import make_hooked, noise, tone

QUESTION = "What is heard here?"
ROUTES = [Route.plits(tiny.LAYERS), Route.lal(tiny.LAYERS, [0, 2]), Route.pal(tiny.LAYERS, [0, 2])]


@pytest.fixture(scope="module", params=ROUTES, ids=["plits", "lal", "pal"])
def model(tokenizer: Any, request: Any) -> Any:
    return make_hooked(tokenizer, request.param)


@pytest.fixture(scope="module")
def padded(model: Any) -> dict[str, Tensor]:
    """Three rows of different length, padded on the left: one clip, two, none."""
    chat = model.processor.chat
    texts = [chat("what?"), chat("which of the two came first?", clips=2), chat("hm?", clips=0)]
    clips = [noise(0.5), noise(0.8, 1), noise(0.3, 2)]
    return dict(model.processor(texts, clips, sampling_rate=16_000))


@pytest.fixture(scope="module")
def pair(model: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two sounds in the same words."""
    clean, corrupt = (model.inputs(QUESTION, sound) for sound in (tone(0.3), noise(0.3)))
    assert torch.equal(clean["input_ids"], corrupt["input_ids"])
    return clean, corrupt


@torch.no_grad()
def greedy(model: Any, inputs: dict[str, Tensor], new: int = 4) -> Tensor:
    """What the Hugging Face model writes, encoding anew for every word: no cache, no TL."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for _ in range(new):
        logits = model.model(**{**inputs, "input_ids": ids, "attention_mask": mask}).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return ids


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
def test_generation_is_that_of_the_plain_model(model: Any, padded: Any, cached: bool) -> None:
    wanted = greedy(model, padded)
    options = {"max_new_tokens": 4, "verbose": False, "return_type": "tokens"}
    options |= {"stop_at_eos": False, "do_sample": False, "use_past_kv_cache": cached}
    assert torch.equal(model.generate(padded, **options), wanted)
    by_name = {k: v for k, v in padded.items() if k != "input_ids"}
    assert torch.equal(model.generate(padded["input_ids"], **by_name, **options), wanted)
    with model.attach_clips(padded) as tokens:
        assert torch.equal(model.generate(padded["input_ids"], **options), wanted)
        named = model.generate(tokens, **options)
        assert torch.equal(model.plain_tokens(named), wanted)
        *_, last = model.generate_stream(padded["input_ids"], max_tokens_per_yield=1, **options)
    assert torch.equal(last, wanted[:, -1:])
    *_, last = model.generate_stream(padded, max_tokens_per_yield=1, **options)
    assert torch.equal(last, wanted[:, -1:])


def test_hugging_faces_generation_hears(model: Any, padded: Any) -> None:
    wanted = greedy(model, padded)
    options = {"max_new_tokens": 4, "do_sample": False, "stop_at_eos": False}
    assert torch.equal(model.hf_generate(padded, **options), wanted)
    with model.attach_clips(padded):
        assert torch.equal(model.hf_generate(padded["input_ids"], **options), wanted)


def test_a_generation_with_its_cache(model: Any, pair: Any) -> None:
    clean, _ = pair
    out, cache = model.generate(
        clean, max_new_tokens=3, return_cache=True, verbose=False, return_type="tokens"
    )
    with torch.no_grad():
        _, wanted = model.run_with_cache({**clean, "input_ids": out, "attention_mask": None})
    name = "blocks.3.hook_resid_post"
    torch.testing.assert_close(cache[name], wanted[name])


@torch.no_grad()
def test_two_sounds_in_the_same_words_are_told_apart(model: Any, pair: Any) -> None:
    clean, corrupt = pair
    expected = [model(each) for each in pair]
    assert not torch.allclose(*expected)
    with model.attach_clips(clean, corrupt) as (clean_tokens, corrupt_tokens):
        assert torch.equal(model(clean_tokens), expected[0])
        assert torch.equal(model(corrupt_tokens), expected[1])
        together = torch.cat([corrupt_tokens, clean_tokens, corrupt_tokens])
        got = model(together)
        for row, which in enumerate([1, 0, 1]):
            torch.testing.assert_close(got[row], expected[which][0], atol=2e-5, rtol=0)
        with pytest.raises(PromptError, match=r"attach_clips\(clean, corrupt\) as"):
            model(clean["input_ids"])
        words = model.to_str_tokens(clean_tokens)
        assert words == model.to_str_tokens(clean["input_ids"])
        assert model.to_string(clean_tokens) == model.to_string(clean["input_ids"])
    with pytest.raises(PromptError, match="is over"):
        model(clean_tokens)
    with model.attach_clips(corrupt), pytest.raises(PromptError, match="is over"):
        model(clean_tokens)


@settings(max_examples=4, deadline=None)
@given(
    rows=st.lists(st.integers(0, 2), min_size=1, max_size=4),
    new=st.integers(0, 2),
    named=st.booleans(),
)
def test_any_rows_of_a_padded_prompt_hear_their_own_clips(
    model: Any, padded: Any, rows: list[int], new: int, named: bool
) -> None:
    """Repeated, reordered, and with words behind them: each as the whole prompt's row."""
    ids, mask = padded["input_ids"], padded["attention_mask"]
    behind = torch.full((len(ids), new), 17)
    whole = {
        **padded,
        "input_ids": torch.cat([ids, behind], 1),
        "attention_mask": torch.cat([mask, torch.ones_like(behind)], 1),
    }
    with torch.no_grad(), model.attach_clips(padded) as tokens:
        wanted = model.model(**whole).logits
        chosen = (tokens if named else ids)[rows]
        got = model(torch.cat([chosen, behind[:1].expand(len(rows), -1)], 1))
    real = whole["attention_mask"][rows].bool()
    torch.testing.assert_close(got[real], wanted[rows][real], atol=2e-5, rtol=0)


@torch.no_grad()
def test_other_words_about_the_same_clip(model: Any, pair: Any, padded: Any) -> None:
    clean, corrupt = pair
    other = model.inputs("And how long does this sound last?", tone(0.3))
    with model.attach_clips(clean):
        assert torch.equal(model(other["input_ids"]), model(other))
    with model.attach_clips(clean, corrupt), pytest.raises(PromptError, match="fit none"):
        model(other["input_ids"])
    with model.attach_clips(padded), pytest.raises(PromptError, match="attention_mask"):
        model(padded["input_ids"][:, 1:])


@torch.no_grad()
def test_encoded_clips_are_heard_too(model: Any, padded: Any) -> None:
    given = {k: v for k, v in padded.items() if k in ("input_ids", "attention_mask")}
    given["audio"] = model.encode_audio(padded)
    with model.attach_clips(given) as tokens:
        torch.testing.assert_close(model(tokens), model(given))
        real = padded["attention_mask"][[1]].bool()
        got, wanted = model(tokens[[1]])[real], model(given)[[1]][real]
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)


def test_penalties_that_would_count_sound_as_words_are_refused(model: Any, pair: Any) -> None:
    clean, _ = pair
    for penalty in ({"freq_penalty": 1.0}, {"repetition_penalty": 1.2}):
        with pytest.raises(PalscopeError, match="hf_generate"):
            model.generate(clean, max_new_tokens=2, verbose=False, **penalty)
