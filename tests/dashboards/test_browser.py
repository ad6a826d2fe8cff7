"""The pages in a real browser, on the demo's real weights."""

from __future__ import annotations

import io
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from benchmarks import visitors
from tests.dashboards import browser as tools
from tests.dashboards.axe import violations
from tests.dashboards.browser import (
    click_head,
    idle,
    metrics,
    press_until_at,
    resting_box,
    settled,
    stroke,
)
from tests.dashboards.heard import index_of_noise

pytestmark = pytest.mark.slow

MAP = "st-key-map-share-demo-pal"


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    if tools.find_chromium() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine: install the system's package chromium")
    with tools.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with tools.server() as (address, _):
        yield address


@pytest.fixture(scope="module")
def windows(chromium: Browser) -> Generator[Callable[[str], Page]]:
    """One window a theme: one that is used again draws a page in half of the time."""
    opened: dict[str, Page] = {}

    def of(theme: Any) -> Page:
        if theme not in opened:
            size: Any = {"width": 1440, "height": 900}
            opened[theme] = chromium.new_context(viewport=size, color_scheme=theme).new_page()
        return opened[theme]

    yield of
    for page in opened.values():
        page.context.close()


@pytest.fixture
def visitor(request: pytest.FixtureRequest, windows: Callable[[str], Page]) -> Generator[Page]:
    """A visitor who has opened nothing yet, light or as the parameter says.

    The browser's console must stay free of errors, and no other host may be asked for anything.
    """
    theme: Any = getattr(request, "param", "light")
    page = windows(theme)
    page.emulate_media(color_scheme=theme, reduced_motion="no-preference")
    faults: list[str] = []
    listeners: dict[Any, Callable[[Any], None]] = {
        "console": lambda said: faults.append(said.text) if said.type == "error" else None,
        "pageerror": lambda error: faults.append(str(error)),
        "request": lambda asked: faults.extend(elsewhere(asked.url)),
        "websocket": lambda opened: faults.extend(elsewhere(opened.url)),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    yield page
    page.goto("about:blank")
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    assert faults == []


@pytest.fixture
def page(visitor: Page, address: str) -> Page:
    """A visitor with the attention page open."""
    visitor.goto(f"{address}/?clip=rooster")
    settled(visitor)
    return visitor


def elsewhere(url: str) -> list[str]:
    """An address of another host than this machine; none where it is none."""
    parts = urlsplit(url)
    inside = parts.scheme in ("blob", "data", "about") or parts.hostname == "127.0.0.1"
    return [] if inside else [f"another host was asked: {url}"]


def test_another_host_is_noticed() -> None:
    assert elsewhere("https://data.streamlit.io/tokens.json") and elsewhere("wss://a.b/c")
    assert not elsewhere("http://127.0.0.1:8501/x") and not elsewhere("data:image/png;base64,A")


def answer(page: Page) -> str:
    return page.locator("h2").first.inner_text()


def test_first_figures(page: Page) -> None:
    assert answer(page) == "rooster"
    assert set(metrics(page)) == {"text", "frames", "summary"}
    assert page.locator(".js-plotly-plot .main-svg").count() >= 3
    canvas = page.get_by_test_id("player-canvas")
    colours = canvas.evaluate(
        "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height)"
        ".data.buffer)).size"
    )
    assert colours > 50  # a spectrogram is drawn


@pytest.mark.parametrize("visitor", ["light", "dark"], indirect=True)
def test_the_first_click_changes_the_answer(visitor: Page, address: str) -> None:
    page = visitor
    page.goto(address)
    settled(page)
    assert answer(page) == "seven"
    grounds = page.evaluate(
        "['.stApp', '.js-plotly-plot .main-svg'].map(each =>"
        " getComputedStyle(document.querySelector(each)).backgroundColor)"
    )
    assert grounds[0] == grounds[1]
    page.get_by_role("button", name="Cut", exact=True).click()
    expect(page.get_by_role("heading", name="seven → one")).to_be_visible(timeout=30_000)
    for shown in ("seven → one", "Heads by effect", "Cut"):  # above the fold
        box = page.get_by_text(shown, exact=shown == "Cut").first.bounding_box()
        assert box is not None and box["y"] < 900
    idle(page)
    assert "edits=cut" in page.url
    for folded in ("The answer token by token", "The same from a script"):
        page.get_by_text(folded).click()
    assert violations(page) == []
    page.get_by_role("button", name="Take back").click()
    expect(page.get_by_role("heading", name="seven → one")).to_be_hidden()


def test_the_sound_plays_and_a_stretch_is_selected(page: Page) -> None:
    page.get_by_test_id("player-play").click()
    expect(page.get_by_test_id("player-time")).not_to_have_text(re.compile(r"^0\.00"))
    page.get_by_test_id("player-play").click()
    box = resting_box(page.get_by_test_id("player-overlay"))
    middle = box["y"] + 0.5 * box["height"]
    ends = [(box["x"] + part * box["width"], middle) for part in (0.3, 0.5)]
    stroke(page, *ends, steps=5)
    page.get_by_text("tokens that overlap").first.wait_for()
    idle(page)
    start, end = map(float, re.search(r"seconds=([\d.]+)-([\d.]+)", page.url).groups())
    assert 0.5 < start < end < 3.5
    assert f"{start:.2f}–{end:.2f} s" in metrics(page)


def player(page: Page, name: str) -> Locator:
    return page.get_by_test_id(f"player-{name}")


def shown(page: Page) -> list[float]:
    """First and last second of the player's window; the whole clip's where it says none."""
    said = player(page, "time").inner_text()
    found = re.search(r"shown ([\d.]+)–([\d.]+) s", said)
    return [float(each) for each in found.groups()] if found else [0, float(said.split()[-2])]


def test_a_clip_is_zoomed_into(visitor: Page, address: str) -> None:
    page = visitor
    page.goto(address)
    settled(page)
    length = shown(page)[1]
    player(page, "zoom").click()  # 0.68 to 1.21 s, and a tenth around
    assert shown(page) == pytest.approx([0.65, 1.24], abs=0.011)
    box = resting_box(player(page, "overlay"))
    left, inner = box["x"] + 46, box["width"] - 58  # the picture's margins
    middle = box["y"] + 0.5 * box["height"]
    ends = [(left + part * inner, middle) for part in (0.25, 0.75)]
    stroke(page, *ends, steps=5)
    expect(player(page, "selection")).to_contain_text(re.compile("Selected: 0.80–1.09 s"))
    idle(page)
    assert shown(page) == pytest.approx([0.65, 1.24], abs=0.011)  # the run of the page kept it
    player(page, "whole").click()
    assert shown(page) == [0, length]
    page.mouse.move(left + 0.25 * inner, middle)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    start, end = shown(page)
    assert (length / 4 - start) / (end - start) == pytest.approx(0.25, abs=0.01)
    assert end - start == pytest.approx(length * np.exp(-0.45), abs=0.02)
    for key, factor in (("+", 0.5), ("-", 1)):
        player(page, "stage").press(key)
        assert np.diff(shown(page)) == pytest.approx((end - start) * factor, abs=0.02)
    player(page, "stage").press("0")
    assert shown(page) == [0, length]
    fingers = page.context.new_cdp_session(page)
    for kind, places in (("Start", (0.4, 0.6)), ("Move", (0.3, 0.7)), ("End", ())):
        points = [
            {"x": left + share * inner, "y": middle, "id": number}
            for number, share in enumerate(places)
        ]
        fingers.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    assert shown(page) == pytest.approx([length / 4, 3 * length / 4], abs=0.02)
    assert "plus and minus zoom" in str(player(page, "stage").get_attribute("aria-label"))


def cursors(page: Page, seconds: float) -> list[float]:
    """Where the cursor stands, each of so many frames."""
    said: list[str] = player(page, "time").evaluate(
        "async (time, seconds) => { const said = [], end = performance.now() + 1000 * seconds;"
        " while (performance.now() < end) { said.push(time.textContent);"
        " await new Promise(requestAnimationFrame); } return said }",
        seconds,
    )
    return [float(each.split()[0]) for each in said]


def test_a_selection_is_looped_and_less_motion_respected(visitor: Page, address: str) -> None:
    page = visitor
    page.goto(address)
    settled(page)
    player(page, "labels").get_by_text("one 1").click()  # what sounds when, in words
    expect(player(page, "selection")).to_contain_text("Selected: 1.51")
    idle(page)
    start, end = map(float, re.search(r"seconds=([\d.]+)-([\d.]+)", page.url).groups())
    player(page, "loop").get_by_role("checkbox").check()
    player(page, "play").click()
    seen = np.array(cursors(page, 2.5 * (end - start)))
    assert start <= seen.min() and seen.max() <= end + 0.05
    assert sum(np.diff(seen) < -0.5 * (end - start)) >= 1  # it went back
    assert len(set(seen)) > 10
    player(page, "clear").click()
    page.emulate_media(reduced_motion="reduce")
    player(page, "stage").press("Home")  # from where it is seen to step
    steps = np.diff(sorted(set(cursors(page, 1.5))))
    assert len(steps) and min(steps) > 0.45
    expect(player(page, "play")).to_contain_text("Pause")


def test_a_head_is_cut_off_from_a_stretch_by_keyboard(visitor: Page, address: str) -> None:
    page = visitor
    page.goto(address)
    settled(page)
    press_until_at(page, "Tab", player(page, "stage"))
    for key in ("Escape", "Home", *5 * ["Shift+ArrowRight"]):
        page.keyboard.press(key)
    expect(player(page, "selection")).to_contain_text("Selected: 0.00–0.50 s")
    page.wait_for_url(re.compile("seconds=0.00-0.50"))
    settled(page)
    press_until_at(page, "Tab", page.get_by_role("combobox", name="One head, the largest effect"))
    page.keyboard.type("layer 23, head 4")
    page.keyboard.press("Enter")
    page.get_by_text("Attention over the prompt (layer 23, head 4)").wait_for()
    idle(page)
    press_until_at(page, "Shift+Tab", page.get_by_role("button", name="Cut", exact=True))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="seven → seven")).to_be_visible(timeout=30_000)
    assert "edits=cut~0-0.5~~23~4~" in page.url


def test_a_click_on_a_head_opens_it_while_the_sound_plays(page: Page) -> None:
    loop = player(page, "loop").get_by_role("checkbox")
    loop.check()
    player(page, "play").click()
    click_head(page, MAP, layer=1, head=4)
    page.get_by_text("Attention over the prompt (layer 1, head 4)").wait_for()
    expect(player(page, "legend")).to_contain_text("(layer 1, head 4)")
    assert "layer=1" in page.url and "head=4" in page.url
    expect(player(page, "play")).to_contain_text("Pause")
    player(page, "play").click()
    loop.uncheck()


def test_a_route_edit_shows_the_change_beside(page: Page) -> None:
    settled(page)  # from the click before
    before = metrics(page)
    page.get_by_text("Route: which stream takes part").click()
    page.get_by_test_id("brush-.").click()
    last = resting_box(page.get_by_test_id("route-cell-summary-29"))
    first = resting_box(page.get_by_test_id("route-cell-summary-5"))
    ends = [(box["x"] + 5, box["y"] + 5) for box in (first, last)]
    stroke(page, *ends, steps=30)
    page.get_by_text("Answer, changed route").wait_for()
    settled(page)
    assert "summary%2F3%3AF5.25" in page.url
    assert metrics(page) == before  # of the trained route; the change stands below each
    changed = [d.inner_text() for d in page.get_by_test_id("stMetricDelta").all()]
    assert len(changed) == 3 and all(d.startswith("changed route") for d in changed)
    page.get_by_text("Back to the trained route").click()
    page.get_by_text("Answer, changed route").wait_for(state="detached")
    settled(page)
    assert "route=" not in page.url


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    times = np.arange(round(16_000 * seconds)) / 16_000
    soundfile.write(file, 0.1 * np.sin(2000 * times), 16_000, format="WAV")
    return file.getvalue()


def test_uploads_good_and_bad(visitor: Page, address: str) -> None:
    page = visitor
    page.goto(f"{address}/?clip=upload+…")
    page.get_by_text("A link cannot carry a sound").wait_for()
    give = page.locator("input[type=file]").first  # the other takes labels
    give.set_input_files({"name": "a tone.wav", "mimeType": "audio/wav", "buffer": wav(1)})
    settled(page)
    assert metrics(page)
    give.set_input_files({"name": "x.wav", "mimeType": "audio/wav", "buffer": b"RIFF nothing"})
    page.get_by_text("x.wav cannot be read as sound").wait_for()
    give.set_input_files({"name": "l.wav", "mimeType": "audio/wav", "buffer": wav(31)})
    page.get_by_text("at most 30 s").wait_for()
    give.set_input_files({"name": "b.wav", "mimeType": "audio/wav", "buffer": bytes(30_000_000)})
    page.get_by_text(re.compile("must be .*MB or smaller")).wait_for()
    assert page.get_by_text("Traceback").count() == 0


def test_a_copied_link_opens_the_same_view(visitor: Page, chromium: Browser, address: str) -> None:
    page = visitor
    link = (
        f"{address}/?clip=rooster&layer=9&head=6&stream=summary&token=1"
        "&seconds=1.00-2.00&route=frames:P5.25,summary/3:F30"
    )
    page.goto(link)
    settled(page)
    shown = (
        metrics(page),
        page.url,
        page.get_by_text("Attention over the prompt").first.inner_text(),
    )
    assert "1.00–2.00 s" in shown[0] and "layer 9, head 6" in shown[2]
    other = chromium.new_context().new_page()
    other.goto(page.url)
    settled(other)
    assert shown == (
        metrics(other),
        other.url,
        other.get_by_text("Attention over the prompt").first.inner_text(),
    )
    other.context.close()


def test_back_returns_to_the_view_before(page: Page) -> None:
    """Over a choice, a click on a map, and another page: each is one step."""
    page.get_by_label("Sound", exact=True).first.click()
    page.keyboard.type("rain")
    page.get_by_role("option", name="rain", exact=True).click()
    page.wait_for_url(re.compile("clip=rain"))
    settled(page)
    click_head(page, MAP, layer=1, head=4)
    page.get_by_text("Attention over the prompt (layer 1, head 4)").wait_for()
    idle(page)
    page.get_by_role("link", name="Stored runs").click()
    page.get_by_role("heading", name="Stored runs").wait_for()
    idle(page)
    assert violations(page) == []
    page.go_back()
    page.get_by_text("Attention over the prompt (layer 1, head 4)").wait_for()
    settled(page)
    page.go_back()
    page.get_by_text("layer 1, head 4").first.wait_for(state="hidden")
    settled(page)
    assert "clip=rain" in page.url and "layer=" not in page.url
    page.go_back()
    expect(page.locator("h2").first).to_have_text("rooster", timeout=30_000)
    settled(page)
    assert "clip=rooster" in page.url
    page.go_forward()
    page.wait_for_url(re.compile("clip=rain"))
    settled(page)


def test_an_analysis_is_stopped_and_its_link_runs_it(chromium: Browser, address: str) -> None:
    page = chromium.new_page()  # Streamlit logs a 404 of its own where a link opens another page
    page.goto(f"{address}/interventions?analysis=patching&activation_patching-grid=heads")
    page.get_by_role("button", name=re.compile(r"Run: about \d+ (s|min)")).click(timeout=120_000)
    running = page.get_by_text(re.compile(r"Running: \d+ s of about"))
    running.wait_for()
    page.wait_for_url(re.compile("results="))
    link = page.url
    page.get_by_role("button", name="Stop").click()
    running.wait_for(state="hidden")
    idle(page, 20)
    assert "results=" not in page.url and page.get_by_text("Table").count() == 0
    assert violations(page) == []
    page.goto(link)
    running.wait_for()
    page.close()


def click_node(page: Page, kind: str) -> None:
    """Click on the last node of a kind in a circuit's figure."""
    chart = page.locator(".st-key-circuit .js-plotly-plot").first
    resting_box(chart)
    x, y = chart.evaluate(
        "(gd, kind) => { const l = gd._fullLayout, box = gd.getBoundingClientRect();"
        " const node = gd.calcdata.find(each => each[0].trace.name?.startsWith(kind)).at(-1);"
        " return [box.x + l.xaxis._offset + l.xaxis.l2p(node.x),"
        " box.y + l.yaxis._offset + l.yaxis.l2p(node.y)] }",
        kind,
    )
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def test_a_node_of_a_circuit_is_heard_seen_and_cut(
    chromium: Browser, address: str, checkpoint: Path
) -> None:
    page = chromium.new_page()  # as above
    page.goto(f"{address}/circuits?model=another …&model-folder={checkpoint}&edges=500")
    page.get_by_role("button", name=re.compile(r"Run: about \d+ s")).click(timeout=120_000)
    page.locator(".st-key-circuit .js-plotly-plot").first.wait_for()
    idle(page)
    click_node(page, "sound")
    page.wait_for_url(re.compile("node=.*digit"))
    expect(player(page, "selection").last).to_contain_text("Selected: 0.00–")
    expect(player(page, "time").last).not_to_have_text(re.compile(r"^0\.00"))  # it plays
    idle(page)
    click_node(page, "head")
    expect(page.get_by_text("Attention over the clean clip's prompt")).to_be_visible()
    idle(page)
    page.get_by_role("button", name="Cut from the circuit").click()
    expect(page.get_by_role("button", name="Take back")).to_be_visible(timeout=30_000)
    idle(page)
    assert {"Circuit", "Whole model"} <= metrics(page).keys()
    assert violations(page) == []
    page.close()


def test_a_unit_is_heard(chromium: Browser, address: str, checkpoint: Path, tmp_path: Path) -> None:
    index = index_of_noise(checkpoint, tmp_path)
    page = chromium.new_page()  # as above
    page.goto(f"{address}/features?index={index.folder}&unit=2")
    page.get_by_role("heading", name="ends 2", exact=True).wait_for(timeout=120_000)
    idle(page)
    sound = page.locator("section.palscope-unit audio")
    assert sound.count() == 8 + 8 + 3 + 4
    played = "each => each.play().then(() => new Promise(done => { each.ontimeupdate = done }))"
    sound.first.evaluate(played)
    page.get_by_label("Unit", exact=True).fill("5")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="ends 5", exact=True).wait_for()
    page.wait_for_url(re.compile("unit=5"))
    idle(page)
    assert violations(page) == []
    page.close()


def test_downloads_open(page: Page, tmp_path: Path) -> None:
    below = page.get_by_test_id("stPopover").filter(has_text="Download")
    below.nth(1).get_by_role("button").click()  # after the map of effects
    files: dict[str, Path] = {}
    for label in ("PNG", "SVG", "HTML", "CSV", "Parquet"):
        with page.expect_download() as waiting:
            files_of_one = page.get_by_test_id("stPopoverBody")
            files_of_one.get_by_role("button", name=label, exact=True).click()
        files[label] = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(files[label])
    with Image.open(files["PNG"]) as picture:
        assert picture.width > 600
    assert ElementTree.parse(files["SVG"]).getroot().tag.endswith("svg")
    assert "plotly" in files["HTML"].read_text(encoding="utf-8")
    table, same = pd.read_csv(files["CSV"]), pd.read_parquet(files["Parquet"])
    assert set(table["pathway"]) == {"text", "frames", "summary"}
    np.testing.assert_allclose(table["mean"], same["mean"])
    written = [[f"{each:.4g}" for each in values] for values in same["values"]]
    assert [" ".join(each) for each in written] == ["" if v != v else v for v in table["values"]]


def test_a_second_visitor_does_not_wait_for_a_sweep(
    page: Page, chromium: Browser, address: str
) -> None:
    sweeping = chromium.new_context().new_page()
    sweeping.goto(
        f"{address}/clips?domains=sound&domains=speech&domains=music&question-of-all=What+is+it?"
    )
    sweeping.get_by_role("button", name=re.compile("Listen to")).click()
    bar = sweeping.get_by_text(re.compile(r"^\d+ of \d+: "))
    bar.wait_for()
    page.get_by_label("Question", exact=True).fill("What do you hear?")
    page.get_by_label("Question", exact=True).press("Enter")
    page.wait_for_url(re.compile("question=What"))
    settled(page)
    at, of = map(int, re.findall(r"\d+", bar.inner_text())[:2])
    assert at < of  # the sweep goes on
    sweeping.get_by_role("button", name="Stop").click()
    sweeping.get_by_text(re.compile(r"Mean over \d+ clip")).wait_for()
    expect(bar).to_have_count(0, timeout=60_000)
    expect(sweeping.get_by_role("button", name=re.compile("Listen to"))).to_be_visible()
    assert violations(sweeping) == []
    sweeping.context.close()


def test_visitors_never_see_each_other_s_answers(address: str) -> None:
    """The whole one: `python -m benchmarks.visitors`."""
    with ThreadPoolExecutor(1) as apart:  # an event loop runs here, Playwright's
        given = {"visitors": 4, "seconds": 5, "views_each": 2}
        faults, took = apart.submit(visitors.measure, address, **given).result()
    assert faults == [] and len(took) >= 4
