"""Attention: masses sum to 1 and are the class's own; a knockout is a mask by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._hooks.attention import CROSSING
from palscope._verify.checks import differs
from palscope._verify.results import Result, compared, judged, unchecked
from palscope._verify.tolerance import rounding
from palscope.interventions import Address, Filler, Knockout, Sound, intervene
from palscope.measures import attention_mass

_TELLS = 10
"""How many times as much as rounding may do must a knockout do, to be told from none."""


def masses(
    hooked: HookedAudioModel,
    inputs: Mapping[str, Tensor],
    own: Sequence[Float[Tensor, "heads columns"]] | None = None,
    own_limit: float = 0.0,
) -> Result:
    """Whether the masses that the last token gives out sum to 1, and are the class's attention.

    Args:
        inputs: one row.
        own: the class's attention of the last token, by layer; None where there is none.
        own_limit: how far apart the two may be.
    """
    table: Any = attention_mass(hooked, inputs)
    sound = table["pathway"] != "text"
    attention = sound & (hooked.audio_attention == CROSSING)  # each of two sums to 1
    sums = table.groupby(["layer", "head", attention.rename("attention")])["mass"].sum()
    off = float((sums - 1).abs().max())
    allowed = rounding(2, 1.0, hooked.model.dtype)["atol"]
    numbers: dict[str, Any] = {"heads": len(sums), "sum_off": off, "limit": allowed}
    says = f"of {len(sums)} heads sum to 1 within {off:.1e}"
    if not off <= allowed:
        return judged("masses", False, f"{says}; expected {allowed:.1e}", **numbers)
    if own is None:
        says += "; there is no attention of its own to hold them against"
        return judged("masses", True, says, **numbers)
    if table["layer"].nunique() != len(own):
        return judged("masses", False, f"{table['layer'].nunique()} layers, its own {len(own)}")
    apart = 0.0
    for layer, wanted in enumerate(own):
        mine = table[table["layer"] == layer].pivot(index="head", columns="key", values="mass")
        got = torch.tensor(mine.to_numpy())
        if got.shape != wanted.shape:
            says = f"layer {layer}: {list(got.shape)} masses, its own {list(wanted.shape)}"
            return judged("masses", False, says, **numbers)
        apart = max(apart, float((got - wanted).abs().max()))
    numbers |= {"apart": apart, "apart_limit": own_limit}
    says += f", each within {apart:.1e} of its own attention; rounding may do {own_limit:.1e}"
    return judged("masses", apart <= own_limit, says, **numbers)


@torch.no_grad()
def knockout(
    hooked: HookedAudioModel,
    inputs: Mapping[str, Tensor],
    whole: Float[Tensor, "columns vocabulary"],
    wanted: Float[Tensor, "columns vocabulary"],
    text: Bool[Tensor, "columns"],
    limit: float,
    beside: str,
) -> Result:
    """Whether text that is cut off from all sound gives what a mask by hand gives.

    Fillers, where the class has them, are cut off, too: text reads them.

    Args:
        inputs: one row.
        whole: logits where sound is heard.
        wanted: logits under that mask.
        text: the columns that count.
        limit: how far apart logits may be, as a share of their spread.
        beside: whose mask it is.
    """
    text = text.cpu()
    cuts = [Knockout(Address("pattern", Sound()))]
    if hooked.layout(inputs).fillers_hear:
        cuts.append(Knockout(Address("pattern", Sound(), queries=Filler())))
    with intervene(hooked, inputs, cuts):
        got = hooked(inputs)[0].cpu()[text]
    wanted = wanted.cpu()[text]
    found = compared("knockout", got, wanted, limit, beside)
    if found.verdict == "FAILED":
        return found
    times = differs(wanted, whole.cpu()[text], limit)
    numbers = {**found.numbers, "effect": times}
    if times < _TELLS:
        says = f"sound changes the logits {times:.2g} times as much as rounding: too little to tell"
        return unchecked("knockout", says, **numbers)
    says = f"of all sound, {found.says}; uncut they are {times:.1e} times as far apart"
    return Result("knockout", found.verdict, says, numbers)


@torch.no_grad()
def cut_by_hand(
    hooked: HookedAudioModel, inputs: Mapping[str, Tensor]
) -> Float[Tensor, "columns vocabulary"]:
    """Logits where the scores of text for sound are set to minus infinity, layer by layer.

    In an attention of sound alone there may be nothing left: it then writes nothing.
    """
    route, layout = hooked.current_route, hooked.layout(inputs)
    is_sound = layout.stream[0].cpu() >= 0
    hooks: list[tuple[str, Any]] = []
    for layer in range(route.n_layers):
        columns = layout.layer_columns(route, layer)
        crosses = route.crosses(layer)
        queries = columns.running[0].cpu()
        keys = (columns.crossed if crosses else columns.keys)[0].cpu()
        cut = (~is_sound[queries] & (queries >= 0))[:, None] & (is_sound[keys] & (keys >= 0))
        attention = f"blocks.{layer}.{hooked.audio_attention if crosses else 'attn'}"
        hooks.append((f"{attention}.hook_attn_scores", _cutting(cut)))
        if crosses:
            hooks.append((f"{attention}.hook_pattern", _nothing_left))
    return hooked.run_with_hooks(inputs, fwd_hooks=hooks)[0]


def _cutting(cut: Bool[Tensor, "queries keys"]) -> Any:
    def hook(scores: Tensor, hook: Any) -> Tensor:
        del hook
        return scores.masked_fill(cut.to(scores.device), float("-inf"))

    return hook


def _nothing_left(pattern: Tensor, hook: Any) -> Tensor:
    del hook
    return pattern.nan_to_num(0.0)
