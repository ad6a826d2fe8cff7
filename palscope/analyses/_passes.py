"""What a measure costs, counted in passes: one prompt, by itself, through the whole model.

Only so exact that a person knows whether to wait. The weights of rows and gradients were measured
on two cores, with the demo; a host that has seen a run of an analysis knows better.
"""

from __future__ import annotations

from collections.abc import Iterable

from palscope.interventions import Address, Text

ROW = 0.45
"""A row of a batch, beside a pass by itself."""
LAST_TOKEN = 0.2
"""Of a row in which the last token alone runs anew: all others are as before."""
GRADIENT = 4.0
"""A row with its gradient, beside one without."""
ANSWER = 7.0
"""Passes of a greedy answer of a few tokens."""


def share_run(layers: Iterable[int] | None, n_layers: int) -> float:
    """The share of the layers that a row runs, which begins at the lowest that is changed."""
    return 1.0 if layers is None else 1 - min(layers, default=n_layers) / n_layers


def rows_of_patches(cells: Iterable[tuple[Address, ...]], n_layers: int) -> float:
    """Rows, each as far as it runs, that patch each cell's addresses by themselves."""
    return sum(max(_share_of_row(each, n_layers) for each in cell) for cell in cells)


def _share_of_row(address: Address, n_layers: int) -> float:
    share = share_run(address.layers, n_layers)
    return share * LAST_TOKEN if address.tokens == Text(-1) else share


def passes_of_choices(choices: int) -> float:
    """One prompt, and as many short answers behind what is kept of it, together."""
    return 2 + LAST_TOKEN * ROW * choices
