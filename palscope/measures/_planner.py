"""What a model will need before its weights are there: memory, arithmetic, and the least time.

Built on the counts of `cost_model`, from shapes alone:

    model = unloaded(backbone_config("meta-llama/Llama-3.2-1B"), Route.pal(16))
    plan = plan_for(model, Load(seconds=10))
    plan.memory, plan.work

`tests/measures/test_planner.py` holds peaks of memory against measured ones (within 15 % without
weights) and arithmetic against PyTorch's counter. Not counted are the libraries' own memory (some
hundred MiB with CUDA), the allocator's waste, and the encoder's activations, which are gone when
the decoder starts.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from torch import nn

from palscope._models import PalscopeForConditionalGeneration
from palscope.errors import PalscopeError
from palscope.measures._cost_model import (
    cache_bytes,
    decoding_costs,
    forward_costs,
    least_seconds,
    prompt_layout,
    training_costs,
)
from palscope.measures._memory import PassMemory

Bits = Literal[4, 8]
TrainedParts = Literal["connector", "connector and decoder"]

_BLOCK = 64
"""Weights that share a scale in bitsandbytes' 4-bit form."""


@dataclass(frozen=True)
class Load:
    """What the model is given at once.

    Attributes:
        seconds: of sound in each clip.
        text: words of each prompt, in tokens.
        answer: tokens of each answer.
        rows: prompts at once, a clip each.
    """

    seconds: float
    text: int = 40
    answer: int = 32
    rows: int = 1

    def __post_init__(self) -> None:
        if not self.seconds > 0 or min(self.text, self.answer, self.rows) < 1:
            raise PalscopeError(f"{self}: expected sound, text, an answer and at least one row.")


class Rates(NamedTuple):
    """A machine's speed: large matrix products (FLOP/s), and copying memory (bytes/s)."""

    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class Plan:
    """What a load needs.

    `memory` has one row a `phase` (inference, training) and `part`, `bytes`; the rows of a phase
    add up to its peak. Training's are left out where a resampler (Q-Former, LFST) is trained: what
    it keeps is not counted.

    `work` has one row a step: `phase` (prefill, decoding, training), `flops`, `bytes` (weights,
    inputs and outputs, each moved once) and, where rates were given, `seconds`: the least time at
    these rates, else NaN.
    """

    memory: pd.DataFrame
    work: pd.DataFrame


def plan_for(
    model: PalscopeForConditionalGeneration,
    load: Load,
    *,
    trained: TrainedParts = "connector",
    bits: Bits | None = None,
    rates: Rates | None = None,
) -> Plan:
    """Plan inference and training of a model under its route.

    Training is one step with AdamW in the weights' type, without gradient checkpointing, of the
    same clips and texts, with a loss on the answers.

    Args:
        model: on any device; `unloaded` makes one of shapes alone.
        load: what it is given.
        trained: what training changes. The encoder is frozen.
        bits: of the decoder's linear maps as bitsandbytes would hold them; None: the model's type.
        rates: the machine's, for the least time.

    Raises:
        PalscopeError: the route has no audio; or a decoder of few bits is to be trained, or to be
            timed: the work of its kernels is not known.
    """
    if bits is not None and (trained != "connector" or rates is not None):
        raise PalscopeError(
            f"a decoder of {bits} bits can neither be trained nor be timed from shapes; leave the "
            "rates out and train the connector alone."
        )
    if not any(model.route.layers(stream.name) for stream in model.route.streams):
        raise PalscopeError("no layer of this route has audio; plan for one that has.")
    model.freeze_bases()
    model.connector.requires_grad_(True)
    model.language_model.requires_grad_(trained == "connector and decoder")
    clip: dict[str, Any] = {
        "frames": model.frame_grid.tokens(load.seconds),
        "seconds": load.seconds,
        "rows": load.rows,
    }
    prompt = prompt_layout(model, text=load.text, **clip)
    whole = prompt_layout(model, text=load.text + load.answer, **clip)
    targets = load.rows * load.answer
    weights = _weights(model, bits)

    caches: list[Any] = [cache_bytes(model, layout) for layout in (prompt, whole)]
    first, last = (int(cache["bytes"].sum()) for cache in caches)
    prefill = max(held for _, _, held in PassMemory(model, prompt).held(load.rows))
    memory = [
        *(("inference", part, size) for part, size in weights.items()),
        ("inference", "cache of the prompt", first),
        ("inference", "cache of the answer", last - first),
        ("inference", "states of the prefill", max(prefill - last, 0)),
    ]
    passes = PassMemory(model, whole, trained=True)
    if not passes.frames_trained:
        weight_bytes = sum(weight.numel() * weight.itemsize for weight in _trained(model))
        memory += [
            *(("training", part, size) for part, size in weights.items()),
            ("training", "AdamW's moments", 2 * weight_bytes),
            ("training", "gradients and kept states", _training_peak(passes, targets)),
        ]
    encoder = _encoder_flops(model, load)
    # The prefill gives the first word; the middle step stands for each of the others.
    step = decoding_costs(model, prompt, written=load.answer // 2)
    work = [
        _work("prefill", forward_costs(model, prompt), encoder, 1, rates),
        _work("decoding", step, 0, load.answer - 1, rates),
        _work("training", training_costs(model, whole, targets=targets), encoder, 1, rates),
    ]
    return Plan(pd.DataFrame(memory, columns=["phase", "part", "bytes"]), pd.DataFrame(work))


def measured_rates(device: torch.device | str, dtype: torch.dtype, size: int = 2048) -> Rates:
    """The rates of this machine: the best of five products of squares and of five copies.

    Args:
        device: where to measure.
        dtype: of the products.
        size: rows and columns; a copy is of as many numbers.
    """
    square = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(square)
    product = _best(lambda: torch.mm(square, square, out=out))
    # Larger than the caches of a CPU.
    source = torch.zeros(64 * 2**20, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copied = _best(lambda: target.copy_(source))
    return Rates(2 * size**3 / product, 2 * source.nbytes / copied)


def _best(call: Callable[[], Any]) -> float:
    call()
    times: list[float] = []
    for _ in range(5):
        _synchronise()
        start = time.perf_counter()
        call()
        _synchronise()
        times.append(time.perf_counter() - start)
    return min(times)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _weights(model: PalscopeForConditionalGeneration, bits: Bits | None) -> dict[str, int]:
    """Bytes of the weights, tied ones once."""
    decoder: nn.Module = model.language_model
    sizes = {
        "decoder": _bytes(decoder),
        "encoder": _bytes(model.encoder),
        "connector": _bytes(model.connector),
    }
    if bits is not None:
        head = decoder.get_submodule("lm_head")
        for module in decoder.modules():
            # As bitsandbytes does: every linear map but the unembedding.
            if isinstance(module, nn.Linear) and module is not head:
                weight = module.weight
                scales = module.out_features if bits == 8 else -(-weight.numel() // _BLOCK)
                sizes["decoder"] -= weight.numel() * weight.itemsize
                sizes["decoder"] += weight.numel() * bits // 8 + 4 * scales
    return sizes


def _bytes(module: nn.Module) -> int:
    held = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.itemsize for tensor in held)


def _trained(model: PalscopeForConditionalGeneration) -> Iterator[nn.Parameter]:
    return (weight for weight in model.parameters() if weight.requires_grad)


def _training_peak(passes: PassMemory, targets: int) -> int:
    """The most bytes of kept states and gradients at once.

    The backward pass frees a layer's states and makes its gradients, from the top downwards.
    """
    kept = Counter[int]()
    for _, layer, size in passes.kept(targets):
        kept[layer] += size
    made = _gradients_by_layer(passes)
    standing = sum(kept.values())
    # The loss: logits in the model's type beside those in float32, and both gradients.
    peak = standing + 2 * targets * passes.config.vocab_size * 4
    standing += made[passes.route.n_layers]
    for layer in reversed(range(passes.route.n_layers)):
        standing += made[layer]
        peak = max(peak, standing + passes.backward_states(layer))
        standing -= kept[layer]
    return max(peak, sum(made.values()))


def _gradients_by_layer(passes: PassMemory) -> Counter[int]:
    """Bytes of gradients by decoder layer; -1 below them, and their number above."""
    made = Counter[int]()
    for name, weight in passes.model.named_parameters():
        if weight.requires_grad:
            # language_model.model.layers.7.…, connector.layer_projectors.frames.layer_7.…
            number = re.search(r"\.(?:layers\.|layer_)(\d+)\.", name)
            layer = int(number[1]) if number else -1
            if ".lm_head." in name:
                layer = passes.route.n_layers
            made[layer] += weight.numel() * weight.itemsize
    return made


def _encoder_flops(model: PalscopeForConditionalGeneration, load: Load) -> int:
    """About: two operations a weight and token; attention is left out."""
    weights = sum(weight.numel() for weight in model.encoder.parameters())
    tokens = max(each.grid.tokens(load.seconds) for each in model.encoder.emits)
    return 2 * weights * tokens * load.rows


def _work(
    phase: str, table: pd.DataFrame, encoder: int, times: int, rates: Rates | None
) -> dict[str, Any]:
    columns: Any = table
    seconds = float("nan")
    if rates is not None:
        spent = least_seconds(table, **rates._asdict())
        seconds = times * spent + encoder / rates.flops_per_second
    return {
        "phase": phase,
        "flops": times * int(columns["flops"].sum()) + encoder,
        "bytes": times * int(columns["bytes"].sum()),
        "seconds": seconds,
    }
