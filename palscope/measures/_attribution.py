"""Gradient attribution: from an answer back to audio tokens and to the mel spectrogram.

Both measures say, cell by cell, how much an answer would move if a place of one run held what it
holds in another: what `activation_patching` finds by running the model once a cell, estimated by
gradients for all cells at once. Attribution patching takes the gradient where the run is now and
goes straight (Nanda 2023, neelnanda.io/attribution-patching; Syed et al. 2023, arXiv 2310.10348);
integrated gradients follow the line between the two runs, and so account for the whole difference
between its ends (Sundararajan et al. 2017, arXiv 1703.01365).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope.audio._timegrid import overlaps
from palscope.errors import PalscopeError
from palscope.interventions import Address, Sound, capture
from palscope.interventions import resolve as resolved_at
from palscope.interventions._address import SITES
from palscope.interventions._apply import Bound
from palscope.interventions._before_decoder import encoder_grid
from palscope.interventions._capture import Captured
from palscope.interventions._parts import Part, Resolved
from palscope.interventions._splices import site_of
from palscope.measures._columns import NO_SOUND
from palscope.measures._gradients import Moved, Values, gradients_of, leaf
from palscope.measures._metrics import Answers, Metric
from palscope.measures._patching import Direction, source_and_target

CELL = ["site", "layer", "stream", "clip", "token", "start_s", "end_s", "bin", "hz"]
"""Columns that say where an attribution belongs."""


def attribution_patching(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    addresses: Sequence[Address],
    *,
    answers: Answers,
    direction: Direction = "denoising",
    metric: Metric = "logit_diff",
) -> pd.DataFrame:
    """What patching each token would do, to first order: gradient times difference of the runs.

    One forward and one backward pass, at the run that is patched, serve all addresses. Each token
    and layer is taken on its own, as a cell of `activation_patching` with that token alone: a
    layer's effect holds all that layers above make of it, so layers do not add up.

    Args:
        clean: inputs of the clean prompt, one row, with `input_features` for sites before the
            decoder.
        corrupt: of the corrupt one: the same text, and a clip of the same length.
        addresses: places without heads; layers and tokens as in patching.
        answers: the deciding tokens; their common beginning is put behind both prompts.
        direction: `denoising` estimates clean values in the corrupt run, `noising` the reverse.
        metric: `logit_diff`, or `logprob` of the clean answer.

    Returns:
        One row a cell: `path, site, layer, stream, clip, token, start_s, end_s, bin, hz,
        attribution`. `path` is the number of the address; `layer` is missing where the site has
        none; `stream` a stream, "text", "encoder tokens" or "mel frames"; `token` its number there
        (the column of a text token); `bin` and `hz` (a bin's centre) are the mel spectrogram's
        alone. `attribution` is in nats: the metric's change.

    Raises:
        PalscopeError: an address has heads or cannot be resolved, the prompts differ in more than
            sound, or the metric needs a corrupt answer and there is none.
    """
    source, target = source_and_target(clean, corrupt, answers, direction)
    paths = _paths(model, source, target, addresses)
    nudges = [
        {key: leaf(torch.zeros_like(step)) for key, step in path.step.items()} for path in paths
    ]
    placed = [
        (Bound(path.resolved, Moved(nudge, replaces=False)), 0)
        for path, nudge in zip(paths, nudges, strict=True)
    ]
    _, found = gradients_of(model, target, placed, 1, nudges, answers, metric)
    products = [
        {key: gradient * path.step[key] for key, gradient in gradients.items()}
        for path, gradients in zip(paths, found, strict=True)
    ]
    return _table(model, target, paths, products)


def integrated_gradients(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    addresses: Sequence[Address],
    *,
    answers: Answers,
    direction: Direction = "denoising",
    metric: Metric = "logit_diff",
    steps: int = 16,
    batch_size: int = 8,
) -> pd.DataFrame:
    """The metric's change along the straight line between two runs, shared out over its cells.

    Each address is a path of its own: all that it names moves together, from the run that is
    patched to the other, and nothing else is set. An address that holds all sound (at `mel`,
    `encoder_output`, `connector_output`, or at `audio_state` in all layers) so shares out the whole
    difference between the runs, and the run that is patched is the baseline: `corrupt` may hold
    silence. At `audio_state` in all layers, states below do not act through states above, for
    these are set too: what is shared out is what text reads, directly, of each layer.

    Gradients are taken at `steps` points of Gauss–Legendre's rule, `batch_size` of them in one
    pass, and two more runs give the path's ends.

    Args:
        clean: as in `attribution_patching`, like all others that are not named here.
        corrupt: likewise.
        addresses: likewise.
        answers: likewise.
        direction: `denoising` goes from corrupt to clean values in the corrupt run, `noising` from
            clean to corrupt ones in the clean run.
        metric: likewise.
        steps: points at which gradients are taken.
        batch_size: how many of them share a pass.

    Returns:
        The columns of `attribution_patching`, and `difference`: the metric at the path's end less
        that at its beginning, which the path's attributions must sum to (`completeness`).

    Raises:
        PalscopeError: as `attribution_patching`; or `steps` is not positive.
    """
    if steps < 1:
        raise PalscopeError(f"{steps} steps; integrated gradients need at least 1.")
    source, target = source_and_target(clean, corrupt, answers, direction)
    paths = _paths(model, source, target, addresses)
    places, weights = np.polynomial.legendre.leggauss(steps)
    # The ends weigh nothing: they are run for the difference that the sum is checked against.
    points = [0.0, 1.0, *((places + 1) / 2).tolist()]
    shares = [0.0, 0.0, *(weights / 2).tolist()]
    products: list[Values] = []
    differences: list[float] = []
    for path in paths:
        mean = {key: torch.zeros_like(step) for key, step in path.step.items()}
        reached: list[float] = []
        for first in range(0, len(points), batch_size):
            chunk = points[first : first + batch_size]
            leaves = [path.at(point) for point in chunk]
            placed = [
                (Bound(path.resolved, Moved(values, replaces=True)), copy)
                for copy, values in enumerate(leaves)
            ]
            values, found = gradients_of(model, target, placed, len(chunk), leaves, answers, metric)
            reached += values
            for share, gradients in zip(shares[first:], found, strict=False):
                for key, gradient in gradients.items():
                    mean[key] += share * gradient
        products.append({key: gradient * path.step[key] for key, gradient in mean.items()})
        differences.append(reached[1] - reached[0])
    table = _table(model, target, paths, products)
    table["difference"] = table["path"].map(dict(enumerate(differences)))
    return table


def completeness(table: pd.DataFrame) -> pd.DataFrame:
    """Whether integrated gradients account for the whole difference along each path.

    Args:
        table: of `integrated_gradients`.

    Returns:
        `path, site, attribution, difference, error`, one row a path: the sum of attributions, what
        it must be, and by how much they differ, all in nats. More steps make the error smaller.
    """
    paths: Any = table.groupby(["path", "site"], sort=False)
    sums = paths.agg(attribution=("attribution", "sum"), difference=("difference", "first"))
    sums["error"] = (sums["attribution"] - sums["difference"]).abs()
    return sums.reset_index()


def attribution_at(table: pd.DataFrame, *addresses: Address) -> float:
    """The sum of the attributions of all cells at `addresses`, which are those of one method.

    This is the estimate for a cell of `activation_patching` with the same addresses; tokens count
    whole, as there. Name one layer: the effects of several layers of a stream that runs
    are not the sum of each layer's, for a layer's effect holds what the layers above make of it.

    Raises:
        PalscopeError: an address names text or heads, or the table has no cell there.
    """
    chosen = np.zeros(len(table), dtype=bool)
    whole: Any = table
    for address in addresses:
        sound = address.key_tokens
        if address.heads is not None or not isinstance(sound, Sound):
            raise PalscopeError(f"{address}: only sound, in all heads, is summed here.")
        end = float("inf") if sound.end is None else sound.end
        mine = (whole["site"] == address.site) & (whole["clip"] == sound.clip)
        mine &= overlaps(whole["start_s"], whole["end_s"], sound.start, end)
        if sound.stream is not None:
            mine &= whole["stream"] == sound.stream
        if address.layers is not None:
            mine &= whole["layer"].isin(address.layers)
        if not mine.any():
            raise PalscopeError(f"the table of attributions has no cell at {address}.")
        chosen |= mine.to_numpy(dtype=bool)
    return float(whole.loc[chosen, "attribution"].sum())


# -- gradients ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Path:
    """An address in the run that is patched, and how far its values are from the other run's."""

    number: int
    resolved: Resolved
    streams: dict[tuple[str, int], str]
    start: Values
    step: Values

    def at(self, point: float) -> Values:
        """Values so far along the way, as leaves of a graph."""
        return {key: leaf(self.start[key] + point * step) for key, step in self.step.items()}


def _paths(
    model: HookedAudioModel,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    addresses: Sequence[Address],
) -> list[_Path]:
    if not addresses:
        raise PalscopeError("there is no address to attribute to.")
    for address in addresses:
        if SITES[address.site].heads:
            raise PalscopeError(f"{address.site} has heads; attribution takes sites without.")
    there, here = (capture(model, inputs, *addresses) for inputs in (source, target))
    return [
        _path(model, number, address, target, there, here)
        for number, address in enumerate(addresses)
    ]


def _path(
    model: HookedAudioModel,
    number: int,
    address: Address,
    target: Mapping[str, Any],
    there: Captured,
    here: Captured,
) -> _Path:
    resolved = resolved_at(model, target, address)
    start, end = (captured.at(model, address).values for captured in (here, there))
    streams: dict[tuple[str, int], str] = {}
    if site_of(model, address) == "connector_output":
        sound = cast(Sound, address.key_tokens or Sound())
        for name in cast("list[str]", resolved.covered["stream"].tolist()):
            one = replace(address, tokens=replace(sound, stream=name))
            parts = resolved_at(model, target, one).parts
            streams |= {(part.hook, part.row): name for part in parts}
    return _Path(number, resolved, streams, start, {key: end[key] - start[key] for key in start})


# -- tables ---------------------------------------------------------------------------------------


def _table(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    paths: Sequence[_Path],
    products: Sequence[Values],
) -> pd.DataFrame:
    columns = _column_labels(model, inputs)
    parts: list[pd.DataFrame] = []
    for path, values in zip(paths, products, strict=True):
        site, own = path.resolved.address.site, site_of(model, path.resolved.address)
        for part in path.resolved.parts:
            key = (part.hook, part.row)
            if SITES[own].tokens == "sound":
                labels = _encoder_labels(model, inputs, part)
            elif own == "connector_output":
                whole = columns["stream"] == path.streams[key]
                mine = columns[whole & (columns["clip"] == part.row)]
                labels = mine.set_index("token", drop=False).loc[part.columns.tolist()]
            else:
                labels = columns.iloc[part.columns.tolist()]
            made = _cells(model, part, labels, values[key].double().cpu())
            parts.append(made.assign(path=path.number, site=site))
    cells: Any = pd.concat(parts, ignore_index=True)
    # A token that leaves the connector enters several projectors, and is one cell.
    by = cells.groupby(["path", *CELL], sort=False, dropna=False)
    return by["attribution"].sum().reset_index()


def _cells(
    model: HookedAudioModel, part: Part, labels: Any, products: Float[Tensor, "tokens width"]
) -> pd.DataFrame:
    """A row a token, or a row a token and bin of the mel spectrogram."""
    cells: Any = labels[["stream", "clip", "token", "start_s", "end_s"]].reset_index(drop=True)
    cells["layer"] = pd.array([part.layer] * len(cells), dtype="Int64")
    if part.axis != "mel":
        empty = pd.array([None] * len(cells), dtype="Int64")
        return cells.assign(bin=empty, hz=np.nan, attribution=products.sum(-1).numpy())
    frames, bins = products.shape
    hz = model.model.encoder.parts[part.encoder].bin_hz()
    hz = np.full(bins, np.nan) if hz is None else hz
    cells = cells.iloc[np.repeat(np.arange(frames), bins)].reset_index(drop=True)
    numbers = pd.array(np.tile(np.arange(bins), frames), dtype="Int64")
    return cells.assign(bin=numbers, hz=np.tile(hz, frames), attribution=products.flatten().numpy())


def _column_labels(model: HookedAudioModel, inputs: Mapping[str, Any]) -> Any:
    """`stream, clip, token, start_s, end_s` of each column of the prompt."""
    labels: Any = model.layout(inputs).table(0)
    text = labels["stream"].isin(NO_SOUND)
    labels["token"] = labels["token"].mask(text, labels["column"])
    return labels


def _encoder_labels(model: HookedAudioModel, inputs: Mapping[str, Any], part: Part) -> pd.DataFrame:
    """The same of a part before the decoder, whose row is the clip."""
    mel = part.axis == "mel"
    tokens = part.columns.numpy()
    length = model.model.seconds_covered(int(inputs["feature_lengths"][part.row]))
    spans = encoder_grid(model, part).spans(int(tokens.max()) + 1, length)[tokens]
    return pd.DataFrame(
        {
            "stream": "mel frames" if mel else "encoder tokens",
            "clip": part.row,
            "token": tokens,
            "start_s": spans[:, 0],
            "end_s": spans[:, 1],
        }
    )
