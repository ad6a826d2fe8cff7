"""The index of units: a folder from which any unit opens at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from safetensors.numpy import save_file
from torch import Tensor

from palscope._features.heard.index import ARRAYS, CLIPS, LABELS, NEAREST, UNITS, UnitIndex
from palscope._features.heard.labels import NAMED_FROM, Knows, known, labels_of, named, sides_of
from palscope._features.heard.samples import chosen
from palscope._features.heard.source import UnitSource
from palscope._features.heard.survey import Correlations, Survey, survey
from palscope._features.store import belonging
from palscope._files import make_folder, whole
from palscope._hooks import HookedAudioModel
from palscope._sweeps.record import command_record
from palscope._sweeps.store import Run, read_record
from palscope.errors import PalscopeError
from palscope.measures._vocabulary import unembed

_WORDS = 8
_AT_ONCE = 512
"""Directions compared with all."""
_RESIDUAL = re.compile(r"blocks\.\d+\.hook_(resid_pre|resid_post|mlp_out|attn_out)")
"""Hook points whose rows are in, or added to, the decoder's residual stream."""


def index_units(
    sources: Sequence[UnitSource],
    folder: str | Path,
    *,
    sounds: Mapping[str, Path],
    model: HookedAudioModel | None = None,
    train: str = "train",
    test: str = "validation",
    seed: int = 0,
) -> UnitIndex:
    """Go through stored rows once, and keep what each unit responds to.

    Of each unit are kept: its strongest clips and some of every strength, a histogram, of each
    label the share of clips that fire it and how well it tells it, its neighbours, and of the first
    source's units the partner in each other source that correlates most over rows; neighbours of
    heads are those that correlate most with them, and their partners they themselves, spread
    evenly. A name is proposed where one label's clips come first among held-out ones, too
    (`NAMED_FROM`).

    Args:
        sources: units of the same stored tokens: those that are asked about first, then what they
            are compared with, such as neurons and a random dictionary.
        folder: of the index.
        sounds: the file of each clip, by its name in the store; kept relative to the folder.
        model: where it is given, units in the decoder's residual stream have the words they write.
        train: split of the clips on which names are chosen.
        test: split of those on which they are scored.
        seed: of the draws of samples.

    Raises:
        PalscopeError: there are no units, two sources have one name or other tokens, a value is not
            finite, a group stands in both splits; or `folder` holds another run, or cannot be
            written.
    """
    folder, store = Path(folder), _store(sources)
    clips = _clips(sources[0])
    sides_of(clips, train, test)  # what is wrong with them is told before the pass
    config = {
        "store": _beside(store.folder, folder),
        "units": {
            each.name: {
                **each.made,
                "hook_point": each.rows.hook_point,
                "writes": _written(each),
                **(
                    {"path": _beside(Path(each.made["path"]), folder)}
                    if "path" in each.made
                    else {}
                ),
            }
            for each in sources
        },
        "train": train,
        "test": test,
        "named_from": NAMED_FROM,
    }
    about = belonging(store.record)
    sites = {"addresses": store.record["config"]["addresses"]}
    run = _opened(folder, command_record(config) | about | sites | {"seed": seed})
    surveys, correlations = survey(sources)
    clips["sound"] = [
        _beside(sounds[name], folder) if name in sounds else "" for name in clips["name"]
    ]
    labels = labels_of(clips)
    twins = _twins(sources, correlations)
    for source, found in zip(sources, surveys, strict=True):
        knows = known(found, clips, labels, train, test)
        make_folder(folder / source.name)
        words = _words(source, model)
        table = _summary(found, knows, labels, words)
        if "heads" in source.made:
            heard = int((clips["left_out"] == "").sum())
            table = _of_heads(table, source.made["heads"], found.sums / heard)
        _write(table, folder / source.name / UNITS)
        nearest = _nearest(source) if found.alike is None else _most_alike(found.alike)
        arrays = _arrays(found, knows, seed) | nearest | twins[source.name]
        with whole(folder / source.name / ARRAYS) as part:
            save_file({name: np.ascontiguousarray(each) for name, each in arrays.items()}, part)
    _write(labels, folder / LABELS)
    _write(clips, folder / CLIPS)  # last: the page lists folders that have it
    run.finish(
        rows=surveys[0].rows,
        counts={s.name: len(f.first) - 1 for s, f in zip(sources, surveys, strict=True)},
        hook_points={each.name: each.rows.hook_point for each in sources},
    )
    return UnitIndex(folder)


def _store(sources: Sequence[UnitSource]) -> Any:
    """The sources' store. Raises `PalscopeError` where they cannot stand beside each other."""
    if not sources:
        raise PalscopeError("no units are given; give at least one UnitSource.")
    names = [each.name for each in sources]
    for name in names:
        if names.count(name) > 1 or not re.fullmatch(r"\w[\w -]*", name):
            raise PalscopeError(
                f"units are called {name!r}; give each source its own name, of letters and digits."
            )
    for each in sources:
        if each.is_even and sources[0].made != {**each.made, "kind": "heads"}:
            raise PalscopeError(
                f"{each.name} are heads, spread evenly, and {sources[0].name} are not those heads; "
                "give UnitSource.of_heads of the same rows first."
            )
    if not len(sources[0].rows):
        raise PalscopeError(f"there are no rows at {sources[0].rows.hook_point}.")
    return sources[0].rows.store


def _clips(source: UnitSource) -> Any:
    """The store's clips; those that no row is of are left out."""
    clips: Any = source.rows.store.clips.copy()
    rows: Any = source.rows.rows
    absent = ~clips.index.isin(rows["clip"]) & (clips["left_out"] == "")
    clips.loc[absent, "left_out"] = "its rows were not asked about"
    return clips


def _opened(folder: Path, record: dict[str, Any]) -> Run:
    """The run; one that was stopped is begun again."""
    if (folder / "run.json").is_file() and read_record(folder).get("finished"):
        raise PalscopeError(f"{folder} holds a finished run; give another folder.")
    return Run.open(folder, record, resume=True)


def _beside(path: Path, folder: Path) -> str:
    """A path as seen from the folder: both may be moved together."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _write(table: pd.DataFrame, path: Path) -> None:
    with whole(path) as part:
        table.to_parquet(part, index=False)


def _summary(found: Survey, knows: Knows, labels: pd.DataFrame, words: list[str]) -> pd.DataFrame:
    """A row a unit: what a list of them shows."""
    best, score = knows.proposed()
    units = len(found.first) - 1
    largest = np.zeros(units, dtype=np.float32)
    fired = np.diff(found.first)
    largest[fired > 0] = found.value[found.first[:-1][fired > 0]]
    told = [*named(labels), ""]
    return pd.DataFrame(
        {
            "unit": np.arange(units),
            "best_label": [told[each] for each in best],
            "score": score,
            "name": [
                told[each] if each >= 0 and value >= NAMED_FROM else ""
                for each, value in zip(best, score, strict=True)
            ],
            "rows": found.counts.sum(1) / found.rows,
            "clips": fired.astype(np.int32),
            "largest": largest,
            "words": words,
        }
    )


def _of_heads(
    table: pd.DataFrame, heads: Sequence[Sequence[int]], gives: Float[np.ndarray, " units"]
) -> pd.DataFrame:
    """The list, of heads: which they are, and what they give to a clip on average."""
    told: Any = np.array(heads, dtype=np.int32)
    table = table.assign(gives=gives.astype(np.float32))
    table.insert(1, "layer", told[:, 0])
    table.insert(2, "head", told[:, 1])
    return table


def _arrays(found: Survey, knows: Knows, seed: int) -> dict[str, np.ndarray]:
    samples = chosen(found, seed)
    return {
        "counts": found.counts.astype(np.int32),
        "fires": knows.fires,
        "precision": knows.precision,
        "auroc": knows.auroc,
        "sample_clip": samples.clip.astype(np.int32),
        "sample_value": samples.value.astype(np.float32),
        "sample_start": samples.start.astype(np.float32),
        "sample_end": samples.end.astype(np.float32),
    }


@torch.no_grad()
def _nearest(source: UnitSource) -> dict[str, np.ndarray]:
    """The units whose directions are nearest to each unit's, and their cosines."""
    if source.directions is None or len(source.directions) < 2:
        return {}
    directions = torch.nn.functional.normalize(source.directions.float(), dim=1)
    kept = min(NEAREST, len(directions) - 1)
    unit: list[Tensor] = []
    cosine: list[Tensor] = []
    for start in range(0, len(directions), _AT_ONCE):
        cosines = directions[start : start + _AT_ONCE] @ directions.T
        cosines[torch.arange(len(cosines)), start + torch.arange(len(cosines))] = -2
        values, units = cosines.topk(kept, dim=1)
        unit.append(units.int())
        cosine.append(values)
    return {"nearest": torch.cat(unit).numpy(), "nearest_cosine": torch.cat(cosine).numpy()}


def _most_alike(alike: Float[np.ndarray, "units units"]) -> dict[str, np.ndarray]:
    """The heads that correlate most with each head over rows; without them where there is one."""
    held = np.where(np.isnan(alike), -2, alike)
    np.fill_diagonal(held, -3)
    order = np.argsort(-held, axis=1, kind="stable")[:, : min(NEAREST, len(held) - 1)]
    return {
        "nearest": order.astype(np.int32),
        "nearest_correlation": np.take_along_axis(alike, order, 1),
    }


def _twins(
    sources: Sequence[UnitSource], correlations: Correlations
) -> dict[str, dict[str, np.ndarray]]:
    """The partner of each unit of the first source in each other one, and the other way round."""
    first = sources[0].name
    out: dict[str, dict[str, np.ndarray]] = {each.name: {} for each in sources}
    for source, found in zip(sources[1:], correlations, strict=True):
        each: Any = found
        partners = np.arange(len(each)) if source.is_even else None
        out[first] |= _best(source.name, each, partners)
        out[source.name] |= _best(first, each.T, partners)
    return out


def _best(
    name: str,
    found: Float[np.ndarray, "units others"],
    partners: Int[np.ndarray, " units"] | None,
) -> dict[str, np.ndarray]:
    """The given partners, or those that correlate most; -1 where a unit correlates with none."""
    held = np.where(np.isnan(found), -2, found)
    best = held.argmax(1) if partners is None else partners
    value = held[np.arange(len(held)), best]
    return {
        f"twin:{name}": np.where((value < -1.5) & (partners is None), -1, best).astype(np.int32),
        f"twin_correlation:{name}": np.where(value < -1.5, np.nan, value).astype(np.float32),
    }


@torch.no_grad()
def _words(source: UnitSource, model: HookedAudioModel | None) -> list[str]:
    """Of each unit the words that its direction writes; empty where it writes none directly."""
    directions = source.directions
    if directions is None or model is None or not writes_words(_written(source)):
        return [""] * _count(source)
    source.rows.store.check_model(model)
    tokenizer = model.tokenizer
    out: list[str] = []
    for start in range(0, len(directions), _AT_ONCE // 8):
        logits = unembed(model, directions[start : start + _AT_ONCE // 8].to(model.model.device))
        for entries in logits.topk(_WORDS, dim=1).indices.tolist():
            out.append(" ".join(repr(tokenizer.decode([each])) for each in entries))
    return out


def _written(source: UnitSource) -> str:
    return source.writes or source.rows.hook_point


def writes_words(hook_point: str) -> bool:
    """Whether rows there are in the decoder's residual stream, which the unembedding reads."""
    return _RESIDUAL.fullmatch(hook_point) is not None


def _count(source: UnitSource) -> int:
    return source.values(0, 1).shape[1]
