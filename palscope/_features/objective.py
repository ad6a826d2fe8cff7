"""What a dictionary is trained for: rows as it has them, few latents a row, none that is dead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palscope._features.dictionary import UNKNOWN, Dictionary, Fires

AUXILIARY = 1 / 32
"""Weight of the loss that dead latents get (Gao et al., appendix A.2)."""
THRESHOLD_RATE = 0.01
"""How fast BatchTopK's threshold follows (SAELens's)."""


class Objective(nn.Module):
    """A dictionary and its loss on rows that are standardised.

    The loss is the squared error, as a share of the rows' own squares; for `jumprelu` the squared
    relative distance of L0 from `k`; and, while there are latents that have not fired for
    `dead_after` rows, the error that the best of those would leave of what is left (Gao et al.).

    Args:
        dictionary: is trained.
        dead_after: rows.

    Attributes:
        idle: rows since each latent fired.
    """

    idle: Tensor

    def __init__(self, dictionary: Dictionary, dead_after: int) -> None:
        super().__init__()
        self.dictionary = dictionary
        self.dead_after = dead_after
        self.register_buffer("idle", torch.zeros(dictionary.d_sae, dtype=torch.long))

    def forward(
        self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]
    ) -> dict[str, Tensor]:
        """The loss of rows and what should become of them (of an autoencoder, the same)."""
        dictionary = self.dictionary
        pre = dictionary.pre_activations(x)
        latents = dictionary.activate(pre)
        left = y - dictionary.decode(latents, x)
        loss = left.square().sum() / y.square().sum()
        if dictionary.kind == "jumprelu":
            fires = Fires.apply(pre, dictionary.threshold, dictionary.bandwidth)
            loss = loss + (fires.sum(-1).mean() / dictionary.k - 1).square()
        loss = loss + AUXILIARY * self._of_the_dead(pre, left.detach())
        if self.training:
            self._note(latents.detach(), len(x))
        return {"loss": loss}

    def _of_the_dead(self, pre: Tensor, left: Tensor) -> Tensor:
        """What the best of the dead latents leave of what is left, as a share of it."""
        dead = self.idle >= self.dead_after
        count = min(int(dead.sum()), max(1, self.dictionary.d_out // 2))
        if not count:
            return left.new_zeros(())
        best = torch.where(dead, pre, -torch.inf).topk(count, dim=-1, sorted=False)
        latents = torch.zeros_like(pre).scatter(-1, best.indices, best.values.relu())
        still = left - latents @ self.dictionary.W_dec
        return (still.square().sum() / left.square().sum()).nan_to_num(0.0)

    @torch.no_grad()
    def _note(self, latents: Tensor, rows: int) -> None:
        """Which latents fired, and the smallest of what the batch keeps."""
        self.idle += rows
        self.idle[(latents > 0).any(0)] = 0
        if self.dictionary.kind == "batchtopk" and bool((kept := latents[latents > 0]).numel()):
            least, threshold = kept.min(), self.dictionary.threshold
            first = bool((threshold == UNKNOWN).all())
            threshold.lerp_(least.expand_as(threshold), 1.0 if first else THRESHOLD_RATE)

    @torch.no_grad()
    def keep_unit_rows(self) -> None:
        """The decoder's rows at length 1: else latents could be made small for nothing."""
        rows = self.dictionary.W_dec
        rows.copy_(torch.nn.functional.normalize(rows, dim=1))

    @torch.no_grad()
    def drop_gradient_along_rows(self) -> None:
        """Of the decoder: a step along a row is undone by `keep_unit_rows`, but moves Adam."""
        rows = self.dictionary.W_dec
        if rows.grad is not None:
            rows.grad -= (rows.grad * rows).sum(1, keepdim=True) * rows


@torch.no_grad()
def unstandardised(dictionary: Dictionary, told: Mapping[str, Any]) -> Dictionary:
    """The dictionary for rows as they are, of one for rows less their mean, by their scale.

    Its decoder's rows have length 1 again, where that changes no choice of latents: always but for
    `topk` with a scale of each dimension's own. BatchTopK becomes JumpReLU with its threshold.

    Args:
        dictionary: of standardised rows.
        told: `mean` and `scale` of what it takes, `mean_out` and `scale_out` of what it gives.
    """
    mean, scale, mean_out, scale_out = (
        torch.as_tensor(told[name], dtype=torch.float32)
        for name in ("mean", "scale", "mean_out", "scale_out")
    )
    kind = "topk" if dictionary.kind == "topk" else "jumprelu"
    made = Dictionary(
        dictionary.d_in,
        dictionary.d_sae,
        kind=kind,
        k=dictionary.k,
        d_out=None if dictionary.centred else dictionary.d_out,
        skip=dictionary.W_skip is not None,
    )
    old = {name: value.detach().cpu() for name, value in dictionary.state_dict().items()}
    W_enc, b_enc = old["W_enc"] / scale[:, None], old["b_enc"]
    W_dec, b_dec = old["W_dec"] * scale_out, old["b_dec"] * scale_out + mean_out
    threshold = old["threshold"]
    if not dictionary.centred:
        b_enc = b_enc - mean @ W_enc
    if made.W_skip is not None:
        W_skip = scale_out[:, None] * old["W_skip"] / scale
        made.W_skip.copy_(W_skip)
        b_dec = b_dec - W_skip @ mean
    norms = W_dec.norm(dim=1)
    if kind == "jumprelu" or torch.allclose(norms, norms[:1]):
        W_enc, b_enc, threshold = W_enc * norms, b_enc * norms, threshold * norms
        W_dec = W_dec / norms[:, None]
    made.W_enc.copy_(W_enc)
    made.b_enc.copy_(b_enc)
    made.W_dec.copy_(W_dec)
    made.b_dec.copy_(b_dec)
    if kind == "jumprelu":
        made.threshold.copy_(threshold)
    return made
