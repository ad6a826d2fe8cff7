"""The Hugging Face hub in two questions: is it in the cache already, and can it be fetched quickly?

A hub that cannot be reached must cost seconds, so nothing here calls it before a short probe. A
repository is named `owner/name`, or `owner/name@revision`: a branch, a tag, a commit, or a change
that was proposed (`refs/pr/70`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from palscope.errors import CheckpointError

PROBE_SECONDS = 4.0
#: What is small: settings, tokenizers, chat templates.
SETTINGS = ("*.json", "*.model", "*.txt", "*.jinja")
#: These and weights; never pickles (`*.bin`, `*.pt`).
PATTERNS = (*SETTINGS, "*.safetensors")
#: The same weights once more, in Mistral's own form.
UNREAD = "consolidated*"


class HubName(NamedTuple):
    """A repository of the hub, and its revision; None for the newest of its main branch."""

    repository: str
    revision: str | None


def hub_name(name: str) -> HubName | None:
    """What `owner/name` or `owner/name@revision` names; None for any other text."""
    repository, mark, revision = name.partition("@")
    if repository.count("/") != 1 or (mark and not revision):
        return None
    return HubName(repository, revision or None)


def cached_snapshot(name: str) -> Path | None:
    """The folder of hub repository `name` in the local cache, or None; the network is not touched.

    The folder may be incomplete (another program may have fetched one file, or a download may have
    broken off): the caller checks.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    place = hub_name(name)
    if place is None:
        return None
    try:
        found = snapshot_download(place.repository, revision=place.revision, local_files_only=True)
    except LocalEntryNotFoundError as error:
        # Where it knows what the hub has, it takes a folder that lacks any of it for none.
        found = getattr(error, "snapshot_path", None)
    except HFValidationError:
        return None
    return None if found is None else Path(found)


@lru_cache(maxsize=1)
def hub_reachable() -> bool:
    """Whether the hub answers within `PROBE_SECONDS`; asked once a process.

    The hub client's own session is used, so that proxies and certificates are those of the
    download. The probe runs in a thread because resolving a name knows no timeout.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def probe() -> None:
        try:
            session: Any = get_session()
            session.head(constants.ENDPOINT, timeout=PROBE_SECONDS)
        except Exception:  # whatever the network or the client raises, there is no hub
            return
        answered.set()

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def download_snapshot(
    name: str, patterns: Sequence[str] = PATTERNS, subfolders: Sequence[str] = ()
) -> Path:
    """Fetch hub repository `name` into the hub's cache; call `hub_reachable` first.

    What the cache has of it already is not fetched again, and a file that broke off goes on.

    Args:
        patterns: of the files to fetch, in the repository's top folder.
        subfolders: likewise.

    Raises:
        CheckpointError: the repository or its revision does not exist, is gated, or the transfer
            broke off.
    """
    from huggingface_hub import snapshot_download

    place = hub_name(name) or HubName(name, None)
    fetched = [(list(patterns), ["*/*", UNREAD])]
    if subfolders:
        inside = [f"{folder}/{pattern}" for folder in subfolders for pattern in patterns]
        fetched.append((inside, [f"{folder}/*/*" for folder in subfolders]))
    found = ""
    try:
        for wanted, unwanted in fetched:
            found = snapshot_download(
                place.repository,
                revision=place.revision,
                allow_patterns=wanted,
                ignore_patterns=unwanted,
                etag_timeout=5,
            )
    except Exception as error:
        raise CheckpointError(
            f"{name!r} could not be fetched from the hub ({type(error).__name__}: "
            f"{' '.join(str(error).split())}). "
            "Check the id and, for gated models, `hf auth login`; or give a local folder. Ask "
            "again to go on with what broke off."
        ) from error
    return Path(found)
