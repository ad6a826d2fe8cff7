"""The products of one batch under a model's route, counted from shapes: what `cost_model` sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from palscope._connectors import Resampler
from palscope._models import PalscopeForConditionalGeneration
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.families import raw, sliding_window
from palscope._routing import Level, Route, Source, TokenLayout
from palscope.errors import PalscopeError
from palscope.measures._resampler_costs import resampler_products

_ATTENTION = 2
"""Products of queries and keys in a forward pass: scores, and the mixing of values."""

_ATTENTION_BACKWARD = 5
"""And in the backward pass of fused kernels, which compute the scores again."""


@dataclass(frozen=True)
class Row:
    """One product: where it is, its arithmetic and the bytes that it moves."""

    part: str
    layer: int
    direction: str
    flops: int
    visible_flops: int
    bytes: int


class Counted:
    """The products of one batch under the model's route."""

    def __init__(
        self,
        model: AudioLanguageModel,
        layout: TokenLayout,
        *,
        known: bool = False,
        trained: bool = False,
    ) -> None:
        if not isinstance(model, PalscopeForConditionalGeneration):
            raise PalscopeError(
                "costs are counted from the shapes of palscope's own encoder and connector; time a "
                "published model instead (measures.cost, analyses/injection_depth.py)."
            )
        config: Any = model.config.text_config
        self.model, self.layout, self.known = model, layout, known
        self.route: Route = model.route
        self.config = config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.width: int = config.hidden_size
        self.q_width: int = config.num_attention_heads * head
        self.kv_width: int = config.num_key_value_heads * head
        self.itemsize = model.dtype.itemsize
        self.rows = layout.stream.shape[0]
        self.columns = [layout.layer_columns(self.route, i) for i in range(self.route.n_layers)]
        self.decoder_trained = trained and _trained(model)
        self.pool: Resampler = raw(model.connector.pool)
        # A pool has nothing to train, and its frames need no gradient.
        self.frames_trained = any(True for _ in self.pool.parameters())
        self.carried = [
            stream.name
            for stream, cells in self.route.rows
            if any(c.level is not Level.ABSENT and c.source is Source.CARRIED for c in cells)
        ]
        # Whether the sequence's states have a gradient, below each layer and behind the last.
        self.gradient = [trained and (self.decoder_trained or bool(self.carried))]
        for layer in range(self.route.n_layers):
            self.gradient.append(trained and (self.gradient[-1] or self._reads(layer)))
        if trained and not self.gradient[-1]:
            raise ValueError(
                "no layer of this route reads audio, so that nothing trains the connector; take a "
                "route with audio in it."
            )

    def _reads(self, layer: int) -> bool:
        return self.columns[layer].memory.numel() > 0

    # -- passes -----------------------------------------------------------------------------------

    def forward(self, logits: int) -> Iterator[Row]:
        """The products of a forward pass that computes logits of so many columns."""
        for _, row in self._passes(logits):
            yield row

    def backward(self, logits: int) -> Iterator[Row]:
        """Those of the backward pass."""
        for gradients, row in self._passes(logits):
            if gradients:
                # As many products of the same sizes as inputs and weights that want a gradient.
                yield Row(
                    row.part,
                    row.layer,
                    "backward",
                    int(row.flops * gradients),
                    int(row.visible_flops * gradients),
                    int(row.bytes * gradients),
                )

    def _passes(self, logits: int) -> Iterator[tuple[float, Row]]:
        """Each forward product, and the backward pass's as a multiple of it."""
        if not self.known:
            yield from self._resampler()
        for stream in self.layout.streams if not self.known else ():
            if stream.name in self.model.connector.summaries:
                conv = raw(self.model.connector.summaries[stream.name]).conv
                sizes = conv.in_channels * stream.ratio, conv.out_channels
                used = bool(self.route.layers(stream.name))
                tokens = self._clip_tokens(stream.name)
                gradient = used and self.frames_trained
                yield self._linear("summary", -1, tokens, *sizes, gradient, used)
        for name in self.carried:
            projector = self.model.connector.input_projectors[name]
            yield from self._projector(name, -1, projector)
        for layer in range(self.route.n_layers):
            yield from self._audio(layer)
            yield from self._sequence(layer)
        yield self._unembedding(logits)

    def decoding(self, written: int) -> Iterator[Row]:
        """Those of one decoding step after so many words of the answer."""
        for layer in range(self.route.n_layers):
            columns = self.columns[layer]
            keys = columns.memory.shape[1] + columns.running.shape[1] + written + 1
            window = sliding_window(self.config, layer)
            seen = keys if window is None else min(keys, window)
            for _, row in self._projections(layer, self.rows, self.rows):
                yield row
            yield self._attention(layer, 1, keys, self.rows * seen)[1]
        yield self._unembedding(self.rows)[1]

    # -- what is kept for the backward pass --------------------------------------------------------

    def kept(self, targets: int) -> Iterator[tuple[str, int, int]]:
        """Part, layer and bytes of what a forward pass keeps for its backward pass."""
        size, whole = self.itemsize, self.decoder_trained
        # Trained weights need the normed states that they multiply; a norm keeps its own input.
        trained_norm = 2 * self.width * size if whole else 0
        norm = 4 * self.width + 4 + trained_norm
        masks: set[tuple[int, int]] = set()
        for stream in self.layout.streams:
            connector = self.model.connector
            pooled = raw(connector.pool).width
            if stream.name in connector.summaries:
                pooled = connector.config.summary_width
            yield "projectors", -1, self._clip_tokens(stream.name) * pooled * size
        for name in self.carried:
            projector = self.model.connector.input_projectors[name]
            yield "projectors", -1, self._kept_by_projector(name, projector)
        if self.carried:
            yield "sequence", -1, self.layout.stream.numel() * self.width * size
        for layer in range(self.route.n_layers):
            columns = self.columns[layer]
            tokens, memory = columns.running.numel(), columns.memory.numel()
            if memory:
                for name in self.route.streams_at(layer, Level.KEYS):
                    if self.route.cell(name, layer).source is Source.PROJECTED:
                        projectors = cast(Any, self.model.connector.layer_projectors[name])
                        kept = self._kept_by_projector(name, projectors[f"layer_{layer}"])
                        yield "projectors", layer, kept
                yield "audio keys and values", layer, memory * norm
            if self.gradient[layer]:
                yield "norms", layer, tokens * norm
            if not self.gradient[layer + 1]:
                continue
            keys = columns.keys.numel()
            masked = memory > 0 or bool((columns.running < 0).any())
            repeated = self.q_width if masked else self.kv_width
            heads: int = self.config.num_attention_heads
            attention = 2 * tokens * self.q_width + 2 * keys * repeated
            yield "attention", layer, attention * size + tokens * heads * 4
            shape = columns.running.shape[1], columns.keys.shape[1]
            if masked and shape not in masks:
                masks.add(shape)
                yield "mask", layer, self.rows * shape[0] * shape[1] * size
            yield "norms", layer, tokens * norm
            # The gate before and after its nonlinearity, the other half, and their product.
            wide: int = self.config.intermediate_size * (3 + whole)
            yield "feed-forward", layer, self._fed(layer) * wide * size
            if self.route.streams_at(layer, Level.ATTEND):
                yield "feed-forward", layer, tokens * self.width * size  # from which it is picked
        last = self.columns[-1].running.numel()
        yield "norms", -1, last * (norm - trained_norm // 2)
        logits = self.config.vocab_size * 4 + (self.width * size if whole else 0)
        yield "logits", -1, targets * logits

    # -- what a forward pass holds at once ---------------------------------------------------------

    def held(self, logits: int) -> Iterator[tuple[str, int, int]]:
        """Part, layer and bytes of what stands at once in each step of a forward pass with a cache.

        As Hugging Face's Llama runs under fused attention, without gradients. The cache's entries
        of the layers so far are in it; weights are not.
        """
        size, d = self.itemsize, self.width
        both = 2 * self.kv_width * size
        clips = sum(self._clip_tokens(stream.name) for stream in self.layout.streams)
        # Streams stand throughout; so do all columns' states where a stream is carried past layers.
        always = clips * raw(self.model.connector.pool).width * size
        always += self.layout.stream.numel() * d * size if self.carried else 0
        masks: set[tuple[int, int]] = set()
        for layer in range(self.route.n_layers):
            columns = self.columns[layer]
            tokens, memory = columns.running.numel(), columns.memory.numel()
            hidden = always + tokens * d * size
            if memory:
                names = self.route.streams_at(layer, Level.KEYS)
                wide = max(self._widest(name, layer) for name in names)
                yield "projectors", layer, hidden + memory * (2 * wide + d) * size
                # The norm computes in float32; its output becomes keys, values, and rotated keys.
                norm = d * (8 + size)
                yield (
                    "audio keys and values",
                    layer,
                    hidden + memory * max(norm, d * size + 2 * both),
                )
            always += columns.keys.numel() * both
            shape = columns.running.shape[1], columns.keys.shape[1]
            masked = memory > 0 or bool((columns.running < 0).any())
            if masked and shape not in masks:
                masks.add(shape)
                always += self.rows * shape[0] * shape[1] * size
            # The layer's audio stands beside the cache's copy until the layer is through.
            hidden = always + tokens * d * size + 2 * memory * both
            repeated = 2 * columns.keys.numel() * self.q_width if masked else 0
            yield "attention", layer, hidden + (tokens * (d + 2 * self.q_width) + repeated) * size
            fed = self._fed(layer)
            wide = fed * 3 * self.config.intermediate_size
            yield "feed-forward", layer, hidden + (tokens * d + wide) * size
            if fed < tokens:  # what is not fed gets zeros, in a copy
                yield "feed-forward", layer, hidden + 4 * tokens * d * size
        last = self.columns[-1].running.numel() * d * (size + 8)
        yield "logits", -1, always + last + logits * self.config.vocab_size * size

    def backward_states(self, layer: int) -> int:
        """Bytes of the gradients of states that stand at once in a layer's backward pass."""
        columns = self.columns[layer]
        tokens, keys = columns.running.numel(), columns.keys.numel()
        fed = self._fed(layer) * 3 * self.config.intermediate_size + tokens * 2 * self.width
        masked = columns.memory.numel() > 0 or bool((columns.running < 0).any())
        # Those of keys and values, for all query heads and then for each key head.
        mixed = 2 * keys * ((self.q_width if masked else 0) + self.kv_width)
        attention = mixed + tokens * (2 * self.q_width + 2 * self.width)
        return max(fed, attention) * self.itemsize

    def _widest(self, stream: str, layer: int) -> int:
        """The widest state within the projector of a stream that a layer reads; 0 where none."""
        if self.route.cell(stream, layer).source is not Source.PROJECTED:
            return 0
        projectors = cast(Any, self.model.connector.layer_projectors[stream])
        linear = [part for part in raw(projectors[f"layer_{layer}"]) if isinstance(part, nn.Linear)]
        return max((part.out_features for part in linear[:-1]), default=0)

    def _kept_by_projector(self, stream: str, mlp: Any) -> int:
        """Nonlinearities keep their input, and the linear map behind them theirs."""
        linear = [part for part in raw(mlp) if isinstance(part, nn.Linear)]
        wide = sum(part.out_features for part in linear[:-1])
        return self._clip_tokens(stream) * 2 * wide * self.itemsize

    # -- parts ------------------------------------------------------------------------------------

    def _resampler(self) -> Iterator[tuple[float, Row]]:
        """What makes frame tokens of encoder tokens: of clips all as long as the longest."""
        if not self.layout.clip_row:
            return
        longest = float(self.layout.seconds[..., 1].nan_to_num().max())
        tokens = [each.grid.tokens(longest) for each in self.model.encoder.emits]
        for product in resampler_products(self.pool, len(self.layout.clip_row), tokens):
            moved = product.moved * self.itemsize
            row = Row("resampler", -1, "forward", product.flops, product.flops, moved)
            yield product.gradients, row

    def _audio(self, layer: int) -> Iterator[tuple[float, Row]]:
        """What makes keys and values of the tokens that the layer only reads."""
        names = self.route.streams_at(layer, Level.KEYS)
        projected = [n for n in names if self.route.cell(n, layer).source is Source.PROJECTED]
        if not self._reads(layer) or (self.known and len(projected) == len(names)):
            return
        for name in projected:
            projectors = cast(Any, self.model.connector.layer_projectors[name])
            yield from self._projector(name, layer, projectors[f"layer_{layer}"])
        tokens = self.columns[layer].memory.numel()
        both = 2 * self.kv_width
        yield self._linear(
            "audio keys and values", layer, tokens, self.width, both, True, self.decoder_trained
        )

    def _sequence(self, layer: int) -> Iterator[tuple[float, Row]]:
        """What runs on the tokens of the layer's sequence."""
        columns = self.columns[layer]
        queries = columns.running.shape[1]
        yield from self._projections(layer, columns.running.numel(), self._fed(layer))
        keys = columns.memory.shape[1] + queries
        yield self._attention(layer, queries, keys, self._visible(layer))

    def _projections(self, layer: int, tokens: int, fed: int) -> Iterator[tuple[float, Row]]:
        below, trained = self.gradient[layer], self.decoder_trained
        within = self.gradient[layer + 1]
        wide: int = self.config.intermediate_size
        d, q, kv = self.width, self.q_width, self.kv_width
        yield self._linear("queries", layer, tokens, d, q, below, trained)
        yield self._linear("keys", layer, tokens, d, kv, below, trained)
        yield self._linear("values", layer, tokens, d, kv, below, trained)
        yield self._linear("output", layer, tokens, q, d, within, trained)
        # Gate, up and down: every supported family has all three.
        yield self._linear("feed-forward", layer, fed, d, 2 * wide, within, trained)
        yield self._linear("feed-forward", layer, fed, wide, d, within, trained)

    def _attention(self, layer: int, queries: int, keys: int, visible: int) -> tuple[float, Row]:
        each = 2 * _ATTENTION * self.q_width
        moved = 2 * queries * self.q_width + 2 * keys * self.kv_width
        row = Row(
            "attention",
            layer,
            "forward",
            each * self.rows * queries * keys,
            each * visible,
            moved * self.rows * self.itemsize,
        )
        gradient = self.gradient[layer + 1]
        return gradient * _ATTENTION_BACKWARD / _ATTENTION, row

    def _projector(self, stream: str, layer: int, mlp: Any) -> Iterator[tuple[float, Row]]:
        # Pooled frames come from a frozen encoder, summaries from a convolution that is trained.
        gradient = self.frames_trained or stream in self.model.connector.summaries
        for linear in (part for part in raw(mlp) if isinstance(part, nn.Linear)):
            tokens = self._clip_tokens(stream)
            sizes = linear.in_features, linear.out_features
            yield self._linear("projectors", layer, tokens, *sizes, gradient, True)
            gradient = True

    def _unembedding(self, tokens: int) -> tuple[float, Row]:
        sizes = self.width, self.config.vocab_size
        gradient = self.gradient[-1]
        return self._linear("unembedding", -1, tokens, *sizes, gradient, self.decoder_trained)

    def _linear(
        self,
        part: str,
        layer: int,
        tokens: int,
        inputs: int,
        outputs: int,
        input_gradient: bool,
        weight_gradient: bool,
    ) -> tuple[float, Row]:
        flops = 2 * tokens * inputs * outputs
        moved = inputs * outputs + tokens * (inputs + outputs)
        row = Row(part, layer, "forward", flops, flops, moved * self.itemsize)
        return input_gradient + weight_gradient, row

    # -- tokens -----------------------------------------------------------------------------------

    def _clip_tokens(self, stream: str) -> int:
        """Tokens of a stream in all clips, each as long as the longest: what projectors run on."""
        mine = self.layout.stream == self.layout.stream_index(stream)
        longest = int(self.layout.token[mine].max()) + 1 if bool(mine.any()) else 0
        return len(self.layout.clip_row) * longest

    def _fed(self, layer: int) -> int:
        """Tokens that go through the feed-forward network, padding of shorter rows included."""
        running = self.columns[layer].running
        stream = self._streams_of(running)
        skipped = torch.zeros_like(stream, dtype=torch.bool)
        for name in self.route.streams_at(layer, Level.ATTEND):
            skipped |= stream == self.layout.stream_index(name)
        return self.rows * (running.shape[1] - int(skipped.sum(1).min()))

    def _visible(self, layer: int) -> int:
        """Pairs of a query and a key that it sees, over all rows."""
        columns, window = self.columns[layer], sliding_window(self.config, layer)
        names = [stream.name for stream in self.layout.streams]
        frames = names.index("frames") if "frames" in names else None
        apart = self.route.frame_readers == "text" and frames is not None
        keys, queries = columns.keys, columns.running
        key_streams, query_streams = self._streams_of(keys), self._streams_of(queries)
        total = 0
        for row in range(self.rows):
            at = self.layout.position[row]
            real = keys[row] >= 0
            every = at[keys[row][real]].sort().values
            others = at[keys[row][real & (key_streams[row] != frames)]].sort().values
            asking = queries[row] >= 0
            places = at[queries[row][asking]]
            counts = _at_most(every, places, window)
            if apart:
                stream = query_streams[row][asking]
                summary = (stream >= 0) & (stream != frames)
                counts = torch.where(summary, _at_most(others, places, window), counts)
            total += int(counts.sum())
        return total

    def _streams_of(self, columns: Tensor) -> Tensor:
        streams = self.layout.stream.gather(1, columns.clamp(min=0))
        return streams.masked_fill(columns < 0, -2)


def _at_most(keys: Tensor, queries: Tensor, window: int | None) -> Tensor:
    """How many sorted `keys` are at or below each of `queries`, within `window` positions."""
    counts = torch.searchsorted(keys, queries, right=True)
    if window is None:
        return counts
    return counts - torch.searchsorted(keys, queries - window, right=True)


def _trained(model: PalscopeForConditionalGeneration) -> bool:
    """Whether the decoder is trained beside the connector."""

    def flags(module: nn.Module) -> set[bool]:
        return {weight.requires_grad for weight in module.parameters()}

    decoder = flags(model.language_model)
    if len(decoder) != 1 or flags(model.connector) != {True} or True in flags(model.encoder):
        raise ValueError(
            "training is counted for a frozen encoder with the connector trained, and the decoder "
            "either frozen or trained as a whole; set requires_grad so (model.freeze_bases())."
        )
    return decoder == {True}
