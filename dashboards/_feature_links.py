"""From a feature's sounds to an answer that it is changed in, and back."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from _dictionaries import BUNDLED, folder_of
from _models import demo_models
from _setup import OTHER
from _sounds import bundled_name

from palscope._features.heard.index import IndexedUnit, IndexedUnits
from palscope._published.loading import find_model
from palscope._routing import Route, route_to_text
from palscope.errors import CheckpointError


def offer_sounds(row: Any, units: IndexedUnits, feature: str) -> None:
    """A button to what a feature responds to, in a tab of its own."""
    asked = {"index": units.index.folder, "units": units.name, "unit": feature}
    row.link_button(
        f"Hear feature {feature}",
        f"features?{urlencode(asked)}",
        icon=":material/hearing:",
        help="On the page Features: what it responds to in other sounds.",
    )


def offer_change(row: Any, unit: IndexedUnit) -> None:
    """A button to the page that asks about a sound, where the feature can be changed.

    None of units that are no dictionary's, or whose model is not here.
    """
    index = unit.units.index
    told = index.record["config"]["units"][unit.units.name]
    model = index.record["weights"]["checkpoint"]["name"]
    if told.get("kind") != "dictionary" or not is_here(model):
        return
    folder = index.path(told["path"])
    asked = {
        **({"model": model} if model in demo_models() else {"model": OTHER, "model-folder": model}),
        "route": route_to_text(Route.from_dict(index.record["route"])),
        "features": "true",
        "dictionary": BUNDLED if folder == folder_of(BUNDLED).resolve() else str(folder),
        "feature": str(unit.number),
        **strongest(unit),
    }
    row.link_button(
        "Change it in an answer",
        f"./?{urlencode(asked)}",
        icon=":material/tune:",
        help="On the page Attention: what the model answers about a sound without it.",
    )


def is_here(model: str) -> bool:
    try:
        find_model(model)
    except CheckpointError:
        return False
    return True


def strongest(unit: IndexedUnit) -> dict[str, str]:
    """Where it fires most, for the address; nothing where that is no bundled sound."""
    if unit.samples.empty:
        return {}
    first: Any = unit.samples.iloc[0]
    index = unit.units.index
    name = bundled_name(index.path(index.clips["sound"].iloc[first["clip"]]))
    seconds = f"{first['start']:.2f}-{first['end']:.2f}"
    return {} if name is None else {"clip": name, "seconds": seconds}
