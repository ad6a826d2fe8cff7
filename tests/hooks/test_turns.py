"""What is set on a hooked model for a block or a call is the caller's alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope.interventions import Address, Knockout, Patch, Scale, Sound, Text, intervene
from tests import tiny
from tests.hooks.conftest import make_hooked, noise

HOOK = "blocks.1.hook_resid_post"


def double(tensor: Any, hook: Any) -> Any:
    return tensor * 2


def logits(model: HookedAudioModel, inputs: Any) -> Any:
    with torch.no_grad():
        return model(dict(inputs), logits_to_keep=1)


def in_hooks(model: HookedAudioModel, inputs: Any) -> Any:
    with model.hooks(fwd_hooks=[(HOOK, double)]):
        return logits(model, inputs)


def with_hooks(model: HookedAudioModel, inputs: Any) -> Any:
    with torch.no_grad():
        return model.run_with_hooks(dict(inputs), fwd_hooks=[(HOOK, double)], logits_to_keep=1)


def with_cache(model: HookedAudioModel, inputs: Any) -> Any:
    with torch.no_grad():
        return model.run_with_cache(dict(inputs), names_filter=[HOOK])[1][HOOK]


def patched(model: HookedAudioModel, inputs: Any) -> Any:
    patch = Patch(Address("resid_post", Text(-1), layers=[1]), Scale(-3.0))
    with intervene(model, inputs, [patch]):
        return logits(model, inputs)


def knocked(model: HookedAudioModel, inputs: Any) -> Any:
    address = Address("pattern", Sound(), queries=Text(), layers=range(tiny.LAYERS))
    with intervene(model, inputs, [Knockout(address)]):
        return logits(model, inputs)


def heard(model: HookedAudioModel, inputs: Any) -> Any:
    with torch.no_grad(), model.attach_clips(inputs):
        return model(inputs["input_ids"])[:, -1:]


def stopped(model: HookedAudioModel, inputs: Any) -> Any:
    with torch.no_grad():
        return model(dict(inputs), stop_at_layer=2)


CALLS: dict[str, Any] = {
    each.__name__: each
    for each in (in_hooks, with_hooks, with_cache, patched, knocked, heard, stopped)
}


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> HookedAudioModel:
    return make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]))


@pytest.mark.parametrize("name", CALLS)
def test_another_thread_computes_as_if_alone(model: HookedAudioModel, name: str) -> None:
    call, inputs = CALLS[name], model.inputs("which digit?", noise(0.4))
    plain, changed = logits(model, inputs), call(model, inputs)
    if name not in ("with_cache", "heard", "stopped"):
        assert not torch.equal(plain, changed)
    together = threading.Barrier(2)

    def repeated(run: Any, wanted: Any) -> bool:
        together.wait()
        return all(torch.equal(run(model, inputs), wanted) for _ in range(12))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(repeated, (call, logits), (changed, plain)))
    assert torch.equal(logits(model, inputs), plain)
