"""Interventions on a pair of clips: what moves the answer, where, and through which pathway."""

from __future__ import annotations

import sys
import time
from typing import Any

import streamlit as st
from _address import address_results, address_route, remember_results
from _analyses import AnalysisRequest, widgets
from _downloads import show
from _duration import in_words
from _given import pick
from _models import OpenModel, cached_model
from _pairs import ChosenPair, choose_pair
from _player import player
from _setup import choose_model

from palscope._routing import Route, route_to_text
from palscope.analyses import Analysis, analysis_of
from palscope.analyses._registry import analyses
from palscope.audio._compose import LabelledSpan
from palscope.measures._metrics import Answers, answer_metrics
from palscope.pairs import Pair

STOPPED = "stopped"
"""Of which request the visitor has pressed Stop last."""


def view() -> None:
    st.title("Interventions")
    about = choose_about()
    if about is None:
        return
    opened, route, chosen, pass_s = about
    named = choose_analysis()
    if named is None:
        return
    script, analysis = named
    st.markdown(analysis.about)
    given = widgets(analysis)
    if given is None:
        return
    asked = AnalysisRequest(script, analysis, opened, route, chosen, given, pass_s)
    row = st.container(horizontal=True)
    seconds = asked.seconds
    row.button(
        "Run" if seconds is None else f"Run: {in_words(seconds)}",
        type="primary",
        key="run analysis",
        on_click=remember_results,
        args=(asked.written,),
        help="How long it takes is not known."
        if seconds is None
        else f"Some {asked.passes:.0f} passes, of which one took {pass_s:.2g} s for these clips; "
        "once it has run with this model, as long as that took.",
    )
    row.button("Stop", on_click=stop, args=(asked,), help="Clips and pairs that are measured stay.")
    if address_results() == asked.written:
        show_results(asked)
    elif address_results():
        st.caption("The address names results of other options; *Run* makes those of these.")
    elif asked.unfinished:
        st.caption(asked.unfinished)
    elif st.session_state.pop(STOPPED, "") == asked.written and not asked.measured:
        st.caption("Stopped: nothing of it was whole yet, so nothing is kept.")


def choose_about() -> tuple[OpenModel, Route, ChosenPair, float] | None:
    """The visitor's model on its route, the pair, shown, and how long a pass took.

    None where the address names what is not here.
    """
    with st.sidebar:
        name = choose_model("model", "Model")
        chosen = choose_pair()
    if name is None or chosen is None:
        return None
    opened = cached_model(name)
    route = address_route(opened)
    if route != opened.route:
        st.info(f"On the route {route_to_text(route)}, which the attention page was left on.")
    return opened, route, chosen, show_pair(chosen, opened, route)


def stop(asked: AnalysisRequest) -> None:
    """End the run, which a click does, and say what became of it."""
    remember_results("")
    st.session_state[STOPPED] = asked.written


def show_pair(chosen: ChosenPair, opened: OpenModel, route: Route) -> float:
    """Both clips, what differs, and how the model answers each; gives how long a pass took."""
    processor = opened.model.processor
    pair = chosen.for_model(processor)
    if processor.takes_questions:
        st.markdown(f"**{pair.question}**")
    else:
        st.caption("This model takes no question: it writes down what is said.")
    told = route_to_text(route)
    leads, pass_s = answers_of(opened, opened.version, told, route, chosen.digest, pair)
    sides = (
        ("clean", pair.clean, pair.clean_answer, leads[0]),
        ("corrupt", pair.corrupt, pair.corrupt_answer, -leads[1]),
    )
    for column, (side, clip, answer, lead) in zip(st.columns(2), sides, strict=True):
        with column:
            verdict = "ahead" if lead > 0 else "**behind**"
            st.markdown(
                f"{side}: right is “{answer}”, which is {verdict} of the other answer by "
                f"{abs(lead):.1f} nats"
            )
            player(
                clip,
                f"{side} of {chosen.digest}",
                key=f"{side} clip",
                labels=[LabelledSpan(s.name, s.start, s.end) for s in pair.segments],
                frames=[(s.start, s.end) for s in pair.segments if s.differs],
            )
    if not (leads[0] > 0 > leads[1]):
        st.warning(
            "The model does not answer both clips right, so there is no difference to explain: "
            "choose another pair or model."
        )
    return pass_s


@st.cache_data(max_entries=128, show_spinner="Asking about both clips …")
def answers_of(
    _opened: OpenModel, version: str, route: str, _route: Route, digest: str, _pair: Pair
) -> tuple[tuple[float, float], float]:
    """Logit difference between the clean and the corrupt answer, for the clean and corrupt clip.

    And the seconds of one pass: the shorter one's, for the first may wait for others.
    """
    model = _opened.model
    answers = Answers.of(model.processor, _pair.clean_answer, _pair.corrupt_answer)
    leads: list[float] = []
    took: list[float] = []
    with model.route(_route):
        for clip in (_pair.clean, _pair.corrupt):
            inputs = answers.behind(model.inputs(_pair.question, clip))
            began = time.perf_counter()
            logits = model(inputs, logits_to_keep=1)[:, -1].detach().float()
            took.append(time.perf_counter() - began)
            leads.append(float(answer_metrics(logits, answers, logits[0])["logit_diff"].iloc[0]))
    return (leads[0], leads[1]), min(took)


def choose_analysis() -> tuple[str, Analysis[Any, Any]] | None:
    """The visitor's analysis, kept in the address, and its name or the file named at the start.

    None where the address names none that is here.
    """
    found = {name: each for name, each in analyses().items() if each.takes is not None}
    found |= {file: analysis_of(file) for file in sys.argv[1:]}
    known = {each.title: (script, each) for script, each in found.items()}
    title = pick(
        st.segmented_control,
        "Analysis",
        list(known),
        key="analysis",
        what="analysis",
        default="patching",
        required=True,
    )
    return None if title is None else known[title]


def show_results(asked: AnalysisRequest) -> None:
    """Figures, downloads, tables, and the command that gives the same."""
    analysis, results = asked.analysis, asked.results()
    for name, why in results.left_out.items():
        st.warning(f"{name} is left out: {why}")
    for note in results.derived(analysis.notes):
        st.caption(note)
    for title, figure in results.derived(analysis.figures).items():
        show(figure, f"{analysis.name} {title}")
    for name in results.stored:
        with st.expander(f"Table {name}"):
            st.dataframe(results.rows(name), hide_index=True)
    st.caption(asked.chosen.command_note)
    st.code(asked.command, language="bash", wrap_lines=True)
