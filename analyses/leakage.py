"""How far a sound leaks: change one window of the waveform, and see which tokens move.

    python analyses/leakage.py --model demo/pal --manifest MANIFEST --out runs/leakage

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

from argparse import Namespace

import numpy as np
import pandas as pd

from palscope._sweeps import commands
from palscope._sweeps.commands import count
from palscope._sweeps.record import file_hash
from palscope._sweeps.store import StoredTable
from palscope.audio import load_audio
from palscope.datasets._manifest import Clip, read_manifest
from palscope.errors import AudioError
from palscope.evaluation._items import take_evenly
from palscope.measures import mean_band
from palscope.measures._leakage import DEPTH, leakage, leakage_profile, receptive_field
from palscope.plots import _leakage as figures
from palscope.plots._figures import save_figure

FLOOR_DB = 0.01
"""A loudest bin that moves by more takes the floor of the mel spectrogram with it."""

STEP_S = 0.1


def main() -> int:
    parser = commands.arguments(__doc__)
    commands.add_clips(parser, 30)
    parser.add_argument("--windows", type=count, default=3, help="in each clip (default: 3)")
    parser.add_argument("--window-s", type=float, default=0.2, help="seconds (default: 0.2)")
    parser.add_argument("--how", choices=("noise", "silence"), default="noise")
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure, store and draw."""
    rows = [clip for clip in read_manifest(given.manifest) if given.split in (None, clip.split)]
    model = commands.open_model(given)

    def measure(clip: Clip) -> pd.DataFrame:
        sound = load_audio(clip.path)
        if sound.seconds <= given.window_s:
            raise AudioError(f"{clip.name} lasts {sound.seconds:.2f} s: no longer than the window.")
        # Evenly over the clip, on the grid of frame tokens, so that every window covers as many.
        starts = np.linspace(0, sound.seconds - given.window_s, given.windows + 2)[1:-1]
        starts = dict.fromkeys((np.floor(starts / STEP_S) * STEP_S).round(6).tolist())
        tables: list[pd.DataFrame] = []
        for start in starts:
            try:
                table = leakage(
                    model, sound, start, start + given.window_s, how=given.how, seed=given.seed
                )
            except AudioError:  # this window is silent
                continue
            tables.append(table.assign(window_s=start))
        if not tables:
            raise AudioError(f"{clip.name} is silent in all of its {len(starts)} windows.")
        return pd.concat(tables)

    results = commands.open_run(given, model, data=[given.manifest])
    stored = results.over(
        take_evenly(rows, given.clips),
        measure,
        table="leakage",
        key=lambda clip: clip.name,
        item="clip",
        keys=["window_s", "depth", "token"],
        content=lambda clip: file_hash(clip.path) or "",
    )
    if results.main:
        draw(stored, given)
    results.finish()


def draw(stored: StoredTable, given: Namespace) -> None:
    """Both figures, over the windows that leave the mel spectrogram's floor where it was."""
    fields: list[pd.DataFrame] = []
    profiles: list[pd.DataFrame] = []
    moved = 0
    for _, clip in stored:
        windows = [table for _, table in clip.groupby("window_s")]
        still = [w for w in windows if abs(w["floor_moved_db"].iloc[0]) <= FLOOR_DB]
        moved += len(windows) - len(still)
        if still:
            fields.append(pd.concat([receptive_field(window) for window in still]))
            profiles.append(pd.concat([leakage_profile(window, STEP_S) for window in still]))
    print(
        f"{len(stored.shards)} clip(s); {moved} window(s) moved the loudest bin; the figures are "
        f"over the others, of {len(fields)} clip(s)"
    )
    if not fields:
        return
    bands = mean_band(profiles, [*DEPTH, "offset_s"], value="relative", limits=(0, None))
    save_figure(
        given.out / "leakage_over_time",
        figures.leakage_over_time(bands, given.window_s),
        figures.leakage_over_time_paper(bands, given.window_s),
        bands,
    )
    leaked = mean_band(fields, DEPTH, value="leaked")
    save_figure(
        given.out / "leaked_by_depth",
        figures.leaked_by_depth(leaked),
        figures.leaked_by_depth_paper(leaked),
        leaked,
    )
    widths = [
        mean_band(fields, DEPTH, value=value, limits=(0, None)).assign(width=value)
        for value in ("within50_s", "within90_s", "half_maximum_s", "reach_s")
    ]
    pd.concat(widths).to_csv(given.out / "widths.csv", index=False)


if __name__ == "__main__":
    raise SystemExit(main())
