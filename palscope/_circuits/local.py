"""A stage's nodes as functions of what enters them, by the model's own modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palscope._circuits.graph import Graph, Stage
from palscope._circuits.networks import residual_multiplier
from palscope._circuits.observed import Observed, memory_hook
from palscope._hooks import HookedAudioModel
from palscope._models.adapted import effective_weight
from palscope._models.angles import Angles
from palscope._models.attention_function import redirected
from palscope._models.cache_names import INSTALLED
from palscope._models.families import family_of, raw, rotate_keys, sliding_window
from palscope.errors import PalscopeError
from palscope.measures._gradients import measured
from palscope.measures._metrics import Answers
from palscope.measures._vocabulary import unembed


def check_adds_up(model: HookedAudioModel) -> None:
    """Check that what nodes write adds up in the residual stream.

    Raises:
        PalscopeError: a norm stands behind attention or network, so that heads share its scale;
            weights are quantised, so that what a head writes cannot be told apart.
    """
    block: Any = model.blocks[0]
    if hasattr(block, "ln1_post") or hasattr(block, "ln2_post") or not hasattr(block, "ln2"):
        raise PalscopeError(
            "this decoder norms what attention and feed-forward network put out (Gemma 2 and 3, "
            "OLMo 2), so what heads write does not add up; edges have no scores there."
        )
    effective_weight(raw(block.attn.o))


@dataclass(frozen=True, eq=False)
class Attention:
    """The heads of one stage of a prompt.

    Attributes:
        running: columns of its queries.
        keys: columns of its keys: those that are only read first.
        seen: which keys each query sees.
    """

    model: HookedAudioModel
    graph: Graph
    stage: Stage

    @cached_property
    def _columns(self) -> Any:
        return self.graph.columns[self.stage.layer]

    @cached_property
    def running(self) -> Int[Tensor, "queries"]:
        return self._columns.running[0]

    @cached_property
    def keys(self) -> Int[Tensor, "keys"]:
        return (self._columns.crossed if self._crosses else self._columns.keys)[0]

    @cached_property
    def n_read(self) -> int:
        """How many of the keys are only read."""
        return len(self.keys) if self._crosses else self._columns.memory.shape[1]

    @cached_property
    def seen(self) -> Bool[Tensor, "queries keys"]:
        window = sliding_window(self.model.model.text_config, self.stage.layer)
        return self.graph.layout.visible(
            self.running[None],
            self.keys[None],
            window=None if self._crosses else window,
            frame_readers=self.graph.route.frame_readers,
        )[0]

    @property
    def _crosses(self) -> bool:
        return self.stage.part == "cross"

    @cached_property
    def _layer(self) -> Any:
        return raw(self.model.model.decoder.layers[self.stage.layer])

    @cached_property
    def _module(self) -> Any:
        family = family_of(self.model.model.text_config)
        return raw(getattr(self._layer, str(family.crossing) if self._crosses else "self_attn"))

    @cached_property
    def _home(self) -> torch.device:
        """Of the model's lowest layers; asking the model takes a walk through it."""
        return self.model.model.device

    @cached_property
    def _angles(self) -> Angles:
        apart = family_of(self.model.model.text_config).crossing is not None
        layout = self.graph.layout
        position = layout.word if apart else layout.position
        return Angles(self.model.model.decoder, position.to(self._home), 0)

    def _turns(
        self, states: Float[Tensor, "copies tokens d_model"], columns: Int[Tensor, "tokens"]
    ) -> tuple[Tensor, Tensor]:
        """Cosine and sine of tokens' positions, for one row, on the layer's device."""
        at, first = columns[None].to(self._home), states[:1].to(self._home)
        cos, sin = self._angles.at(self.stage.layer, first, at)
        return cos.to(states.device), sin.to(states.device)

    def project(
        self, states: Float[Tensor, "copies tokens d_model"], columns: Int[Tensor, "tokens"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turned queries, keys and values `[copies, heads, tokens, head_dim]` of running tokens.

        In the second attention of an encoder–decoder keys and values are not to be used.
        """
        found: list[tuple[Tensor, Tensor, Tensor]] = []

        def kernel(
            own: Any, module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **given: Any
        ) -> Any:
            cut = slice(module.head_dim)  # Moonshine pads its heads
            scaled = query * given["scaling"]
            found.append((scaled[..., cut], key[..., cut], value[..., cut]))
            return query.transpose(1, 2), None

        block: Any = self.model.blocks[self.stage.layer]
        norm = raw(block.ln_cross if self._crosses else block.ln1)
        given: dict[str, Any] = {INSTALLED: None, "attention_mask": None}
        if family_of(self.model.model.text_config).turns:
            given["position_embeddings"] = self._turns(states, columns)
        normed = norm.forward(states)
        if self._crosses:
            given["key_value_states"] = normed
        with redirected(self._module, kernel):
            self._module.forward(normed, **given)
        return found[0]

    def remembered(
        self, states: Float[Tensor, "copies tokens d_model"], columns: Int[Tensor, "tokens"]
    ) -> tuple[Tensor, Tensor]:
        """Turned keys and values of sound that is only read."""
        family = family_of(self.model.model.text_config)
        keys, values = (
            each.transpose(1, 2)
            for each in family.keys_values(
                self.model.model.decoder.layers[self.stage.layer], states
            )
        )
        if family.crossing is not None:
            return keys, values
        turns = self._turns(states, columns)
        cos, sin = (each.expand(len(states), -1, -1).to(keys.device) for each in turns)
        return rotate_keys(keys, cos, sin), values

    def keys_values(
        self, running: Tensor, memory: Tensor | None
    ) -> tuple[Float[Tensor, "kv_heads keys head_dim"], Float[Tensor, "kv_heads keys head_dim"]]:
        """All keys and values of a run, of the states of running tokens and of those only read."""
        parts: list[tuple[Tensor, Tensor]] = []
        if self.n_read:
            assert memory is not None
            parts.append(self.remembered(memory[None], self.keys[: self.n_read]))
        if not self._crosses:
            parts.append(self.project(running[None], self.running)[1:])
        keys, values = (torch.cat([part[i] for part in parts], 2)[0] for i in (0, 1))
        return keys, values

    def write(self) -> Float[Tensor, "heads d_model head_dim"]:
        """What each head's output is multiplied by on its way into the residual stream."""
        block: Any = self.model.blocks[self.stage.layer]
        attention = block.cross_attn if self._crosses else block.attn
        weight = effective_weight(raw(attention.o))
        heads = self.model.cfg.n_heads
        split = weight.unflatten(1, (heads, -1)).permute(1, 0, 2)
        return split * residual_multiplier(self.model, self.stage.layer)


Projection = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Makes keys and values of states."""


@dataclass(frozen=True, eq=False)
class Heads:
    """A stage's heads in one run, and what they are given there.

    Attributes:
        number: of the stage.
        state: the residual stream where tokens run.
        memory: states of sound that is only read.
        query: turned and scaled; `keys` and `values` for each query head.
    """

    number: int
    attention: Attention
    state: Float[Tensor, "queries d_model"]
    memory: Float[Tensor, "read d_model"] | None
    query: Float[Tensor, "heads queries head_dim"]
    keys: Float[Tensor, "heads keys head_dim"]
    values: Float[Tensor, "heads keys head_dim"]

    def entering(self, columns: Sequence[int]) -> tuple[Tensor, Projection]:
        """States that keys of these columns are made of, and what makes keys and values of them."""
        standing: list[int] = self.attention.keys.tolist()
        at = [standing.index(column) for column in columns]
        wanted = torch.tensor(columns)
        if at[0] < self.attention.n_read:
            assert self.memory is not None
            return self.memory[at], lambda states: self.attention.remembered(states, wanted)
        at = [each - self.attention.n_read for each in at]
        return self.state[at], lambda states: self.attention.project(states, wanted)[1:]

    def made(
        self, columns: Sequence[int], change: Float[Tensor, "copies tokens d_model"]
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of these columns, moved by each of `change`."""
        states, project = self.entering(columns)
        return project(states + change.to(states))


def heads_of(model: HookedAudioModel, graph: Graph, number: int, run: Observed) -> Heads | None:
    """A stage's heads in a run; None of a stage that has none."""
    if not 0 <= number < len(graph.stages) or graph.stages[number].part == "mlp":
        return None
    attention = Attention(model, graph, graph.stages[number])
    state = run.state(attention.stage)
    memory = None
    if attention.n_read:
        memory = run.values[memory_hook(model, attention.stage.layer)]
    keys, values = (
        per_head(each, model.cfg.n_heads) for each in attention.keys_values(state, memory)
    )
    query = attention.project(state[None], attention.running)[0][0]
    return Heads(number, attention, state, memory, query, keys, values)


def wide(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def attention_weights(
    query: Float[Tensor, "*rows heads queries head_dim"],
    keys: Float[Tensor, "*rows heads keys head_dim"],
    seen: Bool[Tensor, "queries keys"],
) -> Float[Tensor, "*rows heads queries keys"]:
    """Attention, in float32 at least; 0 throughout of a query that sees nothing."""
    scores = wide(query) @ wide(keys).mT
    scores = scores.masked_fill(~seen.to(scores.device), float("-inf"))
    return scores.softmax(-1).nan_to_num(0.0)


def attend(
    query: Float[Tensor, "*rows heads queries head_dim"],
    keys: Float[Tensor, "*rows heads keys head_dim"],
    values: Float[Tensor, "*rows heads keys head_dim"],
    seen: Bool[Tensor, "queries keys"],
) -> Float[Tensor, "*rows queries heads head_dim"]:
    """Heads' outputs; `query` is scaled already."""
    weights = attention_weights(query, keys, seen)
    return (weights @ values.to(weights)).to(values).transpose(-3, -2)


def per_head(shared: Float[Tensor, "*rows kv_heads keys head_dim"], heads: int) -> Tensor:
    """Keys or values that groups of heads share, for each head."""
    return shared.repeat_interleave(heads // shared.shape[-3], -3)


def answered(
    model: HookedAudioModel, states: Float[Tensor, "rows d_model"], answers: Answers
) -> Float[Tensor, "rows"]:
    """The metric of residual states of the last token, as they leave the last layer."""
    return measured(unembed(model, states).double(), answers, answers.metric)
