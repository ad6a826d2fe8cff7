"""The sidebar: model, sound, question, candidates, and what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from _given import (
    CANDIDATE_CHARACTERS,
    CANDIDATES,
    FOLDER_CHARACTERS,
    QUESTION_CHARACTERS,
    check_candidates,
    pick,
    say,
    typed,
)
from _labels import labelled
from _models import demo_models, takes_questions
from _sounds import (
    ENDINGS,
    MAX_MEGABYTES,
    MAX_SECONDS,
    ChosenSound,
    bundled_names,
    bundled_sound,
    example_questions,
    given_sound,
)

from palscope.errors import PalscopeError

OTHER = "another …"
UPLOAD, MICROPHONE = "upload …", "microphone …"
FIRST = "three, seven, one"
"""The scene that the page opens with."""
AGAINST = ("another route", "another model", "another sound")


@dataclass(frozen=True)
class Setup:
    """What the visitor asks; `other_model` and `other_sound` are None unless compared with."""

    model: str
    sound: ChosenSound
    question: str
    choices: tuple[str, ...]
    other_model: str | None = None
    other_sound: ChosenSound | None = None


def choose_setup() -> Setup | None:
    """The visitor's choice, kept in the address; None while something is missing."""
    with st.sidebar:
        model = choose_model("model", "Model")
        sound = choose_sound("clip", "Sound")
        if model is None or takes_questions(model):
            question = choose_question(sound)
        else:
            question = ""
            st.caption("This model takes no question: it writes down what is said.")
        choices = choose_candidates(sound, question)
        against = pick(
            st.segmented_control,
            "Compare with",
            AGAINST,
            key="against",
            what="comparison",
            default=AGAINST[0],
            required=True,
            help="Another route is what you change in the route table below.",
        )
        other_model = other_sound = None
        if against == "another model":
            other_model = choose_model("model2", "The other model", at=1)
        elif against == "another sound":
            other_sound = choose_sound("clip2", "The other sound", at=1)
    if model is None or sound is None or question is None or choices is None or against is None:
        return None
    return Setup(model, sound, question, choices, other_model, other_sound)


def choose_model(key: str, label: str, at: int = 0) -> str | None:
    """The name, hub id or folder of a checkpoint; None while none is given."""
    models = [*demo_models(), OTHER]
    chosen = pick(
        st.selectbox,
        label,
        models,
        key=key,
        what="model",
        index=min(at, len(models) - 1),  # an installed package has no demo models
        persist_state="session",
        help="The demo trio hears the same sound in three ways: PLITS puts audio tokens into the "
        "text, LAL only lets text read them, PAL does both.",
    )
    if chosen != OTHER:
        return chosen
    folder = typed(
        "Folder or hub id of a checkpoint, palscope's or a published model's",
        key=f"{key}-folder",
        most=FOLDER_CHARACTERS,
        bind="query-params",
        persist_state="session",
        placeholder="runs/demo/pal",
    )
    if folder == "":
        st.info("Give the folder of a checkpoint.")
    return folder or None


def choose_sound(key: str, label: str, at: int = 0) -> ChosenSound | None:
    """A bundled sound, an upload or a recording; None while none is given."""
    names = bundled_names()
    bundled = [name for domain in names.values() for name in domain]
    chosen = pick(
        st.selectbox,
        label,
        [*bundled, UPLOAD, MICROPHONE],
        key=key,
        what="sound",
        index=bundled.index(FIRST) if at == 0 else at,
        persist_state="session",
        help="Everyday sounds, spoken digits, instruments, and scenes put together of them.",
    )
    if chosen is None:
        return None
    if chosen == UPLOAD:
        file = st.file_uploader(
            "A sound file",
            type=list(ENDINGS),
            key=f"{key}-upload",
            help=f"Up to {MAX_SECONDS:g} s and {MAX_MEGABYTES} MB. It stays on the machine that "
            "runs this page, in memory.",
        )
    elif chosen == MICROPHONE:
        file = st.audio_input("Record", sample_rate=16_000, key=f"{key}-microphone")
    else:
        return labelled(bundled_sound(chosen), key)
    if file is None:
        st.info("A link cannot carry a sound of your own: give it here.")
        return None
    return labelled(given_sound(file.getvalue(), file.name), key)


def choose_question(sound: ChosenSound | None) -> str | None:
    """The question: the sound's own until another is typed or taken; None where it is too long."""

    def take_example() -> None:
        if st.session_state["example"]:
            st.session_state["question"] = st.session_state["example"]

    suggested = sound.question if sound is not None and sound.question else example_questions()[0]
    asked = typed(
        "Question",
        key="question",
        most=QUESTION_CHARACTERS,
        bind="query-params",
        persist_state="session",
        placeholder=suggested,
        help="Left empty, it is the one shown in grey.",
    )
    st.selectbox(
        "Example questions",
        example_questions(),
        index=None,
        key="example",
        placeholder="or take an example …",
        on_change=take_example,
        label_visibility="collapsed",
    )
    return None if asked is None else asked or suggested


def choose_candidates(sound: ChosenSound | None, question: str | None) -> tuple[str, ...] | None:
    """Answers to rank: typed ones, else the sound's own where its own question is asked.

    None where they are too many, or too long.
    """
    listed = typed(
        "Candidate answers",
        key="candidates",
        most=CANDIDATES * (CANDIDATE_CHARACTERS + 2),
        bind="query-params",
        persist_state="session",
        placeholder="dog, rain, rooster",
        help="Separated by commas. Left empty, the bundled sounds bring theirs.",
    )
    if listed is None:
        return None
    given = tuple(dict.fromkeys(part.strip() for part in listed.split(",") if part.strip()))
    try:
        check_candidates(given)
    except PalscopeError as error:
        say(str(error))
        return None
    if given:
        return given
    return sound.choices if sound is not None and question == sound.question else ()
