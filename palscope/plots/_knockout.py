"""Figures of attention knockout: effect by depth, and by seconds and depth.

A window in which a cut changes nothing is no proof that the sound was not read: tokens that read it
below the window carry it on (`palscope.measures._knockout`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from palscope.measures._knockout import ALL_AUDIO
from palscope.plots._cells import Heat
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line, Rule
from palscope.plots._looks import REFERENCE, Look, looks

EFFECTS = {
    "logprob_change": Axis("change of the answer's log-probability", "nats"),
    "logit_diff_change": Axis("change of the logit difference", "nats"),
    "kl": Axis("KL from the run without cuts", "nats"),
    "flipped": Axis("share of answers that change"),
}
_WINDOW = Axis("middle of the layers that are cut", integer=True)
_EVERYWHERE = "Dotted: cut in all layers."
_READERS = {
    "text": "all text reads",
    "last": "the last token reads",
    "generated": "generated text reads",
}
_SOUND = "sound reads"
_TEXT_CONTROL = "text (control)"
_NOTHING = replace(REFERENCE, dash="solid")


def effect_by_depth(
    effects: pd.DataFrame, effect: str = "logprob_change", *, caption: Caption
) -> Figure:
    """Effect against depth: a row of panels a reader, a column a group, a line what is not read.

    Args:
        effects: `knockout_effects` by `group, queries, pathway, first_layer, last_layer`; the
            widest window of a line is drawn as a dotted level: cut in all layers.
        effect: of which it is, for the axis.
        caption: of the figure.
    """
    whole: Any = effects
    table = _with_lines(whole)
    there = set(table["reader"])
    readers = [reader for reader in (*_READERS.values(), _SOUND) if reader in there]
    groups = list(whole["group"].unique())
    own = looks([ALL_AUDIO, *table["pathway"]])
    windows = table[~table["everywhere"]].groupby("middle")[["first_layer", "last_layer"]].first()
    measured = EFFECTS[effect]
    panels = [
        Panel(
            [Rule(0, look=_NOTHING), *_levels(rows, own), *_lines(rows, windows, own)],
            _WINDOW,
            replace(measured, title=f"{reader}\n{measured.title}"),
            "" if readers.index(reader) else group,
            readers.index(reader),
            groups.index(group),
        )
        for (reader, group), rows in table.groupby(["reader", "group"], sort=False)
    ]
    return Figure(panels, caption, effects, _EVERYWHERE if table["everywhere"].any() else "")


def segments_by_depth(
    effects: pd.DataFrame, effect: str = "logprob_change", *, caption: Caption
) -> Figure:
    """Heat map of the effect of cutting single stretches of a clip, by window of layers.

    Args:
        effects: `knockout_effects` by `segment, first_layer, last_layer`, of one pathway and
            reader, the segments in order of time from the first row on: they stand downwards.
        effect: of which it is.
        caption: of the figure.
    """
    table: Any = effects
    first, last = (table[end].astype(int) for end in ("first_layer", "last_layer"))
    table = table.assign(window=first.astype(str) + " to " + last.astype(str), span=last - first)
    windows = list(table.sort_values(["span", "first_layer"], kind="stable")["window"].unique())
    segments = list(table["segment"].unique())[::-1]
    table["window"] = pd.Categorical(table["window"], windows)
    table["segment"] = pd.Categorical(table["segment"], segments)
    panel = Panel(
        [Heat.of(table, "window", "segment", "effect", EFFECTS[effect].label, signed=True)],
        Axis("layers that are cut", categories=tuple(windows)),
        Axis("stretch that text does not read", categories=tuple(segments)),
    )
    return Figure([panel], caption, effects)


# -- what is drawn --------------------------------------------------------------------------------


def _with_lines(effects: Any) -> Any:
    """The table with what each row belongs to.

    `reader` is its row of panels, `line` the name of its line, `middle` that of its window, and
    `everywhere` whether that is all layers.
    """
    queries, pathway = effects["queries"].astype(str), effects["pathway"].astype(str)
    of_text = queries.isin(list(_READERS))
    span = effects["last_layer"] - effects["first_layer"]
    table = effects.assign(
        reader=queries.map(_READERS).where(of_text, _SOUND),
        line=pathway.where(of_text, queries + " → " + pathway).mask(
            pathway == "text", _TEXT_CONTROL
        ),
        middle=(effects["first_layer"] + effects["last_layer"]) / 2,
        everywhere=span.gt(span.min()) & span.eq(span.max()),
    )
    # What all streams do together is drawn below what each of them does.
    together = pathway == ALL_AUDIO
    return pd.concat([table[together], table[~together]])


def _lines(rows: Any, windows: Any, own: dict[str, Look]) -> list[Line]:
    """The effect of each window that slides, of what is not read there."""
    said = tuple(
        f"layers {each.first_layer:g} to {each.last_layer:g}" for each in windows.itertuples()
    )
    return [
        Line.of(
            mine.sort_values("middle"), "middle", "effect",
            over=windows.index, name=name, look=_look(mine, own), hover=said,
        )
        for name, mine in rows[~rows["everywhere"]].groupby("line", sort=False)
    ]  # fmt: skip


def _levels(rows: Any, own: dict[str, Look]) -> list[Rule]:
    """The effect in all layers."""
    return [
        Rule(level, look=replace(_look(mine, own), marker="", dash="dot", light=True))
        for _, mine in rows[rows["everywhere"]].groupby("line", sort=False)
        for level in mine["effect"]
    ]


def _look(line: Any, own: dict[str, Look]) -> Look:
    """Its pathway's; dashed where a stream reads another, and of the control."""
    pathway, queries = line["pathway"].iloc[0], line["queries"].iloc[0]
    solid = pathway != "text" and queries in (*_READERS, pathway)
    return replace(own[pathway], dash="solid" if solid else "dash")
