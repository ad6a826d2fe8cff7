"""The main page: one question about one sound, and another route, model or sound beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st
from _address import (
    Seconds,
    address_route,
    address_selection,
    address_token,
    remember_route,
    remember_selection,
    remember_token,
    token_moved,
)
from _answers import (
    Ask,
    Attended,
    GeneratedAnswer,
    attended,
    generated_answer,
    once,
    queries,
    ranked,
    token_grid,
    visible,
)
from _downloads import offer, on_ground, show
from _edit_view import show_edits, show_effects
from _edited import rival_of
from _examples import show_examples
from _figures import bars, clickable, steps_table
from _given import pick
from _lens_view import show_lens
from _models import OpenModel, cached_model
from _player import player
from _presets import presets
from _route_table import allowed_symbols, route_table
from _setup import Setup, choose_setup

from palscope._beside import words_for
from palscope._routing import Route, route_to_text
from palscope.audio import TimeGrid
from palscope.errors import RouteError
from palscope.measures import over_time
from palscope.measures._columns import HEAD, NO_SOUND
from palscope.measures._seconds import by_seconds, tokens_within
from palscope.plots import (
    Caption,
    Figure,
    head_thumbnails,
    layer_head_map,
    mass_by_layer,
    shared_scale,
    time_over_spectrogram,
)
from palscope.plots._tokens import token_strip

SELECTED = "selected seconds"
ALL = "mean of all"


@dataclass(frozen=True)
class Side:
    """One side of the comparison, and what the visitor looks at in it."""

    name: str
    ask: Ask
    answer: GeneratedAnswer
    attended: Attended
    offset: int

    @property
    def mass(self) -> pd.DataFrame:
        """Mass of each key."""
        return self.attended.keys

    @property
    def pathways(self) -> pd.DataFrame:
        """Mass of each pathway."""
        return self.attended.pathways


def side_of(name: str, ask: Ask, answer: GeneratedAnswer, offset: int) -> Side:
    return Side(name, ask, answer, attended(ask, offset), offset)


def once_of_sides(sides: list[Side], key: Any, make: Callable[[], Any]) -> Any:
    """What follows from all sides, made once; `key` tells it from their others."""
    whole = (key, tuple((*side.ask.key, side.offset) for side in sides))
    return once(sides[0].ask, whole, make)


def view() -> None:
    st.html("<style>.stMainBlockContainer{padding-top:3.5rem}</style>")
    st.title("Which second counts?")
    setup = choose_setup()
    if setup is None:
        return
    show_examples(setup.sound)
    left, right = st.columns([3, 2], gap="large")
    with left:
        answers, edits, player = st.container(), st.container(), st.container()
    steps, lens, table = st.container(), st.container(), st.container()
    opened = cached_model(setup.model)
    with table:
        route = choose_route(opened)
    asks = the_sides(setup, opened, route)
    with answers:
        given = show_answers(asks)
    first = next(iter(asks.values()))
    selection = address_selection(setup.sound.waveform.seconds, setup.sound.focus)
    rival = rival_of(first, setup.choices)
    with right:
        top = show_effects(first, selection, rival)
    with steps:
        show_steps(asks, given, setup)
    with lens:
        show_lenses(asks)
    offset = choose_query(asks)
    sides = [
        side_of(name, ask, given[name], min(offset, len(given[name].tokens)))
        for name, ask in asks.items()
    ]
    shares, layers, maps = st.container(), st.container(), st.container()
    with maps:
        layer, head = choose_head(sides, top)
    with player:
        show_sounds(sides, layer, head, selection)
    with edits:
        show_edits(asks, selection, rival)
    with shares:
        show_shares(sides, selection)
    with layers:
        show_layers(sides)
    with maps:
        show_maps(sides, layer, head, selection)
        show_words(sides, layer, head)
        show_command(first, offset)


# -- what is compared ---------------------------------------------------------------------------


def choose_route(opened: OpenModel) -> Route:
    """The checkpoint's route as the visitor has changed it; kept in the address."""
    current = address_route(opened)
    changed = current != opened.route
    with st.expander("Route: which stream takes part in which layer", expanded=changed):
        describe(opened, current)
        known, symbols = possible_routes(opened.version, opened)

        def take() -> None:
            chosen = st.session_state["preset"]
            remember_route(opened, known[chosen] if chosen else opened.route)
            st.session_state["preset"] = None

        st.selectbox(
            "Take a known route",
            [*known],
            index=None,
            placeholder="as trained; choose another …",
            key="preset",
            on_change=take,
            help="Only routes that this checkpoint has weights for. Paint cells for any other.",
        )
        edited = route_table(
            current,
            symbols,
            original=opened.route,
            key=f"route {opened.version}",
        )
        if edited != opened.route:
            back = (opened, opened.route)
            st.button("Back to the trained route", on_click=remember_route, args=back)
    if edited != current:
        try:
            opened.model.model.check_route(edited)
        except RouteError as error:
            st.warning(str(error))
            return current
        remember_route(opened, edited)
        st.rerun()  # so that the table is given what it holds, and a later change is seen as one
    return edited


@st.cache_resource(max_entries=8, show_spinner=False)
def possible_routes(
    version: str, _opened: OpenModel
) -> tuple[dict[str, Route], dict[str, list[str]]]:
    """Known routes by name, and the symbols of every cell, that a checkpoint has weights for."""
    return presets(_opened.model, _opened.route), allowed_symbols(_opened.model)


def the_sides(setup: Setup, opened: OpenModel, route: Route) -> dict[str, Ask]:
    """What is asked, by the name of its side: one, or two that differ in one thing."""
    ask = Ask(opened, setup.sound, setup.question, opened.route)
    if setup.other_model is not None:
        other = cached_model(setup.other_model)
        return {
            opened.name: replace(ask, route=route),
            other.name: Ask(other, setup.sound, setup.question, other.route),
        }
    if setup.other_sound is not None:
        changed = replace(ask, route=route)
        return {
            setup.sound.name: changed,
            setup.other_sound.name: replace(changed, sound=setup.other_sound),
        }
    if route != opened.route:
        return {"as trained": ask, "changed route": replace(ask, route=route)}
    return {opened.name: ask}


# -- the answer ---------------------------------------------------------------------------------


def show_answers(asks: dict[str, Ask]) -> dict[str, GeneratedAnswer]:
    """The question, and the answers as they are generated."""
    given: dict[str, GeneratedAnswer] = {}
    for column, (name, ask) in zip(st.columns(len(asks)), asks.items(), strict=True):
        with column:
            given[name] = show_answer("Answer" if len(asks) == 1 else f"Answer, {name}", ask)
    return given


def show_answer(caption: str, ask: Ask) -> GeneratedAnswer:
    """One answer, growing while it is generated."""
    known = ask.sound.answer if ask.sound.answer and ask.question == ask.sound.question else ""
    truth = f" (known to be: **{plain(known)}**)" if known else ""
    st.caption(
        f"{caption} of **{plain(ask.opened.name)}** to “{plain(ask.question)}”{truth}",
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
    st.plotly_chart(bars(shares, "probability of the answer's first token (%)"), key="first bars")


def show_candidates(asks: dict[str, Ask], setup: Setup) -> None:
    """Ranked candidates, where the visitor gave some or the sound brings them."""
    if not setup.choices:
        return
    every = tuple((name, *ask.key) for name, ask in asks.items())
    figure = once(
        next(iter(asks.values())),
        ("candidate bars", setup.choices, every),
        lambda: bars(candidate_shares(asks, setup), "probability among the candidates (%)"),
    )
    st.plotly_chart(figure, key="candidate bars")
    st.caption(
        "Each candidate is scored as the whole answer, its end included; shares are among these "
        "candidates alone."
    )


def candidate_shares(asks: dict[str, Ask], setup: Setup) -> Any:
    """Each side's shares, in the order of the first side."""
    tables = {name: ranked(ask, setup.choices).set_index("answer") for name, ask in asks.items()}
    order = next(iter(tables.values())).index
    return {name: table.loc[order, "share"] for name, table in tables.items()}


# -- what is looked at --------------------------------------------------------------------------


def choose_query(asks: dict[str, Ask]) -> int:
    """The token whose attention is shown, counted from the prompt's last."""
    first = next(iter(asks.values()))
    tokens = queries(first)
    offsets = [*tokens]
    st.subheader("Where its attention goes")
    asked = st.session_state.get("token")
    if asked not in offsets or token_moved():
        asked = st.session_state["token"] = address_token(offsets)
    # Not bound to the address by Streamlit, which would write the token's text there.
    chosen: Any = st.pills(
        "Attention of the token",
        offsets,
        format_func=lambda offset: token_name(offset, tokens),
        key="token",
        required=True,
        help="A token attends to predict the next one. The prompt's last token predicts the "
        "answer's first.",
    )
    if chosen is None:
        st.stop()
    remember_token(chosen)
    return chosen


def token_name(offset: int, tokens: dict[int, str]) -> str:
    """A token of the prompt as it is, one of the answer in bold."""
    text = plain(tokens[offset])
    return f"**{text}**" if offset > 0 else text


def choose_head(sides: list[Side], top: tuple[int, int] | None) -> tuple[int | None, int | None]:
    """Layer and head to look at, None for the mean over all; a click on a map sets them.

    At first it is `top`, or the head that gives one stream most where none has an effect.
    """
    each: Any = sides[0].pathways
    if top is None:
        sound = each[~each["pathway"].isin(NO_SOUND)]
        most = sound.loc[sound["mass"].idxmax()]
        top = int(most["layer"]), int(most["head"])
    layers = [ALL, *(str(i) for i in sorted(each["layer"].unique()))]
    heads = [ALL, *(str(i) for i in sorted(each["head"].unique()))]
    st.subheader("Which head listens when")
    one, two, three = st.columns(3)
    boxes: list[Any] = [
        pick(
            box.selectbox,
            label,
            options,
            key=key,
            what=key,
            index=options.index(str(value)),
            help="Set at first to the head without which the answer changes most. A click on a "
            "map chooses a head.",
        )
        for box, label, options, key, value in (
            (one, "Layer", layers, "layer", top[0]),
            (two, "Head", heads, "head", top[1]),
        )
    ]
    streams = [s.name for s in sides[0].ask.opened.model.model.streams]
    shown = pick(
        three.selectbox,
        "Map shows attention to",
        [*streams, "text", SELECTED],
        key="stream",
        what="stream",
        help="A stream of the sound, the text, or the seconds selected in the player.",
    )
    if None in (*boxes, shown):
        st.stop()  # nothing stands in place of what is not here
    layer, head = (None if value == ALL else int(value) for value in boxes)
    return layer, head


def of_head(mass: Any, layer: int | None, head: int | None) -> pd.DataFrame:
    """The rows of the chosen layer and head; all of them where none is chosen."""
    if layer is not None:
        mass = mass[mass["layer"] == layer]
    return mass if head is None else mass[mass["head"] == head]


def head_name(layer: int | None, head: int | None) -> str:
    return (
        f"{'all layers' if layer is None else f'layer {layer}'}, "
        f"{'all heads' if head is None else f'head {head}'}"
    )


# -- the sound ----------------------------------------------------------------------------------


def show_sounds(
    sides: list[Side], layer: int | None, head: int | None, selection: Seconds | None
) -> None:
    """The player with the chosen head's attention, and the stretch selected in it."""
    curves = [over_time(of_head(side.mass, layer, head)) for side in sides]
    st.caption(
        f"Sound, and attention to it ({head_name(layer, head)}). Drag to select seconds, click to "
        "move, space to play.",
    )
    if len(sides) == 2 and sides[0].ask.sound.digest != sides[1].ask.sound.digest:
        # Two sounds: the stretch selected in one is shown in the other too.
        for number, (column, side) in enumerate(zip(st.columns(2), sides, strict=True)):
            with column:
                st.markdown(f"**{plain(side.name)}**")
                one_player(side, [curves[number]], [""], f"player {number}", selection)
        return
    one_player(sides[0], curves, ["", f", {sides[-1].name}"], "player 0", selection)


def one_player(
    side: Side, curves: list[pd.DataFrame], marks: list[str], key: str, before: Seconds | None
) -> None:
    """One player; what is selected in it counts on the whole page."""
    named = [
        curve.assign(pathway=curve["pathway"].astype(str) + mark)
        for curve, mark in zip(curves, marks, strict=False)
    ]
    ask = side.ask
    chosen = player(
        ask.sound.waveform,
        key=key,
        tokens=token_grid(ask),
        curves=pd.concat(named, ignore_index=True),
        labels=ask.sound.spans,
        selection=before,
        first=ask.sound.focus,
    )
    for each in ask.sound.told:
        st.warning(plain(each))
    if ask.sound.note:
        st.caption(ask.sound.note)
    if chosen != before:
        remember_selection(chosen, ask.sound.focus)
        st.rerun()  # what stands above has been drawn with the seconds before


# -- attention ----------------------------------------------------------------------------------


def show_shares(sides: list[Side], selection: tuple[float, float] | None) -> None:
    """The mass of each pathway and of the selected seconds, with their change."""
    st.caption(
        "Mean over all layers and heads. Text is everything that is no sound: question, chat "
        "marks, answer so far."
    )
    shares: list[Any] = [
        once_of_sides([side], ("shares", selection), partial(shares_of, side, selection))
        for side in sides
    ]
    both = len(sides) > 1
    names = list(dict.fromkeys(name for share in shares for name in share.index))
    for column, name in zip(st.columns(len(names)), names, strict=True):
        values = [f"{100 * share[name]:.1f} %" if name in share else "–" for share in shares]
        column.metric(
            name,
            values[0],
            f"{sides[-1].name}: {values[-1]}" if both else None,
            delta_color="off",
            delta_arrow="off" if both else "auto",
            help="Mean over all layers and heads; a layer that cannot see it counts as 0.",
        )
    if selection is not None:
        for side in sides:
            say_what_was_covered(side, selection)


def shares_of(side: Side, selection: Seconds | None) -> pd.Series:
    """Mass of each pathway, and of the selected seconds."""
    share = pathway_shares(side.pathways)
    if selection is not None:
        mass: Any = selected_mass(side, selection)["mass"]
        share[f"{selection[0]:.2f}–{selection[1]:.2f} s"] = mass.fillna(0).mean()
    return share


def pathway_shares(pathways: Any) -> pd.Series:
    """Mass of each pathway, averaged over layers and heads; 0 in a layer that cannot see it."""
    seen = pathways.assign(mass=pathways["mass"].fillna(0))
    grouped: Any = seen.groupby("pathway", observed=False)
    series = grouped["mass"].mean()
    return series.set_axis(series.index.astype(str))


def selected_mass(side: Side, selection: tuple[float, float]) -> Any:
    """Mass of the selected seconds by head; NaN everywhere where this side sees no sound there."""
    if sees_sound(side, selection):
        return by_seconds(side.mass, *selection)
    return side.mass[HEAD].drop_duplicates().assign(mass=float("nan"))


def sees_sound(side: Side, selection: tuple[float, float]) -> bool:
    """Whether this side has sound in the selected seconds, and a layer that sees sound."""
    sound: Any = side.mass["clip"] >= 0
    return selection[0] < side.ask.sound.waveform.seconds and bool(sound.any())


def say_what_was_covered(side: Side, selection: tuple[float, float]) -> None:
    if not sees_sound(side, selection):
        st.caption(f"{side.name}: no sound is seen in the selected seconds.")
        return
    covered: Any = tokens_within(side.mass, *selection)
    parts = [
        f"{row.tokens} of {row.pathway} ({row.start_s:.2f} to {row.end_s:.2f} s)"
        for row in covered.itertuples()
    ]
    st.caption(
        f"{side.name}: tokens that overlap {selection[0]:.2f} to {selection[1]:.2f} s: "
        + ", ".join(parts)
        + ". The encoder hears the whole clip, so a token's seconds are its place, not its reach."
    )


def show_layers(sides: list[Side]) -> None:
    """Mass by layer and pathway, one figure a side, on the same scale."""
    figures = once_of_sides(
        sides,
        "by layer",
        lambda: shared_scale(
            [mass_by_layer(side.pathways, caption=side.ask.caption) for side in sides]
        ),
    )
    for column, side, figure in zip(st.columns(len(sides)), sides, figures, strict=True):
        with column:
            title(side, sides)
            show(figure, f"mass by layer {side.name}")


def show_maps(
    sides: list[Side],
    layer: int | None,
    head: int | None,
    selection: tuple[float, float] | None,
) -> None:
    """The layer × head map of each side, and their difference."""
    wanted = st.session_state["stream"]
    if wanted == SELECTED and selection is None:
        st.info("Drag over the spectrogram to select seconds; the map then shows them.")
        return
    kinds = ["share", "over time"] if wanted not in (*NO_SOUND, SELECTED) else ["share"]
    if len(sides) == 2:
        kinds.append("difference")
    kind: Any = st.segmented_control(
        "Draw",
        kinds,
        default=kinds[0],
        key=f"draw {len(kinds)} {kinds[-1]}",
        required=True,
        help="Each cell is a head. Over time: its attention from the clip's start to its end.",
    )
    key = ("map", kind, wanted, selection)
    figures = once_of_sides(sides, key, lambda: maps_of(sides, kind, wanted, selection))
    if len(figures) < len(sides):
        st.caption(f"{sides[1].name} less {sides[0].name}")
        draw_map("difference", figures[0], wanted, (layer, head))
        return
    for column, side, figure in zip(st.columns(len(sides)), sides, figures, strict=True):
        with column:
            title(side, sides)
            if figure is not None:
                draw_map(f"{kind} {side.name}", figure, wanted, (layer, head))
            else:
                st.info(f"{side.name} has no stream {wanted}.")


def maps_of(
    sides: list[Side], kind: str, wanted: str, selection: Seconds | None
) -> list[Figure | None]:
    """A map a side, None for one without the stream; or one of the difference of two."""
    masses = [map_mass(side, wanted, selection) for side in sides]
    seen = [has_pathway(mass, wanted) for mass in masses]
    if kind == "difference" and all(seen):
        caption = captioned(sides[0], wanted, selection)
        models = [side.ask.caption.model for side in reversed(sides)]
        caption = replace(caption, model=" less ".join(models))
        return [layer_head_map(masses[1], wanted, minus=masses[0], caption=caption)]
    draw = head_thumbnails if kind == "over time" else layer_head_map
    drawn = iter(
        shared_scale(
            [
                draw(mass, wanted, caption=captioned(side, wanted, selection))
                for side, mass, there in zip(sides, masses, seen, strict=True)
                if there
            ]
        )
    )
    return [next(drawn) if there else None for there in seen]


def captioned(side: Side, wanted: str, selection: tuple[float, float] | None) -> Caption:
    """The side's caption, with the seconds that are looked at."""
    caption = side.ask.caption
    if wanted == SELECTED and selection is not None:
        start, end = selection
        return replace(caption, asked=f"{caption.asked}, {start:.2f} to {end:.2f} s")
    return caption


def map_mass(side: Side, wanted: str, selection: tuple[float, float] | None) -> Any:
    if wanted == SELECTED and selection is not None:
        return selected_mass(side, selection).assign(pathway=SELECTED)
    return side.mass


def has_pathway(mass: Any, wanted: str) -> bool:
    names = mass["pathway"]
    return wanted in (names.cat.categories if hasattr(names, "cat") else names.unique())


def draw_map(name: str, figure: Figure, wanted: str, chosen: tuple[int | None, int | None]) -> None:
    """One map on which a click chooses a head."""
    key = f"map {name}"

    def clicked() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points:
            layer, head = points[0]["customdata"]
            st.session_state["layer"], st.session_state["head"] = str(layer), str(head)

    st.plotly_chart(
        clickable(on_ground(figure), chosen),
        key=key,
        on_select=clicked,
        selection_mode="points",
        theme=None,
        alt=f"Layer by head map of attention to {wanted}",
    )
    offer(key, lambda: figure)


def show_words(sides: list[Side], layer: int | None, head: int | None) -> None:
    """The chosen head's attention over the prompt's words."""
    for column, side in zip(st.columns(len(sides)), sides, strict=True):
        with column:
            title(side, sides)
            st.caption(f"Attention over the prompt ({head_name(layer, head)})")
            chosen = of_head(side.mass, layer, head)
            st.html(token_strip(chosen).html)
            offer(f"attention over time {side.name}", partial(over_spectrogram, side, chosen))


def over_spectrogram(side: Side, chosen: pd.DataFrame) -> Figure:
    return time_over_spectrogram(chosen, side.ask.sound.waveform, caption=side.ask.caption)


def show_command(ask: Ask, offset: int) -> None:
    """The command line that gives the first side's numbers."""
    with st.expander("The same from a script"):
        audio = ask.sound.path or "CLIP.wav"
        words = [*words_for("attention_mass"), "--model", ask.opened.name]
        words += ["--audio", audio, "--question", ask.question]
        if ask.route != ask.opened.route:
            words += ["--route", route_to_text(ask.route)]
        if offset:
            words += ["--token", str(offset)]
        st.code(shlex.join([*words, "--out", "runs/mass"]), language="bash", wrap_lines=True)
        if not ask.sound.path:
            st.caption("CLIP.wav stands for this sound; *Save sound* under the picture stores it.")


def title(side: Side, sides: list[Side]) -> None:
    if len(sides) > 1:
        st.markdown(f"**{plain(side.name)}**")


def describe(opened: OpenModel, route: Route) -> None:
    """What the model is, in a line."""
    grid = opened.model.model.frame_grid
    streams = ", ".join(
        f"**{stream.name}** ({_pace(grid, stream.ratio)})" for stream in opened.route.streams
    )
    changed = "" if route == opened.route else " Its route is changed."
    st.markdown(f"**{plain(opened.name)}** hears {streams}.{changed}")


def _pace(grid: TimeGrid, ratio: int) -> str:
    """How often a stream that pools `ratio` tokens of this grid has one."""
    if grid.whole_clip:
        return f"{-(-grid.per_step // ratio)} for the whole clip"
    return f"a token every {grid.seconds_per_step * ratio / grid.per_step:g} s"


def headline(text: str) -> str:
    return f"#### {plain(text) or '(nothing)'}"


def plain(text: str) -> str:
    """Text for Markdown that shows as it is."""
    return re.sub(r"([^\w\s])", r"\\\1", text)
