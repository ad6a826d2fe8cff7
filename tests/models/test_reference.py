"""Any route, against a second implementation that goes token by token."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from palscope.routing import ABSENT, ATTEND, FRAMES, FULL, KEYS, PROJECTED, SUMMARY, Route, Stream
from tests import tiny
from tests.models import reference
from tests.routing.strategies import routes

TOLERANCE = 2e-5  # of logits up to about 5, in float32


@lru_cache
def model() -> Any:
    return tiny.model()


def compare(model: Any, batch: dict[str, torch.Tensor], clips: list[int], route: Route) -> None:
    """`clips` is the number of clips of each row."""
    with torch.no_grad(), model.routed(route):
        logits = model(**batch).logits
        first = 0
        for row, count in enumerate(clips):
            real = batch["attention_mask"][row].bool()
            features = [
                batch["input_features"][i, :, : batch["feature_lengths"][i]]
                for i in range(first, first + count)
            ]
            first += count
            words = batch["input_ids"][row][real].tolist()
            expected = reference.logits(model, words, features, route)
            for column, wanted in expected.items():
                torch.testing.assert_close(
                    logits[row][real][column], wanted, atol=TOLERANCE, rtol=TOLERANCE
                )
            others = [c for c in range(len(words)) if c not in expected]
            assert not logits[row][real][others].any()


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
def test_named_routes(name: str) -> None:
    # 5 and 6 frame tokens: a summary of two frames, and one of three.
    batch = tiny.batch([[43], [60]])
    compare(model(), batch, [1, 1], NAMED[name])


@settings(max_examples=60, derandomize=True)
@given(route=routes())
def test_any_route(route: Route) -> None:
    compare(model(), tiny.batch([[43]]), [1], route)


def test_several_clips_in_a_row_beside_one_and_none() -> None:
    route = tiny.both_streams([PROJECTED, FULL, ABSENT, KEYS], [ATTEND, FULL, KEYS, FULL])
    compare(model(), tiny.batch([[31, 12], [], [25]]), [2, 0, 1], route)


def test_clips_without_text_between_them() -> None:
    route = Route.pal(4)
    compare(model(), tiny.batch([[31, 12, 31]], text=(0, 0, 3)), [3], route)


def test_a_clip_of_one_frame() -> None:
    compare(model(), tiny.batch([[1]]), [1], Route.pal(4))


def test_other_summary_ratios() -> None:
    pooled = Stream("pooled", 2)
    route = Route(4, ((FRAMES, (PROJECTED,) * 4), (pooled, (FULL, KEYS, ATTEND, FULL))))
    made = tiny.model(route)
    compare(made, tiny.batch([[43]], streams=(FRAMES, pooled)), [1], route)


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
    with pytest.raises(AssertionError), torch.no_grad():
        words = batch["input_ids"][0].tolist()
        wanted = reference.logits(model(), words, [batch["input_features"][0]], Route.pal(4))
        with model().routed(Route.pal(4, [1])):
            got = model()(**batch).logits[0]
        last = len(words) - 1
        torch.testing.assert_close(got[last], wanted[last], atol=1e-2, rtol=1e-2)


assert SUMMARY.ratio == 3  # what `columns_of` is tried with above
