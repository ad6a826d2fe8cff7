"""Sound files decoded by FFmpeg, as PyAV's wheels bring it: the one place that reads them.

What is lost of a file is told. FFmpeg plays damaged files as far as it can and tells the rest in
its log, so that the log is read here; beside it, the length a header states is held against what
came out, and time stamps against the samples counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from palscope.audio import _containers as containers
from palscope.audio import _told
from palscope.audio._byte_source import ByteSource
from palscope.audio._ffmpeg_log import ffmpeg_log
from palscope.errors import AudioError

if TYPE_CHECKING:
    from av import AudioStream
    from av.container import InputContainer

# Demuxers that may open a file: each has been tried, and none reads another file or an address, as
# playlists do.
_DEMUXERS = (
    "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,iff,ircam,matroska,mov,mp3,mpeg,mpegts,nistsphere,"
    "ogg,tta,voc,w64,wav,wv"
)
FORMATS = (
    "WAV, FLAC, MP3, Ogg (Vorbis or Opus), M4A or AAC, WebM, AIFF, CAF or another format that "
    "FFmpeg knows by its content"
)
# Codings whose samples a header counts one by one (beside plain samples); elsewhere lengths are
# rounded to the encoder's frames.
_COUNTED = {"flac", "alac", "tta", "wavpack"}
_ROUNDING_S = 0.1
# A jump of the time stamps that no rounding explains.
_GAP_S = 0.1
# About 0.4 s of stereo at 44.1 kHz.
_BLOCK_VALUES = 1 << 15
# A header's miscount of itself, in bytes.
_MISCOUNT = 64
# Told about tags and pictures, not about sound.
_ABOUT_TAGS = re.compile(r"BOM|comment|picture|\btags?\b|ID3|APE|metadata|attached", re.IGNORECASE)
# PyAV counts the planes of a frame up to an end mark that so many channels leave no room for, and
# reads past them.
_MOST_PLANES = 8
# Said of bytes that begin no frame of MP3, FLAC or AAC.
_NO_FRAME = {"Header missing", "invalid sync code", "Error decoding AAC frame header."}

Sink: TypeAlias = Callable[[np.ndarray, int], None]


def decode(file: Any, name: str, sink: Sink, max_seconds: float | None) -> None:
    """Decode the sound of `file` block by block.

    Of several sound tracks the default one is read, then the one of most channels, then the first.
    Encoders' delay and padding are cut off where the file states them.

    Args:
        file: binary, with `read`, and `seek` and `tell` unless it is a pipe.
        name: what errors call it.
        sink: takes each block, `[samples, channels]` in the file's own number type, and its rate
            in Hz, which may change where files were joined.
        max_seconds: more is refused: at once where the header tells, else once so much is decoded.

    Raises:
        AudioError: no sound file, damaged, cut short, without sound, or too long.

    Warns:
        AudioWarning: it holds several sound tracks, ends in bytes that are no sound, or does not
            say where it ends.
    """
    import av
    from av.error import FFmpegError

    source = ByteSource(file)
    head = source.read_at(0, 1 << 16)
    if source.error is not None:
        raise AudioError(f"{name} cannot be read: {source.error}.") from source.error
    with ffmpeg_log() as log:
        try:
            with av.open(
                cast(Any, source),
                mode="r",
                container_options={"format_whitelist": _DEMUXERS},
                metadata_errors="replace",
            ) as opened:
                container = cast("InputContainer", opened)
                run = _Run(name, sink, max_seconds, source, head, log)
                run.read(container, _track(container, name))
        except FFmpegError as error:
            _raise_read_error(source, name)
            raise AudioError(
                f"{name} cannot be read as sound ({_reason(error, log)}); expected {FORMATS}. "
                "Check that the file is whole, or convert it to WAV."
            ) from error


@dataclass
class _Fault:
    """What went wrong, and after how many samples.

    `junk`: by bytes that begin no frame of sound; `lost`: whatever the packet held is lost.
    """

    message: str
    at: int
    junk: bool = False
    lost: bool = False


@dataclass
class _Run:
    name: str
    sink: Sink
    max_seconds: float | None
    source: ByteSource
    head: bytes
    log: list[tuple[int, str, str]]
    faults: list[_Fault] = field(default_factory=list["_Fault"])
    stated: float | None = None
    # Samples decoded, by their rate.
    counts: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def decoded(self) -> int:
        """Samples so far."""
        return sum(self.counts.values())

    @property
    def seconds(self) -> float:
        """Their duration."""
        return sum(count / rate for rate, count in self.counts.items())

    def read(self, container: InputContainer, track: AudioStream) -> None:
        """Decode all of the track, then judge what was told meanwhile."""
        others = {s.codec_context.name for s in container.streams if s is not track and _coded(s)}
        self._foreign = others - {track.codec_context.name}
        self._format = container.format.name
        self._codec = track.codec_context.name
        self.stated = self._stated_seconds(container, track)
        self._check_length(self.stated)
        self._log_read = 0
        self.faults += [_Fault(message, 0) for message in self._told()]
        self._log_read = len(self.log)
        track.codec_context.thread_count = 1  # a decoder's own threads would not reach this log
        track.codec_context.options = {"err_detect": "crccheck"}
        if self._format == "caf" and self._codec == "alac":
            # FFmpeg cuts the padding of the last packet, which ALAC has left out already.
            track.codec_context.flags2 |= 1 << 29  # AV_CODEC_FLAG2_SKIP_MANUAL
            self.stated = None  # some writers count the padding, some do not
        self._decode(container, track)
        _raise_read_error(self.source, self.name)
        self._judge()

    def _decode(self, container: InputContainer, track: AudioStream) -> None:
        from av.error import FFmpegError

        blocks = _Blocks(self.sink)
        clock = _Clock()
        packets = container.demux(track)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except FFmpegError as error:
                told = self._told() or [_short(error)]
                self.faults += [_Fault(message, self.decoded) for message in told]
                self._log_read = len(self.log)
                break
            frames: list[Any] = []
            failure: list[str] = []
            try:
                frames = packet.decode()
            except FFmpegError as error:
                failure = [_short(error)]
            for frame in frames:
                if frame.samples:
                    self.source.sound_found()
                    gap = clock.gap(frame)
                    if gap is not None:
                        self.faults.append(_Fault(gap, self.decoded))
                    blocks.add(_samples(frame), frame.sample_rate)
                    count = self.counts.get(frame.sample_rate, 0) + frame.samples
                    self.counts[frame.sample_rate] = count
                    self._check_length(None)
            self._packet_faults(bytes(packet), failure)
        self.faults += [_Fault(message, self.decoded) for message in self._told()]
        blocks.flush()

    def _packet_faults(self, packet: bytes, failure: list[str]) -> None:
        told = self._told() or failure
        self._log_read = len(self.log)
        if not told or (failure and containers.is_tag(packet)):
            return
        junk = told[0] in _NO_FRAME or not packet.strip(b"\0")
        self.faults += [_Fault(message, self.decoded, junk, bool(failure)) for message in told]

    def _told(self) -> list[str]:
        """The damage that the log tells of since it was last read."""
        import av.logging

        return [
            text
            for level, about, text in (
                (*entry[:2], entry[2].strip()) for entry in self.log[self._log_read :]
            )
            if (level <= av.logging.ERROR or text.startswith("Packet corrupt"))
            and about not in self._foreign
            and not _ABOUT_TAGS.search(text)
        ]

    def _stated_seconds(self, container: InputContainer, track: AudioStream) -> float | None:
        """The length the file states, and not one that FFmpeg estimates from its size."""
        if any("Estimating duration" in message for _, _, message in self.log):
            return None
        if track.duration is not None and track.time_base is not None:
            return float(track.duration * track.time_base)
        if container.duration is not None and len(container.streams) == 1:
            return container.duration / 1e6
        return None

    def _check_length(self, stated: float | None) -> None:
        if self.max_seconds is None or max(stated or 0, self.seconds) <= self.max_seconds:
            return
        lasts = "more than that" if stated is None else f"{stated:.1f} s"
        raise AudioError(
            f"{self.name} lasts {lasts}; expected at most {self.max_seconds:g} s. "
            "Cut it, or raise max_seconds."
        )

    def _judge(self) -> None:
        """Raise for what was lost, warn of what is odd."""
        length = self.source.length()
        if containers.is_empty_wav(self.head, length):
            raise AudioError(f"{self.name} holds no sound (its header says so); record it again.")
        wav = containers.wav_data(self.head)
        open_ended = containers.is_open_ended(self.head, length)
        faults = self.faults
        if open_ended or self.stated is None:  # the last sample of a recording that broke off
            faults = [f for f in faults if f.lost or not f.message.startswith("Invalid PCM packet")]
        if open_ended:
            faults = [f for f in faults if not f.message.startswith("Packet corrupt")]
        elif wav is not None and faults and self._format == "wav":
            missing = wav.start + wav.size - length
            if 0 < missing <= _MISCOUNT:
                self._warn(f"states {missing} bytes of sound more than it holds; it is read whole")
                return
            if missing > 0:
                there = max(0, wav.size - missing)
                self._raise_cut(f"{there} of {wav.size} bytes of sound are there")
        ends = [f for f in faults if f.at >= self.decoded]
        harmless = all(f.junk for f in faults)
        missing = max(0.0, (self.stated or 0.0) - self.seconds)
        if faults and len(ends) == len(faults) and self.decoded and harmless:
            short = f", {1000 * missing:.0f} ms before what it states" if missing > 1e-6 else ""
            self._warn(
                f"ends{short} in bytes that are no sound that can be read; they are left out"
            )
            faults = []
        counted = self._codec in _COUNTED or self._codec.startswith("pcm_")
        slack = 1e-6 if counted else _ROUNDING_S
        if missing > slack and not open_ended:
            self._raise_cut(
                f"{self.seconds:.2f} s of the {self.stated:.2f} s it states could be read", faults
            )
        if self._format == "mp3" and missing > 1e-6:
            self._warn(f"ends {1000 * missing:.0f} ms before what it states")
        if faults:
            where = self.seconds * faults[0].at / self.decoded if self.decoded else 0.0
            raise AudioError(
                f"{self.name} is damaged or cut short: FFmpeg tells of '{faults[0].message}' at "
                f"{where:.2f} s; {self.seconds:.2f} s could be read. "
                "Fetch or export the file again."
            )
        if self._format == "ogg":
            problem, lost = containers.ogg_fault(self.source.read_at, length) or ("", False)
            if lost:
                self._raise_cut(f"{problem}; {self.seconds:.2f} s could be read")
            if problem:
                self._warn(problem)

    def _raise_cut(self, how: str, faults: list[_Fault] | None = None) -> None:
        told = f" (FFmpeg tells of '{faults[0].message}')" if faults else ""
        raise AudioError(
            f"{self.name} is cut short or damaged: {how}{told}. Fetch or export the file again."
        )

    def _warn(self, what: str) -> None:
        _told.warn(f"{self.name} {what}.")


class _Blocks:
    """Frames of one rate and number of channels, joined to blocks."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._parts: list[np.ndarray] = []
        self._kind: tuple[int, int] | None = None
        self._values = 0

    def add(self, samples: np.ndarray, rate: int) -> None:
        kind = (rate, samples.shape[1])
        if kind != self._kind or self._values >= _BLOCK_VALUES:
            self.flush()
        self._kind = kind
        self._parts.append(samples)
        self._values += samples.size

    def flush(self) -> None:
        if self._parts and self._kind is not None:
            self._sink(np.concatenate(self._parts), self._kind[0])
        self._parts, self._values = [], 0


class _Clock:
    """Time stamps held against the samples counted since the first."""

    def __init__(self) -> None:
        self._expected: float | None = None

    def gap(self, frame: Any) -> str | None:
        """Says so when time stamps jump forward: what lay between is lost."""
        if frame.pts is None or frame.time_base is None:
            self._expected = None
            return None
        now = float(frame.pts * frame.time_base)
        ahead = 0.0 if self._expected is None else now - self._expected
        if self._expected is None or abs(ahead) > _GAP_S:
            self._expected = now
        self._expected += frame.samples / frame.sample_rate
        return f"{ahead:.2f} s missing by the time stamps" if ahead > _GAP_S else None


def _track(container: InputContainer, name: str) -> AudioStream:
    """FFmpeg's own choice: the default track, then the most channels, then the first."""
    tracks = [s for s in container.streams.audio if _coded(s)]
    if not tracks:
        what = "no sound track" if not container.streams.audio else "sound of an unknown coding"
        raise AudioError(f"{name} holds {what}; expected {FORMATS}. Check that the file is whole.")
    from av.stream import Discard, Disposition

    chosen = max(
        tracks,
        key=lambda s: (bool(s.disposition & Disposition.default), s.codec_context.channels),
    )
    if len(tracks) > 1:
        number, language = tracks.index(chosen) + 1, chosen.language or "of no language"
        _told.warn(
            f"{name} holds {len(tracks)} sound tracks; number {number} ({language}) is read."
        )
    for stream in container.streams:
        if stream is not chosen:
            stream.discard = Discard.all
    return chosen


def _coded(stream: Any) -> bool:
    """Whether there is a decoder for it."""
    return getattr(stream, "codec_context", None) is not None


def _samples(frame: Any) -> np.ndarray:
    """`[samples, channels]`."""
    if frame.format.is_planar and frame.layout.nb_channels < _MOST_PLANES:
        return frame.to_ndarray().T
    if not frame.format.is_planar:
        return frame.to_ndarray().reshape(frame.samples, -1)
    from av import AudioResampler

    packer = AudioResampler(format=frame.format.packed)
    packed = [*packer.resample(frame), *packer.resample(None)]
    return np.concatenate([_samples(part) for part in packed])


def _short(error: Exception) -> str:
    """FFmpeg's words, without PyAV's around them."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _reason(error: Exception, log: list[tuple[int, str, str]]) -> str:
    import av.logging

    told = [message.strip() for level, _, message in log if level <= av.logging.ERROR]
    reason = told[-1] if told else _short(error)
    if "not on whitelist" in reason:
        return "it is of a format that is not read here"
    return reason.rstrip(".")


def _raise_read_error(source: ByteSource, name: str) -> None:
    if source.error is not None:
        raise AudioError(f"{name} cannot be read: {source.error}.") from source.error
