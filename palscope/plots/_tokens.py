"""Attention over the words of a prompt, as a line of text that shows itself in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

import pandas as pd

from palscope._routing.display import colours
from palscope.plots._looks import translucent
from palscope.plots._tables import key_means


@dataclass(frozen=True)
class Html:
    """A piece of HTML; notebooks show it as it is."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def token_strip(table: pd.DataFrame) -> Html:
    """The prompt's text, each token on a ground as strong as the attention that it gets.

    A clip's audio tokens are drawn together, with what each stream gets in all. The strongest text
    token of the strip has the fullest ground; every token's own share shows on hovering.

    Args:
        table: from `attention_mass`, for one row and query: mean over its layers and heads.
    """
    keys: Any = key_means(table)
    keys["pathway"] = keys["pathway"].astype(str)
    strongest = keys.loc[keys["clip"] < 0, "mass"].max()
    palette = colours(keys["pathway"])
    parts: list[str] = []
    for clip, run in groupby(keys.itertuples(), key=lambda key: int(key.clip)):
        if clip < 0:
            parts += [_token(key.token, key.mass, strongest) for key in run]
        else:
            parts.append(_clip(clip, pd.DataFrame(run), palette))
    style_ = "line-height:2;overflow-wrap:anywhere;font-family:ui-monospace,monospace"
    return Html(f'<div style="{style_}">{"".join(parts)}</div>')


def _token(text: str, mass: float, strongest: float) -> str:
    ground = translucent(colours([])["text"], round(0.6 * mass / strongest, 3))
    shown = escape(text).replace(" ", "&nbsp;") or "&nbsp;"
    lines = shown.replace("\n", "⏎")
    end = "<br>" * (text.count("\n") > 0)
    return (
        f'<span title="{escape(repr(text))}: {100 * mass:.2f} %" '
        f'style="background:{ground};border-radius:3px;padding:2px 0">{lines}</span>{end}'
    )


def _clip(clip: int, keys: Any, palette: dict[str, str]) -> str:
    streams = "".join(
        f'<span title="{len(rows)} tokens of {escape(stream)}" '
        f'style="background:{translucent(palette[stream], 0.25)};padding:2px 6px;'
        f'border-left:4px solid {palette[stream]}">'
        f"{escape(stream)} {100 * rows['mass'].sum():.1f} %</span> "
        for stream, rows in keys.groupby("pathway", sort=False)
    )
    return f'<br><span title="sound">🔊 clip {clip}</span> {streams}<br>'
