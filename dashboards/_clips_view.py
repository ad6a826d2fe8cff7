"""Many clips: the same measure over several sounds, as small multiples and as a mean."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st
from _address import address_route
from _answers import Ask, attended, generated_answer, known
from _downloads import on_ground
from _given import QUESTION_CHARACTERS, pick, typed
from _means import show_means
from _models import cached_model
from _setup import choose_model
from _sides import plain
from _sounds import bundled_names, bundled_sound

from palscope.measures import over_time
from palscope.plots import shared_scale, time_over_spectrogram

PICTURED = 12
"""So many clips have a picture of their own."""


def view() -> None:
    st.title("Many clips")
    st.markdown(
        "The prompt's last token, which predicts the answer, over several sounds: each on its own, "
        "then their mean: of few clips with a dot for each, from 20 on with a 95 % interval. The "
        "mean is over all layers and heads."
    )
    with st.sidebar:
        name = choose_model("model", "Model")
        names = choose_sounds()
        question = typed(
            "Question",
            key="question-of-all",
            most=QUESTION_CHARACTERS,
            bind="query-params",
            persist_state="session",
            placeholder="each sound's own",
        )
    if name is None or question is None:
        return
    opened = cached_model(name)
    route = address_route(opened)
    asks = [
        Ask(opened, sound, question or sound.question, route)
        for sound in (bundled_sound(each) for each in names)
    ]
    if not asks:
        st.info("No sound is chosen.")
        return
    sweep(asks)
    done = [ask for ask in asks if known(ask, 0)]
    if not done:
        st.info("Nothing is measured yet: press *Listen*.")
        return
    st.header(f"Mean over {len(done)} clip{'s' if len(done) > 1 else ''}")
    questions = dict.fromkeys(ask.caption.asked for ask in done)
    asked = next(iter(questions)) if len(questions) == 1 else f"{len(questions)} questions"
    caption = replace(done[0].caption, asked=asked, n=len(done))
    show_means([attended(ask, 0).pathways for ask in done], "mean", caption)
    show_multiples(done)


def choose_sounds() -> list[str]:
    """The sounds to listen to, kept in the address: single ones, else all of some domains."""
    names = bundled_names()
    domains: list[str] = pick(
        st.pills,
        "Domains",
        [*names],
        key="domains",
        what="domain",
        selection_mode="multi",
        default=["sound"],
        persist_state="session",
    )
    single: list[str] = pick(
        st.multiselect,
        "Sounds",
        [name for domain in names.values() for name in domain],
        key="sounds",
        what="sound",
        placeholder="all of these domains",
        persist_state="session",
        help="Where some are chosen, they alone are heard, of whatever domain.",
    )
    if st.session_state["sounds"]:  # all of which may be sounds that are not here
        return single
    return [name for domain in domains for name in names[domain]]


def sweep(asks: list[Ask]) -> None:
    """Measure what is not yet measured, a clip at a time; any click stops it, nothing is lost."""
    left = [ask for ask in asks if not known(ask, 0)]
    if not left:
        return
    row = st.container(horizontal=True)
    start = row.button(f"Listen to {len(left)}", type="primary")
    row.button("Stop", help="What is measured so far stays.")
    if start:
        bar = row.progress(0.0, "listening …")
        for number, ask in enumerate(left):
            bar.progress(number / len(left), f"{number + 1} of {len(left)}: {ask.sound.name}")
            attended(ask, 0)
        bar.empty()
        st.rerun()


def show_multiples(asks: list[Ask]) -> None:
    """Each clip with its answer and its attention over time."""
    st.header("Clip by clip")
    if len(asks) > PICTURED:
        st.caption(f"The first {PICTURED} of {len(asks)}; the mean has them all.")
        for ask in asks[PICTURED:]:
            show_told(ask)
    figures = shared_scale(
        [
            time_over_spectrogram(
                over_time(attended(ask, 0).keys), ask.sound.waveform, caption=ask.caption
            )
            for ask in asks[:PICTURED]
        ]
    )
    for start in range(0, len(figures), 3):
        row = zip(st.columns(3), asks[start:], figures[start:], strict=False)
        for column, ask, figure in row:
            with column:
                answer = generated_answer(ask).text
                right = "" if not ask.sound.answer else f" (known: {ask.sound.answer})"
                st.caption(f"{ask.sound.name}: “{answer}”{right}")
                page = on_ground(figure)
                page.update_layout(height=320, margin={"l": 40, "r": 5}, title_font_size=9)
                alt = f"Attention over time to {ask.sound.name}"
                st.plotly_chart(page, key=f"clip {ask.sound.name}", theme=None, alt=alt)
                show_told(ask)


def show_told(ask: Ask) -> None:
    """What is odd about a sound; each sentence names it."""
    for each in ask.sound.told:
        st.warning(plain(each))
