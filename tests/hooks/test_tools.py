"""TransformerLens's own tools, and nnsight, on the hooked and the plain model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformer_lens import patching

from palscope._routing import Route
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise, tone

QUESTION = "What is heard here?"


@pytest.fixture
def plits(tokenizer: Any) -> Any:
    return make_hooked(tokenizer, Route.plits(tiny.LAYERS))


@pytest.mark.parametrize("kind", ["plits", "hooked"])
def test_logit_lens_ends_in_the_models_logits(kind: str, request: Any) -> None:
    model = request.getfixturevalue(kind)
    inputs = model.inputs(QUESTION, noise(0.4))
    with torch.no_grad():
        logits, cache = model.run_with_cache(inputs)
        lens, labels = cache.accumulated_resid(
            layer=None, pos_slice=-1, return_labels=True, apply_ln=True
        )
        read = model.unembed(lens[-1])
    assert labels[-1] == "final_post" or len(labels) == len(lens)
    torch.testing.assert_close(read, logits[:, -1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["plits", "hooked"])
def test_direct_logit_attribution_sums_to_the_logit(kind: str, request: Any) -> None:
    model = request.getfixturevalue(kind)
    inputs = model.inputs(QUESTION, noise(0.4))
    with torch.no_grad():
        logits, cache = model.run_with_cache(inputs)
        parts, _ = cache.decompose_resid(pos_slice=-1, return_labels=True)
        direction = model.tokens_to_residual_directions(torch.tensor([17]))
        scaled = cache.apply_ln_to_stack(parts, layer=-1, pos_slice=-1)
        weight = model.model.language_model.model.norm.weight
        total = (scaled * weight).sum(0) @ direction.reshape(-1)
    torch.testing.assert_close(total, logits[:, -1, 17], atol=1e-4, rtol=1e-4)


def test_activation_patching_by_position_restores_the_clean_run(plits: Any) -> None:
    clean, corrupt = (plits.inputs(QUESTION, s) for s in (tone(0.3), noise(0.3)))
    with torch.no_grad():
        clean_logits, cache = plits.run_with_cache(clean)
        goal = clean_logits[0, -1, 5]
        with plits.attach_clips(corrupt):
            start = plits(corrupt["input_ids"])[0, -1, 5]
            table = patching.get_act_patch_resid_pre(
                plits, corrupt["input_ids"], cache, lambda logits: logits[0, -1, 5]
            )
    assert not torch.isclose(start, goal, atol=1e-2)
    assert table.shape == (tiny.LAYERS, clean["input_ids"].shape[1])
    layout = plits.layout(clean)
    audio = layout.stream[0] >= 0
    # Below the decoder the runs differ in the sound alone.
    assert torch.allclose(table[0][~audio], start.expand(int((~audio).sum())), atol=1e-5)
    assert (table[0][audio] - start).abs().max() > 1e-3
    # At the top the last position alone decides.
    assert abs(table[-1, :-1] - start).max() < abs(goal - start)


def test_heads_are_patched_under_lal(hooked: Any) -> None:
    clean, corrupt = (hooked.inputs(QUESTION, s) for s in (tone(0.3), noise(0.3)))
    with torch.no_grad():
        _, cache = hooked.run_with_cache(clean)
        with hooked.attach_clips(corrupt):
            table = patching.get_act_patch_attn_head_out_all_pos(
                hooked, corrupt["input_ids"], cache, lambda logits: logits[0, -1, 5]
            )
    assert table.shape == (tiny.LAYERS, 4)
    assert table.std() > 1e-4


def test_generation_of_the_bridge_equals_hugging_faces(hooked: Any) -> None:
    inputs = hooked.inputs(QUESTION, noise(0.4))
    expected = hooked.model.generate(**inputs, max_new_tokens=5, do_sample=False, pad_token_id=2)
    width = inputs["input_ids"].shape[1]
    with hooked.attach_clips(inputs):
        got = hooked.generate(
            inputs["input_ids"],
            max_new_tokens=5,
            do_sample=False,
            stop_at_eos=False,
            return_type="tokens",
            verbose=False,
        )
    assert torch.equal(got[:, width:], expected[:, width:])


def test_nnsight_and_the_bridge_make_the_same_edit(tokenizer: Any) -> None:
    from nnsight import NNsight

    route = Route.pal(tiny.LAYERS, [0, 2])
    hooked = make_hooked(tokenizer, route)
    plain = tiny.model(route, vocab_size=vocabulary.COUNT)
    plain.config.audio_token_id = hooked.model.config.audio_token_id
    inputs = hooked.inputs(QUESTION, noise(0.4))
    seen: list[torch.Tensor] = []

    def turn(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        seen.append(tensor.clone())
        return -2 * tensor

    view = NNsight(plain)
    with torch.no_grad():
        before = plain(**inputs).logits
        by_bridge = hooked.run_with_hooks(inputs, fwd_hooks=[("blocks.2.attn.hook_audio_k", turn)])
        with view.trace(**inputs):
            keys = view.audio_taps[2].k.output.save()
            view.audio_taps[2].k.output = -2 * keys
            traced = view.output.logits.save()
    torch.testing.assert_close(keys, seen[0])
    torch.testing.assert_close(traced, by_bridge, atol=2e-5, rtol=0)
    assert (traced - before).abs().max() > 1e-2
