"""What a route implies: the arithmetic and the bytes of a prompt, counted from shapes alone.

No weight is read, so a model on the meta device will do:

    with torch.device("meta"):
        model = PalscopeForConditionalGeneration(config)
    layout = prompt_layout(model, frames=8192, text=128)
    forward_costs(model, layout).groupby("part")["flops"].sum()

Counted are matrix products of connector and decoder (one of `[m, k]` and `[k, n]` is 2 m k n
floating-point operations); norms, activations and rotary angles are a small rest, and the encoder
is not counted. `tests/measures/test_cost_model.py` holds the numbers against PyTorch's counter,
which does not replace them: it knows no bytes and no pairs that are seen, and on the meta device,
where no fused kernel is, it finds four products in attention's backward pass, not the five that
machines compute.

Every table has one row a product: `part`, `layer` (-1 outside of the layers), `direction` (forward
or backward), `flops` (attention as whole rectangles of queries × keys, which is what kernels
compute that are given a mask), `visible_flops` (attention of the pairs that a query sees, which is
the least that any kernel must compute), `bytes` (weights, inputs and outputs, each moved once).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch

from palscope._models import PalscopeForConditionalGeneration
from palscope._routing import TokenLayout
from palscope.measures._memory import PassMemory
from palscope.measures._products import CostRow, Products
from palscope.measures._shapes import BatchShapes


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
        seconds = grid.span(frames - 1)[1] if frames else 0.0
    if frames and grid.tokens(seconds) != frames:
        raise ValueError(
            f"a clip of {seconds:g} s has {grid.tokens(seconds)} frame tokens, not {frames}: there "
            f"are {grid.cycle} for each {grid.seconds_per_cycle:g} s."
        )
    streams = model.streams
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
    products = Products(model, layout, known=clips_known)
    return _table(products.forward(logits * layout.stream.shape[0]))


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
    products = Products(model, layout, trained=True)
    return _table(products.forward(targets), products.backward(targets))


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
    products = Products(model, layout, known=True)
    return _table(products.decoding(written))


def cache_bytes(model: PalscopeForConditionalGeneration, layout: TokenLayout) -> pd.DataFrame:
    """What the cache of the prompts holds: keys and values in the model's type.

    Returns:
        One row a layer: `layer`, `audio_bytes` (tokens that are only read), `running_bytes` (tokens
        of the layer's sequence, text and audio), `bytes`.
    """
    shapes = BatchShapes(model, layout)
    token = 2 * shapes.kv_width * shapes.itemsize
    rows: list[dict[str, int]] = []
    for layer in range(model.route.n_layers):
        columns = shapes.columns[layer]
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
    memory = PassMemory(model, layout, trained=True)
    if memory.frames_trained:
        raise ValueError(
            "what a trained resampler keeps for its backward pass is not counted; its operations "
            "are (training_costs)."
        )
    rows = [row for row in memory.kept(targets) if row[2]]
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


def _table(*passes: Iterator[CostRow]) -> pd.DataFrame:
    return pd.DataFrame([asdict(row) for each in passes for row in each])
