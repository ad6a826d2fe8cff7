"""The matrix products of one batch under a model's route: what `cost_model` sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from palscope._models.families import raw, sliding_window
from palscope._routing import Level, Source
from palscope.measures._resampler_costs import resampler_products
from palscope.measures._shapes import BatchShapes

_ATTENTION = 2
"""Products of queries and keys in a forward pass: scores, and the mixing of values."""

_ATTENTION_BACKWARD = 5
"""And in the backward pass of fused kernels, which compute the scores again."""


@dataclass(frozen=True)
class CostRow:
    """One product: where it is, its arithmetic and the bytes that it moves."""

    part: str
    layer: int
    direction: str
    flops: int
    visible_flops: int
    bytes: int


class Products(BatchShapes):
    """The products of one batch, by pass."""

    def forward(self, logits: int) -> Iterator[CostRow]:
        """The products of a forward pass that computes logits of so many columns."""
        for _, row in self._passes(logits):
            yield row

    def backward(self, logits: int) -> Iterator[CostRow]:
        """Those of the backward pass."""
        for gradients, row in self._passes(logits):
            if gradients:
                # As many products of the same sizes as inputs and weights that want a gradient.
                yield CostRow(
                    row.part,
                    row.layer,
                    "backward",
                    int(row.flops * gradients),
                    int(row.visible_flops * gradients),
                    int(row.bytes * gradients),
                )

    def _passes(self, logits: int) -> Iterator[tuple[float, CostRow]]:
        """Each forward product, and the backward pass's as a multiple of it."""
        if not self.known:
            yield from self._resampler()
        for stream in self.layout.streams if not self.known else ():
            if stream.name in self.model.connector.summaries:
                conv = raw(self.model.connector.summaries[stream.name]).conv
                sizes = conv.in_channels * stream.ratio, conv.out_channels
                used = bool(self.route.layers(stream.name))
                tokens = self.clip_tokens(stream.name)
                gradient = used and self.frames_trained
                yield self._linear("summary", -1, tokens, *sizes, gradient, used)
        for name in self.carried:
            projector = self.model.connector.input_projectors[name]
            yield from self._projector(name, -1, projector)
        for layer in range(self.route.n_layers):
            yield from self._audio(layer)
            yield from self._sequence(layer)
        yield self._unembedding(logits)

    def decoding(self, written: int) -> Iterator[CostRow]:
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

    # -- parts ------------------------------------------------------------------------------------

    def _resampler(self) -> Iterator[tuple[float, CostRow]]:
        """What makes frame tokens of encoder tokens: of clips all as long as the longest."""
        if not self.layout.clip_row:
            return
        longest = float(self.layout.seconds[..., 1].nan_to_num().max())
        tokens = [each.grid.tokens(longest) for each in self.model.encoder.emits]
        for product in resampler_products(self.pool, len(self.layout.clip_row), tokens):
            moved = product.moved * self.itemsize
            row = CostRow("resampler", -1, "forward", product.flops, product.flops, moved)
            yield product.gradients, row

    def _audio(self, layer: int) -> Iterator[tuple[float, CostRow]]:
        """What makes keys and values of the tokens that the layer only reads."""
        names = self.route.streams_at(layer, Level.KEYS)
        projected = [n for n in names if self.route.cell(n, layer).source is Source.PROJECTED]
        if not self.reads(layer) or (self.known and len(projected) == len(names)):
            return
        for name in projected:
            projectors = cast(Any, self.model.connector.layer_projectors[name])
            yield from self._projector(name, layer, projectors[f"layer_{layer}"])
        tokens = self.columns[layer].memory.numel()
        both = 2 * self.kv_width
        yield self._linear(
            "audio keys and values", layer, tokens, self.width, both, True, self.decoder_trained
        )

    def _sequence(self, layer: int) -> Iterator[tuple[float, CostRow]]:
        """What runs on the tokens of the layer's sequence."""
        columns = self.columns[layer]
        queries = columns.running.shape[1]
        yield from self._projections(layer, columns.running.numel(), self.fed(layer))
        keys = columns.memory.shape[1] + queries
        yield self._attention(layer, queries, keys, self.visible(layer))

    def _projections(self, layer: int, tokens: int, fed: int) -> Iterator[tuple[float, CostRow]]:
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

    def _attention(
        self, layer: int, queries: int, keys: int, visible: int
    ) -> tuple[float, CostRow]:
        each = 2 * _ATTENTION * self.q_width
        moved = 2 * queries * self.q_width + 2 * keys * self.kv_width
        row = CostRow(
            "attention",
            layer,
            "forward",
            each * self.rows * queries * keys,
            each * visible,
            moved * self.rows * self.itemsize,
        )
        gradient = self.gradient[layer + 1]
        return gradient * _ATTENTION_BACKWARD / _ATTENTION, row

    def _projector(self, stream: str, layer: int, mlp: Any) -> Iterator[tuple[float, CostRow]]:
        # Pooled frames come from a frozen encoder, summaries from a convolution that is trained.
        gradient = self.frames_trained or stream in self.model.connector.summaries
        for linear in (part for part in raw(mlp) if isinstance(part, nn.Linear)):
            tokens = self.clip_tokens(stream)
            sizes = linear.in_features, linear.out_features
            yield self._linear("projectors", layer, tokens, *sizes, gradient, True)
            gradient = True

    def _unembedding(self, tokens: int) -> tuple[float, CostRow]:
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
    ) -> tuple[float, CostRow]:
        flops = 2 * tokens * inputs * outputs
        moved = inputs * outputs + tokens * (inputs + outputs)
        row = CostRow(part, layer, "forward", flops, flops, moved * self.itemsize)
        return input_gradient + weight_gradient, row
