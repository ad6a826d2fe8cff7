"""Dictionaries with random weights at a site, as if they had been trained there."""

from __future__ import annotations

from typing import Any

import torch

from palscope.features import Dictionary


def random_at(hook_point: str, d_in: int, **about: Any) -> Dictionary:
    """Of 24 latents, of which four fire a row; a transcoder where `hook_point_out` is given."""
    torch.manual_seed(len(hook_point))
    d_out = about.pop("d_out", None)
    made = Dictionary(d_in, 24, kind="topk", k=4, d_out=d_out, skip=d_out is not None)
    with torch.no_grad():
        made.b_enc.normal_()
        made.b_dec.normal_()
        if made.W_skip is not None:
            made.W_skip.normal_()
    made.about = {"hook_point": hook_point, **about}
    return made.eval()
