"""Dictionaries that are spliced into a model, as places that can be addressed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from palscope._hooks import HookedAudioModel
from palscope._models.turns import SPLICED
from palscope._routing import TokenLayout
from palscope.errors import PalscopeError
from palscope.interventions._address import OF_SPLICES, SITES, Address, SiteName, Sound
from palscope.interventions._parts import (
    OF_CLIPS,
    Part,
    Resolved,
    checked,
    covered_by,
    used_columns,
)


@dataclass(frozen=True, eq=False)
class Splice:
    """Where a dictionary stands in a model, for the length of a block.

    Attributes:
        hook_point: of which it is, in its own words.
        latents: how many it has.
        streams: kinds of tokens that it was trained on, and so touches: "encoder", "text",
            "filler", or streams.
        reads: the site of what it takes; it names no tokens, but of the connector's output the
            stream.
        writes: the site of what it gives; of a transcoder another one.
        acts: by hook point that it reads, the one at which its latents pass.
        errors: by hook point that it writes, the one at which its error passes; none where it is
            spliced in without.
    """

    hook_point: str
    latents: int
    streams: frozenset[str]
    reads: Address
    writes: Address
    acts: Mapping[str, str]
    errors: Mapping[str, str]

    @property
    def encodes(self) -> bool:
        """Whether it stands in the encoder, so that clips are encoded with it."""
        return SITES[self.reads.site].tokens == "sound"

    def kept(self, part: Part, layout: TokenLayout) -> Part:
        """The part, of tokens that it touches alone."""
        if part.axis in OF_CLIPS:
            return part
        kinds = [kind for name, kind in layout.pathways.items() if name in self.streams]
        mine = torch.isin(layout.stream[part.row][part.columns], torch.tensor(kinds))
        return replace(
            part, columns=part.columns[mine], onwards=part.onwards and "text" in self.streams
        )


def splice_at(model: HookedAudioModel, hook_point: str | None) -> Splice:
    """The dictionary that is spliced in at a hook point; None where there is but one.

    Raises `PalscopeError` when there is none there, or several and none is named.
    """
    found: dict[str, Splice] = {
        each.hook_point: each for block in model.turns.values(SPLICED) for each in block
    }
    if not found:
        raise PalscopeError(
            "no dictionary is spliced in, so there are no features: address them within "
            "palscope.features.spliced(model, dictionary)."
        )
    if hook_point is None and len(found) == 1:
        return next(iter(found.values()))
    if hook_point not in found:
        asked = "name one of them by at=" if hook_point is None else f"none of them at {hook_point}"
        raise PalscopeError(f"dictionaries are spliced in at {', '.join(found)}; {asked}.")
    return found[hook_point]


def in_a_splice(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    address: Address,
    layout: TokenLayout,
    resolve: Callable[..., Resolved],
) -> Resolved:
    """A dictionary's latents, or its error, at the addressed ones of the tokens that it touches.

    `resolve` says where the site's own tokens stand. Raises what it raises, and `PalscopeError`
    when the dictionary touches none of them.
    """
    splice = splice_at(model, address.at)
    latents = address.site == "feature"
    if latents:
        checked("feature", address.features, splice.latents)
    hooks, site = (splice.acts, splice.reads) if latents else (splice.errors, splice.writes)
    if not hooks:
        raise PalscopeError(f"{splice.hook_point} is spliced in without its error term.")
    tokens = address.tokens
    if isinstance(site.tokens, Sound) and isinstance(tokens, Sound | None):  # of one stream alone
        tokens = Sound() if tokens is None else tokens
        tokens = replace(tokens, stream=tokens.stream or site.tokens.stream)
    found = resolve(model, inputs, replace(site, tokens=tokens), layout)
    kept = [
        (hooks[part.hook], splice.kept(part, layout)) for part in found.parts if part.hook in hooks
    ]
    parts = [
        replace(part, hook=hook, heads=address.features) for hook, part in kept if len(part.columns)
    ]
    if not parts:
        raise PalscopeError(
            f"{address.site}: the dictionary at {splice.hook_point} touches none of the addressed "
            f"tokens; it was trained on {', '.join(sorted(splice.streams))}."
        )
    if parts[0].axis in OF_CLIPS:
        return Resolved(address, tuple(parts), lambda: found.covered)
    return Resolved(address, tuple(parts), lambda: covered_by(layout, used_columns(parts)))


def site_of(model: HookedAudioModel, address: Address) -> SiteName:
    """The address's site; of a dictionary's, the one at which it is spliced in."""
    if address.site not in OF_SPLICES:
        return address.site
    splice = splice_at(model, address.at)
    return (splice.reads if address.site == "feature" else splice.writes).site
