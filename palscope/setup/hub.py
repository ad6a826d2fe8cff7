"""The Hugging Face hub in two questions: is it in the cache already, and can it be fetched quickly?

A hub that cannot be reached must cost seconds, so nothing here calls it before a short probe.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from palscope.errors import CheckpointError

PROBE_SECONDS = 4.0
#: Weights, settings and tokenizers in the repository's top folder; never pickles (`*.bin`, `*.pt`).
PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
#: The same weights once more, in Mistral's own form.
UNREAD = "consolidated*"


def cached_snapshot(name: str) -> Path | None:
    """The folder of hub repository `name` in the local cache, or None; the network is not touched.

    The folder may be incomplete (another program may have fetched one file): the caller checks.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


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


def download_snapshot(name: str, patterns: Sequence[str] = PATTERNS) -> Path:
    """Fetch hub repository `name` into the hub's cache; call `hub_reachable` first.

    Raises:
        CheckpointError: the repository does not exist, is gated, or the transfer broke off.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, allow_patterns=list(patterns), ignore_patterns=["*/*", UNREAD], etag_timeout=5
        )
    except Exception as error:
        raise CheckpointError(
            f"{name!r} could not be fetched from the hub ({type(error).__name__}: {error}). "
            "Check the id and, for gated models, `hf auth login`; or give a local folder."
        ) from error
    return Path(folder)
