"""What is kept of a model is used with the weights that it was made with, or refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from palscope._models.stamps import stamp_contents, stamp_identity
from palscope._routing import Route
from palscope.errors import PalscopeError
from palscope.training._recipe import Lora, Trained
from palscope.training._trained import prepare
from tests import tiny

PAL = Route.pal(tiny.LAYERS, [0, 2])
PARTS = [
    "encoder.model.conv1.weight",
    "encoder.model.layers.1.fc1.bias",
    "connector.pool.mean",
    "connector.summaries.summary",
    "connector.input_projectors.summary",
    "connector.layer_projectors.frames.layer_2",
    "language_model.model.layers.0.input_layernorm.weight",
    "language_model.model.layers.2.self_attn.k_proj.weight",
    "language_model.model.layers.3.mlp.down_proj.weight",
]


def fused(weight: Any) -> None:
    """An optimiser's step that torch's count of changes misses on some devices."""
    trained = nn.Parameter(weight)
    trained.grad = torch.ones_like(trained)
    torch.optim.AdamW([trained], lr=0.5, fused=True).step()


CHANGES: dict[str, Any] = {
    "in place": lambda weight: weight.mul_(1.5).add_(0.3),
    "data": lambda weight: weight.data.add_(0.4),
    "one number": lambda weight: weight.data.view(-1)[-1:].add_(2.0),
    "rows": lambda weight: weight.data.copy_(weight.roll(1, 0)),
    "fused": fused,
}


def found(model: Any, name: str) -> Any:
    """The weight or buffer of that name, or the first of the part."""
    state = model.state_dict()
    return state[next(key for key in state if key.startswith(name) and state[key].ndim)]


@settings(max_examples=24, deadline=None)
@given(st.sampled_from(PARTS), st.sampled_from(list(CHANGES)))
def test_nothing_old_is_used_after_a_change(name: str, change: str) -> None:
    """Invariant: with clips or a cache made before it, a call raises, or gives the new answer."""
    model: Any = tiny.model(PAL)
    batch = tiny.batch([[43]])
    ids = {key: batch[key] for key in ("input_ids", "attention_mask")}
    behind = torch.full((1, 1), 7)
    with torch.no_grad():
        audio = model.encode_audio(batch["input_features"], batch["feature_lengths"])
        cache = model(**ids, audio=audio, use_cache=True).past_key_values
        before = model(**batch).logits
        CHANGES[change](found(model, name))
        after = model(**batch).logits
        whole = {**batch, "input_ids": torch.cat([batch["input_ids"], behind], 1)}
        del whole["attention_mask"]
        calls = (
            (lambda: model(**ids, audio=audio).logits, after, before),
            (lambda: model(behind, cache=cache).logits, model(**whole).logits[:, -1:], None),
        )
        for call, wanted, old in calls:
            try:
                logits = call()
            except PalscopeError as error:
                assert "with other weights" in str(error)
            else:
                torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
                assert old is None or torch.equal(old, wanted) or not torch.equal(logits, old)


@pytest.mark.parametrize("change", ["half", "swap", "training"])
def test_what_else_clips_depend_on(change: str) -> None:
    model: Any = tiny.model(PAL)
    batch = tiny.batch([[43]])
    features = batch.pop("input_features"), batch.pop("feature_lengths")
    if change == "training":
        model.train()
    with torch.no_grad():
        audio = model.encode_audio(*features)
        if change == "training":
            model.eval()
        elif change == "half":
            model.half()
        else:
            model.connector = tiny.model(PAL, seed=5).connector
        with pytest.raises(PalscopeError, match="Encode them again"):
            model(**batch, audio=audio)
        with pytest.raises(PalscopeError, match="Encode them again"):
            model.generate(**batch, audio=audio, max_new_tokens=1)
        model(**batch, audio=model.encode_audio(*features))


def test_a_model_that_a_hook_asks_while_another_decodes_is_held_against_its_own_weights() -> None:
    decoding: Any = tiny.model(PAL)
    other: Any = tiny.model(PAL, seed=5)
    batch = tiny.batch([[43]])
    words = {key: batch[key] for key in ("input_ids", "attention_mask")}
    told: list[str] = []
    with torch.no_grad():
        audio = other.encode_audio(batch["input_features"], batch["feature_lengths"])
        found(other, PARTS[0]).add_(0.5)

        def ask(*_: Any) -> None:
            with pytest.raises(PalscopeError, match="Encode them again") as caught:
                other(**words, audio=audio)
            told.append(str(caught.value))

        handle = decoding.language_model.model.norm.register_forward_hook(ask)
        decoding.generate(**batch, max_new_tokens=2, min_new_tokens=2)
        handle.remove()
    assert len(told) >= 2  # of the prompt, and of the word behind it


def test_adapters_that_are_switched_are_other_weights() -> None:
    model: Any = tiny.model(PAL)
    lora = Lora(rank=2, alpha=4, dropout=0.0, modules=("k_proj", "v_proj"))
    prepare(model, Trained(llm="lora", lora=lora), bf16=False)
    model.eval()
    layers = [m for m in model.modules() if hasattr(m, "lora_B")]
    batch = tiny.batch([[43]])
    features = {key: batch[key] for key in ("input_features", "feature_lengths")}
    ids = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        for layer in layers:
            layer.lora_B["default"].weight.normal_()
        audio = model.encode_audio(*features.values())
        cache = model(**ids, audio=audio, use_cache=True).past_key_values
        on = model(**ids, audio=audio).logits
        for layer in layers:
            layer.enable_adapters(False)
        off = model(**batch).logits
        assert not torch.equal(on, off) and torch.equal(model(**ids, audio=audio).logits, off)
        with pytest.raises(PalscopeError, match="other adapters"):
            model(torch.full((1, 1), 7), cache=cache)


def test_kept_keys_are_neither_made_nor_used_where_somebody_listens() -> None:
    model: Any = tiny.model(PAL)
    batch = tiny.batch([[43]])
    features = batch.pop("input_features"), batch.pop("feature_lengths")
    with torch.no_grad():
        audio = model.encode_audio(*features)
        for first in (True, False):  # a hook before anything is kept, and after
            if not first:
                plain = model(**batch, audio=audio).logits
            projector = model.connector.layer_projectors["frames"]["layer_2"]
            handle = projector.register_forward_hook(lambda _m, _a, out: out * 3)
            hooked = model(**batch, audio=audio).logits
            handle.remove()
            again = model(**batch, audio=audio).logits
            assert not torch.equal(hooked, again)
            assert first or torch.equal(plain, again)
        assert len(audio.keys_values) == 2


def test_keys_of_another_precision_are_not_used() -> None:
    model: Any = tiny.model(Route.lal(tiny.LAYERS))
    batch = tiny.batch([[43]], streams=model.route.streams)
    features = batch.pop("input_features"), batch.pop("feature_lengths")
    with torch.no_grad():
        audio = model.encode_audio(*features)
        plain = model(**batch, audio=audio).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(**batch, audio=audio)
        assert torch.equal(model(**batch, audio=audio).logits, plain)


def test_a_copy_of_the_weights_takes_the_clips() -> None:
    model: Any = tiny.model(PAL)
    batch = tiny.batch([[43]])
    features = batch.pop("input_features"), batch.pop("feature_lengths")
    with torch.no_grad():
        audio = model.encode_audio(*features)
        wanted = model(**batch, audio=audio).logits
        model.load_state_dict(copy.deepcopy(model.state_dict()))
        assert torch.equal(model(**batch, audio=audio).logits, wanted)
        assert torch.equal(copy.deepcopy(model)(**batch, audio=audio).logits, wanted)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(7,), (5, 3), (4, 8), (3, 2, 5), (1,), ()]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float64]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_every_bit_of_a_weight_counts(
    shape: tuple[int, ...], dtype: torch.dtype, place: int, strided: bool
) -> None:
    module = nn.Module()
    values = torch.arange(1, 1 + 2 * torch.Size(shape).numel(), dtype=torch.float64)
    values = values.view(*shape, 2).to(dtype)
    held = values[..., 0] if strided else values[..., 0].clone()
    module.register_buffer("held", held)
    stamps = [stamp_contents([module]), stamp_identity([module])]
    assert [stamp_contents([module]), stamp_identity([module])] == stamps
    at = torch.unravel_index(torch.tensor(place % held.numel()), held.shape)
    held[at] += 1
    assert stamp_contents([module]) != stamps[0] and stamp_identity([module]) != stamps[1]
