"""Latents of dictionaries as nodes: what each writes, and what is left to its network or encoder.

What stands at a dictionary's site is a sum: each chosen latent times its row of the decoder, and
the rest, which holds all other latents, the bias and the error. So the graph is the model's own,
and no run of it goes through the dictionary's reconstruction. Source: Marks et al. 2024 (arXiv
2403.19647; sparse feature circuits with error nodes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._features.dictionary import Dictionary


@dataclass(frozen=True, eq=False)
class FeaturePlace:
    """A dictionary at its site, and which of its latents are nodes.

    Attributes:
        hook_point: what it reads.
        layer: of the decoder, whose network it stands at; None in the encoder.
        of_input: whether it reads what enters the network (a transcoder), not what comes out.
        passed: whether sound also comes into the decoder past this place in the encoder, as from
            lower layers that the connector hears, too.
        latents: by the name of a group of positions.
    """

    dictionary: Dictionary
    hook_point: str
    layer: int | None
    of_input: bool
    passed: bool = False
    latents: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    def acts(
        self, x: Float[Tensor, "*rows d_in"], latents: tuple[int, ...]
    ) -> Float[Tensor, "*rows latents"]:
        """Some latents of what stands there, on the device and in the type of `x`."""
        return self.every(x)[..., list(latents)].to(x)

    def every(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_sae"]:
        """All latents of what stands there, on the dictionary's device."""
        return self.dictionary.encode(x.to(self.dictionary.W_enc))

    def rows(self, latents: tuple[int, ...], like: Tensor) -> Float[Tensor, "latents d_out"]:
        """What one unit of each latent writes."""
        return self.dictionary.W_dec[list(latents)].detach().to(like)

    def split(
        self,
        whole: Float[Tensor, "*rows tokens d_out"],
        acts: Float[Tensor, "*rows tokens latents"],
        latents: tuple[int, ...],
    ) -> Float[Tensor, "*rows nodes tokens d_out"]:
        """What the rest and each latent write, the rest first; they sum to `whole`."""
        mine = acts.mT[..., None] * self.rows(latents, whole)[:, None]
        return torch.cat([(whole - mine.sum(-3))[..., None, :, :], mine], -3)
