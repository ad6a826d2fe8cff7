"""How long the attention page takes from an interaction to its picture, in a real Chromium.

    python -m benchmarks.page --out runs/page.json

Starts the page on this machine and measures, in seconds of wall clock: the first visit to a fresh
server (until it says a word, and until it rests), new clips, changes of view (a head, a token, a
stretch of sound), each until the page's script has ended; a cut until the new answer stands there;
and the server's memory over many interactions. Beside it, in this process, by turns: a cut's new
answer, and a bare forward pass plus a greedy answer. Run it on an idle machine: it competes with
whatever else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import streamlit
import torch
from playwright.sync_api import Page
from tqdm.auto import tqdm

from tests.dashboards.browser import chromium, click_head, idle, server, settled

DASHBOARDS = Path(__file__).resolve().parents[1] / "dashboards"
MAP = "st-key-map-share-demo-pal"
CLIPS = ("rain", "rooster", "dog 1", "three", "piano", "sneeze 1")


def timed(page: Page, act: Callable[[], Any]) -> float:
    """Seconds from an interaction until the page rests."""
    start = time.perf_counter()
    act()
    page.wait_for_timeout(50)
    idle(page)
    return time.perf_counter() - start - 0.3  # what `idle` waits to be sure


def choose(page: Page, label: str, option: str) -> None:
    """Choose an option of a select box, as a visitor does."""
    page.get_by_label(label, exact=True).first.click()
    page.keyboard.type(option)  # long lists are drawn as they are scrolled
    page.get_by_role("option", name=option, exact=True).click()


def look_at(page: Page, layer: int, head: int) -> None:
    """Click a head on the map, and hold the page to having taken it."""
    click_head(page, MAP, layer, head)
    page.get_by_text(f"Attention over the prompt (layer {layer}, head {head})").wait_for()
    legend = page.get_by_test_id("player-legend").get_by_text(f"(layer {layer}, head {head})")
    legend.wait_for(timeout=30_000)


def memory_mib(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(interactions: int) -> dict[str, Any]:
    """All measurements, on a server and a browser of their own."""
    with server() as (address, pid), chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        start = time.perf_counter()
        page.goto(address)
        page.get_by_text("Opening palscope").wait_for()
        report: dict[str, Any] = {"first_word": time.perf_counter() - start}
        settled(page)
        report["first_visit"] = time.perf_counter() - start
        start = time.perf_counter()
        page.get_by_role("button", name="Cut", exact=True).click()
        page.get_by_role("heading", name="seven → one").wait_for()
        report["first_cut"] = time.perf_counter() - start
        idle(page)
        page.get_by_role("button", name="Take back").click()
        idle(page)
        clips = [timed(page, lambda clip=clip: choose(page, "Sound", clip)) for clip in CLIPS]
        heads = [(layer, head) for layer in (0, 3, 6, 9) for head in (1, 4, 7)]
        views = [timed(page, lambda at=at: look_at(page, *at)) for at in tqdm(heads, "views")]
        again = [timed(page, lambda clip=clip: choose(page, "Sound", clip)) for clip in CLIPS]
        report |= {"new_clip": clips, "view": views, "clip_again": again}
        memory = [memory_mib(pid)]
        for number in tqdm(range(interactions), "interactions"):
            look_at(page, number % 10, number % 9)
            page.wait_for_timeout(50)
            idle(page)
            if (number + 1) % max(1, interactions // 10) == 0:
                memory.append(memory_mib(pid))
        report["memory_mib"] = memory
    for name in ("new_clip", "view", "clip_again"):
        report[f"{name}_median"] = statistics.median(report[name])
        report[f"{name}_slowest"] = max(report[name])
    return report


def cuts(rounds: int = 12) -> dict[str, Any]:
    """Seconds of a cut's new answer, and of a bare forward pass plus a greedy answer, by turns."""
    sys.path.insert(0, str(DASHBOARDS))
    answers, edits = import_module("_answers"), import_module("_edits")
    edited = import_module("_edited").edited
    opened = import_module("_models").cached_model("demo/pal")
    sound = import_module("_sounds").bundled_sound("three, seven, one")
    ask = answers.Ask(opened, sound, sound.question, opened.route)
    answers.generated_answer(ask)
    edited(ask, (edits.Edit("cut", 0.0, 0.1),))
    found: dict[str, list[float]] = {"bare": [], "cut": []}
    for number in range(rounds):
        inputs = answers.encoded_inputs(ask)
        start = time.perf_counter()
        with torch.no_grad():
            opened.model(inputs, logits_to_keep=1)
        answers.generate(ask, inputs)
        middle = time.perf_counter()
        edited(ask, (edits.Edit("cut", 0.1 * number, 0.1 * number + 0.35),))
        found["bare"].append(middle - start)
        found["cut"].append(time.perf_counter() - middle)
    ratio = statistics.median(found["cut"]) / statistics.median(found["bare"])
    return {**found, "cut_ratio": ratio}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--interactions", type=int, default=200, help="over which memory is watched"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/page.json"))
    args = parser.parse_args()
    report = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "versions": {"torch": torch.__version__, "streamlit": streamlit.__version__},
    } | measure(args.interactions)
    report |= cuts()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
