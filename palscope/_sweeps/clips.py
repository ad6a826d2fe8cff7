"""Sound files as items of a run."""

from __future__ import annotations

from pathlib import Path

from palscope.errors import AudioError

# What `load_audio` reads, for folders and uploads; a file given by itself is known by its content.
SOUND_ENDINGS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".webm", ".aif", ".aiff"),
    *(".caf", ".au", ".w64", ".rf64", ".wma", ".sph", ".m4b", ".mp4", ".mov", ".3gp", ".mka"),
    *(".mkv", ".mp2", ".ac3", ".amr", ".aifc", ".snd", ".voc", ".wv", ".tta"),
)


def sound_files(folder: Path) -> list[Path]:
    """The sound files in a folder and the folders in it, sorted.

    Raises:
        AudioError: there are none.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SOUND_ENDINGS and path.is_file()
    )
    if not found:
        raise AudioError(f"{folder} holds no sound file ({', '.join(SOUND_ENDINGS)}).")
    return found
