"""Components that nobody listens to are passed by, and no hook is missed for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge.generalized_components import LinearBridge, NormalizationBridge

from palscope._models.families import FAMILIES
from palscope._routing import Route
from tests import tiny
from tests.hooks.conftest import make_hooked, noise


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often TransformerLens's own forward of norms and linear maps ran."""
    counts: Counter[str] = Counter()
    for kind in (LinearBridge, NormalizationBridge):

        def counted(self: Any, *args: Any, _own: Any = kind.forward, **kwargs: Any) -> Any:
            counts[self.name.split(".")[-1]] += 1
            return _own(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", counted)
    return counts


@torch.no_grad()
def test_only_what_is_heard_works_for_its_hooks(hooked: Any, worked: Counter[str]) -> None:
    inputs = hooked.inputs("What is it?", noise(0.4))
    wanted = hooked.model(**inputs).logits
    worked.clear()
    assert torch.equal(hooked(inputs), wanted)
    assert not worked
    logits, cache = hooked.run_with_cache(inputs, names_filter="blocks.1.ln2.hook_normalized")
    assert torch.equal(logits, wanted) and len(cache) == 1
    assert worked == {"post_attention_layernorm": 1}
    worked.clear()
    hooked.run_with_cache(inputs, names_filter=["blocks.0.attn.q.hook_out", "blocks.3.mlp.hook_in"])
    assert worked == {"q_proj": 1}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_order_of_calls_hides_no_hook(tokenizer: Any, family: str) -> None:
    """What is cached is the same whether hooks were on other places, or nowhere, before."""
    model = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), family)
    inputs = model.inputs("What is it?", noise(0.4))
    _, first = model.run_with_cache(inputs)
    names = list(first)
    for some in (names[::3], names[1::3], names[2::3]):
        for _ in range(2):
            _, cache = model.run_with_cache(inputs, names_filter=some)
            assert set(some) <= set(cache)
            model(inputs)
        for name in some:
            torch.testing.assert_close(cache[name], first[name], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_hooks_on_the_component_as_a_module_fire(hooked: Any) -> None:
    inputs = hooked.inputs("What is it?", noise(0.4))
    before = hooked(inputs)
    seen: list[torch.Size] = []

    def double(_module: Any, _args: Any, out: torch.Tensor) -> torch.Tensor:
        seen.append(out.shape)
        return 2 * out

    handle = hooked.blocks[1].mlp.register_forward_hook(double)
    changed = hooked(inputs)
    handle.remove()
    assert len(seen) == 1 and not torch.allclose(changed, before)
    assert torch.equal(hooked(inputs), before)


def test_a_hook_on_gradients_is_heard(hooked: Any) -> None:
    inputs = hooked.inputs("What is it?", noise(0.4))
    seen: list[torch.Tensor] = []
    point = hooked.hook_point("blocks.2.ln1.hook_out")
    with hooked.hooks(bwd_hooks=[("blocks.2.ln1.hook_out", lambda grad, hook: seen.append(grad))]):
        hooked(inputs)[0, -1].sum().backward()
    assert len(seen) == 1 and not point.has_hooks(dir="both")


@torch.no_grad()
def test_split_queries_see_the_residual_before_the_norm(hooked: Any) -> None:
    """TransformerLens captures it by a hook of its own on the norm, which is not passed by."""
    inputs = hooked.inputs("What is it?", noise(0.4))
    before = hooked(inputs)
    hooked.set_use_split_qkv_input(True)
    split, cache = hooked.run_with_cache(
        inputs, names_filter=["blocks.1.attn.hook_q_input", "blocks.1.hook_resid_pre"]
    )
    hooked.set_use_split_qkv_input(False)
    torch.testing.assert_close(split, before, atol=2e-5, rtol=1e-4)
    entered = cache["blocks.1.hook_resid_pre"][:, :, None]
    assert torch.equal(cache["blocks.1.attn.hook_q_input"], entered.expand(-1, -1, 4, -1))
