"""Clips that are attached to calls with tokens alone.

TransformerLens's tools pass token ids, and no clips. Within `attach_clips`, they are found again by
the ids: by the whole prompt, or by ids of audio places that each name their clip, so that two
sounds in prompts of the same words are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

from palscope._routing import TokenLayout
from palscope.errors import PromptError


@dataclass(frozen=True, eq=False)
class AttachedPrompt:
    """An input whose clips are attached.

    Attributes:
        ids: `input_ids`.
        mask: `attention_mask`.
        layout: of them.
        tokens: `ids` in which an audio place holds `first` and its clip's number.
        first: id of the places of clip 0.
        clips: `input_features` and `feature_lengths`, or `audio`.
    """

    ids: Int[Tensor, "rows columns"]
    mask: Int[Tensor, "rows columns"]
    layout: TokenLayout
    tokens: Int[Tensor, "rows columns"]
    first: int
    clips: Mapping[str, Any]

    @classmethod
    def of(cls, inputs: Mapping[str, Any], layout: TokenLayout, first: int) -> AttachedPrompt:
        """That of what `inputs` gave."""
        ids: Tensor = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        places = layout.stream.to(ids.device) >= 0
        return cls(
            ids,
            torch.ones_like(ids) if mask is None else mask,
            layout,
            torch.where(places, layout.clip.to(ids) + first, ids),
            first,
            {
                name: inputs[name]
                for name in ("input_features", "feature_lengths", "audio")
                if inputs.get(name) is not None
            },
        )

    @property
    def n_clips(self) -> int:
        """How many clips it holds."""
        return len(self.layout.clip_row)

    def begins(self, row: Int[Tensor, "longer"], own: Int[Tensor, "rows columns"]) -> list[int]:
        """The rows of `own` (`ids` or `tokens`) that `row` is or goes on from."""
        width = own.shape[1]
        if len(row) < width:
            return []
        return [int(i) for i in (own == row[:width]).all(1).nonzero()[:, 0]]

    def clips_of(self, row: int) -> tuple[PromptClip, ...]:
        """The clips of one row."""
        return tuple((self, clip) for clip, at in enumerate(self.layout.clip_row) if at == row)


def found_clips(
    ids: Int[Tensor, "rows columns"],
    mask: Int[Tensor, "rows columns"] | None,
    prompts: Sequence[tuple[AttachedPrompt, ...]],
    audio_token_id: int,
    first_sound_id: int,
) -> dict[str, Any]:
    """`input_ids` as the model takes them, the clips they are about, and their `attention_mask`.

    Args:
        prompts: of the open blocks, the innermost first.
        first_sound_id: ids from here on name clips.

    Raises:
        PromptError: the ids name clips of a block that is closed, or fit several prompts, or none.
    """
    places = (ids == audio_token_id) | (ids >= first_sound_id)
    given: dict[str, Any] = {"input_ids": torch.where(places, audio_token_id, ids)}
    if bool((ids >= first_sound_id).any()):
        rows = _named(ids, [each for block in prompts for each in block], first_sound_id)
    else:
        rows = _fitting(ids, prompts[0], has_audio=bool(places.any()))
    if rows is None and not bool(places.any()):  # a text of its own
        return given
    if rows is None:  # other words about the clips of the only prompt, in their order
        (prompt,) = prompts[0]
        if mask is None and prompt.mask.shape == ids.shape:
            mask = prompt.mask
        elif mask is None:
            _check_unpadded(prompt.mask)
            mask = torch.ones_like(ids)
        return given | dict(prompt.clips) | {"attention_mask": mask}
    if mask is None:
        mask = torch.stack([_row_mask(ids[at], row) for at, row in enumerate(rows)])
    clips = [clip for row in rows for clip in row.clips]
    return given | _gathered(clips) | {"attention_mask": mask}


PromptClip = tuple[AttachedPrompt, int]
"""A clip of a prompt, by its number there."""


@dataclass(frozen=True)
class _Row:
    """Where a row of ids comes from: its clips, and the prompt's row that it is or goes on from."""

    clips: tuple[tuple[AttachedPrompt, int], ...]
    source: tuple[AttachedPrompt, int] | None


def _named(ids: Tensor, prompts: Sequence[AttachedPrompt], first_sound_id: int) -> list[_Row]:
    """Rows whose audio places name their clips."""
    rows: list[_Row] = []
    for row in ids:
        clips: list[PromptClip] = []
        numbers: list[int] = cast(
            Any, torch.unique_consecutive(row[row >= first_sound_id])
        ).tolist()
        for number in numbers:
            owner = next((p for p in prompts if 0 <= number - p.first < p.n_clips), None)
            if owner is None:
                raise PromptError(
                    "these tokens were given by an `attach_clips` that is over. Call the tool "
                    "within it, or give what inputs() made."
                )
            clips.append((owner, number - owner.first))
        sources = [(p, at) for p in prompts for at in p.begins(row, p.tokens)]
        rows.append(_Row(tuple(clips), sources[0] if sources else None))
    return rows


def _fitting(
    ids: Tensor, prompts: tuple[AttachedPrompt, ...], has_audio: bool
) -> list[_Row] | None:
    """Rows that fit the prompts' by their words; None where they are other words about one.

    Args:
        has_audio: whether there are audio places.
    """
    found = [[(p, at) for p in prompts for at in p.begins(row, p.ids)] for row in ids]
    whole = [
        p
        for p in prompts
        if len(p.ids) == len(ids) and all((p, at) in each for at, each in enumerate(found))
    ]
    if len(whole) == 1:
        found = [[(whole[0], at)] for at in range(len(ids))]
    rows = [[_Row(prompt.clips_of(at), (prompt, at)) for prompt, at in each] for each in found]
    several = [each for each in rows if len(each) > 1 and any(row.clips for row in each)]
    if has_audio and (len(whole) > 1 or several):
        raise PromptError(
            "these tokens fit several of the attached prompts: their words are the same. "
            "Give the tool the tokens that attach_clips gives, which name their clips: "
            "with model.attach_clips(clean, corrupt) as (clean_tokens, corrupt_tokens)."
        )
    if all(rows):
        return [each[0] for each in rows]
    if len(prompts) == 1 or not has_audio:
        return None
    raise PromptError(
        f"these tokens fit none of the {len(prompts)} attached prompts. Give what inputs() "
        "made of them, or attach the clips of one prompt alone."
    )


def _row_mask(ids: Int[Tensor, "columns"], row: _Row) -> Int[Tensor, "columns"]:
    """Which columns of a row are real: its prompt's, and all behind them."""
    real = torch.ones_like(ids)
    if row.source is not None:
        prompt, at = row.source
        real[: prompt.ids.shape[1]] = prompt.mask[at]
    else:
        for prompt, clip in row.clips:
            _check_unpadded(prompt.mask[prompt.layout.clip_row[clip]])
    return real


def _check_unpadded(mask: Tensor) -> None:
    if not bool(mask.all()):
        raise PromptError(
            "these words are not those of the attached prompt, which is padded, so their "
            "padding is not known. Give attention_mask."
        )


def _gathered(clips: Sequence[PromptClip]) -> dict[str, Any]:
    """What a call takes of these clips, in this order."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in clips))
    if not prompts:
        return {}
    if len(prompts) == 1:
        (prompt,) = prompts
        order = [clip for _, clip in clips]
        if order == list(range(prompt.n_clips)):
            return dict(prompt.clips)
        if (audio := prompt.clips.get("audio")) is not None:
            return {"audio": audio.picked(order)}
    if any("audio" in prompt.clips for prompt in prompts):
        raise PromptError(
            "clips of several prompts are attached together only from input_features, not encoded "
            "(audio=)."
        )
    features = [prompt.clips["input_features"][clip] for prompt, clip in clips]
    lengths = [prompt.clips["feature_lengths"][clip] for prompt, clip in clips]
    batch = features[0].new_zeros(len(clips), len(features[0]), max(f.shape[1] for f in features))
    for row, each in zip(batch, features, strict=True):
        row[:, : each.shape[1]] = each
    return {"input_features": batch, "feature_lengths": torch.stack(lengths)}
