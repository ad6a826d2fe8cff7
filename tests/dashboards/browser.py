"""A server of the pages and a real Chromium that looks at it, for tests and benchmarks."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
LAST = "The same from a script"
"""The last thing that the attention page draws."""


def find_chromium() -> str | None:
    """A Chromium of the system, where it has one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def server() -> Generator[tuple[str, int]]:
    """The pages on a free port of this machine: their address and the server's process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "dashboards" / "attention.py")]
    options = ["--server.port", str(port), "--server.address", "127.0.0.1"]
    options += ["--server.headless", "true", "--server.fileWatcherType", "none"]
    with subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, process)
            yield address, process.pid
        finally:
            process.terminate()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the page's server did not start")


@contextmanager
def chromium() -> Generator[Browser]:
    """A headless Chromium. Playwright's own is used where the system has none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def settled(page: Page, seconds: float = 120) -> None:
    """Wait until the page's script has run to its end."""
    page.get_by_text(LAST).wait_for(timeout=1000 * seconds)
    idle(page, seconds)


def idle(page: Page, seconds: float = 120) -> None:
    """Wait until nothing runs and all is drawn: the app says so, and still a moment later.

    The browser fetches what draws figures when the first one comes, maybe after the script's end.
    """
    for _ in range(2):
        page.wait_for_function(
            "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState"
            " === 'notRunning'"
            " && !document.querySelector('[data-testid=stSkeleton]')"
            " && [...document.querySelectorAll('[data-testid=stPlotlyChart]')]"
            ".every(each => each.querySelector('.main-svg'))",
            timeout=1000 * seconds,
        )
        page.wait_for_timeout(150)


def metrics(page: Page, seconds: float = 30) -> dict[str, str]:
    """The numbers of the page, by their label, once they stand still.

    The browser draws them one by one, on a busy machine well after the script has ended.
    """
    before: list[list[str]] = []
    for _ in range(int(seconds / 0.3)):
        now: list[list[str]] = page.evaluate(
            "[...document.querySelectorAll('[data-testid=stMetric]')].map(each =>"
            " ['stMetricLabel', 'stMetricValue'].map(part =>"
            " each.querySelector(`[data-testid=${part}]`).innerText.trim()))"
        )
        if now and now == before:
            return dict(now)
        before = now
        page.wait_for_timeout(300)
    raise AssertionError(f"the page's numbers do not stand still; last {before}")


def resting_box(target: Locator, seconds: float = 30) -> FloatRect:
    """Where an element stands on the screen, once it has stood still for a third of a second.

    What opens, or is drawn above it, moves it; on a busy machine two frames alike prove nothing,
    and a stroke of the mouse by an older box begins on another element.
    """
    target.scroll_into_view_if_needed()
    before, same = None, 0
    for _ in range(int(seconds / 0.1)):
        box = target.bounding_box()
        same = same + 1 if box is not None and box == before else 0
        if box is not None and same == 3:
            return box
        before = box
        target.page.wait_for_timeout(100)
    raise AssertionError(f"{target} does not stand still; last {before}")


def stroke(page: Page, begin: tuple[float, float], end: tuple[float, float], steps: int) -> None:
    """Move the mouse from a point of the screen to another with its button down."""
    page.mouse.move(*begin)
    page.mouse.down()
    page.mouse.move(*end, steps=steps)
    page.mouse.up()


def click_head(page: Page, key: str, layer: int, head: int) -> None:
    """Click on a cell of the layer × head map whose Streamlit key has this class."""
    chart = page.locator(f".{key} .js-plotly-plot").first
    x, y = chart.evaluate(
        "(gd, [layer, head]) => { const l = gd._fullLayout;"
        " return [l.xaxis.l2p(head), l.yaxis.l2p(layer)] }",
        [layer, head],
    )
    resting_box(chart)
    chart.locator(".nsewdrag").first.click(position={"x": x, "y": y})


def press_until_at(page: Page, key: str, target: Locator) -> None:
    """Press Tab, or shift and Tab, until an element has the focus."""
    for _ in range(80):
        page.keyboard.press(key)
        if target.evaluate("each => each.getRootNode().activeElement === each"):
            return
    raise AssertionError(f"{key} does not lead to {target}")
