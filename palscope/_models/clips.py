"""Clips as the model knows them: computed once, used by every question and every decoding step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._models.stamps import Stamp
from palscope._queued import queued
from palscope._routing import TokenLayout


@dataclass
class AudioClips:
    """The stream tokens of a batch of clips, and the keys and values made of them so far.

    Made by `PalscopeForConditionalGeneration.encode_audio`; give it to `forward` or `generate` as
    `audio=` in place of `input_features` to ask again about the same clips without encoding them.
    Valid for the weights it was made with: others refuse it.

    Attributes:
        streams: tokens of each stream, `Float[Tensor, "clips _tokens _width"]`.
        frames: frame tokens of each clip.
        seconds: duration of each clip.
        order: the stored clip that stands for each clip of the prompt.
        reused: whether more questions may follow, for which the clips' keys and values are kept:
            as much memory again as they take in a cache.
        goes_on: the first clip is the next piece of the last one in the cached prompt.
        made_of: the weights that streams are made of (`palscope._models.stamps`); None where nobody
            else gets the clips. `keys_values` stand beside those that they are made of.
    """

    streams: dict[str, Float[Tensor, "clips _tokens _width"]]
    frames: tuple[int, ...]
    seconds: tuple[float, ...]
    order: tuple[int, ...]
    keys_values: dict[tuple[str, int], tuple[Stamp, tuple[Tensor, Tensor]]] = field(
        default_factory=dict[tuple[str, int], tuple[Stamp, tuple[Tensor, Tensor]]]
    )
    reused: bool = True
    goes_on: bool = False
    made_of: Stamp | None = None

    def __len__(self) -> int:
        return len(self.order)

    def picked(self, order: list[int]) -> AudioClips:
        """These clips in another order, or several times over; what is computed is shared."""
        return AudioClips(
            self.streams,
            self.frames,
            self.seconds,
            tuple(self.order[i] for i in order),
            self.keys_values,
            self.reused,
            self.goes_on,
            self.made_of,
        )

    def columns(
        self,
        values: Float[Tensor, "clips tokens *rest"],
        layout: TokenLayout,
        columns: Tensor,
    ) -> Float[Tensor, "batch columns *rest"]:
        """A stream's values at the layout's `columns`; other tokens' columns hold any of them."""
        order = queued(torch.tensor(self.order), columns.device)
        at = columns.clamp(min=0)
        clip = order[layout.clip.gather(1, at).clamp(min=0)]
        token = layout.token.gather(1, at).clamp(min=0, max=values.shape[1] - 1)
        # Selected in one dimension: indices in two have a backward pass that sorts.
        places = (clip * values.shape[1] + token).flatten().to(values.device)
        rows = values.flatten(0, 1).index_select(0, places)
        return rows.unflatten(0, columns.shape)
