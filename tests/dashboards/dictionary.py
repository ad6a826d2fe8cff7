"""A dictionary of random weights for a tiny checkpoint, and an index of its units."""

from __future__ import annotations

from pathlib import Path

from palscope._features.store import belonging
from palscope.features import ActivationStore, UnitSource, index_units, save_dictionary
from tests.dashboards.heard import HOOK, index_of_noise
from tests.features.spliced import random_at


def dictionary_of_noise(checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """The folders of a dictionary at `HOOK`, of this checkpoint on its route, and of its index."""
    index_of_noise(checkpoint, folder)
    store = ActivationStore(folder / "store")
    record = belonging(store.record)
    save_dictionary(random_at(HOOK, 16, record=record), folder / "dictionary")
    sources = [UnitSource.of_dictionary(folder / "dictionary", store[HOOK])]
    sounds = {name: folder / f"{name.removeprefix('clip ')}.wav" for name in store.clips["name"]}
    index_units(sources, folder / "index-of-features", sounds=sounds)
    return folder / "dictionary", folder / "index-of-features"
