"""A visitor's labels: what a line of a file may be, and what the page does with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from palscope.errors import AudioError


def read(text: str | bytes) -> list[tuple[Any, ...]]:
    data = text.encode() if isinstance(text, str) else text
    return [tuple(each) for each in import_module("_labels").read_labels(data, "l.txt", 3.0)]


def test_a_file_as_audacity_writes_it() -> None:
    text = (
        "\ufeff2.000000\t3.500000\tthe end, cut to the sound\r\n"
        "\\\t120.000000\t4000.000000\r\n"
        "0.25\t0.75\ta tab\tand “quotes”\n"
        "\n"
        "1,500000\t1,500000\ta point\n"
        "0\t1.\t\n"
    )
    assert read(text) == [
        ("(no text)", 0.0, 1.0),
        ("a tab\tand “quotes”", 0.25, 0.75),
        ("a point", 1.5, 1.5),
        ("the end, cut to the sound", 2.0, 3.0),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("0\t1\ta\n1 2 b", "l.txt, line 2: '1 2 b' is no label; expected start, end and text"),
        ("start\tend\ttext", "line 1: 'start.tend.ttext' is no label"),
        ("0\tnan\ta", "line 1: .* is no label"),
        ("-1\t1\ta", "line 1: .* is no label"),
        ("\n1.5\t0.5\ta", "line 2: the label ends at 0.5 s, before its start, 1.5 s"),
        ("9\t10\ta", "line 1: the label begins at 9 s, but the sound ends at 3 s"),
        ("0\t1\t" + "x" * 101, "line 1: a text of 101 characters; this page takes 100"),
        ("0\t1\ta\n" * 501, "holds 501 labels; this page takes 500"),
        ("", "l.txt holds no label; expected"),
        (b"0\t1\t\xff\xfe", "l.txt is no text in UTF-8"),
    ],
)
def test_what_is_no_label_is_a_sentence_with_its_line(data: str | bytes, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        read(data)


def drawn(page: AppTest) -> list[str]:
    assert not page.exception
    components = [each.proto.json for each in page.get("bidi_component")]
    players = [json.loads(each) for each in components if each]  # the history's has no data
    (shown,) = [each for each in players if "labels" in each]
    return [label["text"] for label in shown["labels"]]


def test_labels_are_drawn_and_name_the_controls(open_page: Callable[..., AppTest]) -> None:
    page = open_page()
    page.button(key="cut").click().run()
    own = ["three", "seven", "one"]
    assert drawn(page) == own

    def give(text: str) -> None:
        (place,) = [each for each in page.file_uploader if each.label == "What sounds when"]
        place.upload("mine.txt", text.encode(), "text/plain").run()

    give("0\t0.2\twhat\tis this")
    assert drawn(page) == ["what\tis this"] and not page.error
    (table,) = [each.value for each in page.dataframe if "what sounds" in each.value]
    assert table["what sounds"].tolist()[0] == "silence"  # of the cut itself, 0.68 to 1.21 s
    assert "what\tis this" in table["what sounds"].tolist()
    give("0\t0.2\twhat\n?")
    assert page.error[0].value.startswith("mine.txt, line 2")
    assert drawn(page) == own
    give("0\t1\tmine")
    page.selectbox(key="clip").select("dog, then rain").run()
    assert drawn(page) == ["dog", "rain"]  # the file was the other sound's
