"""How far a sound leaks: change one window of the waveform, and see which tokens move.

    python analyses/leakage.py --model demo/pal --audio MANIFEST.csv --out runs/leakage

In each clip several windows are changed, one at a time, and every encoder, connector and audio
token of the language model is compared with itself before. Windows of which the change moves the
clip's loudest mel bin move the floor of the whole mel spectrogram: they are stored, counted and
left out of the figures. Writes leakage.parquet (a row a window, depth and token), widths.csv (the
receptive field at every depth), the figures leakage_over_time and leaked_by_depth (HTML, PNG, SVG,
CSV) and run.json.

That tokens leak is why patching tokens is not patching sound: analyses/activation_patching.py
patches both, and reports them side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from palscope.analyses import (
    Analysis,
    AskedClip,
    ClipOptions,
    Results,
    Table,
    Work,
    chosen_clips,
    each,
    main,
    option,
)
from palscope.errors import AudioError
from palscope.measures import mean_band
from palscope.measures._leakage import DEPTH, leakage, leakage_profile, receptive_field
from palscope.plots import _leakage as figures

FLOOR_DB = 0.01
"""A loudest bin that moves by more takes the floor of the mel spectrogram with it."""

STEP_S = 0.1


@dataclass(frozen=True, kw_only=True)
class LeakageOptions(ClipOptions):
    """What is changed in each clip."""

    windows: int = option(3, "stretches changed in each clip, evenly over it", least=1)
    window_s: float = option(0.2, "length of each", unit="s")
    how: Literal["noise", "silence"] = option("noise", "what it becomes")


@each
def measured(work: Work[LeakageOptions], clip: AskedClip) -> pd.DataFrame:
    """One clip's tokens, for each of its windows."""
    options, sound = work.options, clip.clip
    if sound.seconds <= options.window_s:
        raise AudioError(f"{clip.name} lasts {sound.seconds:.2f} s: no longer than the window.")
    # Evenly over the clip, on the grid of frame tokens, so that every window covers as many.
    starts = np.linspace(0, sound.seconds - options.window_s, options.windows + 2)[1:-1]
    starts = dict.fromkeys((np.floor(starts / STEP_S) * STEP_S).round(6).tolist())
    changed: dict[str, Any] = {"how": options.how, "seed": options.seed}
    tables: list[pd.DataFrame] = []
    for start in starts:
        try:
            table = leakage(work.model, sound, start, start + options.window_s, **changed)
        except AudioError:  # this window is silent
            continue
        tables.append(table.assign(window_s=start))
    if not tables:
        raise AudioError(f"{clip.name} is silent in all of its {len(starts)} windows.")
    return pd.concat(tables)


def still_windows(results: Results[LeakageOptions, AskedClip]) -> list[list[pd.DataFrame]]:
    """Each clip's windows that leave the mel spectrogram's floor where it was."""
    clips = [
        [w for _, w in rows.groupby("window_s") if abs(w["floor_moved_db"].iloc[0]) <= FLOOR_DB]
        for _, rows in results.each("leakage")
    ]
    return [windows for windows in clips if windows]


def fields(clips: list[list[pd.DataFrame]]) -> list[pd.DataFrame]:
    """The receptive fields of each clip, from its windows."""
    return [pd.concat([receptive_field(window) for window in windows]) for windows in clips]


def widths(results: Results[LeakageOptions, AskedClip]) -> dict[str, pd.DataFrame]:
    """The receptive field's widths at every depth, mean over clips."""
    if not (every := fields(results.derived(still_windows))):
        return {}
    columns = ("within50_s", "within90_s", "half_maximum_s", "reach_s")
    bands = [
        mean_band(every, DEPTH, value=column, limits=(0, None)).assign(width=column)
        for column in columns
    ]
    return {"widths": pd.concat(bands)}


def drawn(results: Results[LeakageOptions, AskedClip]) -> dict[str, Any]:
    """Both figures."""
    if not (clips := results.derived(still_windows)):
        return {}
    profiles = [
        pd.concat([leakage_profile(window, STEP_S) for window in windows]) for windows in clips
    ]
    bands = mean_band(profiles, [*DEPTH, "offset_s"], value="relative", limits=(0, None))
    leaked = mean_band(fields(clips), DEPTH, value="leaked")
    caption = results.caption(len(clips))
    window_s = results.options.window_s
    return {
        "leakage_over_time": figures.leakage_over_time(bands, window_s, caption=caption),
        "leaked_by_depth": figures.leaked_by_depth(leaked, caption=caption),
    }


def told(results: Results[LeakageOptions, AskedClip]) -> list[str]:
    """How many windows the figures leave out."""
    windows = sum(rows["window_s"].nunique() for _, rows in results.each("leakage"))
    still = results.derived(still_windows)
    return [
        f"{windows - sum(map(len, still))} of {windows} window(s) moved the clip's loudest bin, "
        "and with it the floor of the whole spectrogram; the figures are over the others, of "
        f"{len(still)} clip(s)"
    ]


ANALYSIS = Analysis(
    name="leakage",
    title="leakage",
    about="Stretches of the *waveform* are changed, and every token says how far it moves: the "
    "receptive field that patching a token silently has.",
    passes=lambda work, clip: 2.0 * work.options.windows,  # each before and after
    options=LeakageOptions,
    items=chosen_clips,
    tables=[Table("leakage", measured, ("window_s", "depth", "token"))],
    summaries=widths,
    figures=drawn,
    notes=told,
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
