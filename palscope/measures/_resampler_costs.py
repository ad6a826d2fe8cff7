"""Matrix products of a connector's resampler, counted from shapes alone (see `cost_model`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from palscope._connectors import LFST, QFormer, Resampler

FUSED_BACKWARD = 5 / 2
"""Products of fused attention's backward pass (it computes the scores again) by the forward's."""


class Product(NamedTuple):
    """A product, or the two of an attention.

    `flops`; `moved`: numbers read and written, once each; `gradients`: the backward pass's products
    as a multiple of these.
    """

    flops: int
    moved: int
    gradients: float


def resampler_products(pool: Resampler, clips: int, tokens: Sequence[int]) -> Iterator[Product]:
    """The products of one call on `clips`, of which the longest has `tokens` of each encoder.

    The encoders are frozen, the resampler is trained.
    """
    if isinstance(pool, QFormer):
        yield from _q_former(pool, clips, tokens)
    elif isinstance(pool, LFST):
        yield from _lfst(pool, clips, tokens)


def _q_former(pool: QFormer, clips: int, tokens: Sequence[int]) -> Iterator[Product]:
    for encoder, count in zip(pool.encoders, tokens, strict=True):
        if len(pool.entries):
            yield _linear(clips * count, encoder.width, pool.width, 1)
    rows = clips * pool.steps(tokens[0])
    reads = pool.reads(tokens)
    places = reads[0].token.shape[1] if reads else 0
    config: Any = pool.model.config
    mapped = 2 if len(pool.entries) else 1  # an encoder's own states need no gradient
    for layer in range(config.num_hidden_layers):
        yield from _attention(rows, pool.per_step, pool.per_step, pool.width, pool.width, 2)
        if layer % config.cross_attention_frequency == 0:
            wide: int = config.encoder_hidden_size
            yield from _attention(rows, pool.per_step, places, pool.width, wide, mapped)
        yield from _feed_forward(rows * pool.per_step, pool.width, config.intermediate_size)


def _lfst(pool: LFST, clips: int, tokens: Sequence[int]) -> Iterator[Product]:
    steps = pool.steps(tokens[0])
    rows, latents, width = clips * steps, pool.per_step, pool.width
    for reads, number in zip(pool.reads(tokens), pool.config.reads, strict=True):
        yield _linear(rows * latents, width, width, 2)
        for _ in ("key", "value"):  # once a token, though regions overlap
            yield _linear(clips * tokens[number], pool.encoders[number].width, width, 1)
        yield _mixing(rows, latents, reads.token.shape[1], width)
        yield _linear(rows * latents, width, width, 2)
        yield from _feed_forward(rows * latents, width, pool.config.feed_forward)


def _attention(
    rows: int, queries: int, keys: int, width: int, key_width: int, key_gradients: int
) -> Iterator[Product]:
    """Projections, scores, mixing and output."""
    yield _linear(rows * queries, width, width, 2)
    for _ in ("key", "value"):
        yield _linear(rows * keys, key_width, width, key_gradients)
    yield _mixing(rows, queries, keys, width)
    yield _linear(rows * queries, width, width, 2)


def _mixing(rows: int, queries: int, keys: int, width: int) -> Product:
    flops = 4 * rows * queries * keys * width
    return Product(flops, 2 * rows * (queries + keys) * width, FUSED_BACKWARD)


def _feed_forward(tokens: int, width: int, hidden: int) -> Iterator[Product]:
    yield _linear(tokens, width, hidden, 2)
    yield _linear(tokens, hidden, width, 2)


def _linear(tokens: int, inputs: int, outputs: int, gradients: int) -> Product:
    moved = inputs * outputs + tokens * (inputs + outputs)
    return Product(2 * tokens * inputs * outputs, moved, gradients)
