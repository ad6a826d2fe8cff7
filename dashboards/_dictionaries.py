"""Dictionaries of features that the page finds, and the index in which one's units are heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import streamlit as st
from _feature_edits import FeatureEdit
from _folders import choose_folder, looking_into
from _heard import open_index, stored_indexes
from _models import OpenModel
from _runs_view import ROOT

from palscope._beside import words_for
from palscope._features.bundled import FEATURES_FOLDER
from palscope._features.dictionary import Dictionary
from palscope._features.formats import CONFIG, WEIGHTS, load_dictionary
from palscope._features.heard.index import IndexedUnits
from palscope._routing import Route, route_to_text
from palscope.errors import PalscopeError

BUNDLED = "bundled"
"""Names the dictionary of the package, on any machine."""
MOST = 20
"""So many of those that are found are looked into."""


class OnRoute(Protocol):
    """A model on a route."""

    @property
    def opened(self) -> OpenModel: ...
    @property
    def route(self) -> Route: ...


def choose_dictionary(ask: OnRoute) -> str | None:
    """The typed one, else the first that is found and fits; None where none does."""
    known = {name: misfit(ask, name) for name in stored_dictionaries()[:MOST]}
    fit = [name for name, why in known.items() if not why]
    why = " ".join(f"{name}: {said}" for name, said in known.items())
    folder = choose_folder(
        [Path(name) for name in fit],
        "Folder of a dictionary",
        key="dictionary",
        example="runs/features/seed-0",
        help="One that `train_dictionary` or `analyses/dictionaries.py` has made, or SAELens, or "
        "an ae.pt. Left empty, it is the one shown in grey.",
        there="Those that fit: ",
        none=f"No dictionary is here that fits {ask.opened.name} on its route. {why} "
        f"`{' '.join(words_for('dictionaries'))} --help` tells how to make one.",
        where=st.container(),
    )
    if folder is None:
        return None
    fitting_dictionary(ask, str(folder))
    return str(folder)


def stored_dictionaries() -> list[str]:
    """Those below `runs/`, then that of the package."""
    found = sorted(path.parent for path in ROOT.glob(f"**/{WEIGHTS}"))
    return [*(str(each) for each in found if (each / CONFIG).is_file()), BUNDLED]


def folder_of(name: str) -> Path:
    return FEATURES_FOLDER / "dictionary" if name == BUNDLED else Path(name)


def fitting_dictionary(ask: OnRoute, name: str) -> Dictionary:
    """A dictionary. Raises `PalscopeError` where it is not for the model on its route."""
    if why := misfit(ask, name):
        raise PalscopeError(f"{name} does not fit {ask.opened.name} here: {why}")
    return cached_dictionary(name)


def misfit(ask: OnRoute, name: str) -> str:
    """Why a dictionary is not for a model on its route; empty where it is."""
    model = ask.opened.model
    try:
        dictionary = cached_dictionary(name)
    except PalscopeError as error:
        return str(error)
    hook_point = dictionary.about.get("hook_point")
    if hook_point is None:
        return "it does not say where in the model it belongs."
    with model.route(ask.route):
        try:
            dictionary.check_model(model, hook_point)
        except PalscopeError as error:
            return _belongs(ask, dictionary.about["record"]) or str(error)
        try:
            model.hook_point(hook_point)
        except PalscopeError as error:
            return str(error)
    return ""


def _belongs(ask: OnRoute, record: Mapping[str, Any]) -> str:
    """Of which model and route it is; empty where it is one that has these names."""
    name = record["weights"]["checkpoint"]["name"]
    route = Route.from_dict(record["route"])
    if (name, route) == (ask.opened.name, ask.route):
        return ""
    return f"it is of {name} on the route {route_to_text(route)}."


def cached_dictionary(name: str) -> Dictionary:
    """Loaded once for each version of its files. Raises `PalscopeError` where there is none."""
    return _loaded(name, version(name))


@st.cache_resource(max_entries=MOST + 1, show_spinner=False)
def _loaded(name: str, version: tuple[int, ...]) -> Dictionary:
    return load_dictionary(folder_of(name))


def version(name: str) -> tuple[int, ...]:
    """Changes when its files do."""
    folder = folder_of(name)
    with looking_into(folder):
        files = sorted(folder.iterdir()) if folder.is_dir() else [folder] * folder.exists()
        return tuple(file.stat().st_mtime_ns for file in files)


def dictionaries(edits: Sequence[object]) -> list[str]:
    """Those whose features are changed."""
    return list(dict.fromkeys(each.dictionary for each in edits if isinstance(each, FeatureEdit)))


def units_of(name: str) -> IndexedUnits | None:
    """A dictionary's features as an index has them; None where there is none here."""
    folder = folder_of(name).resolve()
    for path in stored_indexes():
        try:
            index = open_index(path)
            told = index.record["config"]["units"]
        except PalscopeError:  # a damaged one, which the page of features tells
            continue
        for units in index.values():
            about = told[units.name]
            if about.get("kind") == "dictionary" and index.path(about["path"]).resolve() == folder:
                return units
    return None
