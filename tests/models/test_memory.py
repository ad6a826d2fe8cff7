"""What a run holds: no copy of a cache, no square of a prompt, no clip kept for nobody."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.cache_utils import DynamicLayer

from palscope._models import AudioCache
from palscope._routing import Route
from palscope._verify.tolerance import PER_LAYER, rounding
from tests import tiny


class Largest(TorchDispatchMode):
    """Elements of the largest tensor made within."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def continued(model: Any, cache: AudioCache, words: int) -> Tensor:
    rows = cache.layers[0].keys.shape[0]
    steps = [
        model(input_ids=torch.full((rows, 1), 5 + i), past_key_values=cache).logits
        for i in range(words)
    ]
    return torch.cat(steps, 1)


@pytest.mark.parametrize("route", [Route.plits(4), Route.pal(4, [0, 2])], ids=["plits", "pal"])
@torch.no_grad()
def test_a_word_is_written_behind_what_is_held(route: Route) -> None:
    model = tiny.model(route)
    batch = tiny.batch([[137], [80]], streams=route.streams)
    copying = AudioCache()
    copying.layer_class_to_replicate = DynamicLayer  # Hugging Face's, which copies
    wanted = model(**batch, past_key_values=copying).past_key_values
    cache = model(**batch, use_cache=True).past_key_values
    addresses: list[int] = []
    for word in range(80):
        steps = [
            model(input_ids=torch.full((2, 1), 5 + word), past_key_values=each).logits
            for each in (cache, wanted)
        ]
        torch.testing.assert_close(*steps, atol=1e-5, rtol=1e-5)
        addresses.append(cache.layers[0].keys.data_ptr())
    for mine, theirs in zip(cache.layers, wanted.layers, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mine.values, theirs.values, atol=1e-5, rtol=1e-5)
    assert cache.nbytes == wanted.nbytes
    assert len(set(addresses)) <= 4


@torch.no_grad()
def test_copies_of_a_cache_do_not_write_into_each_other() -> None:
    model = tiny.model()
    batch = tiny.batch([[43]])
    cache = model(**batch, use_cache=True).past_key_values
    continued(model, cache, 3)
    wanted = continued(model, copy.deepcopy(cache), 4)
    other = copy.deepcopy(cache)
    model(input_ids=torch.full((1, 3), 70), past_key_values=other)
    cache.batch_repeat_interleave(2)
    rows = continued(model, cache, 4)
    tolerance = rounding(PER_LAYER * tiny.LAYERS, float(wanted.abs().max()))
    torch.testing.assert_close(rows, wanted.expand(2, -1, -1), **tolerance)


def test_a_cache_is_continued_in_and_out_of_inference_mode() -> None:
    model = tiny.model()
    batch = tiny.batch([[43]])
    with torch.no_grad():
        wanted = continued(model, model(**batch, use_cache=True).past_key_values, 4)
    with torch.inference_mode():
        cache = model(**batch, use_cache=True).past_key_values
        first = continued(model, cache, 2)
    with torch.no_grad():
        ids = torch.tensor([[7]]), torch.tensor([[8]])
        rest = [model(input_ids=i, past_key_values=cache).logits for i in ids]
    torch.testing.assert_close(torch.cat([first, *rest], 1), wanted, atol=1e-5, rtol=1e-5)


def test_a_gradient_goes_back_through_several_steps() -> None:
    model = tiny.model(Route.lal(4))
    batch = tiny.batch([[43]], streams=model.route.streams)
    continued(model, model(**batch, use_cache=True).past_key_values, 3).sum().backward()
    stepwise = {n: p.grad for n, p in model.connector.named_parameters() if p.grad is not None}
    model.zero_grad()
    ids = torch.cat([batch["input_ids"], torch.tensor([[5, 6, 7]])], 1)
    batch |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    model(**batch).logits[:, -3:].sum().backward()
    assert stepwise
    for name, parameter in model.connector.named_parameters():
        if name in stepwise:
            depth = 2 * PER_LAYER * tiny.LAYERS  # there and back
            tolerance = rounding(depth, float(parameter.grad.abs().max()))
            torch.testing.assert_close(stepwise[name], parameter.grad, **tolerance)


@torch.no_grad()
def test_clips_are_kept_only_where_more_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny.model(Route.lal(4))
    batch = tiny.batch([[43]], streams=model.route.streams)
    made: list[Any] = []
    encode = model._encoded
    monkeypatch.setattr(model, "_encoded", lambda *a: made.append(encode(*a)) or made[-1])
    model(**batch)
    model.generate(**batch, max_new_tokens=2, pad_token_id=0)
    assert [len(clips.keys_values) for clips in made] == [0, 0]
    audio = encode(batch.pop("input_features"), batch.pop("feature_lengths"))
    model(**batch, audio=audio)
    assert len(audio.picked([0]).keys_values) == 4
    audio.keys_values.clear()
    audio.reused = False
    model(**batch, audio=audio.picked([0]))
    assert not audio.keys_values


@pytest.mark.parametrize("route", [Route.plits(4), Route.lal(4)], ids=["plits", "lal"])
@torch.no_grad()
def test_nothing_is_as_large_as_the_prompts_square(route: Route) -> None:
    model = tiny.model(route, max_position_embeddings=2000)
    batch = tiny.batch([[3000]], streams=route.streams)
    ids = batch["input_ids"]
    audio = model.encode_audio(batch["input_features"], batch["feature_lengths"])
    with Largest() as largest:
        model(input_ids=ids, audio=audio, use_cache=True, logits_to_keep=1)
    columns = ids.shape[1]
    assert columns > 300 and largest.elements < columns**2 / 3
    batch = tiny.batch([[3000], [2900]], streams=route.streams)
    audio = model.encode_audio(batch.pop("input_features"), batch.pop("feature_lengths"))
    with Largest() as largest:  # padding in between needs a mask: the test would see a square
        model(**batch, audio=audio, logits_to_keep=1)
    assert (largest.elements >= columns**2) == (route == Route.plits(4))


@pytest.mark.parametrize("route", [Route.plits(4), Route.lal(4), Route.pal(4, [0, 2])])
@torch.no_grad()
def test_logits_are_of_the_columns_asked_for(route: Route) -> None:
    model = tiny.model(route)
    batch = tiny.batch([[137], [80]], streams=route.streams)
    whole = model(**batch).logits
    audio = batch["input_ids"] == tiny.AUDIO_ID
    assert whole.shape[:2] == audio.shape
    runs = model.layout(
        batch["input_ids"], batch["attention_mask"], feature_lengths=batch["feature_lengths"]
    )
    runs = runs.layer_columns(route, 3).running
    for row in range(2):
        nothing = torch.ones(audio.shape[1], dtype=torch.bool)
        nothing[runs[row][runs[row] >= 0]] = False
        assert (whole[row, nothing] == 0).all() and (whole[row, ~nothing] != 0).any(-1).all()
    for keep in (1, 3, 9, 400):
        kept = model(**batch, logits_to_keep=keep).logits
        torch.testing.assert_close(kept, whole[:, -keep:], atol=1e-5, rtol=1e-5)
