"""Which latents of dictionaries are nodes: those that a pair's two clips fire otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.build import pair_graph
from palscope._circuits.entering import placed
from palscope._circuits.features import FeaturePlace
from palscope._circuits.graph import Graph
from palscope._circuits.groups import ENCODER
from palscope._circuits.networks import entering_and_written
from palscope._circuits.observed import Observed, observe
from palscope._circuits.writes import places
from palscope._features.dictionary import Dictionary
from palscope._features.splice import hook_points_of, streams_of
from palscope._hooks import HookedAudioModel
from palscope._hooks.hooked import hooked
from palscope._whole import whole_number
from palscope.errors import PalscopeError
from palscope.interventions._hook_places import place_of
from palscope.measures._metrics import Answers
from palscope.pairs import Pair

_SAME = 1e-4
"""Of the largest number of a stream: what differs by no more is the same, to rounding."""


def firing_features(
    model: HookedAudioModel,
    pairs: Sequence[Pair],
    *dictionaries: Dictionary,
    seconds: float | None = None,
    most: int | None = None,
) -> tuple[FeaturePlace, ...]:
    """The latents that fire otherwise in the two clips of a pair, as nodes for `pair_graph`.

    What they do not hold stays with a node of its own: other latents, the bias and the error. So a
    graph with few features, or of a poor dictionary, is as exact as any.

    Args:
        model: under the route of the graphs.
        pairs: whose graphs are to have the same nodes: pairs of one kind.
        dictionaries: autoencoders of a feed-forward network's output or of an encoder's block, and
            transcoders of a network; in evaluation mode.
        seconds: as in `pair_graph`.
        most: so many of a dictionary at each group of positions: those of the largest difference of
            a pair's two clips, summed over tokens and pairs, times the length of the latent's row
            of the decoder. By default every one that has a difference.

    Raises:
        PalscopeError: a dictionary stands elsewhere, is of another model or route, in training
            mode, or at a place that has one already; the encoder hears more than the clip; no
            latent fires otherwise; or as `pair_graph`.
    """
    if not pairs:
        raise PalscopeError("give at least one pair.")
    tables = [firing(model, pair, dictionaries, seconds=seconds) for pair in pairs]
    return feature_places(model, dictionaries, pd.concat(tables), most=most)


@torch.no_grad()
def firing(
    model: HookedAudioModel,
    pair: Pair,
    dictionaries: Sequence[Dictionary],
    *,
    seconds: float | None = None,
) -> pd.DataFrame:
    """Which latents fire otherwise in a pair's two clips.

    Args:
        model: as in `firing_features`, like all others.
        pair: one.
        dictionaries: likewise.
        seconds: likewise.

    Returns:
        `hook_point` of the dictionary, `group` of positions, `latent`, `size` (of the difference,
        as `firing_features` has it) and `passed` (as `FeaturePlace` has it). No rows where none
        does.
    """
    bare = _bare(model, dictionaries)
    bare = [replace(each, passed=_is_passed(model, each, pair)) for each in bare]
    graph = pair_graph(model, pair, seconds=seconds, features=bare)
    answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
    asked = (model.inputs(pair.question, clip) for clip in (pair.clean, pair.corrupt))
    runs = [observe(model, answers.behind(each), graph, answers) for each in asked]
    rows: list[dict[str, Any]] = []
    for place in bare:
        for name, change in _changes(model, graph, place, runs):
            lengths: Any = place.dictionary.W_dec.norm(dim=1)
            size: Tensor = change.abs().sum(0) * lengths
            fires: list[int] = size.nonzero()[:, 0].tolist()
            about = {"hook_point": place.hook_point, "group": name, "passed": place.passed}
            rows += [{**about, "latent": latent, "size": size[latent].item()} for latent in fires]
    return pd.DataFrame(rows, columns=["hook_point", "group", "latent", "size", "passed"])


def feature_places(
    model: HookedAudioModel,
    dictionaries: Sequence[Dictionary],
    table: pd.DataFrame,
    *,
    most: int | None = None,
) -> tuple[FeaturePlace, ...]:
    """Dictionaries with their nodes, as `pair_graph` takes them.

    Args:
        model: as in `firing_features`, like all others.
        dictionaries: likewise.
        table: of `firing`, of one pair or several.
        most: likewise.
    """
    if most is not None:
        whole_number(most, "most", least=1)
    every: Any = table
    made: list[FeaturePlace] = []
    for place in _bare(model, dictionaries):
        mine = every[every["hook_point"] == place.hook_point]
        if mine.empty:
            raise PalscopeError(
                f"no latent at {place.hook_point} fires otherwise in the two clips of a pair: "
                "nothing of it could carry the difference."
            )
        latents: dict[str, tuple[int, ...]] = {}
        for name, rows in mine.groupby("group", sort=False):
            sizes = rows.groupby("latent")["size"].sum().sort_values(ascending=False, kind="stable")
            latents[str(name)] = tuple(sorted(sizes.index[:most].tolist()))
        made.append(replace(place, passed=bool(mine["passed"].any()), latents=latents))
    return tuple(made)


def _bare(model: HookedAudioModel, dictionaries: Sequence[Dictionary]) -> list[FeaturePlace]:
    """Where dictionaries stand, without nodes yet."""
    if not dictionaries:
        raise PalscopeError("give at least one dictionary.")
    found = [_place(model, each) for each in dictionaries]
    if len({each.layer for each in found}) < len(found):
        raise PalscopeError(
            "two dictionaries stand at one network, or in the encoder: give one for each place."
        )
    return found


def _changes(
    model: HookedAudioModel, graph: Graph, place: FeaturePlace, runs: Sequence[Observed]
) -> Iterator[tuple[str, Float[Tensor, "_tokens d_sae"]]]:
    """By group, how much more each latent fires in the first run."""
    if place.layer is None:
        mine, other = (run.values[place.hook_point] for run in runs)
        groups = [group for group in graph.groups if group.stream == ENCODER]
        inside = sum(len(group.columns) for group in groups)
        if len(mine) != inside:
            raise PalscopeError(
                f"{place.hook_point} has {len(mine)} tokens, of which {inside} are of the clip: "
                "this encoder hears the silence behind it, too, so what stands inside the clip is "
                "not all that the sound is made of."
            )
        change = place.every(mine) - place.every(other)
        yield from ((group.name, change[list(group.columns)]) for group in groups)
        return
    streams = streams_of(model, place.dictionary, place_of(model, place.hook_point))
    for node in graph.nodes:
        group = graph.groups[node.group]
        if node.kind == "mlp" and node.layer == place.layer and (group.stream or "text") in streams:
            stage = graph.stages[node.stage]
            at = places(graph.columns[place.layer].running[0], group.columns)
            mine, other = (
                entering_and_written(model, place.layer, run.state(stage)[at])[not place.of_input]
                for run in runs
            )
            yield group.name, place.every(mine) - place.every(other)


def _place(model: HookedAudioModel, dictionary: Dictionary) -> FeaturePlace:
    """Where a dictionary stands. Raises as `firing_features`."""
    hook_point, written = hook_points_of(model, dictionary)
    read = place_of(model, hook_point)
    site, (part, *_) = read.address.site, read.parts
    if site in ("encoder_block", "encoder_output") and part.axis == "passing":
        if dictionary.centred:
            return FeaturePlace(dictionary, hook_point, None, of_input=False)
    elif site == "mlp_out" and dictionary.centred:
        return FeaturePlace(dictionary, hook_point, part.layer, of_input=False)
    elif site == "mlp_in" and written == f"blocks.{part.layer}.hook_mlp_out":
        return FeaturePlace(dictionary, hook_point, part.layer, of_input=True)
    raise PalscopeError(
        f"the dictionary at {hook_point} ({site}) cannot give a circuit nodes: it takes "
        "autoencoders of a feed-forward network's output (mlp_out) or of an encoder's block "
        "(encoder_block), and transcoders from a network's input to its output."
    )


def _is_passed(model: HookedAudioModel, place: FeaturePlace, pair: Pair) -> bool:
    """Whether a clip with another one's tokens at a place makes another sound than that one.

    It is run, not read off the configuration: encoders may hear lower layers, or stand in parallel.
    """
    if place.layer is not None:
        return False
    clean, corrupt = (model.inputs(pair.question, clip) for clip in (pair.clean, pair.corrupt))
    kept: list[Tensor] = []

    def keep(tensor: Tensor, hook: Any) -> None:
        del hook
        kept.append(tensor)

    with hooked(model, {place.hook_point: keep}):
        wanted = model.encode_audio(clean).streams
    with placed(model, place, kept[0]):
        found = model.encode_audio(corrupt).streams
    return any(
        bool((found[name] - each).abs().max() > _SAME * each.abs().max())
        for name, each in wanted.items()
    )
