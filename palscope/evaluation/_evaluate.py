"""Scoring a manifest: every row asked, answers ranked among its domain's labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from palscope._files import write_json
from palscope._sweeps.record import file_hash
from palscope._sweeps.store import hold
from palscope.datasets._examples import COMPOSED, validation_examples
from palscope.datasets._manifest import (
    Clip,
    Corpus,
    DecodedOnDemand,
    ManifestError,
    missing_audio,
    read_manifest,
    require_audio,
)
from palscope.datasets._questions import Wordings
from palscope.evaluation._items import candidates, example_items, manifest_items, take_of_each
from palscope.evaluation._predictions import Prediction, predict
from palscope.evaluation._ranking import Answerer
from palscope.evaluation._rows import write_rows
from palscope.evaluation._scores import summarise, summarise_composed

Audio = Literal["own", "swapped"]


def evaluate_manifest(
    answerer: Answerer,
    manifest: str | Path,
    out: str | Path,
    *,
    model: str = "",
    audio: Audio = "own",
    split: str | None = None,
    wordings: Wordings = "train",
    n: int | None = None,
    temporal: bool = False,
    resume: bool = False,
    seed: int = 0,
    batch_size: int = 8,
    progress: bool = True,
) -> dict[str, Any]:
    """Score a manifest's clips and write `scores.json` and `rows.parquet` to the folder `out`.

    Answers are ranked among the domain's known labels and those the manifest adds; a domain that
    the demo does not know is asked about with a general question. `split` takes only those rows,
    `n` only so many of each domain, spread over its labels. `audio="swapped"` lets every question
    hear another clip of its domain with a different label. `temporal` asks about composed clips
    too (which digit is first, …; results under `"temporal"`). `model` names the weights. `resume`
    goes on with the run that `out` holds, if there is one and it and all else are equal.

    Returns:
        What `scores.json` holds, `accuracy`, `n`, `interval`, `exact_match`, … and `by_domain`
        (see `palscope.evaluation._scores`), `missing` and `unreadable` audio files, `settings`.

    Raises:
        ManifestError: an unreadable manifest, no rows in the split, no audio file of any row, or,
            with `temporal`, a domain of the demo or one of its labels missing.
        PalscopeError: `out` holds a run and `resume` is off, or that run's settings are others; or
            another process is writing to it.
    """
    manifest, out = Path(manifest), Path(out)
    all_rows = read_manifest(manifest)
    rows = _of_split(all_rows, split, manifest)
    asked = rows if n is None else take_of_each(rows, n)
    missing = missing_audio(rows)
    lost = set(missing)
    clips = [clip for clip in asked if clip not in lost]
    if not clips:
        require_audio(asked)
    settings: dict[str, Any] = {
        "model": model,
        "manifest": str(manifest),
        "manifest_sha256": file_hash(manifest),
        "audio": audio,
        "split": split,
        "wordings": wordings,
        "n": n,
        "seed": seed,
        "missing": [clip.name for clip in missing],
    }
    items = manifest_items(
        clips,
        DecodedOnDemand(),
        candidates(all_rows),
        wordings=wordings,
        swapped=audio == "swapped",
        seed=seed,
    )
    lock = hold(out)
    asking: dict[str, Any] = {
        "settings": settings,
        "resume": resume,
        "batch_size": batch_size,
        "progress": progress,
    }
    predictions = predict(items, answerer, out, **asking)
    by_key = {item.key: clip for item, clip in zip(items, clips, strict=True)}
    broken = [each for each in predictions if "error" in each]
    scores = {
        **summarise(predictions, swapped=audio == "swapped"),
        "missing": [clip.name for clip in asked if clip in lost],
        "unreadable": [
            {"path": by_key[each["key"]].name, "error": each["error"]} for each in broken
        ],
        "settings": settings,
    }
    write_rows(out, {"ranking": _rows(predictions, by_key)})
    write_json(out / "scores.json", scores)
    if temporal:
        lost |= {by_key[each["key"]] for each in broken}
        corpus = Corpus(tuple(clip for clip in rows if clip not in lost), DecodedOnDemand())
        composed = [
            item
            for family in COMPOSED
            for item in example_items(
                family,
                validation_examples(corpus, family, wordings=wordings, n=n, split=None, seed=seed),
            )
        ]
        answers = predict(composed, answerer, out / "temporal", **asking)
        scores["temporal"] = summarise_composed(answers)
        write_json(out / "scores.json", scores)
    lock.release(force=True)
    return scores


def _rows(predictions: list[Prediction], clips: dict[str, Clip]) -> pd.DataFrame:
    """What each clip got, as `palscope.evaluation._rows` compares it."""
    rows: list[dict[str, Any]] = []
    for each in predictions:
        if "error" not in each:
            right = float(each["best"] == each["answer"])
            row = {"id": each["key"], "clip": clips[each["key"]].name, "domain": each["domain"]}
            rows.append({**row, "label": each["answer"], "got": right, "of": 1.0})
    return pd.DataFrame(rows)


def _of_split(clips: list[Clip], split: str | None, manifest: Path) -> list[Clip]:
    chosen = [clip for clip in clips if split in (None, clip.split)]
    if not chosen:
        found = sorted({clip.split for clip in clips if clip.split})
        raise ManifestError(
            f"manifest {manifest}: no row has split {split!r}; it has {', '.join(found) or 'none'}"
        )
    return chosen
