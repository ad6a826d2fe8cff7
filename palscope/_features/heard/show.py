"""A unit as HTML that plays: in a notebook, on the page, and as one file for anywhere."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from palscope._features.heads import ANSWER
from palscope._features.heard.build import writes_words
from palscope._features.heard.excerpt import excerpt
from palscope._features.heard.index import IndexedUnit
from palscope._features.heard.tables import histogram, is_head, labels, nearest, number
from palscope._files import write_text
from palscope.audio._display import in_base64, mel_png, wav_bytes
from palscope.errors import PalscopeError

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
        f"<h3>{'What tokens get' if is_head(unit) else 'How strong it is where it fires'}</h3>",
        histogram(unit),
        "<h3>Labels</h3>",
        labels(unit),
        nearest(unit),
        *_twins(unit),
    ]
    return f'<section class="palscope-unit">{"".join(parts)}</section>'


def _title(unit: IndexedUnit) -> str:
    name = unit.about["name"]
    told = f" (proposed name: {name})" if name else ""
    return f"{unit.units.called(unit.number)} at {unit.units.hook_point}{told}"


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
    if is_head(unit):
        addresses = index.record["addresses"]
        when = " before the answer" if any(repr(ANSWER) in each for each in addresses) else ""
        return (
            f"What it gives to a clip's tokens{when} adds up to {about['gives']:.3g} of its "
            f"attention on average over {heard:,} clips; the most that one token gets is "
            f"{about['largest']:.3g}."
        )
    return (
        f"It fires on {about['rows']:.2%} of {index.record['rows']:,} tokens, in "
        f"{about['clips']:,} of {heard:,} clips; its largest value is {about['largest']:.3g}."
    )


def _words(unit: IndexedUnit) -> str:
    if is_head(unit):
        return ""
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
        yield f"<h3>It {'reads' if is_head(unit) else 'fires in'} no clip</h3>"
        return
    yield (
        "<p><small>In the frame is where it is at least half as strong as its peak in that clip; "
        "half a second sounds before and behind.</small></p>"
    )
    clips = "clips that it reads" if is_head(unit) else "clips that fire it"
    told = {"strongest": "Its strongest clips"}
    for band, rows in samples.groupby("band", sort=False):
        if band == "0-25 %":
            yield "<h3>Clips of every strength, drawn at random</h3>"
        name = told.get(band)
        head = f"<h3>{name}</h3>" if name else f"<h4>{band} of the {clips}</h4>"
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


def _twins(unit: IndexedUnit) -> Iterator[str]:
    """The partners among other units: does a neuron, or a random direction, do as well?"""
    for name, (twin, correlation) in unit.twins.items():
        samples: Any = twin.samples
        first = samples[samples["band"] == "strongest"].head(_BESIDE)
        others = samples[samples["band"] != "strongest"].drop_duplicates("band")
        if is_head(unit):
            head = f"Beside it: {html.escape(twin.units.called(twin.number))}"
            why = f"The same head (correlation over all tokens {number(correlation)})."
        else:
            head = f"Beside it, of {html.escape(name)}: {twin.number}"
            why = f"The one that goes with it best over all tokens (correlation {correlation:.2f})."
        yield (
            f"<h3>{head}</h3><p>{why} {_named(twin)}</p>"
            f"<h4>Its strongest</h4>{_row(twin, first)}"
            f"<h4>One of each quarter, the weakest first</h4>{_row(twin, others)}"
        )
