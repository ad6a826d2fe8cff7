"""Any route, against a second implementation that shares no code with palscope."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope._routing import ABSENT, ATTEND, FRAMES, FULL, KEYS, PROJECTED, Route, Stream
from tests import tiny
from tests.reference.compare import CLOSE, compare
from tests.reference.model import Reference
from tests.routing.strategies import routes


@lru_cache
def model(route: Route | None = None) -> Any:
    return tiny.model(route).double()


@lru_cache
def reference(route: Route | None = None) -> Reference:
    return Reference(model(route).state_dict(), model(route).config.to_dict())


def check(
    route: Route,
    clips: list[list[int]],
    *,
    of: Route | None = None,
    text: tuple[int, int, int] = (3, 2, 4),
) -> torch.Tensor:
    """`clips` are each row's, in feature frames; `of` is the route that the model was made for."""
    batch = tiny.batch(clips, streams=model(of).route.streams, text=text)
    with torch.no_grad(), model(of).routed(route):
        logits = model(of)(**batch).logits
    compare(reference(of), logits, batch, [len(row) for row in clips], route)
    return logits


NAMED = {
    "plits": Route.plits(4),
    "lal": Route.lal(4, [1, 2]),
    "pal": Route.pal(4),
    "audio queries": Route.lal(4, [1, 2]).with_audio_queries(),
    "frozen": Route.plits(4).frozen_from(2),
    "frozen at the bottom": Route.plits(4).frozen_from(0),
    "muted window": Route.plits(4).mute("frames", [1, 2]),
    "frozen and muted": Route.plits(4).frozen_from(1).mute("frames", [2]),
    "projected between": tiny.both_streams(
        [FULL, PROJECTED, ABSENT, FULL], [KEYS, FULL, KEYS, FULL]
    ),
    "both only keys": tiny.both_streams(PROJECTED, PROJECTED),
    "both sources": tiny.both_streams(PROJECTED, KEYS),
    "both attend": tiny.both_streams(ATTEND, [ATTEND, FULL, ATTEND, KEYS]),
    "text alone": tiny.both_streams(ABSENT, ABSENT),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_routes_on_rows_of_none_one_two_and_three_clips(name: str) -> None:
    # 5 frame tokens: a summary of two of them; 6: of three; 2 and 1: short ones.
    check(NAMED[name], [[43], [], [60, 12], [7, 31, 1]])


@settings(max_examples=40, derandomize=True)
@given(
    route=routes(),
    clips=st.lists(st.lists(st.integers(1, 70), max_size=3), min_size=1, max_size=2),
    text=st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 3)),
)
def test_any_route_and_any_prompt(
    route: Route, clips: list[list[int]], text: tuple[int, int, int]
) -> None:
    check(route, clips, text=text)


@pytest.mark.parametrize("name", ["audio queries", "both attend", "frozen"])
def test_audio_in_front_of_all_text_in_padded_rows(name: str) -> None:
    # What queries first in a row then stands right behind padding.
    check(NAMED[name], [[31], [60, 12], []], text=(0, 0, 3))


def test_other_summary_ratios() -> None:
    route = Route(
        4, ((FRAMES, (PROJECTED,) * 4), (Stream("pooled", 2), (FULL, KEYS, ATTEND, FULL)))
    )
    check(route, [[43], [25, 30]], of=route)


@pytest.mark.parametrize("name", ["plits", "lal", "pal"])
def test_a_decoder_of_one_layer(name: str) -> None:
    route = {"plits": Route.plits(1), "lal": Route.lal(1), "pal": Route.pal(1)}[name]
    connector = tiny.full_connector(route, 1)
    made: Any = tiny.model(route, connector=connector, num_hidden_layers=1).double()
    batch = tiny.batch([[43], [12, 30], []], streams=route.streams)
    with torch.no_grad():
        logits = made(**batch).logits
    compare(Reference(made.state_dict(), made.config.to_dict()), logits, batch, [1, 2, 0], route)


def test_who_may_read_frames_changes_summaries_and_not_frames() -> None:
    everyone = tiny.both_streams(FULL, FULL)
    text_alone = Route(4, everyone.rows, frame_readers="text")
    batch = tiny.batch([[43]])
    with torch.no_grad():
        with model().routed(everyone):
            a = model()(**batch, output_hidden_states=True)
        with model().routed(text_alone):
            b = model()(**batch, output_hidden_states=True)
    layout = model().layout(batch["input_ids"], feature_lengths=batch["feature_lengths"])
    kind = layout.stream[0]
    moved = (a.hidden_states[1] - b.hidden_states[1])[0].abs().amax(-1) > 0
    assert not moved[kind == 0].any()
    assert moved[kind == layout.stream_index("summary")].all()


def test_the_reference_itself_tells_routes_apart() -> None:
    batch = tiny.batch([[43]])
    with torch.no_grad(), model().routed(Route.pal(4, [1])):
        logits = model()(**batch).logits
    with pytest.raises(AssertionError, match="not close"):
        compare(reference(), logits, batch, [1], Route.pal(4), close={"atol": 1e-2, "rtol": 1e-2})


def test_the_reference_imports_nothing_of_palscope() -> None:
    for name in ("model", "sound", "edits"):
        assert "palscope" not in (Path(__file__).parent / f"{name}.py").read_text().split('"""')[2]


assert CLOSE["atol"] < 1e-6  # single precision anywhere would be seen
