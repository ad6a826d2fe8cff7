"""The models that the pages share: opened once for all visitors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st
import torch
from streamlit.runtime.scriptrunner import get_script_run_ctx

from palscope._hooks import HookedAudioModel, load
from palscope._models import turns
from palscope._models.finding import DEMO, Checkpoint
from palscope._published.loading import find_model
from palscope._published.registry import published_class
from palscope._routing import Route
from palscope.errors import CheckpointError, RouteError


@dataclass(frozen=True)
class OpenModel:
    """A hooked model for all visitors, who take turns on it (`palscope._models.turns`)."""

    name: str
    model: HookedAudioModel
    route: Route
    version: str


_each_turn: ContextVar[Callable[[], None]] = ContextVar("each turn", default=lambda: None)


@contextmanager
def at_each_turn(tell: Callable[[], None]) -> Generator[None]:
    """Within, `tell` is called whenever this visitor's work takes a turn on a model."""
    held = _each_turn.set(tell)
    try:
        yield
    finally:
        _each_turn.reset(held)


def look_for_clicks() -> None:
    """End this run of the page where its visitor has clicked on; a pass itself cannot be ended."""
    _each_turn.get()()
    if get_script_run_ctx(suppress_warning=True) is not None:
        _ = (
            "click" in st.session_state
        )  # Streamlit looks, and raises, whenever it is asked for state


turns.before_turn = look_for_clicks


def demo_models() -> list[str]:
    """The demo checkpoints that this clone has."""
    root = Path(__file__).resolve().parents[1]
    return [name for name in DEMO if list((root / name).glob("*.safetensors"))]


def cached_model(name: str) -> OpenModel:
    """The hooked model of a checkpoint, loaded once for each version of its files.

    All names of one folder are one model. Raises `CheckpointError` when there is none.
    """
    found = find_model(name)
    found = replace(found, folder=found.folder.resolve())
    return replace(_open(str(found.folder), _version(found), found), name=name)


def _version(found: Checkpoint) -> str:
    """A short text that changes when the files of the checkpoint do."""
    files = sorted(file for file in found.folder.iterdir() if file.is_file())
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def takes_questions(name: str) -> bool:
    """Whether a checkpoint takes questions; one that transcribes takes none.

    Of a model that is not here the page tells when it opens it.
    """
    try:
        found = find_model(name)
        return found.is_own or published_class(found.model_type).takes_questions
    except CheckpointError:
        return True


def serves(model: HookedAudioModel, route: Route) -> bool:
    """Whether the checkpoint has weights for `route`."""
    try:
        model.model.check_route(route)
    except RouteError:
        return False
    return True


@st.cache_resource(max_entries=3, show_spinner="Loading the model: once, about ten seconds …")
def _open(folder: str, version: str, _found: Checkpoint) -> OpenModel:
    # Leave cores to the server and the browser: torch's threads spin while they wait for one.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    model = load(_found)
    return OpenModel(_found.name, model, model.current_route, version)
