"""A unit as HTML that plays: in a notebook, on the page, and as one file for anywhere."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palscope._features.heard.build import writes_words
from palscope._features.heard.excerpt import excerpt
from palscope._features.heard.index import IndexedUnit
from palscope._files import write_text
from palscope.audio._display import in_base64, mel_png, wav_bytes
from palscope.errors import PalscopeError

_LABELS = 10
_BESIDE = 3
"""Of a twin's strongest clips, and one of each of its quarters."""

STYLE = """
.palscope-unit { max-width: 75rem; line-height: 1.4 }
.palscope-unit h3 { margin: 1.2em 0 .3em; font-size: 1.1em }
.palscope-unit h4 { margin: .8em 0 .2em; font-size: 1em; font-weight: 600 }
.palscope-unit p { margin: .3em 0 }
.palscope-unit .row { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)) }
.palscope-unit figure { margin: 0 }
.palscope-unit figcaption { font-size: .8em; overflow-wrap: anywhere }
.palscope-unit .heard { position: relative; height: 4.5rem }
.palscope-unit .heard img { display: block; width: 100%; height: 100%; margin: 0;
  image-rendering: pixelated }
.palscope-unit .heard span { position: absolute; top: 0; bottom: 0; box-sizing: border-box;
  border: 2px solid #E69F00; border-radius: 2px }
.palscope-unit audio { display: block; width: 100%; height: 2rem; margin: .2rem 0 }
.palscope-unit table { border-collapse: collapse; font-size: .85em; margin: .3em 0 }
.palscope-unit td, .palscope-unit th { padding: .15em .7em .15em 0; text-align: left }
.palscope-unit td.n, .palscope-unit th.n { text-align: right }
.palscope-unit .bars { display: flex; align-items: flex-end; gap: 1px; height: 5rem;
  max-width: 30rem; border-bottom: 1px solid }
.palscope-unit .bars i { flex: 1; background: currentColor; opacity: .7 }
.palscope-unit .ticks { display: flex; justify-content: space-between; max-width: 30rem }
.palscope-unit .ticks b { font-weight: 400; font-size: .75em }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root {{ color-scheme: light dark }} body {{ font: 16px/1.4 system-ui, sans-serif; margin: 1.5rem }}
</style></head><body>
{body}
<p><small>Made by palscope from {folder}. Everything is in this file; it needs no
network.</small></p>
</body></html>
"""


def unit_html(unit: IndexedUnit, path: str | Path | None = None) -> str:
    """A unit as one HTML file that plays without a network.

    Args:
        unit: of an index.
        path: where it is written; None writes nothing.

    Returns:
        The file's text.

    Raises:
        PalscopeError: it cannot be written. Clips whose sound is gone are named in it.
    """
    title = _title(unit)
    text = _PAGE.format(
        title=html.escape(title),
        body=f"<h1>{html.escape(title)}</h1>{shown(unit)}",
        folder=html.escape(unit.units.index.folder.name),
    )
    if path is not None:
        write_text(Path(path), text)
    return text


def shown(unit: IndexedUnit) -> str:
    """The same as a piece of a page, without its title."""
    parts = [
        f"<style>{STYLE}</style>",
        f"<p>{_named(unit)}</p><p>{_spread(unit)}</p>",
        _words(unit),
        *_players(unit),
        "<h3>How strong it is where it fires</h3>",
        _histogram(unit),
        "<h3>Labels</h3>",
        _labels(unit),
        _nearest(unit),
        *_twins(unit),
    ]
    return f'<section class="palscope-unit">{"".join(parts)}</section>'


def _title(unit: IndexedUnit) -> str:
    name = unit.about["name"]
    told = f" (proposed name: {name})" if name else ""
    return f"{unit.units.name} {unit.number} at {unit.units.hook_point}{told}"


def _named(unit: IndexedUnit) -> str:
    """What it may be called, and how far that holds."""
    about = unit.about
    config = unit.units.index.record["config"]
    bar, test = config["named_from"], config["test"]
    if not about["best_label"]:
        sides = " and ".join(f"“{html.escape(side)}”" for side in (config["train"], test))
        return f"<b>No name</b>: it is chosen and scored on clips of two splits ({sides})."
    best, score = html.escape(about["best_label"]), about["score"]
    if about["name"]:
        return (
            f"<b>Proposed name: {best}</b>. Among held-out clips its average precision for that "
            f"label is {score:.2f}. The label was chosen on training clips by a rule: it is a "
            "proposal, and what you hear decides."
        )
    return (
        f"<b>No name</b>: the label that it ranks highest on training clips, {best}, has an "
        f"average precision of {score:.2f} on held-out ones, and {bar:g} is asked for."
    )


def _spread(unit: IndexedUnit) -> str:
    about, index = unit.about, unit.units.index
    clips: Any = index.clips
    heard = int((clips["left_out"] == "").sum())
    return (
        f"It fires on {about['rows']:.2%} of {index.record['rows']:,} tokens, in "
        f"{about['clips']:,} of {heard:,} clips; its largest value is {about['largest']:.3g}."
    )


def _words(unit: IndexedUnit) -> str:
    if words := unit.about["words"]:
        return f"<p>Words that its direction writes by the unembedding: {html.escape(words)}.</p>"
    if writes_words(unit.units.index.record["config"]["units"][unit.units.name]["writes"]):
        return ""
    return (
        "<p><small>It does not write into the decoder's residual stream, so it writes no words "
        "directly.</small></p>"
    )


# -- players --------------------------------------------------------------------------------------


def _players(unit: IndexedUnit) -> Iterator[str]:
    samples: Any = unit.samples
    if samples.empty:
        yield "<h3>It fires in no clip</h3>"
        return
    yield (
        "<p><small>In the frame is where it is at least half as strong as its peak in that clip; "
        "half a second sounds before and behind.</small></p>"
    )
    told = {"strongest": "Its strongest clips"}
    for band, rows in samples.groupby("band", sort=False):
        if band == "0-25 %":
            yield "<h3>Clips of every strength, drawn at random</h3>"
        name = told.get(band)
        head = f"<h3>{name}</h3>" if name else f"<h4>{band} of the clips that fire it</h4>"
        yield head + _row(unit, rows)


def _row(unit: IndexedUnit, samples: pd.DataFrame) -> str:
    """Players side by side, and below them those that cannot play."""
    played: list[str] = []
    gone: list[str] = []
    for sample in samples.itertuples():
        try:
            played.append(_player(unit, sample))
        except PalscopeError as error:
            gone.append(html.escape(str(error)))
    below = "".join(f"<p><small>Cannot be played: {each}</small></p>" for each in gone)
    return f'<div class="row">{"".join(played)}</div>{below}'


def _player(unit: IndexedUnit, sample: Any) -> str:
    found = excerpt(unit.units.index, sample.clip, sample.start, sample.end)
    sound = in_base64(wav_bytes(found.waveform.samples, found.waveform.sample_rate))
    picture = in_base64(mel_png(found.mel, *found.scale))
    seconds = found.waveform.seconds
    left = 100 * (sample.start - found.begins) / seconds
    width = min(100 * (sample.end - sample.start) / seconds, 100 - left)
    label = html.escape(f"{sample.domain}: {sample.label}" if sample.label else "(no label)")
    at = f"{sample.start:.2f}–{sample.end:.2f} s"
    name = html.escape(sample.name)
    return (
        f'<figure><div class="heard"><img alt="Mel spectrogram of {name} around {at}" '
        f'src="data:image/png;base64,{picture}">'
        f'<span style="left:{left:.2f}%;width:{width:.2f}%"></span></div>'
        f'<audio controls aria-label="{name} around {at}" src="data:audio/wav;base64,{sound}">'
        f"</audio><figcaption><b>{label}</b>, {sample.value:.3g}<br>{at} of {name}</figcaption>"
        "</figure>"
    )


# -- tables ---------------------------------------------------------------------------------------


def _histogram(unit: IndexedUnit) -> str:
    """Bars over a logarithmic axis of values."""
    table: Any = unit.histogram
    if table.empty:
        return "<p>Nowhere.</p>"
    rows = table["rows"].to_numpy()
    bars = "".join(f'<i style="height:{100 * each / rows.max():.1f}%"></i>' for each in rows)
    low, high = table["low"].iloc[0], table["high"].iloc[-1]
    ticks = "".join(f"<b>{value:.2g}</b>" for value in (low, np.sqrt(low * high), high))
    return (
        f'<div class="bars" role="img" aria-label="Histogram of its values">{bars}</div>'
        f'<div class="ticks">{ticks}</div><p><small>Tokens by the unit\'s value, on a logarithmic '
        f"axis; the highest bar is {rows.max():,} tokens. On all others it is silent.</small></p>"
    )


def _labels(unit: IndexedUnit) -> str:
    labels: Any = unit.labels
    table: Any = labels.head(_LABELS)
    if table.empty:
        return "<p>The clips have none.</p>"
    head = ["label", "clips", "that fire it", "average precision", "AUROC in the domain"]
    cells = [
        [
            f"{row.domain}: {row.label}",
            f"{row.clips:,}",
            f"{row.fires:.0%}",
            _number(row.precision),
            _number(row.auroc),
        ]
        for row in table.itertuples()
    ]
    note = (
        "<p><small>Average precision is among all held-out clips, AUROC among those of the same "
        "domain.</small></p>"
    )
    return _table(head, cells) + note


def _nearest(unit: IndexedUnit) -> str:
    table: Any = unit.nearest
    if table.empty:
        return ""
    every: Any = unit.units.table
    names: list[str] = every["name"].tolist()
    cells = [
        [str(int(row.unit)), f"{row.cosine:.2f}", str(names[int(row.unit)]) or "no name"]
        for row in table.itertuples()
    ]
    return "<h3>Nearest directions</h3>" + _table(["unit", "cosine", "proposed name"], cells)


def _twins(unit: IndexedUnit) -> Iterator[str]:
    """The partners among other units: does a neuron, or a random direction, do as well?"""
    for name, (twin, correlation) in unit.twins.items():
        samples: Any = twin.samples
        first = samples[samples["band"] == "strongest"].head(_BESIDE)
        others = samples[samples["band"] != "strongest"].drop_duplicates("band")
        yield (
            f"<h3>Beside it, of {html.escape(name)}: {twin.number}</h3><p>The one that goes with "
            f"it best over all tokens (correlation {correlation:.2f}). {_named(twin)}</p>"
            f"<h4>Its strongest</h4>{_row(twin, first)}"
            f"<h4>One of each quarter, the weakest first</h4>{_row(twin, others)}"
        )


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        marks = ["" if number == 0 else ' class="n"' for number in range(len(cells))]
        return "".join(
            f"<{tag}{mark}>{html.escape(cell)}</{tag}>"
            for mark, cell in zip(marks, cells, strict=True)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"
