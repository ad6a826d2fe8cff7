"""The answer: as it grows, token by token, after every layer, beside its candidates."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from _answers import (
    Ask,
    GeneratedAnswer,
    generated_answer,
    once,
    ranked,
    visible,
)
from _figures import bars, steps_table
from _lens_view import show_lens
from _setup import Setup
from _sides import plain


def show_answers(asks: dict[str, Ask]) -> dict[str, GeneratedAnswer]:
    """The question, and the answers as they are generated."""
    given: dict[str, GeneratedAnswer] = {}
    for column, (name, ask) in zip(st.columns(len(asks)), asks.items(), strict=True):
        with column:
            given[name] = show_answer(
                "Answer" if name == ask.opened.name else f"Answer, {name}", ask
            )
    return given


def show_answer(caption: str, ask: Ask) -> GeneratedAnswer:
    """One answer, growing while it is generated."""
    known = ask.sound.answer if ask.sound.answer and ask.question == ask.sound.question else ""
    truth = f" (known to be: **{plain(known)}**)" if known else ""
    asked = f" to “{plain(ask.question)}”" if ask.question else ": what is said"
    st.caption(
        f"{caption} of **{plain(ask.opened.name)}**{asked}{truth}",
        help="Greedy decoding: the likeliest token each time.",
    )
    place = st.empty()
    answer = generated_answer(ask, lambda text: place.markdown(headline(text)))
    place.markdown(headline(answer.text))
    return answer


def show_steps(asks: dict[str, Ask], given: dict[str, GeneratedAnswer], setup: Setup) -> None:
    """The tokens of each step, and ranked candidates."""
    with st.expander("The answer token by token, and candidates"):
        for column, name in zip(st.columns(len(asks), gap="large"), asks, strict=True):
            with column:
                st.caption(
                    "Likeliest tokens at each step; bold is taken"
                    + (f" ({plain(name)})" if len(asks) > 1 else "")
                )
                st.html(steps_table(given[name].steps))
                st.caption(cost(given[name]), help=COST_HELP)
        if len(asks) == 1:
            show_candidates(asks, setup)
            return
        left, right = st.columns(2, gap="large")
        with left:
            show_first_tokens(asks, given)
        with right:
            show_candidates(asks, setup)


def show_lenses(asks: dict[str, Ask]) -> None:
    """What each side's answer was after every layer."""
    with st.expander("Logit lens: the answer after every layer"):
        if not st.toggle("Read it", key="read lens"):
            return
        for column, (name, ask) in zip(st.columns(len(asks)), asks.items(), strict=True):
            with column:
                if len(asks) > 1:
                    st.markdown(f"**{plain(name)}**")
                show_lens(ask, key=f"lens unit {name}")


COST_HELP = (
    "Timed once, on this machine, which may have been busy: `benchmarks/integrations.py` measures. "
    "Prefill runs the prompt with the sound already encoded; the cache holds keys and values of "
    "prompt and answer, those of sound included."
)


def cost(answer: GeneratedAnswer) -> str:
    token = "" if answer.token_s != answer.token_s else f", {1000 * answer.token_s:.0f} ms a token"
    size = f"{answer.cache_bytes / 2**20:.2f} MiB"
    return f"prefill {1000 * answer.prefill_s:.0f} ms{token}, cache {size}"


def show_first_tokens(
    asks: dict[str, Ask], answers: dict[str, GeneratedAnswer], count: int = 5
) -> None:
    """Probabilities of the answer's first token on both sides; models may differ in vocabulary."""
    one, other = answers.values()
    tokenizer: Any = next(iter(asks.values())).opened.model.tokenizer
    if len(one.first) != len(other.first):
        st.info("The two models have different vocabularies; their tokens are not compared.")
        return
    likely = {int(t) for h in (one, other) for t in h.first.argsort()[-count:]}
    order = sorted(likely, key=lambda token: -one.first[token])
    labels = [visible(tokenizer.decode([token])) for token in order]
    shares = {name: pd.Series(h.first[order], index=labels) for name, h in answers.items()}
    title = "probability of the answer's first token (%)"
    st.plotly_chart(bars(shares, title), key="first bars", alt=title)


def show_candidates(asks: dict[str, Ask], setup: Setup) -> None:
    """Ranked candidates, where the visitor gave some or the sound brings them."""
    if not setup.choices:
        return
    every = tuple((name, *ask.key) for name, ask in asks.items())
    title = "probability among the candidates (%)"
    figure = once(
        next(iter(asks.values())),
        ("candidate bars", setup.choices, every),
        lambda: bars(candidate_shares(asks, setup), title),
    )
    st.plotly_chart(figure, key="candidate bars", alt=title)
    st.caption(
        "Each candidate is scored as the whole answer, its end included; shares are among these "
        "candidates alone."
    )


def candidate_shares(asks: dict[str, Ask], setup: Setup) -> Any:
    """Each side's shares, in the order of the first side."""
    tables = {name: ranked(ask, setup.choices).set_index("answer") for name, ask in asks.items()}
    order = next(iter(tables.values())).index
    return {name: table.loc[order, "share"] for name, table in tables.items()}


def headline(text: str) -> str:
    return f"## {plain(text) or '(nothing)'}"
