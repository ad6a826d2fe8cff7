"""Features of a dictionary in the sound: which fire, what changing each does, and changing some."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st
from _address import address_edits, check_edits, remember_edits
from _answers import Ask, generated_answer
from _dictionaries import cached_dictionary, choose_dictionary, units_of
from _edit_view import Selection, lead_in_words, shown
from _edited import edited
from _edits import SILENCE, to_text
from _feature_edits import ERROR, FeatureEdit
from _feature_effects import effects_of_features
from _feature_links import offer_sounds
from _given import short, tell_dropped
from _sounds import bundled_names

from palscope.errors import PalscopeError

OPEN = "features"
"""The part of the page, and whether it is open, in the address."""
MEANT = "feature"
"""The features that are meant; of a link, one of them."""
ZERO, LIKE, TIMES = "set to 0", "as in another sound", "multiply"
COLUMNS = {
    "feature": st.column_config.TextColumn(
        "feature", help="*error* is what the dictionary leaves unexplained."
    ),
    "name": st.column_config.TextColumn("proposed name", help="By the index; not the truth."),
    "value": st.column_config.NumberColumn("value", format="%.3g", help="Its largest there."),
    "seconds": st.column_config.TextColumn("at (s)", help="Of the token with the largest value."),
    "effect": st.column_config.NumberColumn("effect (nats)", format="%.2f"),
    "estimate": st.column_config.NumberColumn("estimated", format="%.2f"),
}


@st.fragment
def show_features(ask: Ask, selection: Selection, rival: str) -> None:
    """Nothing is computed, nor a dictionary read, before it is opened."""
    label = "Features: which of a dictionary fire here, and what the answer needs of them"
    asked = None if OPEN in st.session_state else st.query_params.get(OPEN)  # of a link
    panel = st.expander(label, key=OPEN, bind="query-params")
    tell_dropped(OPEN, "Features", asked, bool(panel.open))
    if not panel.open:
        return
    with panel:
        try:
            dictionary = choose_dictionary(ask)
            if dictionary is not None:
                show_effects(ask, choose_change(selection, dictionary), rival)
        except PalscopeError as error:
            st.error(str(error))


def choose_change(selection: Selection, dictionary: str) -> FeatureEdit:
    """What is to become of the features that are meant, which it does not name yet."""
    row = st.container(horizontal=True, vertical_alignment="bottom")
    how = row.segmented_control(
        "Change a feature",
        [ZERO, LIKE, TIMES],
        default=ZERO,
        required=True,
        key="feature change",
        help="In the selected seconds; everywhere, where none are selected. Whatever else there "
        "is stays as it is: the dictionary's error too, unless it is meant.",
    )
    change = FeatureEdit("zero", selection, (), False, dictionary)
    if how == LIKE:
        clips = [name for names in bundled_names().values() for name in names]
        source: Any = row.selectbox("Sound", [SILENCE, *clips], key="feature source")
        return replace(change, kind="like", source=source)
    if how == TIMES:
        factor = row.number_input("By", -100.0, 100.0, 2.0, key="feature factor")
        return replace(change, kind="times", factor=factor)
    return change


def show_effects(ask: Ask, change: FeatureEdit, rival: str) -> None:
    """The features that fire, those first that the answer needs, and buttons that change them."""
    with st.spinner("One gradient, and a dozen changes …"):
        table: Any = effects_of_features(ask, rival, change)
    count = cached_dictionary(change.dictionary).d_sae
    st.caption(
        f"{len(table) - 1:,} of {count:,} features fire {change.where}. Effect: what one, "
        f"{change.makes}, does to the {lead_in_words(ask, rival)}. Those on top were changed, "
        "the others are estimated by one gradient."
    )
    show_table(table, change)
    chosen = choose_features(table["feature"].tolist())
    made = of_features(change, chosen, count)
    row = st.container(horizontal=True, vertical_alignment="center")
    label = f"Change: {change.makes}"
    if row.button(label, type="primary", disabled=not chosen, key="change features"):
        edits = [*address_edits(), made]
        check_edits(to_text(edits))
        remember_edits(edits)
        st.rerun()  # what is done is shown above
    units = units_of(change.dictionary)
    numbers = [each for each in chosen if each != ERROR]
    if units is not None and numbers:
        offer_sounds(row, units, numbers[-1])
    tell_answer(ask)


def show_table(table: Any, change: FeatureEdit) -> None:
    """A click on a row means its feature, too."""
    key = f"features by effect {change}"

    def clicked() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            meant = st.session_state.get(MEANT, [])
            feature = table["feature"].iloc[rows[0]]
            st.session_state[MEANT] = [*meant, *[feature] * (feature not in meant)]

    spans = [
        f"{row.start_s:.2f}–{row.end_s:.2f}" if row.start_s == row.start_s else ""
        for row in table.itertuples()
    ]
    named = bool(table["name"].any())
    st.dataframe(
        pd.DataFrame({**table, "seconds": spans}),
        key=key,
        height=300,
        hide_index=True,
        column_config=COLUMNS,
        column_order=[each for each in COLUMNS if named or each != "name"],
        on_select=clicked,
        selection_mode="single-row",
        placeholder="",
    )


def choose_features(features: Sequence[str]) -> list[str]:
    """Those that are meant, as text: some of these, or any number."""
    if MEANT not in st.session_state:
        st.session_state[MEANT] = [each for each in [st.query_params.get(MEANT)] if each]
    st.query_params.pop(MEANT, None)  # which a link alone needs
    # Not with their effects: Streamlit tells an option from a typed one by its text.
    chosen: Any = st.multiselect(
        "Features that are meant, the largest effect first",
        features,
        key=MEANT,
        accept_new_options=True,
        placeholder="Click on rows above, choose here, or type a number …",
        label_visibility="collapsed",
    )
    return chosen


def of_features(change: FeatureEdit, chosen: Sequence[str], count: int) -> FeatureEdit:
    """The change of these. Raises `PalscopeError` where one is no feature of so many."""
    numbers: list[int] = []
    for each in chosen:
        if each == ERROR:
            continue
        if not (each.isascii() and each.isdigit() and int(each[:9]) < count):
            raise PalscopeError(
                f"There is no feature “{short(each)}”: the dictionary has 0 to {count - 1}."
            )
        numbers.append(int(each))
    return replace(change, features=tuple(sorted(set(numbers))), error=ERROR in chosen)


def tell_answer(ask: Ask) -> None:
    """The answer under all edits, which stands above, out of sight; what is wrong is told there."""
    with suppress(PalscopeError):
        if edits := tuple(address_edits()):
            new = edited(ask, edits)
            st.caption(
                f"With all that is changed: {shown(generated_answer(ask).text)} → "
                f"{shown(new.text)}, {new.change:+.2f} nats. It stands above the player, where it "
                "can be taken back."
            )
