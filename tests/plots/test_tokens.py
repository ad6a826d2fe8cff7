from __future__ import annotations

import re
from typing import Any

import pandas as pd

from palscope.plots import _tokens as tokens


def test_text_stands_on_its_share_and_sound_in_one_block() -> None:
    rows = [
        (0, "text", "a", -1, 0.1), (1, "frames", "", 0, 0.2), (2, "summary", "", 0, 0.1),
        (3, "frames", "", 0, 0.2), (4, "text", " <b>", -1, 0.4),
    ]  # fmt: skip
    table: Any = pd.DataFrame(rows, columns=["key", "pathway", "token", "clip", "mass"])
    table = table.assign(row=0, query=5, layer=0, head=0, start_s=0.0, end_s=0.1)
    html = tokens.token_strip(table)._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;" in html
    assert re.findall(r"(frames|summary) ([\d.]+) %", html) == [
        ("frames", "40.0"),
        ("summary", "10.0"),
    ]
    shares = re.findall(r"rgba\(127,127,127,([\d.]+)\)", html)
    assert shares == ["0.15", "0.6"]
    assert html.index("clip 0") > html.index(">a<")
