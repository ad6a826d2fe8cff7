"""docs/encoders.md says of every built-in encoder what its class says."""

from __future__ import annotations

from typing import Any

import torch

from palscope.audio._timegrid import SECONDS_PER_FEATURE
from palscope.encoders import encoder_config
from palscope.encoders._registry import _ENCODERS
from tests.docs.pages import DOCS
from tests.encoders.small import BUILT_IN

KINDS = [kind for kind in BUILT_IN if kind != "several"]


def row_of(kind: str) -> str:
    """A row of the table, of the encoder's default settings."""
    config = encoder_config({"kind": kind})
    encoder_class: Any = _ENCODERS[kind].encoder_class
    with torch.device("meta"):
        encoder = encoder_class(config)
    grid = encoder.grid
    window = encoder.window * SECONDS_PER_FEATURE
    if "vision" in kind:
        rate = "–"
        step = f"{grid.seconds_per_step / SECONDS_PER_FEATURE:g} px × {grid.per_step} rows"
        heard = f"{round(window / SECONDS_PER_FEATURE)} px"
    else:
        rate = f"{config.sample_rate / 1000:g} kHz"
        step = f"{grid.seconds_per_step * 1000:g} ms"
        heard = f"{window:g} s"
    if grid.hz is not None:
        step += f" × {grid.per_step} bands, {grid.hz[0]:.0f} to {grid.hz[-1]:.0f} Hz"
    points = " ".join(f"`{name}`" for name in encoder.components())
    name = encoder_class.__name__
    return f"| `{kind}` | `{name}` | {rate} | {step} | {heard} | {encoder.width} | {points} |"


def test_the_table_is_what_the_classes_say() -> None:
    page = (DOCS / "encoders.md").read_text(encoding="utf-8")
    wanted = "\n".join(row_of(kind) for kind in KINDS)
    assert wanted in page, f"the table's rows should be:\n{wanted}"


def test_every_encoder_has_its_oracle_and_its_hook_points_are_explained() -> None:
    page = (DOCS / "encoders.md").read_text(encoding="utf-8")
    oracles = page.split("## Checked against")[1]
    assert all(f"| `{kind}`" in oracles for kind in KINDS)
