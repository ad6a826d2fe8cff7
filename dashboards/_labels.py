"""A visitor's own labels of what sounds when, as Audacity exports them."""

from __future__ import annotations

import re
from dataclasses import replace

import streamlit as st
from _sounds import ChosenSound

from palscope.audio._compose import LabelledSpan
from palscope.errors import AudioError

MOST_LABELS, MOST_CHARACTERS = 500, 100
_SECONDS = re.compile(r"\d+(?:[.,]\d*)?")
_EXPECTED = "expected start, end and text with a tab between, seconds such as 0.68 or 0,68"


def labelled(sound: ChosenSound, key: str) -> ChosenSound:
    """The sound with the labels of a file that the visitor gives, in place of its own."""
    with st.expander("Labels of your own"):
        # Of this sound alone: another one has other labels.
        file = st.file_uploader(
            "What sounds when",
            type=["txt"],
            key=f"{key} labels {sound.digest}",
            max_upload_size=1,
            help="A text file as Audacity exports it: start, end (seconds) and text in each line, "
            "with a tab between. They are drawn over the sound, and name what sounds in a control.",
        )
    if file is None:
        return sound
    try:
        spans = read_labels(file.getvalue(), file.name, sound.waveform.seconds)
    except AudioError as error:
        st.error(str(error))
        return sound
    return replace(sound, spans=spans)


def read_labels(data: bytes, name: str, seconds: float) -> tuple[LabelledSpan, ...]:
    """The labels of a file, in order of time.

    A line is a start, an end and a text with a tab between; a point has its start as its end. A
    label that outlasts the sound is cut to it. Lines that begin with a backslash (frequencies of
    the label before) and empty lines are passed over.

    Args:
        data: the file.
        name: what errors call it.
        seconds: how long the sound lasts.

    Raises:
        AudioError: it is no such file; names the line.
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AudioError(f"{name} is no text in UTF-8; {_EXPECTED}.") from error
    spans = [
        _span(line, f"{name}, line {number}", seconds)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("\\")
    ]
    if not spans:
        raise AudioError(f"{name} holds no label; {_EXPECTED}.")
    if len(spans) > MOST_LABELS:
        raise AudioError(f"{name} holds {len(spans)} labels; this page takes {MOST_LABELS}.")
    return tuple(sorted(spans, key=lambda span: (span.start, span.end)))


def _span(line: str, where: str, seconds: float) -> LabelledSpan:
    start, end, text = (*(part.strip() for part in line.split("\t", 2)), "", "")[:3]
    if not (_SECONDS.fullmatch(start) and _SECONDS.fullmatch(end)):
        raise AudioError(f"{where}: {line[:60]!r} is no label; {_EXPECTED}.")
    first, last = (float(each.replace(",", ".")) for each in (start, end))
    if last < first:
        raise AudioError(f"{where}: the label ends at {last:g} s, before its start, {first:g} s.")
    if first > seconds:
        raise AudioError(
            f"{where}: the label begins at {first:g} s, but the sound ends at {seconds:g} s. Is it "
            "of another sound?"
        )
    if len(text) > MOST_CHARACTERS:
        raise AudioError(
            f"{where}: a text of {len(text)} characters; this page takes {MOST_CHARACTERS}."
        )
    return LabelledSpan(text or "(no text)", first, min(last, seconds))
