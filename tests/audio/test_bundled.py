from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palscope.audio import load_audio
from palscope.audio._bundled import CLIPS_FOLDER, bundled_clips, bundled_notes, bundled_scenes
from palscope.audio._compose import level
from palscope.datasets._manifest import missing_audio, read_manifest
from palscope.datasets._questions import LABELS, TRAIN

FREE = {
    "sound": {"CC0 1.0", "CC BY 3.0"},
    "speech": {"CC BY-SA 4.0"},
    "music": {"MIT"},
}


def test_every_label_of_every_domain_is_there_and_loads() -> None:
    table = bundled_clips()
    assert list(dict.fromkeys(table["domain"])) == ["sound", "speech", "music"]
    for domain, rows in table.groupby("domain"):
        assert set(rows["label"]) == set(LABELS[domain])
    for path, seconds in zip(table["path"], table["duration_s"], strict=True):
        waveform = load_audio(path)
        assert abs(waveform.seconds - seconds) < 0.01
        assert level(waveform.samples) > 0.01


def test_only_free_licences_and_every_author_is_named() -> None:
    table = bundled_clips()
    for domain, rows in table.groupby("domain"):
        assert set(rows["licence"]) <= FREE[domain]
    notice = (CLIPS_FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines()
    shipped = {
        file for ending in ("ogg", "wav", "flac") for file in CLIPS_FOLDER.rglob(f"*.{ending}")
    }
    assert shipped == {Path(path) for path in table["path"]}
    for row in table.to_dict("records"):
        name = Path(row["path"]).relative_to(CLIPS_FOLDER).as_posix()
        assert any(
            all(text in line for text in (name, row["author"], row["source"], row["licence"]))
            for line in notice
        ), name
    assert "Permission is hereby granted" in (CLIPS_FOLDER / "music/LICENCE").read_text("utf-8")
    assert "CC BY-SA 4.0" in (CLIPS_FOLDER / "speech/LICENCE").read_text("utf-8")


def test_the_bundle_stays_small() -> None:
    assert sum(file.stat().st_size for file in CLIPS_FOLDER.rglob("*") if file.is_file()) < 1.5e6


def test_the_table_is_a_manifest() -> None:
    clips = read_manifest(CLIPS_FOLDER / "clips.csv")
    assert len(clips) == len(bundled_clips()) and missing_audio(clips) == []


def test_notes_sound_when_the_table_says() -> None:
    clips, notes = bundled_clips(), bundled_notes()
    assert set(notes["path"]) == set(clips.loc[clips["domain"] == "music", "path"])
    for path, rows in notes.groupby("path"):
        loud = np.abs(load_audio(path).samples)
        rows = rows.sort_values("start_s")
        first = rows["start_s"].iloc[0]
        heard = np.flatnonzero(loud > 0.1 * loud.max())[0] / 16_000
        # Bowed and sung notes swell; nothing sounds before its time.
        assert first - 0.005 < heard < first + 0.06, path
        assert (rows["end_s"] > rows["start_s"]).all() and rows["end_s"].max() < 3.0
        assert rows["midi_pitch"].between(30, 100).all()


def test_first_notes_have_the_pitch_of_the_table() -> None:
    """Later ones lie under the ringing of those before."""
    first = bundled_notes().drop_duplicates("path")
    for row in first[~first["path"].str.contains("drums")].to_dict("records"):
        samples = load_audio(row["path"]).samples
        piece = samples[round((row["start_s"] + 0.05) * 16_000) : round(row["end_s"] * 16_000)]
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 16))
        peak = np.fft.rfftfreq(1 << 16, 1 / 16_000)[spectrum.argmax()]
        # The strongest partial is the fundamental or one of the overtones.
        partial = peak / (440 * 2 ** ((row["midi_pitch"] - 69) / 12))
        assert 1 <= round(partial) <= 6, row
        assert partial == pytest.approx(round(partial), rel=0.029), row  # a quarter tone


def test_scenes_are_always_the_same_and_say_the_truth() -> None:
    scenes, again = bundled_scenes(), bundled_scenes()
    assert 4 <= len(scenes) <= 6 and len({scene.name for scene in scenes}) == len(scenes)
    known = {each for labels in LABELS.values() for each in labels}
    assert scenes[0].question.replace("second", "{ordinal}") in TRAIN["digit_order"]
    for scene, same in zip(scenes, again, strict=True):
        assert np.array_equal(scene.waveform.samples, same.waveform.samples)
        assert scene.spans == same.spans
        assert scene.waveform.sample_rate == 16_000
        assert scene.answer in scene.choices and len(set(scene.choices)) == len(scene.choices)
        assert scene.answer in {span.label for span in scene.spans} <= known
        for span in scene.spans:
            assert 0 <= span.start < span.end <= scene.waveform.seconds + 1e-9


def test_a_scenes_spans_hold_its_sound_and_nothing_else() -> None:
    rows = [scene for scene in bundled_scenes() if "then" in scene.name or "seven" in scene.name]
    assert len(rows) == 4
    for scene in rows:
        samples = scene.waveform.samples
        outside = np.ones(len(samples), dtype=bool)
        for span in scene.spans:
            inside = slice(round(span.start * 16_000), round(span.end * 16_000))
            outside[inside] = False
            assert level(samples[inside]) == pytest.approx(0.05, rel=1e-3)
        assert outside.sum() == round(0.3 * 16_000) * (len(scene.spans) - 1)
        assert np.abs(samples[outside]).max() == 0
    digits = rows[0]
    assert [span.label for span in digits.spans] == ["three", "seven", "one"]
    assert digits.answer == digits.spans[1].label


def test_a_span_is_the_clip_that_its_label_names() -> None:
    table = bundled_clips()
    digits = bundled_scenes()[0]
    for span in digits.spans:
        path = table.loc[table["label"] == span.label, "path"].iloc[0]
        clip = load_audio(path).samples
        piece = digits.waveform.samples[round(span.start * 16_000) : round(span.end * 16_000)]
        best = np.correlate(clip, piece, "full").max() / np.linalg.norm(clip)
        assert best / np.linalg.norm(piece) > 0.99
