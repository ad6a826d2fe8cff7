"""What a batch under a model's route consists of: columns, tokens, and where gradients are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from palscope._connectors import Resampler
from palscope._models import PalscopeForConditionalGeneration
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.families import raw, sliding_window
from palscope._routing import Level, Route, Source, TokenLayout
from palscope.errors import PalscopeError


class BatchShapes:
    """The shapes of one batch under the model's route; no weight is read.

    Args:
        model: palscope's own, on any device.
        layout: of the prompts.
        known: the audio's keys and values were made before.
        trained: what requires gradients is trained.

    Raises:
        PalscopeError: the model is a published one.
        ValueError: what is to be trained is another than the connector, with or without the
            decoder; or no gradient reaches it.
    """

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
            self.gradient.append(trained and (self.gradient[-1] or self.reads(layer)))
        if trained and not self.gradient[-1]:
            raise ValueError(
                "no layer of this route reads audio, so that nothing trains the connector; take a "
                "route with audio in it."
            )

    def reads(self, layer: int) -> bool:
        """Whether a layer has audio that it only reads."""
        return self.columns[layer].memory.numel() > 0

    def clip_tokens(self, stream: str) -> int:
        """Tokens of a stream in all clips, each as long as the longest: what projectors run on."""
        mine = self.layout.stream == self.layout.stream_index(stream)
        longest = int(self.layout.token[mine].max()) + 1 if bool(mine.any()) else 0
        return len(self.layout.clip_row) * longest

    def fed(self, layer: int) -> int:
        """Tokens that go through the feed-forward network, padding of shorter rows included."""
        running = self.columns[layer].running
        stream = self._streams_of(running)
        skipped = torch.zeros_like(stream, dtype=torch.bool)
        for name in self.route.streams_at(layer, Level.ATTEND):
            skipped |= stream == self.layout.stream_index(name)
        return self.rows * (running.shape[1] - int(skipped.sum(1).min()))

    def visible(self, layer: int) -> int:
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
