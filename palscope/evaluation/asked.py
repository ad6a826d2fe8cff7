"""Labelled clips with their questions, as the analyses take them."""

from __future__ import annotations

from pathlib import Path

from palscope.audio.bundled import CLIPS_FOLDER
from palscope.evaluation.items import Item, candidates, manifest_items, take_evenly
from palscope.training.manifest import Clip, DecodedOnDemand, ManifestError, read_manifest


def labelled_questions(
    manifest: Path | None, *, split: str | None = None, limit: int | None = None, seed: int = 0
) -> list[tuple[Clip, Item]]:
    """Clips of a manifest, each with one question in a wording that the demo was trained on.

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
    if limit is not None:
        domains = dict.fromkeys(clip.domain for clip in clips)
        clips = [
            clip
            for domain in domains
            for clip in take_evenly([each for each in clips if each.domain == domain], limit)
        ]
    items = manifest_items(clips, DecodedOnDemand(), candidates(rows), seed=seed)
    return list(zip(clips, items, strict=True))
