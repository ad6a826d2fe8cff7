"""A run's graph from its route and layout alone.

Nothing runs for it. A layer's levels say which groups run there and which are only read; the rule
of visibility says who may read whom; and nodes that no path leads from to the answer are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from palscope._circuits.features import FeaturePlace
from palscope._circuits.graph import Block, Graph, Kind, Node, Slot, Stage, Sublayer
from palscope._circuits.groups import BELOW, Group, encoder_groups, position_groups
from palscope._hooks import HookedAudioModel
from palscope._models.families import family_of, key_layer, sliding_window
from palscope._routing import Route, Source, TokenLayout
from palscope.errors import PalscopeError
from palscope.measures._metrics import Answers
from palscope.pairs import Pair


def run_graph(
    model: HookedAudioModel,
    layout: TokenLayout,
    groups: Sequence[Group],
    features: Sequence[FeaturePlace] = (),
) -> Graph:
    """The graph of a prompt with this layout, under the model's current route.

    Args:
        groups: of `position_groups`, or others that part the real columns; the last column
            must stand alone. Behind them, with features in the encoder, those of
            `encoder_groups`.
        features: dictionaries, and the latents that are nodes.

    Raises:
        PalscopeError: groups do not part the columns, the route has no sound, or layers have no
            keys of their own (Gemma 3n).
    """
    config = model.model.text_config
    route = model.current_route
    if any(key_layer(config, layer) != layer for layer in range(route.n_layers)):
        raise PalscopeError(
            "some layers of this decoder read the keys of others (Gemma 3n), which would be "
            "edges into several layers at once; circuits do not know them."
        )
    return _Builder(
        route,
        layout,
        tuple(groups),
        model.cfg.n_heads,
        lambda layer: sliding_window(config, layer),
        family_of(config).crossing is not None,
        tuple(features),
    ).graph()


MOST_EDGES = 100_000_000
"""Scores of so many edges take 800 MB a method."""


def pair_graph(
    model: HookedAudioModel,
    pair: Pair,
    *,
    seconds: float | None = None,
    features: Sequence[FeaturePlace] = (),
) -> Graph:
    """The graph of a pair's prompt, up to the token that decides between its two answers.

    Args:
        model: under its current route.
        pair: its segments are the stretches of sound, so that pairs of a kind have one graph.
        seconds: equal stretches of so long instead; 1 s where the pair has no segments.
        features: of `firing_features`: latents of dictionaries that are nodes of their own.

    Raises:
        PalscopeError: as `run_graph`; or there are more than `MOST_EDGES` edges.
    """
    answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
    inputs = answers.behind(model.inputs(pair.question, pair.clean))
    layout = model.layout(inputs)
    cut: dict[str, Any] = {
        "seconds": 1.0 if seconds is None else seconds,
        "segments": pair.segments if seconds is None else (),
    }
    groups = position_groups(layout, **cut)
    for place in features:
        if place.layer is None:
            groups += encoder_groups(model, inputs, place, **cut)
    graph = run_graph(model, layout, groups, features)
    if graph.n_edges > MOST_EDGES:
        raise PalscopeError(
            f"{pair.name}: a graph of {graph.n_edges:,} edges ({graph}); at most {MOST_EDGES:,} "
            "are scored. Take longer stretches of sound, or shorter clips."
        )
    return graph


class _Builder:
    """Builds a graph: first, from the top down, who is alive; then nodes and blocks upwards."""

    def __init__(
        self,
        route: Route,
        layout: TokenLayout,
        groups: tuple[Group, ...],
        heads: int,
        window: Callable[[int], int | None],
        crosses: bool,
        features: tuple[FeaturePlace, ...],
    ) -> None:
        self.route, self.layout, self.groups = route, layout.on_host, groups
        self.heads, self.window, self.features = heads, window, features
        self.last = _check_groups(self.layout, [g for g in groups if g.stream not in BELOW])
        self.group_of = {
            column: number
            for number, group in enumerate(groups)
            if group.stream not in BELOW
            for column in group.columns
        }
        if not any(route.layers(stream.name) for stream in route.streams):
            raise PalscopeError(f"the route has no sound:\n{route}\nA circuit begins with sound.")
        parts: tuple[Sublayer, ...] = ("attn", "cross", "mlp")
        self.stages = tuple(
            Stage(layer, part)
            for layer in range(route.n_layers)
            for part in parts
            if part != "cross" or (crosses and route.crosses(layer))
        )
        self.columns = [self.layout.layer_columns(route, i) for i in range(route.n_layers)]
        self.nodes: list[Node] = []
        self.written: list[list[int]] = [[] for _ in groups]
        self.blocks: list[Block] = []
        self.needed: set[int] = set()
        self.own: dict[tuple[int, int | None], int] = {}

    def graph(self) -> Graph:
        alive = self._alive()
        self._enter(alive)
        for number, stage in enumerate(self.stages):
            if stage.part == "mlp":
                self._mlp(number, alive[number])
            else:
                self._attention(number, alive[number])
        answer = self._node(Node("answer", len(self.stages), self.last))
        self._block(len(self.stages), "answer", self.last, self.last, (answer,))
        return Graph(
            self.route,
            self.layout,
            self.groups,
            self.stages,
            tuple(self.nodes),
            tuple(self.blocks),
            tuple(map(tuple, self.written)),
            self.features,
        )

    # -- who is there -----------------------------------------------------------------------------

    def _alive(self) -> list[dict[int, list[int]]]:
        """For each stage, by group, the columns at which its nodes lead to the answer.

        Of columns, not of groups: a window may hide a group's first tokens and show its last.
        """
        needed = torch.zeros(self.layout.width, dtype=torch.bool)
        needed[self.groups[self.last].columns[0]] = True
        found: list[dict[int, list[int]]] = []
        for stage in reversed(self.stages):
            columns = self.columns[stage.layer]
            there = (columns.fed if stage.part == "mlp" else columns.running)[0]
            here = there[needed[there]]
            found.append(self._by_group(here))
            if stage.part == "attn" and len(here):
                read = columns.keys[0][self._visible(stage, here).any(0)]
                needed = needed.clone()
                for column in read.tolist():
                    if self._source(stage, self.group_of[column]) == "residual":
                        needed[column] = True
        self.needed = set(self._by_group(needed.nonzero()[:, 0]))
        return found[::-1]

    def _by_group(self, columns: Tensor) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        numbers: list[int] = columns.tolist()
        for column in numbers:
            found.setdefault(self.group_of[column], []).append(column)
        return found

    def _stands(self, group: int, columns: Tensor) -> bool:
        return bool(torch.isin(torch.tensor(self.groups[group].columns), columns[0]).all())

    def _source(self, stage: Stage, key: int) -> Literal["residual", "own", "none"]:
        """Where a layer's keys of a group come from."""
        columns = self.columns[stage.layer]
        if stage.part == "cross":
            return "own" if self._stands(key, columns.crossed) else "none"
        if self._stands(key, columns.running):
            return "residual"
        stream = self.groups[key].stream
        if stream is None or not self._stands(key, columns.memory):
            return "none"
        projected = self.route.cell(stream, stage.layer).source is Source.PROJECTED
        return "own" if projected else "residual"

    def _visible(self, stage: Stage, queries: Tensor) -> Tensor:
        """Which of the stage's keys each of these columns sees."""
        columns = self.columns[stage.layer]
        keys = columns.crossed if stage.part == "cross" else columns.keys
        window = None if stage.part == "cross" else self.window(stage.layer)
        return self.layout.visible(
            queries[None], keys, window=window, frame_readers=self.route.frame_readers
        )[0]

    def _seen(self, stage: Stage, queries: list[int]) -> dict[int, bool]:
        """The groups of keys that queries see; and whether one that sees some has another choice.

        Attention to a query's only key is 1 whatever the two hold.
        """
        columns = self.columns[stage.layer]
        keys = (columns.crossed if stage.part == "cross" else columns.keys)[0]
        seen = self._visible(stage, torch.tensor(queries))
        several = seen.sum(1) > 1
        owners = torch.tensor([self.group_of[column] for column in keys.tolist()])
        found: dict[int, bool] = {}
        for group in range(len(self.groups)):
            some = seen[:, owners == group].any(1)
            if bool(some.any()):
                found[group] = bool((some & several).any())
        return found

    # -- nodes and blocks -------------------------------------------------------------------------

    def _node(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _enter(self, alive: list[dict[int, list[int]]]) -> None:
        """What enters: into the residual stream, where it is read; or into one layer's keys."""
        encoder = [number for number, group in enumerate(self.groups) if group.stream in BELOW]
        for number in encoder:
            self.written[number].append(self._node(Node("encoder", -2, number)))
            self.written[number] += self._features(-2, number, None)
        for number, group in enumerate(self.groups):
            if number in self.needed:
                kind: Kind = "text" if group.stream is None else "sound"
                self.written[number].append(self._node(Node(kind, -1, number)))
        for stage, here in zip(self.stages, alive, strict=True):
            if stage.part == "mlp":
                continue
            layer = None if stage.part == "cross" else stage.layer
            read = {key for queries in here.values() for key in self._seen(stage, queries)}
            for key in sorted(read):
                if self._source(stage, key) == "own" and (key, layer) not in self.own:
                    self.own[key, layer] = self._node(Node("sound", -1, key, layer))
        sounds: dict[int, list[int]] = {}
        for index, node in enumerate(self.nodes):
            if node.kind == "sound":
                sounds.setdefault(node.group, []).append(index)
        for group, targets in sounds.items():
            for number in encoder:
                self._block(-1, "sound", group, number, tuple(targets))

    def _features(self, stage: int, group: int, layer: int | None) -> list[int]:
        """The nodes of a dictionary's latents at a group."""
        return [
            self._node(Node("feature", stage, group, layer, feature=latent))
            for place in self.features
            if place.layer == layer
            for latent in place.latents.get(self.groups[group].name, ())
        ]

    def _attention(self, number: int, here: dict[int, list[int]]) -> None:
        stage = self.stages[number]
        kind: Kind = "cross_head" if stage.part == "cross" else "head"
        made: list[tuple[int, tuple[int, ...]]] = []
        for query, columns in sorted(here.items()):
            seen = self._seen(stage, columns)
            if not seen:
                continue  # it gives nothing
            targets = tuple(
                self._node(Node(kind, number, query, stage.layer, head))
                for head in range(self.heads)
            )
            made.append((query, targets))
            if any(seen.values()):
                self._block(number, "q", query, query, targets)
            for key, chooses in seen.items():
                if chooses:
                    self._block(number, "k", query, key, targets)
                self._block(number, "v", query, key, targets)
        for query, targets in made:
            self.written[query] += targets

    def _mlp(self, number: int, here: dict[int, list[int]]) -> None:
        layer = self.stages[number].layer
        made: list[tuple[int, tuple[int, ...]]] = []
        for group in sorted(here):
            node = self._node(Node("mlp", number, group, layer))
            nodes = (node, *self._features(number, group, layer))
            self._block(number, "mlp", group, group, nodes)
            made.append((group, nodes))
        for group, nodes in made:
            self.written[group] += nodes

    def _block(
        self, number: int, slot: Slot, group: int, key: int, targets: tuple[int, ...]
    ) -> None:
        own = slot in ("k", "v") and self._source(self.stages[number], key) == "own"
        if own:
            stage = self.stages[number]
            sources = (self.own[key, None if stage.part == "cross" else stage.layer],)
        else:
            sources = tuple(self.written[key])
        first = self.blocks[-1].edges.stop if self.blocks else 0
        self.blocks.append(Block(number, slot, group, key, sources, targets, first, own))


def _check_groups(layout: TokenLayout, groups: Sequence[Group]) -> int:
    """The group of the last column, once the groups are known to part the real columns."""
    columns = [column for group in groups for column in group.columns]
    real: list[int] = layout.real[0].nonzero()[:, 0].tolist()
    if layout.stream.shape[0] != 1 or sorted(columns) != real:
        raise PalscopeError("groups must hold every real column of one prompt, each once.")
    for group in groups:
        kinds: list[int] = layout.stream[0, list(group.columns)].tolist()
        if len(set(kinds)) > 1:
            raise PalscopeError(f"group {group.name!r} holds several streams, or text and sound.")
    (last,) = [number for number, group in enumerate(groups) if real[-1] in group.columns]
    if len(groups[last].columns) > 1:
        raise PalscopeError("the last token, which predicts the answer, must be its own group.")
    return last
