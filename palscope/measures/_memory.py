"""What a batch's passes hold beside the weights, and keep for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from palscope._models.families import raw
from palscope._routing import Level, Source
from palscope.measures._shapes import BatchShapes


class PassMemory(BatchShapes):
    """Bytes of states, keys and values in one batch's passes."""

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
            yield "projectors", -1, self.clip_tokens(stream.name) * pooled * size
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
            yield "feed-forward", layer, self.fed(layer) * wide * size
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
        clips = sum(self.clip_tokens(stream.name) for stream in self.layout.streams)
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
            fed = self.fed(layer)
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
        fed = self.fed(layer) * 3 * self.config.intermediate_size + tokens * 2 * self.width
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
        return self.clip_tokens(stream) * 2 * wide * self.itemsize
