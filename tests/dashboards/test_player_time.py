"""The player's sums and words, which its browser makes, held against Python's."""

from __future__ import annotations

import base64
import json
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import playwright

from palscope.audio._display import wav_bytes
from palscope.audio._timegrid import TimeGrid, overlaps

COMPONENTS = Path(__file__).resolve().parents[2] / "dashboards" / "components"
SCRIPTS = ("player_time", "player_words", "player_picture")
NODE = Path(playwright.__file__).parent / "driver" / "node"


def in_node(expression: str, given: Any) -> Any:
    """What a JavaScript expression gives behind the scripts; `given` is what it is asked about."""
    texts = [(COMPONENTS / f"{each}.js").read_text(encoding="utf-8") for each in SCRIPTS]
    code = "\n".join(texts) + "\nconst given = JSON.parse("
    code += "require('fs').readFileSync(0, 'utf8'));\n"
    code += f"console.log(JSON.stringify({expression}));"
    command = [str(NODE), "-e", code]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_stretch_takes_the_tokens_that_palscope_counts() -> None:
    rng = np.random.default_rng(0)
    cases: list[Any] = []
    for grid in (TimeGrid(0.02), TimeGrid(0.08), TimeGrid(1 / 3), TimeGrid(0.5, centres=(0, 0.4))):
        spans = np.array(grid.spans(12))
        for _ in range(400):
            edges = rng.choice(spans.ravel(), 2)
            off = rng.choice([0, 1, 250, 999, 1000, 1001, 2000, 0.5, 1.5, 2.5], 2) * 1e-9
            start, end = np.abs(np.sort(edges) + rng.choice([-1, 1], 2) * off)
            if start < end:
                cases.append([*spans.T.tolist(), start, end])
    expected = [
        overlaps(np.array(starts), np.array(ends), t0, t1).tolist()
        for starts, ends, t0, t1 in cases
    ]
    assert in_node("given.map((each) => overlaps(...each))", cases) == expected
    short = [each[3] - each[2] < 4e-6 for each in cases]
    assert len(cases) > 1000 and sum(short) > 40


def test_the_waveform_keeps_every_peak_of_what_is_shown() -> None:
    rate, columns = 16_000, 300
    samples = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32)
    wav = base64.b64encode(wav_bytes(samples, rate)).decode("ascii")
    windows = [(0.0, 1.25), (0.3, 0.7123), (1.2, 1.25), (0.5, 0.505)]
    drawn = in_node(
        "given.windows.map((shown) => {"
        " const made = envelope(samplesOf(new Uint8Array(Buffer.from(given.wav, 'base64'))),"
        " given.rate, shown, given.columns);"
        " return [[...made.low], [...made.high]]; })",
        {"wav": wav, "windows": windows, "rate": rate, "columns": columns},
    )
    for (start, end), lines in zip(windows, drawn, strict=True):
        low, high = np.array(lines)
        edges = np.floor((start + (end - start) * np.arange(columns + 1) / columns) * rate)
        for column, (first, last) in enumerate(pairwise(edges.astype(int).tolist())):
            part = samples[first : max(last, first + 1)]
            np.testing.assert_allclose(
                [low[column], high[column]], [part.min(), part.max()], atol=2**-15
            )


def test_a_zoom_keeps_the_place_under_the_pointer_and_stays_in_the_clip() -> None:
    rng = np.random.default_rng(0)
    cases: list[Any] = []
    for _ in range(300):
        length = float(rng.choice([0.01, 0.5, 3.5, 30]))
        shown = np.sort(rng.uniform(0, length, 2)).tolist()
        about = float(rng.uniform(*shown))
        cases.append([shown, float(rng.choice([0.1, 0.7, 1.5, 40])), about, length])
    made = in_node("given.map((each) => zoomed(...each))", cases)
    for ((start, end), factor, about, length), (first, last) in zip(cases, made, strict=True):
        shortest = min(0.05, length)
        assert abs(last - first - np.clip((end - start) / factor, shortest, length)) < 1e-9
        assert -1e-9 <= first <= about + 1e-9 and about - 1e-9 <= last <= length + 1e-9
        if first > 1e-9 and last < length - 1e-9:
            share = (about - start) / (end - start)
            assert abs((about - first) / (last - first) - share) < 1e-6
    seen = in_node(
        "given.map(([shown,, about, length]) =>"
        " [around([shown[0], about], length), following(shown, length * 0.9, length)])",
        cases,
    )
    for (shown, _, about, length), (fit, page) in zip(cases, seen, strict=True):
        assert fit[0] - 1e-9 <= shown[0] and about <= fit[1] + 1e-9 <= length + 2e-9
        assert page[0] - 1e-9 <= 0.9 * length <= page[1] + 1e-9
        assert abs(page[1] - page[0] - (shown[1] - shown[0])) < 1e-9


def test_effects_are_told_at_their_place_and_of_the_whole() -> None:
    curves = [{"pathway": "summary", "start": [0, 0.5], "end": [0.5, 1], "mass": [0.25, 0.5]}]
    effects = {"title": "effect", "about": "lead of “a” over “b”"}
    effects |= {"start": [0, 0.4], "end": [0.4, 0.8], "change": [0.5, -2.0249]}
    data = {"curves": curves, "curvesTitle": "share", "peak": 1, "decibels": 80}
    places = in_node(
        "[0.1, 0.4, 0.9].map((at) => valuesAt(given, at))", data | {"effects": effects}
    )
    assert places == [
        ["summary 0.25", "effect +0.50 nats"],
        ["summary 0.25", "effect −2.02 nats"],
        ["summary 0.5"],
    ]
    assert in_node("valuesAt(given, 0.1)", data | {"effects": None}) == ["summary 0.25"]
    told = in_node("pictureWords(given, [0, 1])", data | {"effects": effects})
    assert "effect: of 2 stretches" in told
    assert "lead of “a” over “b” changes most by cutting 0.40–0.80 s, by −2.02 nats." in told
    assert "effect" not in in_node("pictureWords(given, [0, 1])", data | {"effects": None})
