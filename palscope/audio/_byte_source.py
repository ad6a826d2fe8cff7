"""A file, an upload or a pipe as a decoder reads it: forth and back, and never without end."""

from __future__ import annotations

import io
from typing import Any

# Bytes read without a single sample in return, before a source counts as endless noise.
_MOST_WITHOUT_SOUND = 1 << 29
# How far a pipe is read before the decoder has come there; and how MP4 or QuickTime files start
# behind their first four bytes, whose index may stand behind all sound.
_READ_AHEAD = 1 << 16
_INDEX_BEHIND = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}


class ByteSource:
    """Bytes with `read`, `seek` and `tell`, as PyAV asks for them.

    A source that cannot go back (a pipe, a download) is kept as far as it has been read, so that
    the decoder finds what it finds in a file. It is read ahead only where an index may stand behind
    the sound, so that an endless source can be left.

    `error` is what went wrong while reading: raised through FFmpeg it would be printed or lost.
    """

    def __init__(self, file: Any) -> None:
        self.error: Exception | None = None
        self._file = file
        self._kept: io.BytesIO | None = None
        self._ended = False
        self._without_sound = 0
        if _can_go_back(file):
            file.seek(0)  # an upload shown twice has been read to its end
        else:
            self._kept = io.BytesIO()

    def read(self, count: int) -> bytes:
        """At most `count` bytes; none at the end, and none after an error."""
        if self.error is not None:
            return b""
        self._without_sound += count
        if self._without_sound > _MOST_WITHOUT_SOUND:
            self.error = OSError(f"{_MOST_WITHOUT_SOUND >> 20} MB hold no sound")
            return b""
        try:
            if self._kept is None:
                return self._checked(self._file.read(count), count)
            self._fill(self._kept.tell() + count)
            return self._kept.read(count)
        except Exception as error:  # of the caller's file object: anything may come
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position; -1 where it cannot be reached: a pipe's end is not known."""
        try:
            if self._kept is None:
                self._file.seek(offset, whence)
                return int(self._file.tell())
            if whence == 2 and not self._ended:
                return -1
            if whence == 1:
                offset += self._kept.tell()
            if whence == 2:
                return self._kept.seek(offset, whence)
            ahead = offset - len(self._kept.getbuffer())
            if ahead > _READ_AHEAD and bytes(self._kept.getbuffer()[4:8]) not in _INDEX_BEHIND:
                return -1
            self._fill(offset)
            return self._kept.seek(offset)
        except Exception as error:
            self.error = error
            return -1

    def tell(self) -> int:
        """Bytes from the start."""
        return int((self._kept or self._file).tell())

    def sound_found(self) -> None:
        """Samples were decoded from what was read."""
        self._without_sound = 0

    def read_at(self, at: int, count: int) -> bytes:
        """The bytes from `at` on, at most `count`; the position is kept."""
        here = self.tell()
        found = b""
        if self.seek(at) == at:
            while len(found) < count and (more := self.read(count - len(found))):
                found += more
        self.seek(here)
        return found

    def length(self) -> int:
        """Of the whole, in bytes; -1 for a pipe that was not read to its end."""
        here = self.tell()
        end = self.seek(0, 2)
        self.seek(here)
        return end

    def _fill(self, until: int) -> None:
        assert self._kept is not None
        here = self._kept.tell()
        end = self._kept.seek(0, 2)
        while end < until and not self._ended:
            more = self._checked(self._file.read(until - end), until - end)
            self._ended = not more
            end += self._kept.write(more)
        self._kept.seek(here)

    @staticmethod
    def _checked(data: Any, count: int) -> bytes:
        if not isinstance(data, bytes):
            what = "text: open it in binary mode" if isinstance(data, str) else type(data).__name__
            raise OSError(f"reading gave {what}, not bytes")
        if len(data) > count:  # would be written past the decoder's buffer
            raise OSError(f"reading gave {len(data)} bytes for the {count} asked for")
        return data


def _can_go_back(file: Any) -> bool:
    seekable = getattr(file, "seekable", None)
    return hasattr(file, "seek") and hasattr(file, "tell") and (seekable is None or seekable())
