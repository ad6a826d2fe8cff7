"""What FFmpeg tells while it decodes."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

_LOCK = threading.Lock()
_n_open = 0
_before: tuple[int | None, bool] = (None, True)


@contextmanager
def ffmpeg_log() -> Generator[list[tuple[int, str, str]]]:
    """What FFmpeg tells in this thread: level, who, message. PyAV's settings are put back."""
    import av.logging

    global _n_open, _before
    with _LOCK:
        if _n_open == 0:
            _before = av.logging.get_level(), av.logging.get_skip_repeated()
            av.logging.set_level(av.logging.WARNING)
            # Else what the last file was told of is not told of the next one.
            av.logging.set_skip_repeated(False)
        _n_open += 1
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        with _LOCK:
            _n_open -= 1
            if _n_open == 0:
                av.logging.set_level(_before[0])
                av.logging.set_skip_repeated(_before[1])
