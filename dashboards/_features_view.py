"""Features: what a unit of the model responds to, listed, found and heard."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from _address import address_selection, remember_selection
from _feature_links import offer_change
from _given import pick, tell_dropped
from _heard import choose_index, clip_sound, shown_unit, units_of_clip, units_of_sound, version
from _models import takes_questions
from _player import player
from _setup import choose_question, choose_sound

from palscope._features.heard.index import IndexedUnits
from palscope._features.heard.labels import named
from palscope._features.heard.search import UnitsOfSound
from palscope._features.heard.show import unit_html
from palscope.audio import Waveform
from palscope.errors import PalscopeError

ALL, LABEL, CLIP, SOUND = "all", "by a label", "in seconds of a clip", "in a sound of yours"
MOST = 100
"""Units that fire in a sound are listed."""
COLUMNS = {
    "unit": st.column_config.NumberColumn("unit", format="%d", pinned=True),
    "layer": st.column_config.NumberColumn("layer", format="%d", pinned=True),
    "head": st.column_config.NumberColumn("head", format="%d", pinned=True),
    "name": st.column_config.TextColumn(
        "proposed name", help="A label, where it is told well enough on held-out clips."
    ),
    "best_label": "best label",
    "score": st.column_config.NumberColumn(
        "held-out score", format="%.2f", help="Average precision for its best label."
    ),
    "rows": st.column_config.NumberColumn("fires on tokens", format="percent"),
    "clips": st.column_config.NumberColumn("clips", help="In so many it fires."),
    "gives": st.column_config.NumberColumn(
        "gives to a clip",
        format="%.3g",
        help="To all tokens of a clip, on average over the data set.",
    ),
    "largest": st.column_config.NumberColumn("largest", format="%.3g"),
    "auroc": st.column_config.NumberColumn(
        "AUROC", format="%.3f", help="Among held-out clips of the label's domain."
    ),
    "precision": st.column_config.NumberColumn("average precision", format="%.2f"),
    "fires": st.column_config.NumberColumn("label's clips that fire it", format="percent"),
    "value": st.column_config.NumberColumn("value", format="%.3g"),
    "stronger": st.column_config.NumberColumn(
        "stronger on", format="localized", help="So many tokens of the data set, about."
    ),
    "start": st.column_config.NumberColumn("from (s)", format="%.2f"),
    "end": st.column_config.NumberColumn("to (s)", format="%.2f"),
    "words": "words it writes",
}
OF_FIRING = ("rows", "clips", "fires")
"""Columns that say nothing of heads: they give some attention to all tokens."""


def view() -> None:
    st.title("Features")
    index = choose_index()
    if index is None:
        return
    with st.sidebar:
        kind = pick(
            st.segmented_control,
            "Units",
            list(index),
            key="units",
            what="kind of units",
            default=next(iter(index)),
            required=True,
        )
        find = pick(
            st.selectbox, "Find them", (ALL, LABEL, CLIP, SOUND), key="find", what="way of finding"
        )
    if kind is None or find is None:
        return
    units = index[kind]
    st.caption(
        f"{len(units):,} {kind} at {units.hook_point} of "
        f"{index.record['weights']['checkpoint']['name']}, over {index.record['rows']:,} tokens of "
        f"{len(index.clips):,} clips. Names are proposals by a rule, with their score on held-out "
        "clips."
    )
    found = {ALL: listed, LABEL: of_label, CLIP: in_clip, SOUND: in_sound}[find](units)
    if found is None:
        return
    show_list(units, *found)
    number = choose_unit(units)
    if number is not None:
        show_unit(units, number)


Found = tuple[str, pd.DataFrame] | None
"""What tells a list from others, and its rows."""


def listed(units: IndexedUnits) -> Found:
    """All units, those first that a name is proposed for."""
    table = units.table.drop(columns="words") if not units.table["words"].any() else units.table
    return ALL, table.sort_values(["score", "largest"], ascending=False, ignore_index=True)


def of_label(units: IndexedUnits) -> Found:
    """Those that tell a label."""
    labels = units.index.labels
    names = named(labels)
    if not names:
        raise PalscopeError("the clips of this index have no labels: find units otherwise.")
    chosen = pick(st.selectbox, "Label", names, key="label", what="label")
    if chosen is None:
        return None
    row: Any = labels.iloc[names.index(chosen)]
    return chosen, units.by_label(row["label"], row["domain"])


def in_clip(units: IndexedUnits) -> Found:
    """Those that fire in seconds of a clip of the data set."""
    names = units.index.clips["name"].tolist()
    chosen = pick(st.selectbox, "Clip", names, key="heard", what="clip")
    if chosen is None:
        return None
    clip = names.index(chosen)
    waveform = clip_sound(units.index, clip)
    selection = selected(waveform, f"{version(units.index)} {clip}")
    return ranked(units_of_clip(units, chosen, waveform), chosen, selection)


def in_sound(units: IndexedUnits) -> Found:
    """Those that fire in seconds of any sound."""
    sound = choose_sound("clip", "Sound")
    if sound is None:
        return None
    question: str | None = ""
    if units.asked and takes_questions(units.index.record["weights"]["checkpoint"]["name"]):
        question = choose_question(sound)
    selection = selected(sound.waveform, sound.digest)
    if question is None:
        return None
    key = f"{sound.digest} {question}"
    return ranked(units_of_sound(units, sound, question), key, selection)


def selected(waveform: Waveform, digest: str) -> tuple[float, float] | None:
    """The seconds that the visitor selects in the player, kept in the address."""
    chosen = player(
        waveform, digest, key="heard player", selection=address_selection(waveform.seconds)
    )
    remember_selection(chosen)
    return chosen


def ranked(found: UnitsOfSound, name: str, selection: tuple[float, float] | None) -> Found:
    """Those first that are seldom so strong in the data set."""
    start, end = selection or (0.0, None)
    table = found.ranked(start, end, MOST)
    above = (1 - table["share_below"]) * found.units.index.record["rows"]
    table = table.assign(stronger=above.round().astype(int))
    where = "the whole sound" if end is None else f"{start:.2f} to {end:.2f} s"
    heads = found.units.heads is not None
    st.caption(
        f"{'What reads' if heads else 'What fires in'} {where}, those "
        f"{'heads' if heads else 'units'} first that are seldom stronger in the data set."
    )
    return f"{name} {start} {end}", table


def show_list(units: IndexedUnits, key: str, table: pd.DataFrame) -> None:
    """The list, of which a row opens its unit."""
    name = f"list of {units.name} {key}"

    def clicked() -> None:
        rows = st.session_state[name]["selection"]["rows"]
        if rows:
            st.session_state["unit"] = int(table["unit"].iloc[rows[0]])

    if table.empty:
        st.info("None of them fires there.")
        return
    st.dataframe(
        table,
        key=name,
        height=300,
        hide_index=True,
        column_config=COLUMNS,
        column_order=[
            each
            for each in COLUMNS
            if each in table and not (units.heads is not None and each in OF_FIRING)
        ],
        on_select=clicked,
        selection_mode="single-row",
    )
    if "unit" not in st.session_state and "unit" not in st.query_params:
        st.session_state["unit"] = int(table["unit"].iloc[0])


def choose_unit(units: IndexedUnits) -> int | None:
    """The number of the open unit, in the address."""
    asked = None if "unit" in st.session_state else st.query_params.get("unit")  # of a link
    if st.session_state.get("unit", 0) >= len(units):  # left over from a kind that has more
        st.session_state["unit"] = 0
    number = st.number_input(
        "Unit",
        min_value=0,
        max_value=len(units) - 1,
        step=1,
        key="unit",
        bind="query-params",
        help="A click into the list opens one, too.",
    )
    tell_dropped("unit", "Unit", asked, number)
    return number


def show_unit(units: IndexedUnits, number: int) -> None:
    """What is known of a unit, with its players."""
    unit = units[number]
    called = units.called(number)
    st.header(called)
    row = st.container(horizontal=True)
    row.download_button(
        "Download as one HTML file",
        lambda: unit_html(unit).encode(),
        f"{called.replace(', ', '-').replace(' ', '-')}.html",
        "text/html",
        icon=":material/download:",
        key="download unit",
        on_click="ignore",
        help="With all of its sounds: it plays without a network.",
    )
    offer_change(row, unit)
    st.html(shown_unit(units, number))
