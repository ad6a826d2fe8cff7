"""What a route implies: the arithmetic and the bytes of a prompt, counted from shapes alone.

No weight is read, so a model on the meta device will do:

    with torch.device("meta"):
        model = PalscopeForConditionalGeneration(config)
    layout = prompt_layout(model, frames=8192, text=128)
    forward_costs(model, layout).groupby("part")["flops"].sum()

Counted are matrix products of connector and decoder (one of `[m, k]` and `[k, n]` is 2 m k n
floating-point operations); norms, activations and rotary angles are a small rest, and the encoder
is not counted. `tests/measures/test_cost_model.py` holds the numbers against PyTorch's counter.

Every table has one row a product: `part`, `layer` (-1 outside of the layers), `direction` (forward
or backward), `flops` (attention as whole rectangles of queries × keys, which is what kernels
compute that are given a mask), `visible_flops` (attention of the pairs that a query sees, which is
the least that any kernel must compute), `bytes` (weights, inputs and outputs, each moved once).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import torch
from torch import Tensor, nn

from palscope.connectors import Resampler
from palscope.measures.resampler_costs import resampler_products
from palscope.models import PalscopeForConditionalGeneration
from palscope.models.families import raw, sliding_window
from palscope.routing import Level, Route, Source, TokenLayout

_ATTENTION = 2
"""Products of queries and keys in a forward pass: scores, and the mixing of values."""

_ATTENTION_BACKWARD = 5
"""And in the backward pass of fused kernels, which compute the scores again."""


@dataclass(frozen=True)
class _Row:
    part: str
    layer: int
    direction: str
    flops: int
    visible_flops: int
    bytes: int


def prompt_layout(
    model: PalscopeForConditionalGeneration,
    *,
    frames: int,
    text: int,
    before: int = 0,
    rows: int = 1,
    seconds: float | None = None,
) -> TokenLayout:
    """The layout of `rows` prompts with one clip each, in the columns of the checkpoint's streams.

    Args:
        model: only its streams are read.
        frames: frame tokens of each clip (N_a).
        text: words of each prompt (N_t).
        before: how many of them stand before the clip.
        rows: prompts in the batch.
        seconds: duration of each clip. By default so long as the frame tokens reach; to be given
            where each of them stands for the whole clip.

    Raises:
        ValueError: fewer words than stand before the clip, or no row; or a clip of `seconds` has
            another number of frame tokens, or they cannot be told from the frame tokens.
    """
    if not 0 <= before <= text or rows < 1:
        raise ValueError(
            f"a prompt of {text} words, {before} of them before the clip, in {rows} rows; expected "
            "at least one row and no more words before the clip than there are."
        )
    grid = model.frame_grid
    if seconds is None and grid.whole_clip and frames:
        raise ValueError("frame tokens stand for the whole clip here; give its seconds.")
    if seconds is None:
        seconds = frames // grid.per_step * grid.seconds_per_step if frames else 0.0
    if frames and grid.tokens(seconds) != frames:
        raise ValueError(
            f"a clip of {seconds:g} s has {grid.tokens(seconds)} frame tokens, not {frames}: there "
            f"are {grid.per_step} in each step of {grid.seconds_per_step:g} s."
        )
    streams = model.config.parsed_route().streams
    audio = sum(stream.tokens(frames) for stream in streams)
    row = torch.tensor([0] * before + [1] * audio + [0] * (text - before))
    return TokenLayout.build(
        row.repeat(rows, 1),
        None,
        audio_token_id=1,
        streams=streams,
        frames=[frames] * rows if frames else [],
        grid=grid,
        durations=[seconds] * rows if frames else [],
    )


def forward_costs(
    model: PalscopeForConditionalGeneration,
    layout: TokenLayout,
    *,
    logits: int = 1,
    clips_known: bool = False,
) -> pd.DataFrame:
    """A forward pass under the model's route: prefill, when `logits` is 1.

    Args:
        model: on any device; its route is what counts.
        layout: of the prompts.
        logits: columns of each row whose logits are wanted.
        clips_known: whether the audio's keys and values were made before, for another question.

    Returns:
        The table of the module's docstring.
    """
    counted = _Counted(model, layout, known=clips_known)
    return _table(counted.forward(logits * layout.stream.shape[0]))


def training_costs(
    model: PalscopeForConditionalGeneration, layout: TokenLayout, *, targets: int
) -> pd.DataFrame:
    """A training step's forward and backward pass; the optimizer is not counted.

    What is trained is read from `requires_grad`: the connector alone (`model.freeze_bases()`), or
    connector and decoder.

    Args:
        model: on any device.
        layout: of the prompts.
        targets: words in the whole batch that have a loss; logits are computed for these alone.

    Returns:
        The table of the module's docstring.

    Raises:
        ValueError: anything else is trained, or no gradient reaches the connector.
    """
    counted = _Counted(model, layout, trained=True)
    return _table(counted.forward(targets), counted.backward(targets))


def decoding_costs(
    model: PalscopeForConditionalGeneration, layout: TokenLayout, *, written: int = 0
) -> pd.DataFrame:
    """One decoding step: a word a row, after a cached prompt and `written` words of the answer.

    Args:
        model: on any device; its route is what counts.
        layout: of the prompts.
        written: words of the answer that stand in the cache.

    Returns:
        The table of the module's docstring.
    """
    counted = _Counted(model, layout, known=True)
    return _table(counted.decoding(written))


def cache_bytes(model: PalscopeForConditionalGeneration, layout: TokenLayout) -> pd.DataFrame:
    """What the cache of the prompts holds: keys and values in the model's type.

    Returns:
        One row a layer: `layer`, `audio_bytes` (tokens that are only read), `running_bytes` (tokens
        of the layer's sequence, text and audio), `bytes`.
    """
    counted = _Counted(model, layout)
    token = 2 * counted.kv_width * counted.itemsize
    rows: list[dict[str, int]] = []
    for layer in range(model.route.n_layers):
        columns = counted.columns[layer]
        audio, running = columns.memory.numel() * token, columns.running.numel() * token
        rows.append(
            {
                "layer": layer,
                "audio_bytes": audio,
                "running_bytes": running,
                "bytes": audio + running,
            }
        )
    return pd.DataFrame(rows)


def training_bytes(
    model: PalscopeForConditionalGeneration, layout: TokenLayout, *, targets: int
) -> pd.DataFrame:
    """What a training step's forward pass keeps for its backward pass, beside the weights.

    Counted as Hugging Face's Llama keeps it under fused attention, without gradient checkpointing:
    norms in float32, keys and values repeated for all heads where there is a mask, the inputs of
    linear maps only where their weights are trained. Other families differ by a few per cent.

    Args:
        model: on any device; what is trained is read from `requires_grad`, as in `training_costs`.
        layout: of the prompts.
        targets: words in the whole batch that have a loss.

    Returns:
        One row a part and layer: `part`, `layer` (-1 outside of the layers), `bytes`.

    Raises:
        ValueError: as `training_costs`; or the connector has a Q-Former or LFST, for which this is
            not counted.
    """
    counted = _Counted(model, layout, trained=True)
    if counted.frames_trained:
        raise ValueError(
            "what a trained resampler keeps for its backward pass is not counted; its operations "
            "are (training_costs)."
        )
    rows = [row for row in counted.kept(targets) if row[2]]
    return pd.DataFrame(rows, columns=["part", "layer", "bytes"])


def least_seconds(
    table: pd.DataFrame, *, flops_per_second: float, bytes_per_second: float
) -> float:
    """The time that a machine needs at least, each product at the machine's rate (roofline).

    Args:
        table: of this module.
        flops_per_second: the machine's rate of large matrix products.
        bytes_per_second: and of copying memory, reading and writing counted.
    """
    columns: Any = table
    arithmetic = columns["visible_flops"] / flops_per_second
    moving = columns["bytes"] / bytes_per_second
    return float(arithmetic.where(arithmetic > moving, moving).sum())


class _Counted:
    """The products of one batch under the model's route."""

    def __init__(
        self,
        model: PalscopeForConditionalGeneration,
        layout: TokenLayout,
        *,
        known: bool = False,
        trained: bool = False,
    ) -> None:
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

    def forward(self, logits: int) -> Iterator[_Row]:
        for _, row in self._passes(logits):
            yield row

    def backward(self, logits: int) -> Iterator[_Row]:
        for gradients, row in self._passes(logits):
            if gradients:
                # As many products of the same sizes as inputs and weights that want a gradient.
                yield _Row(
                    row.part,
                    row.layer,
                    "backward",
                    int(row.flops * gradients),
                    int(row.visible_flops * gradients),
                    int(row.bytes * gradients),
                )

    def _passes(self, logits: int) -> Iterator[tuple[float, _Row]]:
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

    def decoding(self, written: int) -> Iterator[_Row]:
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

    def _kept_by_projector(self, stream: str, mlp: Any) -> int:
        """Nonlinearities keep their input, and the linear map behind them theirs."""
        linear = [part for part in raw(mlp) if isinstance(part, nn.Linear)]
        wide = sum(part.out_features for part in linear[:-1])
        return self._clip_tokens(stream) * 2 * wide * self.itemsize

    # -- parts ------------------------------------------------------------------------------------

    def _resampler(self) -> Iterator[tuple[float, _Row]]:
        """What makes frame tokens of encoder tokens: of clips all as long as the longest."""
        if not self.layout.clip_row:
            return
        longest = float(self.layout.seconds[..., 1].nan_to_num().max())
        tokens = [each.grid.tokens(longest) for each in self.model.encoder.emits]
        for product in resampler_products(self.pool, len(self.layout.clip_row), tokens):
            moved = product.moved * self.itemsize
            row = _Row("resampler", -1, "forward", product.flops, product.flops, moved)
            yield product.gradients, row

    def _audio(self, layer: int) -> Iterator[tuple[float, _Row]]:
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

    def _sequence(self, layer: int) -> Iterator[tuple[float, _Row]]:
        """What runs on the tokens of the layer's sequence."""
        columns = self.columns[layer]
        queries = columns.running.shape[1]
        yield from self._projections(layer, columns.running.numel(), self._fed(layer))
        keys = columns.memory.shape[1] + queries
        yield self._attention(layer, queries, keys, self._visible(layer))

    def _projections(self, layer: int, tokens: int, fed: int) -> Iterator[tuple[float, _Row]]:
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

    def _attention(self, layer: int, queries: int, keys: int, visible: int) -> tuple[float, _Row]:
        each = 2 * _ATTENTION * self.q_width
        moved = 2 * queries * self.q_width + 2 * keys * self.kv_width
        row = _Row(
            "attention",
            layer,
            "forward",
            each * self.rows * queries * keys,
            each * visible,
            moved * self.rows * self.itemsize,
        )
        gradient = self.gradient[layer + 1]
        return gradient * _ATTENTION_BACKWARD / _ATTENTION, row

    def _projector(self, stream: str, layer: int, mlp: Any) -> Iterator[tuple[float, _Row]]:
        # Pooled frames come from a frozen encoder, summaries from a convolution that is trained.
        gradient = self.frames_trained or stream in self.model.connector.summaries
        for linear in (part for part in raw(mlp) if isinstance(part, nn.Linear)):
            tokens = self._clip_tokens(stream)
            sizes = linear.in_features, linear.out_features
            yield self._linear("projectors", layer, tokens, *sizes, gradient, True)
            gradient = True

    def _unembedding(self, tokens: int) -> tuple[float, _Row]:
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
    ) -> tuple[float, _Row]:
        flops = 2 * tokens * inputs * outputs
        moved = inputs * outputs + tokens * (inputs + outputs)
        row = _Row(part, layer, "forward", flops, flops, moved * self.itemsize)
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


def _table(*passes: Iterator[_Row]) -> pd.DataFrame:
    return pd.DataFrame([asdict(row) for each in passes for row in each])
