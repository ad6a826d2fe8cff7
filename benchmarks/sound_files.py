"""Sound files of many formats, rates, tags and kinds of damage, read by palscope and by FFmpeg.

    python -m benchmarks.sound_files --out runs/sound_files.json

Needs the command `ffmpeg`, which writes each file from the same sound and decodes it again: another
build than the one in PyAV's wheels, and another path through it. Whole files must give its samples;
damaged ones must be refused, warned of, or hold what the whole file holds, unless FFmpeg has no
word of it either: those are counted as `nobody tells`. Every file must be answered within seconds.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from palscope.audio._decode import decode
from palscope.errors import AudioError, AudioWarning

RATES = (8_000, 16_000, 22_050, 44_100, 48_000)
MP3_MODES = {
    **{f"constant {rate}": ("-b:a", rate) for rate in ("48k", "96k")},
    **{f"variable {quality}": ("-q:a", quality) for quality in ("2", "6")},
}
# Container by ending, encoder, further options.
OTHERS: dict[str, tuple[str, ...]] = {
    **{f"wav {codec}": ("wav", f"pcm_{codec}") for codec in ("u8", "s16le", "s24le", "s32le")},
    **{f"wav {codec}": ("wav", f"pcm_{codec}") for codec in ("f32le", "f64le", "mulaw", "alaw")},
    **{f"wav {codec}": ("wav", codec) for codec in ("adpcm_ms", "adpcm_ima_wav")},
    "rf64": ("wav", "pcm_s16le", "-rf64", "always"),
    "w64": ("w64", "pcm_s16le"),
    "flac": ("flac", "flac"),
    "flac 24": ("flac", "flac", "-sample_fmt", "s32"),
    "aiff": ("aiff", "pcm_s16be"),
    "aiff float": ("aiff", "pcm_f32be"),
    "au": ("au", "pcm_s16be"),
    "caf": ("caf", "pcm_s16le"),
    "caf alac": ("caf", "alac"),
    "ogg vorbis": ("ogg", "libvorbis"),
    "ogg opus": ("opus", "libopus"),
    "ogg flac": ("ogg", "flac"),
    "ogg speex": ("spx", "libspeex"),
    "m4a": ("m4a", "aac"),
    "m4a index first": ("m4a", "aac", "-movflags", "faststart"),
    "m4a fragments": ("mp4", "aac", "-movflags", "frag_keyframe+empty_moov"),
    "m4a alac": ("m4a", "alac"),
    "mov": ("mov", "pcm_s16le"),
    "aac": ("aac", "aac"),
    "webm": ("webm", "libopus"),
    "webm live": ("webm", "libopus", "-live", "1"),
    "webm vorbis": ("webm", "libvorbis"),
    "mka": ("mka", "pcm_s16le"),
    "wma": ("wma", "wmav2"),
    "avi": ("avi", "libmp3lame"),
    "flv": ("flv", "libmp3lame"),
    "ts": ("ts", "aac"),
    "mp2": ("mp2", "mp2"),
    "ac3": ("ac3", "ac3"),
    "wavpack": ("wv", "wavpack"),
    "tta": ("tta", "tta"),
    "voc": ("voc", "pcm_s16le"),
}
# What FFmpeg says of whole files too.
IDLE = re.compile(
    "Estimating duration|Guessed Channel|Multiple frames|deprecated|non monotonically|misdetection|"
    "timescale not set|skipping CAF chunk|maximum wav data size|max_analyze_duration|extends beyond"
)


def source(rate: int, channels: int, seconds: float = 1.6) -> np.ndarray:
    """`[samples, channels]`: a rising tone, and a burst each quarter of a second."""
    times = np.arange(round(rate * seconds)) / rate
    rng = np.random.default_rng(rate + channels)
    sound = 0.2 * np.sin(2 * np.pi * (200 + 250 * times) * times)
    sound += rng.normal(0, 0.1, len(times)) * (times % 0.25 < 0.06)
    return np.stack([sound * 0.9**channel for channel in range(channels)], axis=1)


def ffmpeg(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """The command, with warnings alone."""
    command = ["ffmpeg", "-nostdin", "-y", "-v", "warning", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False)


def whole_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the grid that FFmpeg can write, under a name that begins with its kind."""
    picture = folder / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:d=0.04", "-frames:v", "1", picture)
    for channels in (1, 2, 6):
        for rate in (*RATES, 96_000, 192_000):
            wav, made = folder / "source.wav", folder / "made"
            soundfile.write(wav, source(rate, channels), rate, subtype="FLOAT")
            for kind, (ending, codec, *more) in OTHERS.items():
                made = folder / f"made.{ending}"
                if ffmpeg("-i", wav, "-c:a", codec, *more, made).returncode == 0:
                    yield f"{kind}, {rate} Hz, {channels} channels", made
            if channels > 2 or rate > 48_000:
                continue
            for mode, options in MP3_MODES.items():
                for header in ("1", "0"):
                    made, name = folder / "made.mp3", f"mp3 {mode}, header {header}, {rate} Hz, "
                    write = ("-i", wav, *options, "-write_xing", header)
                    ffmpeg(*write, "-id3v2_version", "0", made)
                    plain, name = made.read_bytes(), f"{name}{channels} channels"
                    ape = b"APETAGEX" + bytes([0xD0, 7, 0, 0, 32, 0, 0, 0]) + bytes(16)
                    id3v1 = b"TAG" + b"a title".ljust(125, b"\0")
                    tagged = {"no tag": plain, "ID3v1": plain + id3v1, "APE": plain + ape}
                    for tag, data in {**tagged, "zeros": plain + bytes(3000)}.items():
                        made.write_bytes(data)
                        yield f"{name}, {tag}", made
                    made.write_bytes(plain + plain)
                    yield f"{name}, joined", made
                    ffmpeg(*write, "-metadata", f"title={'x' * 3000}", made)
                    yield f"{name}, ID3v2", made
                    cover = ("-i", picture, "-map", "0", "-map", "1", "-c:v", "copy")
                    ffmpeg("-i", wav, *cover, *options, "-write_xing", header, made)
                    yield f"{name}, cover", made


def damages(data: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file, damaged in ten ways."""
    rng, size = np.random.default_rng(seed), len(data)
    for share in (0.2, 0.5, 0.9, 0.99):
        yield f"cut to {share:g}", data[: int(size * share)]
    middle = int(size * rng.uniform(0.3, 0.7))
    yield "200 bytes of noise", data[:middle] + rng.bytes(200) + data[middle + 200 :]
    yield "4000 zeros", data[:middle] + bytes(4000) + data[middle + 4000 :]
    yield "1500 bytes lost", data[:middle] + data[middle + 1500 :]
    yield "a bit turned", data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]
    yield "noise behind", data + rng.bytes(3000)
    start = int(rng.integers(4, 60))
    yield "a header's bytes changed", data[:start] + rng.bytes(4) + data[start + 4 :]


def by_ffmpeg(path: Path) -> tuple[np.ndarray, list[str]]:
    """Samples of all channels, and what it tells."""
    done = ffmpeg("-i", path, "-f", "f32le", "-")
    told = done.stderr.decode(errors="replace").splitlines()
    samples = np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], np.float32)
    return samples, [line for line in told if line.strip() and not IDLE.search(line)]


def by_palscope(data: bytes) -> tuple[np.ndarray | None, list[str]]:
    """Samples of all channels, or None and the error; and its warnings."""
    blocks: list[np.ndarray] = []

    def keep(block: np.ndarray, rate: int) -> None:
        scale = {"u": 128.0, "i": float(1 << (8 * block.dtype.itemsize - 1)), "f": 1.0}
        floats = block.astype(np.float64) - (128 if block.dtype == np.uint8 else 0)
        blocks.append((floats / scale[block.dtype.kind]).astype(np.float32).ravel())

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", AudioWarning)
        try:
            with np.errstate(all="ignore"):
                decode(io.BytesIO(data), "file", keep, 60.0)
        except AudioError as error:
            return None, [str(error)]
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return samples, [str(each.message) for each in told]


def compare(heard: np.ndarray | None, expected: np.ndarray) -> str:
    """Whether whole files are read alike."""
    if heard is None:
        return "refused"
    if len(heard) != len(expected):
        return "other length"
    apart = float(np.abs(heard - expected).max(initial=0))
    return "the same" if apart < 1e-5 else "nearly the same" if apart < 0.02 else "other samples"


def judge_damaged(path: Path, data: bytes, whole: np.ndarray) -> str:
    """Whether what is lost of a file is told."""
    heard, told = by_palscope(data)
    if heard is None:
        return "refused"
    if told:
        return "warned"
    if len(heard) >= len(whole) and np.array_equal(heard[: len(whole)], whole):
        return "holds what the whole file holds"
    path.write_bytes(data)
    return "SILENT, FFmpeg tells" if by_ffmpeg(path)[1] else "nobody tells"


def main() -> None:
    """Read the grid; exit with 1 where FFmpeg tells of a loss that palscope does not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--every", type=int, default=1, help="take each n-th file of the grid alone"
    )
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    odd: list[str] = []
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as name:
        for number, (kind, path) in enumerate(whole_files(Path(name))):
            if number % args.every:
                continue
            data = path.read_bytes()
            expected, _ = by_ffmpeg(path)
            start = time.perf_counter()
            heard, told = by_palscope(data)
            slowest = max(slowest, (time.perf_counter() - start, kind))
            result = compare(heard, expected) + (", warned" if heard is not None and told else "")
            group = "mp3" if kind.startswith("mp3") else "others"
            counts.setdefault(f"whole, {group}", Counter())[result] += 1
            if result not in ("the same", "nearly the same"):
                lengths = f"{None if heard is None else len(heard)} for {len(expected)} values"
                odd.append(f"{kind}: {result}, {lengths}; {'; '.join(told)[:200]}")
            rate, channels = kind.split(", ")[-3 if group == "mp3" else -2 :][:2]
            if (rate, channels) in (("16000 Hz", "1 channels"), ("44100 Hz", "2 channels")):
                if heard is None or (group == "mp3" and not kind.endswith("no tag")):
                    continue
                for how, broken in damages(data, number):
                    start = time.perf_counter()
                    result = judge_damaged(path, broken, heard)
                    slowest = max(slowest, (time.perf_counter() - start, f"{kind}, {how}"))
                    counts.setdefault(f"damaged: {how}", Counter())[result] += 1
                    if "SILENT" in result:
                        odd.append(f"{kind}, {how}: {result}")
    for what, results in counts.items():
        print(f"{what} ({sum(results.values())}):", dict(results.most_common()))
    print(f"slowest: {slowest[0]:.2f} s, {slowest[1]}", *odd, sep="\n")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table = {what: dict(results) for what, results in counts.items()}
    found = {"counts": table, "slowest_s": round(slowest[0], 3), "odd": odd}
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(any("SILENT" in line for line in odd))


if __name__ == "__main__":
    main()
