"""Interventions on a pair of clips: what moves the answer, where, and through which pathway."""

from __future__ import annotations

from typing import Any

import streamlit as st
from _address import address_route
from _attribution import ATTRIBUTION
from _downloads import offer
from _experiments import Asked, Experiment
from _knockout import KNOCKOUT
from _leakage import LEAKAGE
from _lens import LENS
from _masking import MASKING
from _models import OpenModel, open_model
from _pairs import ChosenPair, choose_pair
from _patching import PATCHING
from _placements import DEPTH, QUERIES
from _setup import choose_model
from plotly import graph_objects as go

from palscope._routing import Route, route_to_text
from palscope.measures._metrics import Answers, answer_metrics
from palscope.pairs import Pair
from palscope.plots._attention import frequency_axis, spectrogram
from palscope.plots._spectrogram import mel_image

EXPERIMENTS = {
    each.name: each
    for each in (PATCHING, KNOCKOUT, MASKING, DEPTH, QUERIES, LENS, ATTRIBUTION, LEAKAGE)
}


def view() -> None:
    st.title("Interventions")
    with st.sidebar:
        name = choose_model("model", "Model")
        chosen = choose_pair()
    if name is None or chosen is None:
        return
    opened = open_model(name)
    route = address_route(opened)
    if route != opened.route:
        st.info(f"On the route {route_to_text(route)}, which the attention page was left on.")
    show_pair(chosen, opened, route)
    experiment = choose_experiment()
    st.markdown(experiment.about)
    options = experiment.options(opened.model)
    asked = Asked(opened, route, chosen, tuple(sorted(options.items())))
    started = (experiment.name, opened.version, route_to_text(route), chosen.digest, asked.options)
    if st.button(f"Run: {experiment.cost}", type="primary"):
        st.session_state["experiment-run"] = started
    if st.session_state.get("experiment-run") != started:
        return
    show_result(experiment, asked)


def show_pair(chosen: ChosenPair, opened: OpenModel, route: Route) -> None:
    """Both clips, what differs, and how the model answers each."""
    pair = chosen.pair
    st.markdown(f"**{pair.question}**")
    leads = answers_of(opened, opened.version, route_to_text(route), route, chosen.digest, pair)
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
            st.audio(clip.samples, sample_rate=clip.sample_rate)
            st.plotly_chart(picture(pair, clip), key=f"{side} clip")
    if not (leads[0] > 0 > leads[1]):
        st.warning(
            "The model does not answer both clips right, so there is no difference to explain: "
            "choose another pair or model."
        )


@st.cache_data(max_entries=128, show_spinner="Asking about both clips …")
def answers_of(
    _opened: OpenModel, version: str, route: str, _route: Route, digest: str, _pair: Pair
) -> tuple[float, float]:
    """Logit difference between the clean and the corrupt answer, for the clean and corrupt clip."""
    model = _opened.model
    answers = Answers.of(model.processor, _pair.clean_answer, _pair.corrupt_answer)
    leads: list[float] = []
    with model.route(_route):
        for clip in (_pair.clean, _pair.corrupt):
            inputs = answers.behind(model.inputs(_pair.question, clip))
            logits = model(inputs, logits_to_keep=1)[:, -1].detach().float()
            leads.append(float(answer_metrics(logits, answers, logits[0])["logit_diff"].iloc[0]))
    return leads[0], leads[1]


def picture(pair: Pair, clip: Any) -> go.Figure:
    """A clip's mel spectrogram with the pair's segments; those that differ are framed."""
    image = mel_image(clip)
    figure = go.Figure(spectrogram(image))
    for segment in pair.segments:
        figure.add_vrect(
            x0=segment.start,
            x1=segment.end,
            line={"color": "#D55E00" if segment.differs else "#808080", "width": 2},
            fillcolor="rgba(0,0,0,0)",
            annotation={"text": segment.name, "font": {"color": "white"}},
            annotation_position="top left",
        )
    figure.update_layout(height=200, margin={"l": 40, "r": 5, "t": 5, "b": 35})
    figure.update_xaxes(title="seconds")
    figure.update_yaxes(**frequency_axis(image))
    return figure


def choose_experiment() -> Experiment:
    """The visitor's experiment, kept in the address."""
    name: Any = st.segmented_control(
        "Experiment",
        list(EXPERIMENTS),
        default=next(iter(EXPERIMENTS)),
        key="experiment",
        bind="query-params",
        required=True,
    )
    return EXPERIMENTS[name]


def show_result(experiment: Experiment, asked: Asked) -> None:
    """Figure, downloads, table, and the command that does the same over many pairs."""
    result = experiment.result(asked)
    for note in result.notes:
        st.caption(note)
    for title, drawing in result.figures.items():
        figure = drawing.screen()
        st.plotly_chart(figure, key=f"{experiment.name} {title}")
        offer(f"{experiment.name} {title}", drawing.screen, drawing.paper, lambda d=drawing: d.data)
    with st.expander("Table"):
        st.dataframe(result.table, hide_index=True)
    st.caption("Over many pairs or clips, resumable, with intervals:")
    st.code(experiment.command(asked), language="bash")
