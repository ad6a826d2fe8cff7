"""The pairs that the page intervenes on: bundled ones, or two sounds of the visitor's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st
from _given import CANDIDATE_CHARACTERS, QUESTION_CHARACTERS, pick
from _sounds import ENDINGS, read

from palscope.audio._told import told
from palscope.pairs import Pair, bundled_pairs, pair_from_files

OWN = "two sounds of your own …"


@dataclass(frozen=True)
class ChosenPair:
    """A pair, and a digest that stands for it wherever results are remembered."""

    pair: Pair
    digest: str
    own: bool = False

    def for_model(self, processor: Any) -> Pair:
        """The pair as a model is asked about it: of one that transcribes, without its question."""
        if processor.takes_questions:
            return self.pair
        return replace(self.pair, question=processor.any_question)

    @property
    def options(self) -> dict[str, Any]:
        """How a command names it."""
        if self.own:
            return {"pairs": Path("PAIRS.csv")}
        return {"kind": (self.pair.kind,), "only": (self.pair.name,)}

    @property
    def command_note(self) -> str:
        """What stands above a command."""
        if not self.own:
            return "The same from a script; without --only, over every pair of this kind:"
        columns = "clean, corrupt, question, clean_answer, corrupt_answer"
        return f"The same from a script, with your two sounds in a PAIRS.csv (columns {columns}):"


def choose_pair() -> ChosenPair | None:
    """The visitor's pair, kept in the address; None while something is missing."""
    pairs = _bundled()
    chosen = pick(
        st.selectbox,
        "Pair of clips",
        [*pairs, OWN],
        key="pair",
        what="pair",
        persist_state="session",
        help="A clean and a corrupt clip, as long and as loud as each other, that differ in one "
        "thing.",
    )
    if chosen is None:
        return None
    if chosen != OWN:
        return pairs[chosen]
    pair = _own()
    if pair is None:
        st.info("Give two sounds, a question and both answers.")
        return None
    return ChosenPair(pair, pair.digest, own=True)


def _own() -> Pair | None:
    clean = st.file_uploader("Clean clip", type=list(ENDINGS), key="pair-clean")
    corrupt = st.file_uploader("Corrupt clip", type=list(ENDINGS), key="pair-corrupt")
    question, right, wrong = (
        st.text_input(label, key=f"pair-{label}", max_chars=most).strip()
        for label, most in (
            ("Question about both", QUESTION_CHARACTERS),
            ("Answer to the clean clip", CANDIDATE_CHARACTERS),
            ("Answer to the corrupt clip", CANDIDATE_CHARACTERS),
        )
    )
    if clean is None or corrupt is None or not (question and right and wrong):
        return None
    with TemporaryDirectory() as folder:
        paths: list[Path] = []
        for number, file in enumerate((clean, corrupt)):
            # Refuses what is too long or no sound, by its name.
            _, odd = read(file.getvalue(), file.name)
            for each in odd:
                st.warning(each)
            paths.append(Path(folder) / str(number) / Path(file.name).name[-60:])  # of any length
            paths[-1].parent.mkdir()
            paths[-1].write_bytes(file.getvalue())
        with told():  # which was shown above
            return pair_from_files(paths[0], paths[1], question, right, wrong)


@st.cache_resource(show_spinner="Making the pairs …")
def _bundled() -> dict[str, ChosenPair]:
    return {pair.name: ChosenPair(pair, pair.digest) for pair in bundled_pairs()}
