"""Tiny models on the CPU, on one pretended device, or spread over two; and what they must agree in.

On pretended devices attention is what PyTorch composes of matrix products, so it is on the CPU
when both are to be the same to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import dispatch_model
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from tests import planted, tiny
from tests.devices.pretended import FIRST, SECOND
from tests.devices.tasks import TASKS
from tests.tiny import ROUTES

CPU, ONE, TWO = "cpu", "one device", "two devices"


def put(model: Any, where: str, decoder: str) -> Any:
    """The model in its place; `decoder` is the path of the bare decoder, whose layers are split."""
    if where == ONE:
        return model.to(FIRST)
    if where == TWO:
        return dispatch_model(model, halves(model, decoder), main_device=FIRST, force_hooks=True)
    return model


def halves(model: Any, path: str) -> dict[str, str]:
    """A device map: upper layers, norm and unembedding on the second device, all else on the first.

    An unembedding that is the embedding too stays with it.
    """
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    found: dict[str, str] = {}

    def walk(prefix: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            here = prefix + name
            if here == path:
                layers: Any = child.layers
                for number in range(len(layers)):
                    upper = number >= len(layers) // 2
                    found[f"{here}.layers.{number}"] = SECOND if upper else FIRST
                for part, _ in child.named_children():
                    if part != "layers":
                        found[f"{here}.{part}"] = SECOND if part == "norm" else FIRST
            elif path.startswith(f"{here}."):
                walk(f"{here}.", child)
            else:
                found[here] = SECOND if name == "lm_head" and not tied else FIRST

    walk("", model)
    return found


def hooked(where: str, route: Route, family: str = "llama", layers: int = 4) -> HookedAudioModel:
    processor = planted.small_processor(mel_bins=8, ratios=[each.ratio for each in route.streams])
    model = tiny.model(
        route,
        family,
        connector=tiny.full_connector(route, layers),
        vocab_size=len(planted.WORDS),
        num_hidden_layers=layers,
    )
    model.config.audio_token_id = processor.audio_token_id
    return HookedAudioModel(put(model, where, "language_model.model"), processor)


@functools.cache
def kept(where: str, route: str, family: str = "llama") -> HookedAudioModel:
    return hooked(where, ROUTES[route], family)


@functools.cache
def expected(task: str, route: str, family: str = "llama") -> list[Any]:
    """What a task gives on the CPU."""
    with sdpa_kernel(SDPBackend.MATH):
        return list(_flat(TASKS[task](kept(CPU, route, family))))


def check(where: str, task: str, route: str, family: str = "llama") -> None:
    """Run a task elsewhere, and check that it gives what it gives on the CPU."""
    # Gradients are summed in another order.
    by_gradients = (
        "attributions",
        "circuits",
        "circuits_of_features",
        "effects_of_heads",
        "effects_of_features",
        "training",
    )
    rounding = 1e-5 if task in by_gradients else 0
    found = list(_flat(TASKS[task](kept(where, route, family))))
    assert found
    for one, other in zip(found, expected(task, route, family), strict=True):
        same(one, other, rounding)


def same(one: Any, other: Any, rounding: float = 0) -> None:
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other, atol=rounding, rtol=0, equal_nan=True)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, atol=rounding, rtol=0)
    elif isinstance(one, np.ndarray):
        np.testing.assert_allclose(one, other, atol=rounding, rtol=0)
    else:
        assert one == other


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value.detach().cpu() if isinstance(value, Tensor) else value
