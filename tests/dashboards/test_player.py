"""The player: what the browser gets, and whose selection counts."""

from __future__ import annotations

import base64
import io
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image
from streamlit.testing.v1 import AppTest

from palscope._routing.display import colours
from palscope.audio import Waveform
from palscope.errors import AudioError
from palscope.plots._looks import AMOUNT, DARK_GROUNDS, LIGHT_GROUNDS
from palscope.plots._spectrogram import mel_image
from tests.colours import luminance

RATE = 16_000
DASHBOARDS = Path(__file__).resolve().parents[2] / "dashboards"


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under test, found as Streamlit finds it: beside the page."""
    monkeypatch.syspath_prepend(str(DASHBOARDS))
    return import_module("_player")


def tone(seconds: float, hz: float = 1000.0, loud: float = 0.5) -> Waveform:
    time = np.arange(round(seconds * RATE)) / RATE
    return Waveform((loud * np.sin(2 * np.pi * hz * time)).astype(np.float32), RATE, "tone.wav")


def payload(waveform: Waveform) -> dict[str, Any]:
    made = import_module("_player").sound_payload("a clip", waveform)
    json.dumps(made, allow_nan=False)  # the browser's parser takes no NaN
    return made


def picture(made: dict[str, Any]) -> np.ndarray:
    """The spectrogram's pixels as a browser shows them: rows, columns, red green blue."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(made["picture"]))).convert("RGB"))


# -- the sound ------------------------------------------------------------------------------------


def test_the_peak_is_that_of_the_sound_which_is_sent():
    assert payload(tone(1.0, loud=0.25))["peak"] == pytest.approx(0.25, rel=1e-3)
    assert payload(tone(1.0, loud=3))["peak"] == 1  # of floats beyond full scale, 16 bits are cut


def test_the_sound_is_sent_as_loud_as_it_is():
    waveform = tone(0.3, loud=0.1)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(payload(waveform)["wav"])))
    assert rate == RATE
    np.testing.assert_allclose(samples, waveform.samples, atol=2e-4)


def test_the_spectrogram_is_brightest_at_the_tone():
    waveform = tone(1.0, hz=1000)
    made = payload(waveform)
    bright = picture(made).astype(int).sum(2)[:, 50]
    share = 1 - (bright.argmax() + 0.5) / len(bright)  # from the bottom
    kilohertz = made["tickLabels"].index("1")
    assert share == pytest.approx(made["ticks"][kilohertz], abs=1 / len(bright))
    assert made["ticks"] == sorted(made["ticks"])
    assert (made["left"], made["right"]) == pytest.approx((-0.005, 0.995))


def test_the_picture_has_the_colours_of_the_scale_80_decibels_deep():
    from matplotlib import colormaps

    waveform = tone(1.0)
    shown = picture(payload(waveform))[::-1]
    values = mel_image(waveform).values
    colours = np.round(255 * colormaps[AMOUNT](np.arange(256))[:, :3])
    decibels = (values - values.max()) * 40
    loudest = np.unravel_index(values.argmax(), values.shape)
    assert shown[loudest].tolist() == colours[255].tolist()
    middle = np.unravel_index(np.abs(decibels + 40).argmin(), values.shape)
    level = round(255 * (1 + decibels[middle] / 80))
    assert shown[middle].tolist() == colours[level].tolist()


@pytest.mark.parametrize("seconds", [0.001, 0.1, 30.0])
def test_clips_of_any_length_can_be_sent(seconds: float):
    made = payload(tone(seconds))
    assert made["seconds"] == pytest.approx(seconds)
    assert picture(made).shape[1] == min(3000, round(100 * seconds) or 1)
    assert made["right"] >= seconds - 0.01
    assert len(json.dumps(made)) < 1_600_000


def test_silence_is_flat_and_dark():
    made = payload(Waveform(np.zeros(RATE, np.float32), RATE, "silence"))
    assert made["peak"] == 0
    shown = picture(made)
    assert (shown == shown[0, 0]).all()
    assert shown[0, 0].sum() < 130


def test_a_broken_sound_is_an_error_that_says_so():
    with pytest.raises(AudioError, match="NaN"):
        payload(Waveform(np.full(100, np.nan, np.float32), RATE, "broken.wav"))


def test_a_name_to_save_the_sound_under_leads_nowhere(parts: Any):
    assert parts.file_name("../../etc/pass wd.ogg") == "pass-wd.wav"
    assert parts.file_name("…") == "sound.wav"


# -- tokens and curves ----------------------------------------------------------------------------


def grid() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stream": ["text", "frames", "frames", "frames", "summary"],
            "start_s": [np.nan, 0.0, 0.1, 0.2, 0.0],
            "end_s": [np.nan, 0.1, 0.2, 0.25, 0.25],
        }
    )


def test_each_stream_has_its_token_edges(parts: Any):
    assert parts.token_edges(grid()) == [
        {"stream": "frames", "start": [0.0, 0.1, 0.2], "end": [0.1, 0.2, 0.25]},
        {"stream": "summary", "start": [0.0], "end": [0.25]},
    ]
    assert parts.token_edges(None) == []


def test_curves_have_the_colours_of_the_other_figures(parts: Any):
    curves = grid().rename(columns={"stream": "pathway"}).assign(mass=[0.9, 0.01, 0.02, 0.03, 0.05])
    frames, summary = parts.curve_steps(curves)
    assert frames == {
        "pathway": "frames",
        "colour": colours(["frames"])["frames"],
        "start": [0.0, 0.1, 0.2],
        "end": [0.1, 0.2, 0.25],
        "mass": [0.01, 0.02, 0.03],
    }
    assert summary["colour"] == colours(["summary"])["summary"]


def test_curves_may_be_empty(parts: Any):
    assert parts.curve_steps(pd.DataFrame(columns=["pathway", "start_s", "end_s", "mass"])) == []


# -- effects --------------------------------------------------------------------------------------


def test_effects_are_white_at_nothing_and_as_strong_as_they_are_large(parts: Any):
    table = pd.DataFrame(
        {"start_s": [0.5, 0.0, 1.0], "end_s": [1.0, 0.5, 1.5], "change": [-2.0, 0.0, 1.0]}
    )
    strip = parts.effect_strip(parts.Effects(table, "lead"))
    assert strip["start"] == [0.0, 0.5, 1.0] and strip["change"] == [0.0, -2.0, 1.0]
    assert strip["most"] == 2.0 and strip["title"] == "effect on the answer"
    nothing, less, more = strip["colour"]
    assert luminance(nothing) > 0.9
    red, _, blue = (int(less[at : at + 2], 16) for at in (1, 3, 5))
    assert less == strip["scale"][0] and blue > 2 * red
    red, _, blue = (int(more[at : at + 2], 16) for at in (1, 3, 5))
    assert more == strip["scale"][12] and red > 1.5 * blue  # half of the way from white
    still = parts.effect_strip(parts.Effects(table.assign(change=0.0), "lead"))
    assert set(still["colour"]) == {nothing} and still["most"] == 0


@pytest.mark.parametrize("dark", [False, True])
def test_curves_stand_out_from_the_page_inside_of_the_selection_too(parts: Any, dark: bool):
    settings = (DASHBOARDS / ".streamlit" / "config.toml").read_text(encoding="utf-8")
    accent = re.findall(r'^primaryColor = "(#\w{6})"', settings, re.MULTILINE)[dark]
    script = (DASHBOARDS / "components" / "player_picture.js").read_text(encoding="utf-8")
    (tint,) = re.findall(r"const TINT = ([\d.]+);", script)
    names = ["frames", "summary", "a", "b", "c", "d", "e"]
    rows = [(name, 0.0, 1.0, 0.5) for name in names]
    curves = pd.DataFrame(rows, columns=["pathway", "start_s", "end_s", "mass"])
    for curve in parts.curve_steps(curves):
        for ground in DARK_GROUNDS if dark else LIGHT_GROUNDS[:1]:  # it stands in no panel
            for share in (0.0, float(tint)):
                both = [over(accent, each, share) for each in (curve["colour"], ground)]
                one, other = sorted(map(luminance, both))
                assert (other + 0.05) / (one + 0.05) >= 3, (curve, ground, share)


def over(colour: str, below: str, share: float) -> str:
    """What is seen where `share` of a colour lies over another."""
    above, under = (
        np.array([int(c[at : at + 2], 16) for at in (1, 3, 5)]) for c in (colour, below)
    )
    return "#" + "".join(f"{round(each):02x}" for each in share * above + (1 - share) * under)


# -- the selection --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "kept"),
    [
        ((0.5, 1.0), (0.5, 1.0)),
        ([0.5, 9.0], (0.5, 2.0)),
        ((-1, 1), (0.0, 1.0)),
        ((3.0, 4.0), None),
        ((1.0, 1.0), None),
        ((float("nan"), 1.0), None),
        ("ab", None),
        ([1], None),
        ({"start": 1}, None),
        (None, None),
    ],
)
def test_a_span_is_cut_to_the_clip(parts: Any, span: Any, kept: Any):
    assert parts.span_within(span, 2.0) == kept


def show_player() -> None:
    """The page of these tests; its arguments are in the session."""
    import numpy as np
    import streamlit as st
    from _player import player  # pyright: ignore[reportMissingImports]

    from palscope.audio import Waveform

    samples = np.full(32_000, st.session_state.get("level", 0.5), np.float32)
    given = st.session_state.get("given")
    sound = Waveform(samples, 16_000, "x")
    st.session_state["got"] = player(sound, str(samples[0]), key="sound", selection=given)


def sent(page: AppTest) -> dict[str, Any]:
    (shown,) = page.get("bidi_component")
    return json.loads(shown.proto.json)


def select(page: AppTest, span: Any, revision: int) -> AppTest:
    """What the browser does when the visitor has selected `span` on the picture of `revision`."""
    page.session_state["sound"] = {"selection": {"revision": revision, "value": span}}
    return page.run()


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_function(show_player, default_timeout=600)


def got(page: AppTest) -> Any:
    assert [e.value for e in page.exception] == []
    return page.session_state["got"]


def test_the_visitors_selection_comes_back(page: AppTest):
    assert got(page.run()) is None
    assert sent(page)["selection"] is None
    revision = sent(page)["revision"]
    assert got(select(page, [0.5, 1.25], revision)) == (0.5, 1.25)
    assert sent(page)["revision"] == revision  # the browser goes on from what it has
    assert got(select(page, None, revision)) is None


def test_a_link_selects_and_the_visitor_changes_it(page: AppTest):
    page.session_state["given"] = (0.25, 0.75)
    assert got(page.run()) == (0.25, 0.75)
    assert sent(page)["selection"] == [0.25, 0.75]
    assert got(select(page, [1.0, 1.5], sent(page)["revision"])) == (1.0, 1.5)
    revision = sent(page)["revision"]
    page.session_state["given"] = (1.0, 1.5)  # the page puts it into the link
    assert got(page.run()) == (1.0, 1.5)
    assert sent(page)["revision"] == revision
    page.session_state["given"] = (0.0, 0.5)  # another view selects
    assert got(page.run()) == (0.0, 0.5)
    assert sent(page)["selection"] == [0.0, 0.5]
    assert sent(page)["revision"] > revision


def test_another_clip_clears_the_selection_of_the_last(page: AppTest):
    select(page.run(), [1.0, 1.5], 0)
    page.session_state["given"] = (1.0, 1.5)  # the page put it into the link
    page.session_state["level"] = 0.25
    assert got(page.run()) is None
    assert sent(page)["selection"] is None
    assert sent(page)["revision"] > 0


def test_a_selection_outside_of_the_clip_is_handed_back_and_not_drawn(page: AppTest):
    page.session_state["given"] = (5.0, 6.0)
    assert got(page.run()) == (5.0, 6.0)
    assert sent(page)["selection"] is None


@pytest.mark.parametrize(
    "report", [7, {"revision": "0", "value": [0, 1]}, {"revision": 0, "value": "all"}]
)
def test_nonsense_from_a_browser_is_no_selection(page: AppTest, report: Any):
    page.run()
    page.session_state["sound"] = {"selection": report}
    assert got(page.run()) is None


def test_the_address_keeps_the_seconds_that_the_player_tells() -> None:
    written = import_module("_address")._written
    within = import_module("_player").span_within
    for seconds in (0.0, 0.5, 1.25, 0.0769, 3599.9999, 1 / 3):
        told = within((0.0, max(seconds, 0.001)), 3600)[1]
        assert float(written(told)) == told
    assert (written(1.0), written(1.25), written(1.255)) == ("1.00", "1.25", "1.2550")
