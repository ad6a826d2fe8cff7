"""A run seen whole: what enters each node, what each puts out, and the answer's gradient for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.graph import Graph, Stage
from palscope._hooks import HookedAudioModel
from palscope._hooks.hooked import hooked
from palscope.errors import PalscopeError
from palscope.measures._gradients import frozen, measured
from palscope.measures._metrics import Answers

Values = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Observed:
    """Values by hook point, without the axis of the only row.

    Attributes:
        inputs: of the prompt.
        values: `[tokens, …]`.
        gradients: of the metric, for nodes' outputs and for the inputs of networks and answer.
        metric: logit difference, or log-probability of the only answer, in nats.
    """

    inputs: Mapping[str, Any] = field(repr=False)
    values: Values
    gradients: Values = field(repr=False)
    metric: float

    def state(self, stage: Stage) -> Float[Tensor, "running d_model"]:
        """The residual stream as a stage reads it, where tokens run."""
        return self.values[norm_hook(stage)]


NORMS = {"attn": "ln1", "cross": "ln_cross", "mlp": "ln2"}
FINAL = "ln_final.hook_in"


def norm_hook(stage: Stage) -> str:
    """Where the residual stream enters a stage."""
    return f"blocks.{stage.layer}.{NORMS[stage.part]}.hook_in"


def output_hook(stage: Stage) -> str:
    """Where a stage's nodes put out: heads before the output projection."""
    if stage.part == "mlp":
        return f"blocks.{stage.layer}.hook_mlp_out"
    return f"blocks.{stage.layer}.{'attn' if stage.part == 'attn' else 'cross_attn'}.hook_z"


def memory_hook(model: HookedAudioModel, layer: int) -> str:
    """Where the states of sound that a layer only reads pass."""
    return f"blocks.{layer}.{model.audio_attention}.hook_audio_state"


def observe(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    graph: Graph,
    answers: Answers,
    *,
    gradients: bool = False,
    within: AbstractContextManager[Any] | None = None,
    dropped: int | None = None,
) -> Observed:
    """One forward pass on `inputs`, and with `gradients` its backward pass.

    Args:
        inputs: of one prompt, the answers' common beginning behind it.
        within: changes of the run (`in_force`) that hold meanwhile.
        dropped: no gradient goes through what this layer's heads and network write.
    """
    outputs = [output_hook(stage) for stage in graph.stages]
    entries = [norm_hook(stage) for stage in graph.stages]
    memories = [
        memory_hook(model, layer)
        for layer in range(graph.route.n_layers)
        if graph.columns[layer].audio.shape[1]
    ]
    encoder = graph.features_of(None)
    inside = [] if encoder is None else [encoder.hook_point]
    if inside and inputs.get("input_features") is None:
        raise PalscopeError(
            f"features at {inside[0]} are of clips that pass the encoder; give inputs with "
            "input_features, as model.inputs makes them."
        )
    kept: Values = {}

    def keep(name: str, apart: bool) -> Callable[..., Tensor]:
        def hook(tensor: Tensor, hook: Any) -> Tensor:
            # A copy alone goes into the norm, so that its gradient is of this way and no other.
            kept[name] = tensor.clone() if apart else tensor
            if not apart and name.startswith(f"blocks.{dropped}."):
                return tensor.detach()
            return kept[name]  # heads' outputs are seen in another shape: what goes on is this one

        return hook

    hooks = {name: keep(name, False) for name in [*inside, *outputs, *memories]}
    hooks |= {name: keep(name, True) for name in [*dict.fromkeys(entries), FINAL]}
    wanted = [*outputs, *(norm_hook(s) for s in graph.stages if s.part == "mlp"), FINAL]
    with (
        torch.set_grad_enabled(gradients),
        frozen(model),
        nullcontext() if within is None else within,
        hooked(model, hooks),
    ):
        logits = model(dict(inputs), logits_to_keep=1)[:, -1]
        value = measured(logits.double(), answers, answers.metric)
        found: Values = {}
        if gradients:
            tensors = [kept[name] for name in wanted]
            made = torch.autograd.grad(value.sum(), tensors, materialize_grads=True)
            found = {name: each[0] for name, each in zip(wanted, made, strict=True)}
    values = {name: each.detach()[0] for name, each in kept.items()}
    return Observed(inputs, values, found, float(value.detach()))
