"""The table of published classes, as `docs/models.md` shows it."""

from __future__ import annotations

from palscope._published.family import PublishedFamily
from palscope._published.registry import published_families
from palscope.audio._timegrid import TimeGrid

_HEAD = (
    "class",
    "checkpoints",
    "one token",
    "longest",
    "hook points",
    "what is special",
    "tested with",
)


def models_table() -> str:
    """A row a registered class, in Markdown; values are those of the class's default config."""
    rows = [_HEAD, tuple("---" for _ in _HEAD), *map(_row, published_families())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(family: type[PublishedFamily]) -> tuple[str, ...]:
    from transformers import AutoConfig

    known = family(AutoConfig.for_model(family.model_types[0]))
    about = " ".join((family.__doc__ or "").split("\n\n")[0].split())
    return (
        f"`{family.architecture}`",
        "<br>".join(f"{name} ({size})" for name, size in family.checkpoints),
        _one_token(known.grid),
        f"{known.longest:g} s" if known.longest < float("inf") else "any",
        " ".join(f"`{name}`" for name in known.components()),
        about,
        family.tested_with,
    )


def _one_token(grid: TimeGrid) -> str:
    step = f"{grid.seconds_per_step * 1000:.0f} ms"
    if grid.centres is not None and len(grid.centres) > 1:
        cycle = grid.seconds_per_step * len(grid.centres)
        return f"{step}, uneven: {len(grid.centres)} in {cycle:g} s"
    return step if grid.per_step == 1 else f"{step}, shared by {grid.per_step}"
