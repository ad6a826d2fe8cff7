"""Attention mass: shares, by layer, by head, over words."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st
from _address import (
    Seconds,
)
from _downloads import offer, show
from _figures import click_map
from _sides import Side, head_name, of_head, once_of_sides, title

from palscope.measures._columns import HEAD, NO_SOUND
from palscope.measures._seconds import by_seconds, tokens_within
from palscope.plots import (
    Caption,
    Figure,
    head_thumbnails,
    layer_head_map,
    mass_by_layer,
    shared_scale,
    time_over_spectrogram,
)
from palscope.plots._tokens import token_strip

SELECTED = "selected seconds"


def show_shares(sides: list[Side], selection: tuple[float, float] | None) -> None:
    """The mass of each pathway and of the selected seconds, with their change."""
    st.caption(
        "Mean over all layers and heads. Text is everything that is no sound: question, chat "
        "marks, answer so far."
    )
    shares: list[Any] = [
        once_of_sides([side], ("shares", selection), partial(shares_of, side, selection))
        for side in sides
    ]
    both = len(sides) > 1
    names = list(dict.fromkeys(name for share in shares for name in share.index))
    for column, name in zip(st.columns(len(names)), names, strict=True):
        values = [f"{100 * share[name]:.1f} %" if name in share else "–" for share in shares]
        column.metric(
            name,
            values[0],
            f"{sides[-1].name}: {values[-1]}" if both else None,
            delta_color="off",
            delta_arrow="off" if both else "auto",
            help="Mean over all layers and heads; a layer that cannot see it counts as 0.",
        )
    if selection is not None:
        for side in sides:
            say_what_was_covered(side, selection)


def shares_of(side: Side, selection: Seconds | None) -> pd.Series:
    """Mass of each pathway, and of the selected seconds."""
    share = pathway_shares(side.pathways)
    if selection is not None:
        mass: Any = selected_mass(side, selection)["mass"]
        share[f"{selection[0]:.2f}–{selection[1]:.2f} s"] = mass.fillna(0).mean()
    return share


def pathway_shares(pathways: Any) -> pd.Series:
    """Mass of each pathway, averaged over layers and heads; 0 in a layer that cannot see it."""
    seen = pathways.assign(mass=pathways["mass"].fillna(0))
    grouped: Any = seen.groupby("pathway", observed=False)
    series = grouped["mass"].mean()
    return series.set_axis(series.index.astype(str))


def selected_mass(side: Side, selection: tuple[float, float]) -> Any:
    """Mass of the selected seconds by head; NaN everywhere where this side sees no sound there."""
    if sees_sound(side, selection):
        return by_seconds(side.mass, *selection)
    return side.mass[HEAD].drop_duplicates().assign(mass=float("nan"))


def sees_sound(side: Side, selection: tuple[float, float]) -> bool:
    """Whether this side has sound in the selected seconds, and a layer that sees sound."""
    sound: Any = side.mass["clip"] >= 0
    return selection[0] < side.ask.sound.waveform.seconds and bool(sound.any())


def say_what_was_covered(side: Side, selection: tuple[float, float]) -> None:
    if not sees_sound(side, selection):
        st.caption(f"{side.name}: no sound is seen in the selected seconds.")
        return
    covered: Any = tokens_within(side.mass, *selection)
    parts = [
        f"{row.tokens} of {row.pathway} ({row.start_s:.2f} to {row.end_s:.2f} s)"
        for row in covered.itertuples()
    ]
    st.caption(
        f"{side.name}: tokens that overlap {selection[0]:.2f} to {selection[1]:.2f} s: "
        + ", ".join(parts)
        + ". The encoder hears the whole clip, so a token's seconds are its place, not its reach."
    )


def show_layers(sides: list[Side]) -> None:
    """Mass by layer and pathway, one figure a side, on the same scale."""
    figures = once_of_sides(
        sides,
        "by layer",
        lambda: shared_scale(
            [mass_by_layer(side.pathways, caption=side.ask.caption) for side in sides]
        ),
    )
    for column, side, figure in zip(st.columns(len(sides)), sides, figures, strict=True):
        with column:
            title(side, sides)
            show(figure, f"mass by layer {side.name}")


def show_maps(
    sides: list[Side],
    layer: int | None,
    head: int | None,
    selection: tuple[float, float] | None,
) -> None:
    """The layer × head map of each side, and their difference."""
    wanted = st.session_state["stream"]
    if wanted == SELECTED and selection is None:
        st.info("Drag over the spectrogram to select seconds; the map then shows them.")
        return
    kinds = ["share", "over time"] if wanted not in (*NO_SOUND, SELECTED) else ["share"]
    if len(sides) == 2:
        kinds.append("difference")
    kind: Any = st.segmented_control(
        "Draw",
        kinds,
        default=kinds[0],
        key=f"draw {len(kinds)} {kinds[-1]}",
        required=True,
        help="Each cell is a head. Over time: its attention from the clip's start to its end.",
    )
    st.caption(
        f"Attention mass: what each head gives to {wanted}, not what the answer needs of it."
    )
    key = ("map", kind, wanted, selection)
    figures = once_of_sides(sides, key, lambda: maps_of(sides, kind, wanted, selection))
    if len(figures) < len(sides):
        st.caption(f"{sides[1].name} less {sides[0].name}")
        draw_map("difference", figures[0], wanted, (layer, head))
        return
    for column, side, figure in zip(st.columns(len(sides)), sides, figures, strict=True):
        with column:
            title(side, sides)
            if figure is not None:
                draw_map(f"{kind} {side.name}", figure, wanted, (layer, head))
            else:
                st.info(f"{side.name} has no stream {wanted}.")


def maps_of(
    sides: list[Side], kind: str, wanted: str, selection: Seconds | None
) -> list[Figure | None]:
    """A map a side, None for one without the stream; or one of the difference of two."""
    masses = [map_mass(side, wanted, selection) for side in sides]
    seen = [has_pathway(mass, wanted) for mass in masses]
    if kind == "difference" and all(seen):
        caption = captioned(sides[0], wanted, selection)
        models = [side.ask.caption.model for side in reversed(sides)]
        caption = replace(caption, model=" less ".join(models))
        return [layer_head_map(masses[1], wanted, minus=masses[0], caption=caption)]
    draw = head_thumbnails if kind == "over time" else layer_head_map
    drawn = iter(
        shared_scale(
            [
                draw(mass, wanted, caption=captioned(side, wanted, selection))
                for side, mass, there in zip(sides, masses, seen, strict=True)
                if there
            ]
        )
    )
    return [next(drawn) if there else None for there in seen]


def captioned(side: Side, wanted: str, selection: tuple[float, float] | None) -> Caption:
    """The side's caption, with the seconds that are looked at."""
    caption = side.ask.caption
    if wanted == SELECTED and selection is not None:
        start, end = selection
        return replace(caption, asked=f"{caption.asked}, {start:.2f} to {end:.2f} s")
    return caption


def map_mass(side: Side, wanted: str, selection: tuple[float, float] | None) -> Any:
    if wanted == SELECTED and selection is not None:
        return selected_mass(side, selection).assign(pathway=SELECTED)
    return side.mass


def has_pathway(mass: Any, wanted: str) -> bool:
    names = mass["pathway"]
    return wanted in (names.cat.categories if hasattr(names, "cat") else names.unique())


def draw_map(name: str, figure: Figure, wanted: str, chosen: tuple[int | None, int | None]) -> None:
    """One map on which a click chooses a head."""
    key = f"map {name}"

    def choose(layer: int, head: int) -> None:
        st.session_state["layer"], st.session_state["head"] = str(layer), str(head)

    click_map(key, figure, chosen, choose, f"Layer by head map of attention to {wanted}")
    offer(key, lambda: figure)


def show_words(sides: list[Side], layer: int | None, head: int | None) -> None:
    """The chosen head's attention over the prompt's words."""
    for column, side in zip(st.columns(len(sides)), sides, strict=True):
        with column:
            title(side, sides)
            st.caption(f"Attention over the prompt ({head_name(layer, head)})")
            chosen = of_head(side.mass, layer, head)
            st.html(token_strip(chosen).html)
            offer(f"attention over time {side.name}", partial(over_spectrogram, side, chosen))


def over_spectrogram(side: Side, chosen: pd.DataFrame) -> Figure:
    return time_over_spectrogram(chosen, side.ask.sound.waveform, caption=side.ask.caption)
