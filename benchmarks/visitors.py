"""Whether visitors of one server ever see each other's answers, in as many real browsers.

    python -m benchmarks.visitors --visitors 20 --seconds 180

Starts the page on this machine and lets visitors open views of their own at the same time: another
clip, route and edit (a cut, or silence put in) each, on one tiny model with random weights. Every
answer that a view should give, and its log-probabilities with and without the edit, are computed
beforehand without the page (`expected`), and every one that is shown is compared. Prints views
checked, those that differ, and seconds a view.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

from playwright.async_api import Browser, Page, async_playwright

from palscope import Route, load, load_audio
from palscope.audio import Waveform
from palscope.audio._bundled import bundled_clips
from palscope.interventions import Address, Knockout, Sound, edit_waveform, intervene
from palscope.measures import choice_logprobs
from tests import tiny
from tests.dashboards.browser import find_chromium, server
from tests.dashboards.conftest import OTHER, saved

CLIPS = ("rooster", "rain", "piano", "sneeze 1", "dog 1")
ROUTES = ("", "frames:P.3,summary/3:.4", "frames:.4,summary/3:F4", "frames:P4,summary/3:F2.2")
CHANGES = re.compile(r"Log-probability of “(.*?)”: (-?[\d.]+) → (-?[\d.]+)")
DREW = "The same from a script"


@dataclass(frozen=True)
class View:
    """What a visitor opens: a clip, a route (the trained one where empty), one edit in seconds."""

    clip: str
    route: str
    kind: str
    start: float
    end: float

    def link(self, folder: Path) -> str:
        """Behind the server's address."""
        source = "silence" if self.kind == "patch" else ""
        asked = {
            "model": OTHER,
            "model-folder": str(folder),
            "clip": self.clip,
            "question": "What is that?",
            "edits": f"{self.kind}~{self.start:g}-{self.end:g}~~~~{source}",
        }
        return "/?" + urlencode(asked | ({"route": self.route} if self.route else {}))


Line = tuple[str, float, float]
"""The old answer, and its log-probability without and with the edit."""


def views(count: int, seed: int = 0) -> list[View]:
    """Views that differ from one another."""
    drawn, found = random.Random(seed), dict[View, None]()
    while len(found) < count:
        start = round(drawn.uniform(0, 0.6), 2)
        end = round(start + drawn.uniform(0.12, 0.3), 2)
        kind = drawn.choice(["cut", "cut", "patch"])
        found[View(drawn.choice(CLIPS), drawn.choice(ROUTES), kind, start, end)] = None
    return [*found]


def expected(folder: Path, asked: list[View]) -> dict[View, list[Line]]:
    """The lines that each view should show, one a side, computed without the page."""
    model, paths = load(folder), _paths()
    own = model.current_route
    lines: dict[View, list[Line]] = {}
    for view in asked:
        routes = [own] if not view.route else [own, _route(view.route)]
        lines[view] = [_line(model, route, load_audio(paths[view.clip]), view) for route in routes]
    return lines


def _route(text: str) -> Route:
    from palscope._routing import route_from_text

    return route_from_text(text)


def _line(model: Any, route: Route, sound: Waveform, view: View) -> Line:
    question, stretch = "What is that?", Sound(view.start, view.end)
    with model.route(route):
        inputs = model.inputs(question, sound)
        old = model.ask(question, sound, max_new_tokens=16)
        (before,) = choice_logprobs(model, inputs, [old])
        if view.kind == "patch":
            silence = Waveform(0 * sound.samples, sound.sample_rate, "silence")
            edited = model.inputs(question, edit_waveform(sound, stretch, silence))
            (after,) = choice_logprobs(model, edited, [old])
        else:
            with intervene(model, inputs, [Knockout(Address("pattern", stretch))]):
                (after,) = choice_logprobs(model, inputs, [old])
    return old, float(before), float(after)


def _paths() -> dict[str, str]:
    """Files of the clips, by their name on the page: the label, numbered where it repeats."""
    table: Any = bundled_clips()
    found: dict[str, str] = {}
    for label, rows in table.groupby("label", sort=False):
        for number, path in enumerate(rows["path"], 1):
            found[str(label) if len(rows) == 1 else f"{label} {number}"] = path
    return found


async def visit(
    browser: Browser,
    address: str,
    folder: Path,
    wanted: dict[View, list[Line]],
    mine: list[View],
    until: float,
) -> tuple[list[str], list[float]]:
    """One visitor: what differed, and seconds of each view."""
    context = await browser.new_context(viewport={"width": 1000, "height": 700})
    page = await context.new_page()
    page.set_default_timeout(120_000)
    faults, took = list[str](), list[float]()
    number = 0
    while time.monotonic() < until:
        view = mine[number % len(mine)]
        number += 1
        began = time.monotonic()
        await page.goto(address + view.link(folder))
        shown = await lines_of(page, len(wanted[view]))
        took.append(time.monotonic() - began)
        if not alike(shown, wanted[view]):
            faults.append(f"{view}: {shown} instead of {wanted[view]}")
    await context.close()
    return faults, took


async def lines_of(page: Page, count: int) -> list[Line]:
    """What a view says of its edit, once it is drawn to its end."""
    await page.get_by_text(DREW).wait_for()
    for _ in range(300):
        text = await page.evaluate("document.body.innerText")
        found = CHANGES.findall(text)
        if len(found) >= count:
            break
        await page.wait_for_timeout(200)
    else:
        return []
    return [(old, float(before), float(after)) for old, before, after in found]


def alike(shown: list[Line], wanted: list[Line]) -> bool:
    """Whether the page's rounded numbers are those computed beforehand, and the words.

    White space in an answer is not: HTML has one space for any.
    """
    return len(shown) == len(wanted) and all(
        mine.split() == old.split() and abs(b - before) < 0.011 and abs(a - after) < 0.011
        for (mine, b, a), (old, before, after) in zip(shown, wanted, strict=True)
    )


async def everybody(
    address: str, folder: Path, wanted: dict[View, list[Line]], visitors: int, seconds: float
) -> tuple[list[str], list[float]]:
    """All visitors together; each has views that nobody else has."""
    asked = [*wanted]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox"]
        )
        await visit(browser, address, folder, wanted, asked[:1], time.monotonic() + 1)  # imports
        until = time.monotonic() + seconds
        each = [
            visit(browser, address, folder, wanted, asked[number::visitors], until)
            for number in range(visitors)
        ]
        found = await asyncio.gather(*each)
        await browser.close()
    faults = [fault for some, _ in found for fault in some]
    return faults, [second for _, some in found for second in some]


def measure(
    address: str, visitors: int, seconds: float, views_each: int
) -> tuple[list[str], list[float]]:
    """What differed, and seconds of every view that was checked, of the page at an address."""
    with TemporaryDirectory() as made:
        folder = saved(Route.pal(tiny.LAYERS), Path(made) / "tiny")
        wanted = expected(folder, views(visitors * views_each))
        return asyncio.run(everybody(address, folder, wanted, visitors, seconds))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=180, help="how long they go on")
    parser.add_argument("--views-each", type=int, default=8, help="views of each visitor's own")
    given = parser.parse_args()
    with server() as (address, _):
        faults, took = measure(address, given.visitors, given.seconds, given.views_each)
    for fault in faults:
        print(fault)
    print(
        f"{given.visitors} visitors, {len(took)} views checked, {len(faults)} differ; "
        f"{statistics.median(took):.1f} s a view, {max(took):.1f} at most"
    )
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
