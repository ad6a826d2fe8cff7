"""Dictionaries in the model: a run goes through their latents, which are hook points of their own.

Source of the form, and of the hook points' names: SAELens's `HookedSAETransformer`. Gradients are
those of Marks et al. 2024 (arXiv 2403.19647).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from palscope._features.dictionary import Dictionary
from palscope._features.touched import TouchedTokens
from palscope._hooks import HookedAudioModel
from palscope._hooks.added import ACTS, ERROR, hook_points_added
from palscope._hooks.hooked import hooked
from palscope._models.turns import SPLICED
from palscope._routing import Route
from palscope.errors import HookError, PalscopeError
from palscope.interventions._address import SITES
from palscope.interventions._hook_places import HookPlace, place_of
from palscope.interventions._parts import Part
from palscope.interventions._splices import Splice

Mask = Bool[Tensor, "..."]
"""Of the tokens of a tensor; what is read and what is written may be laid out differently."""


@contextmanager
def spliced(
    model: HookedAudioModel, *dictionaries: Dictionary, error: bool = True
) -> Generator[None, None, None]:
    """Within the block, runs of the model go through dictionaries at their hook points.

    What stands at a dictionary's `hook_point` (of a transcoder: at its `hook_point_out`) is
    replaced by what it decodes of its latents there, plus, with the error term, what that leaves of
    the real values in the same run: then nothing changes, to rounding, until latents are changed.
    Tokens are touched that `collect_activations` would store, of the kinds that the dictionary was
    trained on: never padding, nor what an encoder makes of the silence behind a clip.

    Two hook points are added for each dictionary, which caches, hooks and `capture` find:
    `HOOK_POINT.hook_sae_acts_post` has the latents, laid out as the site is, and
    `HOOK_POINT.hook_sae_error` the error; both are 0 at tokens that are not touched. By
    `Address("feature", …)` and `Address("feature_error", …)` they are changed as heads are.

    Gradients: with the error term those below the site are the bare model's, since the error is not
    detached; a latent's is the site's along its direction, and the error's is the site's.

    Args:
        model: on the route that they belong to.
        dictionaries: in evaluation mode, on any device: rows go there and back.
        error: whether to add the error term.

    Raises:
        PalscopeError: a dictionary does not say where it belongs, is of another site, width, model
            or route, or of one that has a dictionary already.
        HookError: within the block the model took another route, or one of them was never reached.
    """
    if not dictionaries:
        raise PalscopeError("give at least one dictionary to splice in.")
    with ExitStack() as stack:
        made = [_in_place(model, each, error) for each in dictionaries]
        stack.enter_context(model.turns.block(SPLICED, tuple(each.splice for each in made)))
        for each in made:
            stack.enter_context(hook_points_added(model, each.points))
            stack.enter_context(each.reads.watching())
            stack.enter_context(hooked(model, each.hooks))
        yield


@dataclass(eq=False)
class _InPlace:
    """A dictionary at its hook points."""

    model: HookedAudioModel
    dictionary: Dictionary
    splice: Splice
    pairs: Sequence[tuple[Part, Part]]
    """What is read, and what is written: one and the same but of a transcoder."""
    reads: TouchedTokens
    writes: TouchedTokens
    points: Mapping[str, HookPoint]
    """Those that are added, by name."""
    route: Route | None
    """To which it belongs, where it says so."""
    _taken: dict[str, tuple[Tensor, Mask]] = field(default_factory=dict[str, Any])

    @property
    def hooks(self) -> dict[str, Any]:
        """What is set on the model, by hook point."""
        found: dict[str, Any] = {}
        for read, written in self.pairs:
            if read.hook != written.hook:
                found[read.hook] = self._taking(read)
            found[written.hook] = self._replacing(read, written)
        return found

    def _taking(self, part: Part) -> Any:
        def take(tensor: Tensor, hook: Any) -> None:
            del hook
            self._taken[part.hook] = tensor, self.reads(part, tensor)

        return take

    def _replacing(self, read: Part, written: Part) -> Any:
        def replacing(tensor: Tensor, hook: Any) -> Tensor | None:
            del hook
            if self.route is not None and self.model.current_route != self.route:
                raise HookError(
                    f"the model took another route than the dictionary at "
                    f"{self.splice.hook_point} belongs to. Change the route before the block, and "
                    "splice in one of that route."
                )
            mask = self.writes(written, tensor)
            given = tensor, mask
            if read.hook != written.hook:
                given = self._taken.pop(read.hook)
            return self._replaced(read, written, given, tensor, mask) if bool(mask.any()) else None

        return replacing

    def _replaced(
        self, read: Part, written: Part, given: tuple[Tensor, Mask], tensor: Tensor, mask: Mask
    ) -> Tensor:
        """`tensor` as the dictionary has it, of what it was `given`."""
        here = self.dictionary.W_dec.device
        source, chosen = given[0], given[1].to(here)
        x = source[given[1].to(source.device)].flatten(1).to(here)
        latents = self.dictionary.encode(x)
        acts = self.points[self.splice.acts[read.hook]](_laid_out(latents, chosen))
        rows = self.dictionary.decode(acts[chosen], x)
        mine = mask.to(tensor.device)
        old = tensor[mine]
        if old.flatten(1).shape != rows.shape:
            raise PalscopeError(
                f"{written.hook} has {len(old)} rows of {old.flatten(1).shape[1]} numbers; the "
                f"dictionary at {self.splice.hook_point} gives {len(rows)} of {rows.shape[1]}."
            )
        if self.splice.errors:
            left = old.flatten(1).to(rows) - self.dictionary.decode(latents, x)
            at = mask.to(here)
            error = self.points[self.splice.errors[written.hook]](_laid_out(left, at))
            rows = rows + error[at]
        new = tensor.clone()
        new[mine] = rows.to(new).view_as(old)
        return new


def _laid_out(rows: Float[Tensor, "rows width"], mask: Mask) -> Float[Tensor, "*tokens width"]:
    """Rows where their tokens stand, and 0 elsewhere."""
    out = rows.new_zeros(*mask.shape, rows.shape[1])
    out[mask] = rows
    return out


def hook_points_of(model: HookedAudioModel, dictionary: Dictionary) -> tuple[str, str]:
    """What a dictionary reads in a model and what it writes, the same but of a transcoder.

    Raises:
        PalscopeError: it does not say so, is in training mode, or of another model or route.
    """
    about = dictionary.about
    hook_point: str | None = about.get("hook_point")
    written: str | None = hook_point if dictionary.centred else about.get("hook_point_out")
    if hook_point is None or written is None:
        raise PalscopeError(
            "this dictionary does not say where in the model it belongs: "
            f"about['{'hook_point' if hook_point is None else 'hook_point_out'}'] is missing. Give "
            "it: load_dictionary(path, hook_point=…)."
        )
    if dictionary.training:
        raise PalscopeError(
            f"the dictionary at {hook_point} is in training mode; set it to eval() first."
        )
    dictionary.check_model(model, hook_point)
    return hook_point, written


def _in_place(model: HookedAudioModel, dictionary: Dictionary, error: bool) -> _InPlace:
    """Where a dictionary stands in a model. Raises as `spliced`."""
    hook_point, written = hook_points_of(model, dictionary)
    reads, writes = (place_of(model, each) for each in (hook_point, written))
    streams = streams_of(model, dictionary, reads)
    splice = Splice(
        hook_point,
        dictionary.d_sae,
        streams,
        reads.address,
        writes.address,
        {part.hook: f"{part.hook}.{ACTS}" for part in reads.parts},
        {
            out.hook: f"{part.hook}.{ERROR}"
            for part, out in zip(reads.parts, writes.parts, strict=True)
            if error
        },
    )
    touched = TouchedTokens(model, reads, streams)
    return _InPlace(
        model,
        dictionary,
        splice,
        [*zip(reads.parts, writes.parts, strict=True)],
        touched,
        touched if dictionary.centred else TouchedTokens(model, writes, streams),
        {name: HookPoint() for name in (*splice.acts.values(), *splice.errors.values())},
        model.current_route if dictionary.about.get("record") else None,
    )


def streams_of(model: HookedAudioModel, dictionary: Dictionary, place: HookPlace) -> frozenset[str]:
    """Of which kinds of tokens a dictionary was trained.

    Of one that does not say it: as `collect_activations`, sound.
    """
    if said := dictionary.about.get("streams"):
        return frozenset(said)
    if SITES[place.address.site].tokens == "sound":
        return frozenset({"encoder"})
    return frozenset(stream.name for stream in model.current_route.streams)
