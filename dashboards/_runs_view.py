"""Stored runs: what scripts wrote, opened and drawn by the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as parquet
import streamlit as st
from _folders import choose_folder, looking_into
from _given import short
from _means import show_means
from PIL import Image

from palscope._beside import words_for
from palscope._sweeps.store import read_record
from palscope.errors import PalscopeError
from palscope.measures import by_pathway
from palscope.plots import Caption

ROOT = Path("runs")
SHOWN_ROWS = 200


def view() -> None:
    st.title("Stored runs")
    folder = choose_run()
    if folder is None:
        return
    for run in runs_of(folder):
        record = read_record(run)
        command = str(record.get("command", "(the command was not stored)"))
        st.code(command, language="bash", wrap_lines=True)
        name = "The record" if run == folder else f"The record of {run.name}"
        with st.expander(f"{name}: route, weights, versions"):
            st.json(record, expanded=1)
    if (folder / "attention_mass.parquet").is_file():
        show_attention(folder / "attention_mass.parquet")
    show_other_files(folder)


def choose_run() -> Path | None:
    """The folder of a run, or of several: one below `runs/`, or a typed one."""
    folder = choose_folder(
        stored_runs(),
        "Folder of a run",
        key="run",
        example="runs/mass",
        help="The folder that a script of `analyses/` was given as --out.",
        there="Below runs/: ",
        none="No run is stored below `runs/`. A script makes one: "
        f"`{' '.join(words_for('attention_mass'))} --help`.",
    )
    if folder is None:
        return None
    with looking_into(folder):
        runs = runs_of(folder)
    if not runs:
        raise PalscopeError(
            f"{folder} holds no run.json; give the folder that a script was given as --out."
        )
    return folder


def stored_runs() -> list[Path]:
    """What is below `runs/`: runs, and in place of those without figures the folder that has them.

    A script that takes several models writes a run a model, and figures of all beside them.
    """
    found: set[Path] = set()
    for run in {path.parent for path in ROOT.glob("**/run.json")}:
        shared = list(run.parent.glob("*.png"))
        if shared:
            found.add(run.parent)
        if not shared or list(run.glob("*.png")):
            found.add(run)
    return sorted(found)


def runs_of(folder: Path) -> list[Path]:
    """The run in a folder, or those of several models beside whose figures it is."""
    inside = [path.parent for path in sorted(folder.glob("*/run.json"))]
    return [folder] if (folder / "run.json").is_file() else inside


@st.cache_data(max_entries=4, show_spinner="Reading the run …")
def masses_by_clip(path: str, changed: int) -> list[pd.DataFrame]:
    """Mass by pathway of each clip, read a clip at a time: a run may hold millions of rows.

    Raises `PalscopeError` when the file is no table of `attention_mass`.
    """
    try:
        file: Any = parquet.ParquetFile(path)
        groups = [file.read_row_group(i).to_pandas() for i in range(file.num_row_groups)]
        clips: dict[str, list[Any]] = {}
        for group in groups:
            for clip, rows in group.groupby("path", sort=False):
                clips.setdefault(str(clip), []).append(rows)
        return [by_pathway(pd.concat(parts)) for parts in clips.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PalscopeError(
            f"{path} cannot be read as attention_mass.py writes it: {error}"
        ) from error


def show_attention(path: Path) -> None:
    """Mean mass by layer and by head over the run's clips."""
    masses = masses_by_clip(str(path), path.stat().st_mtime_ns)
    st.header(f"Attention mass, {len(masses)} clip{'s' if len(masses) > 1 else ''}")
    show_means(masses, "run", caption_of(path.parent, len(masses)))


def caption_of(folder: Path, clips: int) -> Caption:
    """What the record says of a run's figures."""
    config = read_record(folder).get("config")
    config = config if isinstance(config, Mapping) else {}
    model = " ".join(str(config[name]) for name in ("model", "route") if config.get(name))
    asked = f"“{config['question']}”" if config.get("question") else "each clip's own question"
    return Caption(model or "model not stored", asked, clips)


def show_other_files(folder: Path) -> None:
    """Pictures and tables that stand beside the record."""
    pictures = sorted(folder.glob("*.png"))
    tables = sorted(folder.glob("*.csv"))
    if not pictures and list(folder.parent.glob("*.png")):
        st.info(f"The figures, of all models of this run, are in {folder.parent}.")
    if pictures:
        st.header("Figures of the run")
        for start in range(0, len(pictures), 3):
            for column, path in zip(st.columns(3), pictures[start : start + 3], strict=False):
                with column:
                    show_picture(path)
    for path in tables:
        with st.expander(f"Table {path.name}"):
            try:
                table = pd.read_csv(path, nrows=SHOWN_ROWS)
            except pd.errors.EmptyDataError:  # contrasts of domains, say, where there is one
                st.caption("Empty: this run had nothing to put there.")
                continue
            except (OSError, ValueError, OverflowError) as error:
                st.error(f"{path} cannot be read as a table: {short(str(error), 200)}")
                continue
            st.dataframe(table)
            if len(table) == SHOWN_ROWS:
                st.caption(f"The first {SHOWN_ROWS} rows.")


def show_picture(path: Path) -> None:
    """A figure of the run, or a sentence where the file is damaged."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        st.error(f"{path} cannot be read as a picture: {short(str(error), 200)}")
        return
    st.image(str(path), caption=path.stem)
