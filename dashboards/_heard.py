"""Indexes of units that the page finds, and what units are in a sound; remembered for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st
from _folders import choose_folder, looking_into
from _models import cached_model
from _runs_view import ROOT
from _sounds import ChosenSound

from palscope._beside import words_for
from palscope._features.bundled import FEATURES_FOLDER
from palscope._features.heard.excerpt import sound_of
from palscope._features.heard.index import IndexedUnits, UnitIndex
from palscope._features.heard.search import UnitsOfSound, of_sound, of_stored_clip
from palscope._features.heard.show import shown
from palscope._routing import Route
from palscope.audio import Waveform


def choose_index() -> UnitIndex | None:
    """One below `runs/`, the bundled one, or a typed one; None while there is none."""
    folder = choose_folder(
        stored_indexes(),
        "Folder of an index",
        key="index",
        example="runs/heard",
        help="The folder that `analyses/hear.py` was given as --out.",
        there="There are: ",
        none="There is no index of units below `runs/`. A script makes one of stored activations "
        f"and a dictionary: `{' '.join(words_for('hear'))} --help` tells how.",
    )
    return None if folder is None else open_index(folder)


def open_index(folder: Path) -> UnitIndex:
    """Opened once for each version. Raises `PalscopeError` where it is none."""
    with looking_into(folder):
        record = folder / "run.json"
        changed = record.stat().st_mtime_ns if record.is_file() else 0
    return _opened(str(folder), changed)


def stored_indexes() -> list[Path]:
    """Those below `runs/`, then those of the package."""
    tables = [*ROOT.glob("**/clips.parquet"), *FEATURES_FOLDER.glob("**/clips.parquet")]
    folders = [each.parent for each in tables if (each.parent / "run.json").is_file()]
    return [each for each in folders if (each / "labels.parquet").is_file()]


@st.cache_resource(max_entries=4, show_spinner="Opening the index …")
def _opened(folder: str, changed: int) -> UnitIndex:
    return UnitIndex(folder)


def version(index: UnitIndex) -> str:
    """Stands for an index wherever results are remembered."""
    return f"{index.folder.resolve()} {(index.folder / 'run.json').stat().st_mtime_ns}"


def shown_unit(units: IndexedUnits, number: int) -> str:
    """A unit as HTML."""
    return _shown(version(units.index), units.name, number, units)


@st.cache_data(max_entries=32, show_spinner="Cutting its sounds …")
def _shown(index: str, name: str, number: int, _units: IndexedUnits) -> str:
    return shown(_units[number])


@st.cache_data(max_entries=8, show_spinner=False)
def _clip(index: str, clip: int, _index: UnitIndex) -> Waveform:
    return sound_of(_index, clip)


def clip_sound(index: UnitIndex, clip: int) -> Waveform:
    """A clip of the index. Raises `AudioError` where its file is gone."""
    return _clip(version(index), clip, index)


def units_of_clip(units: IndexedUnits, clip: str, waveform: Waveform) -> UnitsOfSound:
    """What units are in a clip of the index: of its stored rows; heard anew where they are gone."""
    store = units.index.path(units.index.record["config"]["store"])
    if (store / "run.json").is_file():
        return _of_clip(version(units.index), units.name, clip, units)
    clips: Any = units.index.clips
    asked: str = clips["question"][clips["name"] == clip].iloc[0] if "question" in clips else ""
    return units_of_sound(units, ChosenSound(clip, waveform, f"{store} {clip}"), asked)


@st.cache_resource(max_entries=8, show_spinner="Reading its rows …")
def _of_clip(index: str, name: str, clip: str, _units: IndexedUnits) -> UnitsOfSound:
    return of_stored_clip(_units, clip)


def units_of_sound(units: IndexedUnits, sound: ChosenSound, question: str) -> UnitsOfSound:
    """What units are in any sound, which the index's model hears once; asked any question for "".

    Raises `PalscopeError` where the model is not here, or is another one now.
    """
    name = units.index.record["weights"]["checkpoint"]["name"]
    opened = cached_model(name)
    heard = f"{sound.digest} {question}"
    return _of_sound(
        version(units.index), units.name, heard, opened.version, units, sound, question
    )


@st.cache_resource(max_entries=8, show_spinner="Listening …")
def _of_sound(
    index: str,
    name: str,
    heard: str,
    model: str,
    _units: IndexedUnits,
    _sound: ChosenSound,
    _question: str,
) -> UnitsOfSound:
    record = _units.index.record
    opened = cached_model(record["weights"]["checkpoint"]["name"])
    with opened.model.route(Route.from_dict(record["route"])):
        return of_sound(_units, opened.model, _sound.waveform, _question)
