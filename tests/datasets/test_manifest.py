from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from palscope.datasets import _decoded as module
from palscope.datasets._manifest import (
    Corpus,
    ManifestError,
    cache_waveforms,
    missing_audio,
    read_manifest,
)
from palscope.errors import AudioError


def write(folder: Path, text: str) -> Path:
    path = folder / "m.csv"
    path.write_text(text, encoding="utf-8")
    return path


def tone(path: Path, seconds: float = 0.5, rate: int = 8_000) -> None:
    sf.write(path, 0.3 * np.sin(np.arange(round(seconds * rate)) / 5), rate)


def test_reads_columns_relative_to_the_manifest(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "path,domain,label,split,group,duration_s,licence,extra\n"
        "a/x.wav,sound, sea waves ,train,7,1.5,CC0,?\n"
        '"b, c.wav",speech,NA,,,,,\n',
    )
    first, second = read_manifest(path)
    assert first.path == tmp_path / "a" / "x.wav"
    assert (first.domain, first.label, first.split, first.group) == (
        "sound",
        "sea waves",
        "train",
        "7",
    )
    assert (first.duration_s, first.licence) == (1.5, "CC0")
    assert (second.name, second.label, second.split) == ("b, c.wav", "NA", "")
    assert second.duration_s is None


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffpath,domain,label\nx.wav,sound,dog\n")
    assert read_manifest(path)[0].name == "x.wav"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,label\nx.wav,dog\n", "column domain missing"),
        ("", "column path, domain, label missing"),
        ("path,domain,label\n", "no rows"),
        ("path,domain,label\nx.wav,sound,dog\ny.wav,,dog\n", "line 3: column domain is empty"),
        ("path,domain,label\nx.wav,sound\n", "line 2: 2 cells, but the header has 3"),
        ("path,domain,label\n\na, b.wav,sound,dog\n", "line 3: 4 cells, but the header has 3"),
        ("path,domain,label,label\nx.wav,sound,dog,cat\n", "column label stands twice"),
        ("path;domain;label\nx.wav;sound;dog\n", "apart by ';' here"),
        ("path,domain,label\nx.wav,sound,dog\ny.wav,sound,dog\nx.wav,sound, dog\n", "line 4"),
        *(
            (f"path,domain,label,duration_s\nx.wav,sound,dog,{bad}\n", "line 2: column duration_s")
            for bad in ("long", "nan", "-1.5", "inf", "0", "1e999", "-inf")
        ),
    ],
)
def test_bad_manifests_are_told_by_file_and_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ManifestError, match=told) as raised:
        read_manifest(write(tmp_path, text))
    assert "m.csv" in str(raised.value)


def test_no_manifest_and_no_text_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.csv: no such file"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00path\x00\x81")
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(tmp_path / "m.csv")


def test_missing_files_are_all_listed(tmp_path: Path) -> None:
    tone(tmp_path / "here.wav")
    path = write(
        tmp_path,
        "path,domain,label\nhere.wav,sound,dog\ngone1.wav,sound,dog\ngone2.wav,sound,dog\n",
    )
    clips = read_manifest(path)
    assert [clip.name for clip in missing_audio(clips)] == ["gone1.wav", "gone2.wav"]
    with pytest.raises(ManifestError, match=r"2 audio files(.|\n)*gone1\.wav(.|\n)*gone2\.wav"):
        cache_waveforms(clips, tmp_path / "cache", progress=False)


def test_cache_holds_16_khz_samples_and_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone(tmp_path / "a.wav", 0.5)
    tone(tmp_path / "b.wav", 0.25)
    path = write(tmp_path, "path,domain,label\na.wav,sound,dog\nb.wav,sound,cat\n")
    clips = read_manifest(path)
    waves = cache_waveforms(clips, tmp_path / "cache", progress=False)
    expected = [module.load_audio(clip.path, sample_rate=16_000).samples for clip in clips]
    for clip, samples in zip(clips, expected, strict=True):
        np.testing.assert_array_equal(waves[clip], samples)
    assert len(waves[clips[0]]) == 8_000

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "load_audio", fail)
    again = cache_waveforms(clips, tmp_path / "cache", progress=False)
    np.testing.assert_array_equal(again[clips[1]], expected[1])
    copied = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(copied[clips[0]], expected[0])
    assert len(pickle.dumps(again)) < 2_000  # the map itself must not travel

    tone(tmp_path / "b.wav", 0.4)
    os.utime(tmp_path / "b.wav", (1, 1))
    with pytest.raises(AssertionError, match="decoded again"):
        cache_waveforms(clips, tmp_path / "cache", progress=False)


def test_a_file_that_breaks_off_leaves_no_cache(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"RIFF nothing")
    path = write(tmp_path, "path,domain,label\na.wav,sound,dog\nb.wav,sound,cat\n")
    with pytest.raises(AudioError, match=r"b\.wav"):
        cache_waveforms(read_manifest(path), tmp_path / "cache", progress=False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_domain_that_is_absent_is_told_with_what_there_is(corpus: Corpus) -> None:
    with pytest.raises(ManifestError, match=r"'birds'.*'sound', 'train'"):
        corpus.by_label("birds", "train")
    assert list(corpus.by_label("sound", None)["dog"]) == [
        clip for clip in corpus.clips if clip.label == "dog"
    ]
