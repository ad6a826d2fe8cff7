"""What a patching sweep costs, layers × stretches of sound, side by side in one run.

    python -m benchmarks.patching --models demo/plits demo/lal demo/pal --out runs/patching.json

The same cells, with the same answers (checked), by
- palscope's engine (`interventions.cells.run_cells`), and its plain loop, every cell whole;
- TransformerLens: `patching.generic_activation_patch` on the hooked model, a forward pass a cell;
- nnsight: a loop of traces on the plain Hugging Face model, a forward pass a cell;
- bare: the plain decoder's layers on as many rows and tokens as the engine runs, without hooks,
  patches or bookkeeping: the arithmetic alone; with `--compiled` also by the one graph that
  torch.compile makes of a layer: what an engine of compiled cells could gain at most.
All hear the clip encoded once. Each timing is the median of interleaved repeats.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnsight
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformer_lens import patching

from benchmarks.core import default_device, header, medians, write
from palscope._hooks import HookedAudioModel, load
from palscope._models import PalscopeForConditionalGeneration
from palscope._models.cache import PassingMemory
from palscope._models.families import rotary
from palscope._models.finding import find_checkpoint
from palscope._models.resumed import ResumedRun
from palscope._routing import Level
from palscope.interventions import Patch, Resample, capture, resolve
from palscope.interventions._cells import run_cells, run_cells_plainly, with_encoded
from palscope.measures._grids import layer_windows, layers_by_places, steps

QUESTION = "What sound is this?"
RATE = 16_000


class Sweep:
    """One model's sweep: clean sound into the corrupt run, a layer and a stretch a cell."""

    def __init__(self, name: str, seconds: float, step: float, stride: int) -> None:
        self.model: HookedAudioModel = load(name)
        found = find_checkpoint(name)
        self.plain: Any = PalscopeForConditionalGeneration.from_pretrained(found)
        self.plain.to(self.model.model.device)
        self.bare_layers: Any = copy.deepcopy(self.plain.language_model)  # nnsight never wraps it
        route = self.model.current_route
        # The stream of which each layer holds a state: LAL's frames are keys, the others' run.
        self.stream = route.streams[-1].name
        rng = np.random.default_rng(0)
        clips = (rng.normal(size=(2, int(seconds * RATE))) * 0.1).astype(np.float32)
        self.clean, self.corrupt = (
            with_encoded(self.model, self.model.inputs(QUESTION, clip)) for clip in clips
        )
        places = steps(seconds, step, self.stream)
        grid = layers_by_places(route, places, layer_windows(route.n_layers))
        self.addresses = [cell.addresses[0] for cell in grid][::stride]
        taken = capture(self.model, self.clean, *self.addresses)
        self.cells = [[Patch(address, Resample(taken))] for address in self.addresses]
        self.parts = [resolve(self.model, self.corrupt, a).parts[0] for a in self.addresses]
        self.held = route.cell(self.stream, 0).level is Level.KEYS

    def engine(self) -> Tensor:
        """Logits of every cell by palscope's engine."""
        return run_cells(self.model, self.corrupt, self.cells)

    def plain_loop(self) -> Tensor:
        """By palscope's plain loop, in batches of 16."""
        return run_cells_plainly(self.model, self.corrupt, self.cells)

    def _places(self, part: Any) -> list[int]:
        columns = self.model.layout(self.corrupt).layer_columns(
            self.model.current_route, part.layer
        )
        axis = (columns.memory if self.held else columns.running)[0].tolist()
        return [axis.index(int(column)) for column in part.columns]

    @torch.no_grad()
    def transformerlens(self) -> Tensor:
        """By TransformerLens's loop."""
        places = {i: self._places(part) for i, part in enumerate(self.parts)}
        index = pd.DataFrame({"layer": [p.layer for p in self.parts], "cell": list(places)})
        site = "attn.hook_audio_state" if self.held else "resid_pre"
        name = f"blocks.{{}}.{site}" if self.held else None
        end = site.split(".")[-1]
        names = [n for n in self.model.hook_dict if n.startswith("blocks.") and n.endswith(end)]
        _, cache = self.model.run_with_cache(self.clean, names_filter=names)
        found: list[Tensor] = []

        def metric(logits: Tensor) -> Tensor:
            found.append(logits[0, -1].float())
            return logits[0, -1, 0]

        def setter(corrupted: Tensor, row: Any, clean: Tensor) -> Tensor:
            at = places[int(row[1])]
            corrupted[:, at] = clean[:, at]
            return corrupted

        with self.model.attach_clips(self.corrupt):
            if name is None:
                patching.generic_activation_patch(
                    self.model,
                    self.corrupt["input_ids"],
                    cache,
                    metric,
                    setter,
                    site,
                    index_df=index,
                )
            else:  # its own loop, whose names of activations know no audio state
                for row in index.itertuples(index=False):
                    hook = name.format(row.layer)
                    logits = self.model.run_with_hooks(
                        self.corrupt["input_ids"],
                        fwd_hooks=[
                            (hook, lambda t, hook, row=row: setter(t, row, cache[hook.name]))
                        ],
                        return_type="logits",
                    )
                    metric(logits)
        return torch.stack(found)

    @torch.no_grad()
    def nnsight(self) -> Tensor:
        """By a loop of nnsight's traces."""
        view = nnsight.NNsight(self.plain)
        layers = sorted({part.layer for part in self.parts})
        kept: dict[int, Any] = {}
        with view.trace(**self.clean):
            for layer in layers:
                kept[layer] = (
                    view.audio_taps[layer].state.output.save()
                    if self.held
                    else view.language_model.model.layers[layer].input.save()
                )
        found: list[Tensor] = []
        for part in self.parts:
            places = self._places(part)
            with view.trace(**self.corrupt):
                if self.held:
                    values = view.audio_taps[part.layer].state.output.clone()
                    values[:, places] = kept[part.layer][:, places]
                    view.audio_taps[part.layer].state.output = values
                else:
                    values = view.language_model.model.layers[part.layer].input.clone()
                    values[:, places] = kept[part.layer][:, places]
                    view.language_model.model.layers[part.layer].input = values
                logits = view.output.logits.save()
            found.append(logits[0, -1].float())
        return torch.stack(found)

    def bare(self, compiled: bool = False) -> Callable[[], None]:
        """The engine's arithmetic: its layers on as many rows, tokens and keys."""
        ran: list[tuple[int, int, int, int]] = []
        original = ResumedRun.layer

        def noted(run: Any, index: int, hidden: Tensor, *rest: Any) -> Tensor:
            keys = run.columns_of(index).keys.shape[1]
            ran.append((index, *hidden.shape[:2], keys))
            return original(run, index, hidden, *rest)

        ResumedRun.layer = noted  # type: ignore[method-assign]
        try:
            self.engine()
        finally:
            ResumedRun.layer = original  # type: ignore[method-assign]
        language_model = self.bare_layers
        config = language_model.config
        inputs = [self._layer_arguments(*each) for each in ran]

        def layer_of(layer: Any, hidden: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> Any:
            mask, turned = rest
            return layer(
                hidden,
                attention_mask=mask,
                past_key_values=PassingMemory(keys, values),
                position_embeddings=turned,
            )

        called: Any = torch.compile(layer_of, dynamic=True) if compiled else layer_of

        @torch.no_grad()
        def run() -> None:
            for (index, *_), arguments in zip(ran, inputs, strict=True):
                out = called(language_model.model.layers[index], *arguments)
                if index == config.num_hidden_layers - 1:
                    out = out[0] if isinstance(out, tuple) else out
                    language_model.lm_head(language_model.model.norm(out[:, -1]))

        return run

    def _layer_arguments(self, index: int, rows: int, tokens: int, keys: int) -> tuple[Any, ...]:
        model = self.plain.language_model.model
        config, device, dtype = model.config, self.plain.device, self.plain.dtype
        hidden = torch.randn(1, tokens, config.hidden_size, device=device, dtype=dtype)
        hidden = hidden.expand(rows, -1, -1).contiguous()
        shape = (rows, config.num_key_value_heads, keys - tokens, config.head_dim)
        memory = torch.randn(shape[1:], device=device, dtype=dtype).expand(shape)
        seen = torch.ones(tokens, keys, dtype=torch.bool, device=device).tril(keys - tokens)
        positions = torch.arange(tokens, device=device).expand(rows, -1)
        return (
            hidden,
            memory,
            memory,
            seen.expand(rows, 1, -1, -1),
            rotary(model, hidden, positions, index),
        )


def measure(
    name: str, seconds: float, step: float, stride: int, repeats: int, compiled: bool
) -> dict[str, Any]:
    """One model's table. Raises `AssertionError` when two ways give different logits."""
    sweep = Sweep(name, seconds, step, stride)
    expected = sweep.plain_loop()
    loops = {"transformerlens": sweep.transformerlens, "nnsight": sweep.nnsight}
    scale = expected.abs().max()
    apart = {
        way: float((call().cpu() - expected).abs().max() / scale)
        for way, call in {"engine": sweep.engine, **loops}.items()
    }
    assert max(apart.values()) < 1e-5, apart
    moved = (expected - expected.mean(0)).abs().amax(-1)
    assert bool((moved > 1e-3).any()), "the patches do nothing"
    bare = {"bare": sweep.bare()}
    if compiled:
        bare["bare_compiled"] = sweep.bare(compiled=True)
        bare["bare_compiled"]()  # compiles
    seconds_each = medians(
        {"engine": sweep.engine, "plain_loop": sweep.plain_loop, **bare, **loops}, repeats
    )
    ratios = {way: took / seconds_each["engine"] for way, took in seconds_each.items()}
    return {
        "cells": len(sweep.cells),
        "columns": int(sweep.corrupt["input_ids"].shape[1]),
        "seconds_per_cell": {w: took / len(sweep.cells) for w, took in seconds_each.items()},
        "times_the_engine": ratios,
        "share_of_bare_rate": ratios["bare"],
        "largest_relative_difference": apart,
    }


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["demo/plits", "demo/lal", "demo/pal"])
    parser.add_argument("--seconds", type=float, default=5.0, help="of sound")
    parser.add_argument("--step", type=float, default=0.5, help="seconds a stretch")
    parser.add_argument("--stride", type=int, default=1, help="of the cells, each so many-th")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compiled", action="store_true", help="bare layers by torch.compile too")
    parser.add_argument("--out", type=Path, default=Path("runs/patching.json"))
    args = parser.parse_args()
    report = header(default_device())
    for peer in ("transformer-lens", "nnsight"):
        report["versions"][peer] = importlib.metadata.version(peer)
    report["sizes"] = {"seconds": args.seconds, "step": args.step, "stride": args.stride}
    report["models"] = {}
    for name in args.models:
        print(name, flush=True)
        found = measure(name, args.seconds, args.step, args.stride, args.repeats, args.compiled)
        report["models"][name] = found
        print(json.dumps(found, indent=2), flush=True)
        write(report, args.out)


if __name__ == "__main__":
    main()
