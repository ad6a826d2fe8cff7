"""Sparse autoencoders and transcoders: plain modules that take rows apart into latents and back.

Sources: Gao et al. 2024 (arXiv 2406.04093; TopK), Bussmann et al. 2024 (arXiv 2412.06410;
BatchTopK), Rajamanoharan et al. 2024 (arXiv 2407.14435; JumpReLU), Dunefsky et al. 2024 (arXiv
2406.11944; transcoders).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import Function

from palscope._features.store import Activations, check_made_by
from palscope._hooks import HookedAudioModel
from palscope._whole import whole_number
from palscope.errors import PalscopeError

Kind = Literal["topk", "batchtopk", "jumprelu"]

UNKNOWN = -1.0
"""A threshold that was not learned yet."""


class Dictionary(nn.Module):
    """A sparse autoencoder; or a transcoder, where what it gives is not what it takes.

    `latents = activation((x - b_dec) @ W_enc + b_enc)` and `x ≈ latents @ W_dec + b_dec`; a
    transcoder takes `x` as it is, and may add `x @ W_skip.T`. The activation, always of a single
    token by itself outside of training, is one of

    - `topk`: the `k` largest of a token, where they are positive;
    - `jumprelu`: those above their latent's threshold;
    - `batchtopk`: in training the `k` largest a token on average over the batch; else `jumprelu`
      with the threshold that was learned meanwhile, the smallest that a batch keeps.

    Args:
        d_in: numbers in a row.
        d_sae: latents.
        kind: of activation.
        k: of `topk` and `batchtopk`; of `jumprelu` how many training aims at.
        d_out: numbers in what a transcoder gives; None of an autoencoder.
        skip: whether a transcoder has a linear map beside the latents.

    Attributes:
        W_enc: `[d_in, d_sae]`.
        b_enc: `[d_sae]`.
        W_dec: `[d_sae, d_out]`, a row a latent.
        b_dec: `[d_out]`.
        W_skip: `[d_out, d_in]`, or None.
        threshold: `[d_sae]`.
        about: where it belongs and how it was trained, plain data: `hook_point`, `record` (weights
            and route), `mean` and `scale` of the rows that it was trained on.
    """

    W_skip: nn.Parameter | None

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        kind: Kind = "batchtopk",
        k: int = 32,
        d_out: int | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        whole_number(d_in, "d_in", least=1)
        whole_number(d_sae, "d_sae", least=1)
        if not 1 <= whole_number(k, "k") <= d_sae:
            raise PalscopeError(f"k is {k}; expected 1 to {d_sae}, the number of latents.")
        if skip and d_out is None:
            raise PalscopeError("an autoencoder with a skip has nothing to learn; give d_out.")
        self.kind: Kind = kind
        self.k = k
        self.centred = d_out is None
        self.bandwidth = 0.05
        self.about: dict[str, Any] = {}
        d_out = d_in if d_out is None else d_out
        rows = nn.functional.normalize(torch.randn(d_sae, d_out), dim=1)
        across = rows if self.centred else nn.functional.normalize(torch.randn(d_sae, d_in), dim=1)
        self.W_enc = nn.Parameter(across.T.contiguous())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(rows)
        self.b_dec = nn.Parameter(torch.zeros(d_out))
        self.W_skip = nn.Parameter(torch.zeros(d_out, d_in)) if skip else None
        self.threshold: Tensor
        if kind == "jumprelu":
            self.threshold = nn.Parameter(torch.full((d_sae,), 0.1))
        else:
            self.register_buffer("threshold", torch.full((d_sae,), UNKNOWN))

    @property
    def d_in(self) -> int:
        """Numbers in a row that it takes."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Latents."""
        return self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        """Numbers in a row that it gives."""
        return self.W_dec.shape[1]

    def pre_activations(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_sae"]:
        """What the activation takes. Raises `PalscopeError` for rows of another width."""
        if x.shape[-1] != self.d_in:
            raise PalscopeError(
                f"rows of {x.shape[-1]} numbers; this dictionary takes {self.d_in}"
                f"{self._belongs()}."
            )
        x = x.to(self.W_enc.dtype)
        return (x - self.b_dec if self.centred else x) @ self.W_enc + self.b_enc

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_sae"]:
        """The latents of rows. Raises `PalscopeError` for rows of another width."""
        return self.activate(self.pre_activations(x))

    def activate(self, pre: Float[Tensor, "*rows d_sae"]) -> Float[Tensor, "*rows d_sae"]:
        """The latents, of what `pre_activations` gave."""
        if self.kind == "topk":
            return _largest(pre, self.k)
        if self.kind == "batchtopk" and self.training:
            flat = pre.flatten()
            return _largest(flat, self.k * (flat.numel() // self.d_sae)).view_as(pre)
        if self.kind == "batchtopk" and bool((self.threshold < 0).any()):
            raise PalscopeError(
                "this BatchTopK dictionary has no threshold yet: train it, or set kind to 'topk'."
            )
        return JumpReLU.apply(pre, self.threshold, self.bandwidth)

    def decode(
        self,
        latents: Float[Tensor, "*rows d_sae"],
        x: Float[Tensor, "*rows d_in"] | None = None,
    ) -> Float[Tensor, "*rows d_out"]:
        """Rows of latents.

        Args:
            latents: from `encode`.
            x: what they were made of; a transcoder's skip takes it.
        """
        out = latents @ self.W_dec + self.b_dec
        if self.W_skip is None:
            return out
        if x is None:
            raise PalscopeError("a transcoder with a skip decodes with what it took: give x.")
        return out + x.to(self.W_skip.dtype) @ self.W_skip.T

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """Rows as the latents have them."""
        return self.decode(self.encode(x), x)

    # -- where it belongs -------------------------------------------------------------------------

    def check_rows(self, rows: Activations) -> None:
        """Raise `PalscopeError`, naming what differs, for rows of another site, width or model.

        Of a dictionary that does not say where it belongs, the width alone is held.
        """
        if rows.width != self.d_in:
            raise PalscopeError(
                f"{rows.hook_point} has rows of {rows.width} numbers; this dictionary takes "
                f"{self.d_in}{self._belongs()}."
            )
        self._check_site(rows.hook_point)
        record = self.about.get("record")
        if record and not rows.made_by(record):
            raise PalscopeError(
                f"{rows.store.folder} is of another model than this dictionary{self._belongs()}."
            )

    def check_model(self, model: HookedAudioModel, hook_point: str) -> None:
        """Raise `PalscopeError`, naming what differs, for another site or model."""
        self._check_site(hook_point)
        if record := self.about.get("record"):
            check_made_by("this dictionary", record, model, hook_point)

    def _check_site(self, hook_point: str) -> None:
        mine = self.about.get("hook_point")
        if mine not in (None, hook_point):
            raise PalscopeError(f"this dictionary is of {mine}, not of {hook_point}.")

    def _belongs(self) -> str:
        where = self.about.get("hook_point")
        return f", at {where}" if where else ""


class JumpReLU(Function):
    """`pre` where it is above its positive threshold, else 0.

    A step has no gradient; the threshold gets the one that a rectangle of the bandwidth's width
    around it would give (Rajamanoharan et al., equation 11).
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        """The latents."""
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre.relu() * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        """Of `pre` and of the threshold."""
        (gradient,) = grad_outputs
        pre, threshold = ctx.saved_tensors
        near = _rectangle(pre, threshold, ctx.bandwidth)
        of_threshold = -(threshold / ctx.bandwidth) * near * gradient
        return (pre > threshold) * gradient, _over_rows(of_threshold), None


class Fires(Function):
    """1 where `pre` is above its threshold, else 0: what is summed to L0 (equation 12)."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        """Whether each latent fires."""
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, None]:
        """Of the threshold alone."""
        (gradient,) = grad_outputs
        pre, threshold = ctx.saved_tensors
        near = _rectangle(pre, threshold, ctx.bandwidth)
        return None, _over_rows(-(1 / ctx.bandwidth) * near * gradient), None


def _over_rows(values: Tensor) -> Tensor:
    """The sum over all rows; by `sum` alone, which gradients of many outputs at once allow."""
    return values.sum(tuple(range(values.ndim - 1)))


def _rectangle(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype)


def _largest(values: Tensor, count: int) -> Tensor:
    """The largest in the last dimension, where they are positive; 0 elsewhere."""
    found = values.topk(count, dim=-1, sorted=False)
    return torch.zeros_like(values).scatter(-1, found.indices, found.values.relu())
