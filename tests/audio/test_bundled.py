from __future__ import annotations

from palscope.audio import load_audio
from palscope.audio.bundled import CLIPS_FOLDER, bundled_clips
from palscope.training.manifest import missing_audio, read_manifest
from palscope.training.questions import LABELS


def test_every_class_of_sound_is_there_and_loads() -> None:
    table = bundled_clips()
    assert set(table["label"]) == set(LABELS["sound"])
    for path, seconds in zip(table["path"], table["duration_s"], strict=True):
        assert abs(load_audio(path).seconds - seconds) < 0.01


def test_only_free_licences_and_every_author_is_named() -> None:
    table = bundled_clips()
    assert set(table["licence"]) <= {"CC0 1.0", "CC BY 3.0"}
    notice = (CLIPS_FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    rows = table[["path", "author", "source", "licence"]].itertuples(index=False)
    for path, author, source, licence in rows:
        name = str(path).rsplit("/", 1)[-1]
        assert any(
            name in line and author in line and source in line and licence in line
            for line in notice.splitlines()
        )
    shipped = {file.name for file in CLIPS_FOLDER.glob("*.ogg")}
    assert shipped == {str(path).rsplit("/", 1)[-1] for path in table["path"]}


def test_the_table_is_a_manifest() -> None:
    clips = read_manifest(CLIPS_FOLDER / "clips.csv")
    assert len(clips) == 12 and missing_audio(clips) == []
