"""Rows of a cache of activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hooks.inherited.bench import Bench
from tests.hooks.inherited.rows import Row, row

CLOSE = {"atol": 2e-4, "rtol": 1e-4}


def logits_of(bench: Bench, residual: Tensor) -> Tensor:
    """Through the final norm and the unembedding."""
    return bench.model.unembed(bench.model.ln_final(residual))


@torch.no_grad()
def summing(bench: Bench, name: str) -> None:
    """Parts add up to the residual stream, at words and at sound alike."""
    cache, final = bench.caches[0], bench.caches[0][bench.last]
    if name == "accumulated_resid":
        got = cache.accumulated_resid()[-1]
    elif name == "decompose_resid":
        got = cache.decompose_resid().sum(0)
    elif name == "get_full_resid_decomposition":
        got = cache.get_full_resid_decomposition(expand_neurons=False).sum(0)
    else:
        heads = cache.stack_head_results().sum(0)
        neurons = cache.stack_neuron_results(layer=-1).sum(0)
        got = cache["hook_embed"] + heads + neurons
        last = cache.get_neuron_results(1).sum(-2)
        torch.testing.assert_close(last, cache["blocks.1.hook_mlp_out"], **CLOSE)
    torch.testing.assert_close(got, final, **CLOSE)
    assert final.shape[1] == len(bench.running)


@torch.no_grad()
def stacking(bench: Bench, name: str) -> None:
    cache = bench.caches[0]
    stacked = cache.stack_activation("resid_post")
    assert torch.equal(stacked[-1], cache[bench.last])
    assert len(stacked) == bench.model.cfg.n_layers


@torch.no_grad()
def attributing(bench: Bench, name: str) -> None:
    """With the final norm's weight in the direction, shares add up to the logit."""
    cache, token = bench.caches[0], 7
    parts = cache.decompose_resid(pos_slice=-1)
    scaled = cache.apply_ln_to_stack(parts, layer=-1, pos_slice=-1)
    weight = bench.model.ln_final.original_component.weight
    total = (scaled * weight).sum(0) @ bench.model.W_U[:, token] + bench.model.b_U[token]
    torch.testing.assert_close(total, bench.logits[:, -1, token], **CLOSE)
    shares = cache.logit_attrs(parts, tokens=token, pos_slice=-1)
    torch.testing.assert_close(shares, scaled @ bench.model.W_U[:, token], **CLOSE)


@torch.no_grad()
def lens(bench: Bench, name: str) -> None:
    read = bench.caches[0].logit_lens()
    torch.testing.assert_close(read.values[-1, ..., :].flatten(), bench.logits[0, -1], **CLOSE)


@torch.no_grad()
def holding(bench: Bench, name: str) -> None:
    cache: Any = bench.model.run_with_cache(bench.clean)[1]
    assert set(cache.keys()) == {key for key, _ in cache.items()}
    assert len(list(cache.values())) == len(list(cache.keys()))
    whole = cache[bench.last].clone()
    alone = cache.apply_slice_to_batch_dim(0) if name == "apply_slice_to_batch_dim" else cache
    alone = cache.to("cpu") if name == "to" else alone
    if name == "remove_batch_dim":
        cache.remove_batch_dim()
        assert torch.equal(cache[bench.last], whole[0])
    elif name == "toggle_autodiff":
        with torch.enable_grad():
            cache.toggle_autodiff(mode=False)
            assert not torch.is_grad_enabled()
    else:
        assert torch.equal(alone[bench.last].reshape(whole.shape), whole)


def no_recurrence(bench: Bench, name: str) -> None:
    cache = bench.caches[0]
    if name == "ssm_layers":
        assert cache.ssm_layers() == []
    else:
        with pytest.raises((TypeError, ValueError, RuntimeError, KeyError)):
            getattr(cache, name)()


ROWS: list[Row] = [
    row(
        "accumulated_resid decompose_resid get_full_resid_decomposition compute_head_results "
        "stack_head_results stack_neuron_results get_neuron_results",
        "parts that add up to `hook_resid_post`, at words and at sound that runs; not of Gemma 3n, "
        "nor under routes whose layers hold different tokens",
        summing,
    ),
    row("stack_activation", "each layer's", stacking),
    row(
        "logit_attrs apply_ln_to_stack",
        "shares of a logit, which add up to it where the direction has the final norm's weight "
        "(weights are not folded)",
        attributing,
        at_once=True,
    ),
    row("logit_lens", "the model's logits, of the last layer", lens),
    row(
        "keys values items to remove_batch_dim apply_slice_to_batch_dim toggle_autodiff",
        "TransformerLens's",
        holding,
    ),
    row("ssm_layers", "none: attention alone", no_recurrence),
    Row(
        ("compute_ssm_state", "compute_ssm_effective_attention"),
        "of recurrent layers (TransformerLens)",
        no_recurrence,
        works=False,
    ),
]
