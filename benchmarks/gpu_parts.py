"""The parts of `benchmarks.gpu` that no other benchmark has: each gives the rows of its report."""

from __future__ import annotations

import argparse
import collections
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.core import medians
from benchmarks.gpu_subjects import QUESTION, Sizes, Subject, qwen2_audio
from benchmarks.hooks import residual
from benchmarks.integrations import SHAPES, Case
from benchmarks.long_audio import fit, streamed
from palscope._models.recording import LayerAttention
from palscope.interventions import Patch, Resample, capture
from palscope.interventions._cells import run_cells, run_cells_plainly
from palscope.measures import attention_mass, pathway_mass
from palscope.measures._cost import peak_bytes
from palscope.measures._grids import layer_windows, layers_by_places, steps

Calls = dict[str, Callable[[], Any]]


def compared(calls: Calls, baseline: str, repeats: int) -> dict[str, Any]:
    """Seconds and peak bytes of each call, and their ratios to one of them, side by side."""
    seconds = medians(calls, repeats)
    peaks = {name: peak_bytes(call) for name, call in calls.items()}
    return {
        name: {
            "seconds": seconds[name],
            "ratio": seconds[name] / seconds[baseline],
            "peak_bytes": peaks[name],
            "peak_ratio": peaks[name] / max(1, peaks[baseline]),
        }
        for name in calls
    }


# -- which kernels --------------------------------------------------------------------------------


def kernels_of(case: Case) -> dict[str, Any]:
    """Attention's kernels in one prefill and one training step, and which layers get a mask."""
    masks: list[Any] = []

    def look(attention: LayerAttention) -> None:
        masks.append(attention.mask)

    with case.model.recording_attention(look):
        case.prefill()
    dense = [each for each in masks if isinstance(each, Tensor)]
    return {
        "prefill": _kernels(case.prefill),
        "training": _kernels(case.train),
        "layers": len(masks),
        "layers_with_dense_mask": len(dense),
        "bytes_of_a_mask": max((each.nbytes for each in dense), default=0),
    }


_ATTENTION = ("scaled_dot_product", "flash", "fmha", "sdpa", "efficient_attention")


def _kernels(call: Callable[[], Any]) -> dict[str, int]:
    """How often each operation or kernel ran whose name is attention's."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        call()
    named = ((event.key, event.count) for event in profile.key_averages())
    return {key: count for key, count in named if any(each in key for each in _ATTENTION)}


@torch.no_grad()
def attention_alone(sizes: Sizes, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """One layer's attention of words behind N_a frames: with a dense mask, and without.

    All keys before the words, so that a lower-right causal mask says the same as the dense one.
    """
    shape, words, frames = SHAPES[sizes.shape], sizes.words, sizes.frames[-1]
    generator = torch.Generator().manual_seed(0)

    def random(heads: int, tokens: int) -> Tensor:
        made = torch.randn(1, heads, tokens, shape.head_dim, generator=generator)
        return made.to(device, dtype)

    query = random(shape.heads, words)
    key, value = (random(shape.heads, frames + words) for _ in range(2))
    seen = torch.ones(words, frames + words, dtype=torch.bool).tril(frames).to(device)
    dense = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, float("-inf"))
    calls: Calls = {
        "dense mask": lambda: scaled_dot_product_attention(query, key, value, dense),
    }
    if device in ("cpu", "cuda"):
        causal: Any = causal_lower_right(words, frames + words)
        calls["lower-right causal"] = lambda: scaled_dot_product_attention(
            query, key, value, causal
        )
    if device == "cuda":
        calls["flex"] = _flex(query, key, value, frames)
    apart = max(float((call() - calls["dense mask"]()).abs().max()) for call in calls.values())
    return {
        "words": words,
        "frames": frames,
        "ways": compared(calls, "dense mask", 10 * sizes.repeats),
        "kernels": {name: _kernels(call) for name, call in calls.items()},
        "largest_difference": apart,
    }


def _flex(query: Tensor, key: Tensor, value: Tensor, frames: int) -> Callable[[], Any]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k <= q + frames

    blocks = create_block_mask(
        seen, None, None, query.shape[2], key.shape[2], device=str(query.device)
    )
    compiled: Any = torch.compile(flex_attention)
    return lambda: compiled(query, key, value, block_mask=blocks)


# -- of a model of either shape -------------------------------------------------------------------


@torch.no_grad()
def hooks(subject: Subject, sizes: Sizes) -> dict[str, Any]:
    """What listening costs beside the plain model's forward pass."""
    hooked, inputs = subject.hooked, subject.clean

    def cached(names: Any) -> Callable[[], Any]:
        return lambda: hooked.run_with_cache(inputs, names_filter=names, logits_to_keep=1)[0]

    calls: Calls = {
        "plain": lambda: subject.plain(**inputs, logits_to_keep=1).logits,
        "no listeners": lambda: hooked(inputs, logits_to_keep=1),
        "residuals cached": cached(lambda name: _in_decoder(name) and residual(name)),
        "everything cached": cached(_in_decoder),
    }
    plain = calls["plain"]()
    apart = {name: float((call() - plain).abs().max()) for name, call in calls.items()}
    return {
        "columns": inputs["input_ids"].shape[1],
        "ways": compared(calls, "plain", sizes.repeats),
        "largest_difference": apart,
    }


def _in_decoder(name: str) -> bool:
    return name.startswith("blocks.")


@torch.no_grad()
def mass(subject: Subject, sizes: Sizes) -> dict[str, Any]:
    """What attention mass costs beside the plain model's forward pass."""
    hooked, inputs = subject.hooked, subject.clean
    patterns = [f"blocks.{i}.attn.hook_pattern" for i in range(hooked.current_route.n_layers)]
    calls: Calls = {
        "plain": lambda: subject.plain(**inputs, logits_to_keep=1).logits,
        "pathway": lambda: pathway_mass(hooked, inputs),
        "pathway of all text": lambda: pathway_mass(hooked, inputs, queries="text"),
        "keys": lambda: attention_mass(hooked, inputs),
        "patterns": lambda: hooked.run_with_hooks(
            inputs, fwd_hooks=[(name, _nothing) for name in patterns], logits_to_keep=1
        ),
    }
    return {
        "columns": inputs["input_ids"].shape[1],
        "ways": compared(calls, "plain", sizes.repeats),
    }


def _nothing(_tensor: Tensor, hook: Any) -> None:
    del hook


def _cells(subject: Subject, sizes: Sizes) -> list[list[Patch]]:
    """Clean sound into the corrupt run, a layer and a stretch a cell."""
    model = subject.hooked
    route, places = model.current_route, steps(subject.seconds, subject.seconds / 4, subject.stream)
    grid = layers_by_places(route, places, layer_windows(route.n_layers))
    addresses = [cell.addresses[0] for cell in grid][: sizes.cells]
    taken = capture(model, subject.clean, *addresses)
    return [[Patch(address, Resample(taken))] for address in addresses]


def sweep(subject: Subject, sizes: Sizes) -> dict[str, Any]:
    """The engine beside the plain loop and beside forward passes of the plain model."""
    model, inputs, cells = subject.hooked, subject.corrupt, _cells(subject, sizes)
    some = cells[:: max(1, len(cells) // 16)]  # the loop is slow
    engine, loop = run_cells(model, inputs, some), run_cells_plainly(model, inputs, some)

    @torch.no_grad()
    def plain() -> Any:
        return subject.plain(**inputs, logits_to_keep=1).logits

    repeats = max(1, sizes.repeats // 2)
    ways = compared(
        {
            "plain": plain,
            "engine": lambda: run_cells(model, inputs, cells),
            "loop": lambda: run_cells_plainly(model, inputs, some),
        },
        "plain",
        repeats,
    )
    counts = {"plain": 1, "engine": len(cells), "loop": len(some)}
    return {
        "columns": inputs["input_ids"].shape[1],
        "cells": counts,
        "ways": ways,
        "forward_passes_a_cell": {name: ways[name]["ratio"] / counts[name] for name in ways},
        "largest_difference": float((engine - loop).abs().max()),
        "largest_logit": float(loop.abs().max()),
    }


def waits(subject: Subject, sizes: Sizes) -> dict[str, Any]:
    """How often CUDA warned of the host waiting; None where there is no CUDA."""
    model, inputs, cells = subject.hooked, subject.corrupt, _cells(subject, sizes)

    @torch.no_grad()
    def forward() -> Any:
        return subject.plain(**inputs, logits_to_keep=1)

    forward()
    return {
        "forward": _waits(forward),
        "half of the cells": _waits(lambda: run_cells(model, inputs, cells[: len(cells) // 2])),
        "cells": _waits(lambda: run_cells(model, inputs, cells)),
        "n_cells": len(cells),
    }


def _waits(call: Callable[[], Any]) -> dict[str, int] | None:
    """By line of code."""
    if not torch.cuda.is_available():
        call()
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    lines = (
        f"{'/'.join(Path(each.filename).parts[-3:])}:{each.lineno}"
        for each in told
        if "synchroniz" in str(each.message)
    )
    return dict(collections.Counter(lines))


# -- streams, and a published class ---------------------------------------------------------------


def stream(sizes: Sizes, dtype: torch.dtype) -> dict[str, Any]:
    """One stream under LAL, asked about at each length; lines through what it cost."""
    given = argparse.Namespace(
        shape=sizes.shape,
        integration="LAL",
        minutes=list(sizes.minutes),
        chunk=10.0,
        dtype=str(dtype).removeprefix("torch."),
        offload=False,
    )
    rows = streamed(given)
    for row in rows:
        del row["logits"]
    fitted = ("append_s", "first_word_s", "next_word_s", "cache_bytes", "peak_bytes")
    lines = {}
    if len(rows) > 4:
        lines = {name: fit(given.minutes, [row[name] for row in rows]) for name in fitted}
    return {"question": QUESTION, "rows": rows, "fits": lines}


@torch.no_grad()
def frozen(sizes: Sizes, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Prefill of Qwen2-Audio with its sound frozen from a layer on, which skips the work."""
    subject = qwen2_audio(sizes, device, dtype)
    model, inputs = subject.plain, subject.clean
    published, layers = model.route, model.route.n_layers
    routes = {"published": published}
    routes |= {f"frozen from {n}": published.frozen_from(n) for n in (0, layers // 4, layers // 2)}

    def prefill(route: Any) -> Callable[[], Any]:
        def call() -> Any:
            with model.routed(route):
                return model(**inputs, logits_to_keep=1).logits

        return call

    calls: Calls = {name: prefill(route) for name, route in routes.items()}
    return {
        "columns": inputs["input_ids"].shape[1],
        "ways": compared(calls, "published", sizes.repeats),
    }
