"""Labelled clips with their questions, as the analyses take them."""

from __future__ import annotations

import itertools
from pathlib import Path

from palscope.audio._bundled import CLIPS_FOLDER
from palscope.datasets._manifest import Clip, DecodedOnDemand, ManifestError, read_manifest
from palscope.evaluation._items import Item, candidates, manifest_items, take_evenly


def labelled_questions(
    manifest: Path | None, *, split: str | None = None, limit: int | None = None, seed: int = 0
) -> list[tuple[Clip, Item]]:
    """Clips of a manifest, each with one question in a wording that the demo was trained on.

    Domains take turns, so that a run that is stopped has some of each.

    Args:
        manifest: None for the clips that come with the package.
        split: only rows with this value in column `split`.
        limit: so many clips of each domain, spread over its labels.
        seed: of the wordings.

    Raises:
        ManifestError: the manifest cannot be read, or has no row of that split.
    """
    rows = read_manifest(manifest or CLIPS_FOLDER / "clips.csv")
    clips = [clip for clip in rows if split in (None, clip.split)]
    if not clips:
        raise ManifestError(f"manifest {manifest}: no row has split {split!r}.")
    domains = [
        [clip for clip in clips if clip.domain == domain]
        for domain in dict.fromkeys(clip.domain for clip in clips)
    ]
    if limit is not None:
        domains = [take_evenly(each, limit) for each in domains]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*domains))
    clips = [clip for clip in turns if clip is not None]
    items = manifest_items(clips, DecodedOnDemand(), candidates(rows), seed=seed)
    return list(zip(clips, items, strict=True))
