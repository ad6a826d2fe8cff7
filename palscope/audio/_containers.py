"""What file formats state about their own end, where FFmpeg passes it over."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

# From here on a WAV file's size is no size: recorders that cannot go back leave the largest number
# of 31 or 32 bits, or a round one just below.
_NO_SIZE = 0x7F000000
_CAF_NO_SIZE = b"data" + b"\xff" * 8
_OGG_START, _OGG_END = 2, 4
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")


class WavData(NamedTuple):
    """Where the samples of a WAV file start, and how many bytes its header gives them."""

    start: int
    size: int
    order: str


def wav_data(head: bytes) -> WavData | None:
    """The `data` chunk of a WAV file; None for any other file."""
    order = {b"RIFF": "<", b"RIFX": ">"}.get(head[:4])
    if order is None or head[8:12] != b"WAVE":
        return None
    at = 12
    while at + 8 <= len(head):
        name, size = struct.unpack(f"{order}4sI", head[at : at + 8])
        if name == b"data":
            return WavData(at + 8, size, order)
        at += 8 + size + size % 2
    return None


def is_open_ended(head: bytes, length: int) -> bool:
    """Whether a WAV or CAF header leaves open how much sound follows.

    A size of 0 does so too, unless the header was finished: then there is none.
    """
    if head[:4] == b"caff":
        return _CAF_NO_SIZE in head
    wav = wav_data(head)
    if wav is None:
        return False
    return wav.size >= _NO_SIZE or (wav.size == 0 and not is_empty_wav(head, length))


def is_empty_wav(head: bytes, length: int) -> bool:
    """Whether a WAV file was finished without a sample: what follows are chunks to its very end.

    FFmpeg would play them.
    """
    wav = wav_data(head)
    if wav is None or wav.size:
        return False
    at = wav.start
    while at + 8 <= len(head):
        (size,) = struct.unpack(f"{wav.order}I", head[at + 4 : at + 8])
        at += 8 + size + size % 2
    return at == length


def ogg_fault(read_at: Callable[[int, int], bytes], length: int) -> tuple[str, bool] | None:
    """What is wrong with the pages of an Ogg file (RFC 3533), and whether sound is lost by it.

    FFmpeg skips what makes no page and stops at one that is not whole, without a word.

    Args:
        read_at: the bytes from a place on, so many at most.
        length: of the file.
    """
    at, flags = 0, 0
    numbers: dict[int, int] = {}
    while at < length:
        page = read_at(at, 27 + 255)
        if page[:5] != b"OggS\0":
            if flags & _OGG_END and b"OggS\0" not in read_at(at, 1 << 20):
                return "ends in bytes that are no sound; they are left out", False
            return f"no page of sound begins at byte {at}, where one should", True
        flags = page[5] if len(page) > 5 else 0
        serial, number = struct.unpack("<II", page[14:22]) if len(page) > 26 else (0, 0)
        if not flags & _OGG_START and number != numbers.get(serial, number - 1) + 1:
            return f"pages are missing before byte {at}", True
        numbers[serial] = number
        table = page[27 : 27 + page[26]] if len(page) > 26 else b""
        at += 27 + len(table) + sum(table)
    if at > length:
        return "its last page is not whole", True
    if not flags & _OGG_END:
        return "does not say that it ends where it does, and may be cut short", False
    return None


def is_tag(packet: bytes) -> bool:
    """Whether bytes between MP3 frames are a tag, as joined files hold them."""
    return packet.startswith(_TAGS)
