"""The token layout: what stands in each column, positions, visibility, labels of keys."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palscope._routing import ABSENT, FRAMES, SUMMARY, Route, Stream, TokenLayout
from palscope._routing.layout import PADDING, TEXT
from palscope.audio import TimeGrid
from palscope.errors import PromptError
from tests.routing.strategies import routes

A = 90  # the audio place's id
BOTH = (FRAMES, SUMMARY)


def build(
    rows: list[list[int]], frames: list[int], streams: tuple[Stream, ...] = BOTH, left: bool = True
) -> TokenLayout:
    """A layout of `rows` of ids, padded to the longest."""
    width = max(map(len, rows))
    fill = [[0] * (width - len(row)) for row in rows]
    ids = [f + r if left else r + f for r, f in zip(rows, fill, strict=True)]
    mask = [
        [0] * len(f) + [1] * len(r) if left else [1] * len(r) + [0] * len(f)
        for r, f in zip(rows, fill, strict=True)
    ]
    return TokenLayout.build(
        torch.tensor(ids),
        torch.tensor(mask),
        audio_token_id=A,
        streams=streams,
        frames=frames,
        grid=TimeGrid(0.1),
    )


def places(frames: int, streams: tuple[Stream, ...] = BOTH) -> list[int]:
    return [A] * sum(stream.tokens(frames) for stream in streams)


def test_a_summary_stands_right_behind_its_frames() -> None:
    layout = build([[5, *places(7), 6]], [7])
    names = ["f", "s"]
    shown = [
        "t" if s == TEXT else f"{names[s]}{t}"
        for s, t in zip(layout.stream[0].tolist(), layout.token[0].tolist(), strict=True)
    ]
    assert " ".join(shown) == "t f0 f1 f2 s0 f3 f4 f5 s1 f6 s2 t"
    assert layout.position[0].tolist() == list(range(12))
    assert layout.clip[0].tolist() == [-1] + [0] * 10 + [-1]


def test_tokens_that_share_a_step_share_its_seconds() -> None:
    layout = TokenLayout.build(
        torch.tensor([[5, *places(8), 6]]),
        None,
        audio_token_id=A,
        streams=BOTH,
        frames=[8],
        grid=TimeGrid(0.1, per_step=4),
        durations=[0.15],
    )
    table = layout.table(0)
    frames, summaries = table[table.stream == "frames"], table[table.stream == "summary"]
    assert frames.start_s.tolist() == pytest.approx([0] * 4 + [0.1] * 4)
    assert frames.end_s.tolist() == pytest.approx([0.1] * 4 + [0.15] * 4)
    # Three frames each: 0 to 2 of the first step, 3 to 5 of both, 6 and 7 of the second.
    assert summaries.start_s.tolist() == pytest.approx([0, 0, 0.1])
    assert summaries.end_s.tolist() == pytest.approx([0.1, 0.15, 0.15])


def test_tokens_of_the_whole_clip_span_it() -> None:
    layout = TokenLayout.build(
        torch.tensor([[5, *places(4), 6]]),
        None,
        audio_token_id=A,
        streams=BOTH,
        frames=[4],
        grid=TimeGrid(float("inf"), per_step=4),
        durations=[1.7],
    )
    audio = layout.seconds[0, 1:-1]
    torch.testing.assert_close(
        audio, torch.tensor([[0, 1.7]], dtype=torch.float64).expand_as(audio)
    )


def test_seconds_of_each_token_end_with_the_clip() -> None:
    ids = torch.tensor([[5, *places(4), 6]])
    layout = TokenLayout.build(
        ids,
        None,
        audio_token_id=A,
        streams=BOTH,
        frames=[4],
        grid=TimeGrid(0.1),
        durations=[0.34],
    )
    table = layout.table(0)
    frames, summaries = table[table.stream == "frames"], table[table.stream == "summary"]
    assert frames.start_s.tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert frames.end_s.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.34])
    assert summaries.start_s.tolist() == pytest.approx([0, 0.3])
    assert summaries.end_s.tolist() == pytest.approx([0.3, 0.34])
    assert table[table.stream == "text"].start_s.isna().all()


@pytest.mark.parametrize("left", [True, False])
def test_padding_on_either_side_moves_no_position(left: bool) -> None:
    rows = [[5, *places(4), 6, 7], [5, 6], [*places(2), *places(1), 5]]
    layout = build(rows, [4, 2, 1], left=left)
    for row, ids in enumerate(rows):
        real = layout.real[row]
        assert real.sum() == len(ids)
        assert layout.position[row][real].tolist() == list(range(len(ids)))
        assert (layout.stream[row][~real] == PADDING).all()
    assert layout.clip_row == (0, 2, 2)
    assert layout.clip[2][layout.stream[2] == 0].tolist() == [1, 1, 2]
    table = layout.table(2)
    assert table.loc[table.stream == "summary", "clip"].tolist() == [0, 1]


@settings(max_examples=30)
@given(route=routes())
def test_no_route_moves_text_and_labels_fit_the_keys(route: Route) -> None:
    layout = build([[5, *places(4), 6], [5, 6, *places(2), 7, *places(1), 8, 9]], [4, 2, 1])
    text = [layout.position[row][layout.stream[row] == TEXT] for row in (0, 1)]
    for layer in range(4):
        columns = layout.layer_columns(route, layer)
        for row in (0, 1):
            running = columns.running[row]
            kept = running[running >= 0]
            assert (kept.diff() > 0).all() and (running[-len(kept) :] >= 0).all()
            kinds = layout.stream[row][kept]
            assert torch.equal(layout.position[row][kept[kinds == TEXT]], text[row])
            names = layout.table(row, columns.keys[row]).stream
            in_memory = set(names[: columns.memory.shape[1]]) - {"padding"}
            in_sequence = set(names[columns.memory.shape[1] :]) - {"padding", "text"}
            expected: dict[str, set[str]] = {"keys": set(), "runs": set(), "absent": set()}
            for stream in route.streams:
                level = route.cell(stream.name, layer).level
                kind = "runs" if level.runs else level.value
                expected[kind].add(stream.name)
            assert in_memory == expected["keys"]
            assert in_sequence == expected["runs"]


def brute_force(
    layout: TokenLayout, queries: Tensor, keys: Tensor, window: int | None, readers: str
) -> Tensor:
    seen = torch.zeros(len(queries), queries.shape[1], keys.shape[1], dtype=torch.bool)
    frames = layout.stream_index("frames")
    for row in range(len(queries)):
        for i, query in enumerate(queries[row].tolist()):
            if query < 0 or layout.stream[row, query] == PADDING:
                seen[row, i] = True
                continue
            for j, key in enumerate(keys[row].tolist()):
                if key < 0 or layout.stream[row, key] == PADDING:
                    continue
                distance = int(layout.position[row, query] - layout.position[row, key])
                if distance < 0 or (window is not None and distance >= window):
                    continue
                asker = int(layout.stream[row, query])
                own = asker in (TEXT, frames)
                if readers == "text" and layout.stream[row, key] == frames and not own:
                    continue
                seen[row, i, j] = True
    return seen


@settings(max_examples=40)
@given(route=routes(), window=st.sampled_from([None, 1, 4]), left=st.booleans(), data=st.data())
def test_visibility_is_the_one_rule(
    route: Route, window: int | None, left: bool, data: st.DataObject
) -> None:
    counts = data.draw(st.lists(st.lists(st.integers(1, 5), max_size=2), min_size=1, max_size=3))
    rows = [[5, *(i for n in row for i in [*places(n), 6]), 7] for row in counts]
    layout = build(rows, [n for row in counts for n in row], left=left)
    layout = layout.followed_by(build([[3, 4]] * len(rows), []), TimeGrid(0.1))
    columns = layout.layer_columns(route, data.draw(st.integers(0, 3)))
    seen = layout.visible(
        columns.running, columns.keys, window=window, frame_readers=route.frame_readers
    )
    wanted = brute_force(layout, columns.running, columns.keys, window, route.frame_readers)
    assert torch.equal(seen, wanted)
    assert seen.any(-1).all()  # no softmax over nothing


def test_decoding_goes_on_behind_the_last_real_token() -> None:
    rows = [[5, *places(2), 6], [5, 6]]
    held, new = build(rows, [2]), build([[7, 8], [7, 8]], [])
    layout = held.followed_by(new, TimeGrid(0.1))
    assert layout.width == 7
    assert layout.position[:, -2:].tolist() == [[5, 6], [2, 3]]
    assert (layout.stream[:, -2:] == TEXT).all()
    route = Route.lal(1)
    columns = new.layer_columns(route, 0).behind(held.layer_columns(route, 0), held.width)
    assert columns.running.tolist() == [[5, 6], [5, 6]]
    assert torch.equal(columns.keys, layout.layer_columns(route, 0).keys)
    assert torch.equal(columns.repeated(2).keys, columns.keys.repeat_interleave(2, 0))


def same(got: TokenLayout, wanted: TokenLayout) -> None:
    assert got.clip_row == wanted.clip_row
    for name in ("stream", "clip", "token", "position"):
        assert torch.equal(getattr(got, name), getattr(wanted, name)), name
    torch.testing.assert_close(got.seconds, wanted.seconds, atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("streams", [BOTH, (FRAMES,), (SUMMARY,), (FRAMES, Stream("pooled", 4))])
def test_a_clip_that_goes_on_is_the_whole_clip(streams: tuple[Stream, ...]) -> None:
    whole = build([[5, 5, *places(31, streams), 6, 7]], [31], streams)
    pieces = [
        build([[5, 5, *places(12, streams)]], [12], streams),
        build([places(12, streams)], [12], streams),
        build([[*places(7, streams), 6]], [7], streams),
    ]
    layout = pieces[0]
    for piece in pieces[1:]:
        layout = layout.followed_by(piece, TimeGrid(0.1), goes_on=True)
    same(layout.followed_by(build([[7]], [], streams), TimeGrid(0.1)), whole)


def test_clips_that_join_rows_are_counted_row_by_row() -> None:
    rows = [[5, *places(4), 6], [5, *places(2), *places(1)], [5, 6]]
    more = [[*places(2), 7], [7, *places(2)], [7, 7, 7, 8]]
    held = build(rows, [4, 2, 1])
    assert held.width == 8 and all(len(row) == 4 for row in more)
    fill = [[0] * (held.width - len(row)) for row in rows]
    ids = torch.tensor([f + r + m for f, r, m in zip(fill, rows, more, strict=True)])
    wanted = TokenLayout.build(
        ids,
        (ids != 0).long(),
        audio_token_id=A,
        streams=BOTH,
        frames=[4, 2, 2, 1, 2],
        grid=TimeGrid(0.1),
    )
    same(held.followed_by(build(more, [2, 2]), TimeGrid(0.1)), wanted)


@pytest.mark.parametrize(("frames", "seconds"), [(7, 0.7), (6, 0.58)])
def test_a_clip_cannot_go_on_within_a_token(frames: int, seconds: float) -> None:
    held = TokenLayout.build(
        torch.tensor([[5, *places(frames)]]),
        None,
        audio_token_id=A,
        streams=BOTH,
        frames=[frames],
        grid=TimeGrid(0.1),
        durations=[seconds],
    )
    with pytest.raises(PromptError, match="ends within a token"):
        held.followed_by(build([places(3)], [3]), TimeGrid(0.1), goes_on=True)


CHUNKS = TimeGrid(1 / 13, centres=tuple(0.08 * i for i in range(13)))
"""Thirteen tokens a second, of different length."""


def uneven(frames: int, seconds: float) -> TokenLayout:
    return TokenLayout.build(
        torch.tensor([[5, *places(frames)]]),
        None,
        audio_token_id=A,
        streams=BOTH,
        frames=[frames],
        grid=CHUNKS,
        durations=[seconds],
    )


def test_uneven_tokens_have_the_grid_s_seconds_and_the_last_ones_reach_the_clip_s_end() -> None:
    layout = uneven(27, 2.07)
    at = layout.seconds[0]
    frames, summaries = (at[layout.stream[0] == index] for index in (0, 1))
    spans = torch.from_numpy(CHUNKS.spans(27, 2.07))
    assert torch.equal(frames, spans)
    assert torch.equal(summaries, torch.stack([spans[::3, 0], spans[2::3, 1]], dim=1))
    assert frames[-1].tolist() == pytest.approx([2.0, 2.07])
    assert frames[12].tolist() == pytest.approx([0.92, 1.0])


def test_a_clip_of_uneven_tokens_goes_on_after_whole_cycles_only() -> None:
    held, more = uneven(39, 3.0), uneven(14, 1.04)
    layout = held.followed_by(more, CHUNKS, goes_on=True)
    frames = layout.seconds[0][layout.stream[0] == 0]
    torch.testing.assert_close(frames, torch.from_numpy(CHUNKS.spans(53)))
    with pytest.raises(PromptError, match="ends within a token"):
        uneven(42, 3.2).followed_by(more, CHUNKS, goes_on=True)


@pytest.mark.parametrize("rows", [[[5, 6]], [[5, *places(3)], [5, *places(3)]]])
def test_only_one_row_with_a_clip_goes_on(rows: list[list[int]]) -> None:
    held = build(rows, [3] * (len(rows) - (len(rows) == 1)))
    with pytest.raises(PromptError, match="can go on in a prompt of one row"):
        held.followed_by(build([places(3)], [3]), TimeGrid(0.1), goes_on=True)


def test_repeated_rows_have_clips_of_their_own() -> None:
    one = [5, *places(2), 6, *places(1), 7]
    layout = build([one, [5, 6], [*places(3), 5]], [2, 1, 3])
    direct = build([one, one, [5, 6], [5, 6], [*places(3), 5], [*places(3), 5]], [2, 1, 2, 1, 3, 3])
    again = layout.repeated(2)
    assert again.clip_row == direct.clip_row == (0, 0, 1, 1, 4, 5)
    for name in ("stream", "clip", "token", "position"):
        assert torch.equal(getattr(again, name), getattr(direct, name)), name
    for row in range(6):
        assert again.table(row).equals(direct.table(row))


@pytest.mark.parametrize(
    ("rows", "frames", "message"),
    [
        ([[5, *places(3), 6]], [], "only 0 of them belong to a clip"),
        ([[5, *places(3), 6]], [3, 3], "has places for 1"),
        ([[5, 6]], [3], "has places for 0"),
        ([[5, *places(3)[:-1], 6]], [3], "needs 4 audio tokens, but row 0 has 3"),
        ([[5, *places(3), A, 6]], [3], "only 4 of them belong"),
        ([[5, *places(3), 6], [5, *places(2)[:-1], 6]], [3, 2], "clip 1 needs 3"),
    ],
)
def test_places_that_do_not_fit_the_clips_are_refused(
    rows: list[list[int]], frames: list[int], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        build(rows, frames)


def test_masked_places_are_no_audio() -> None:
    layout = TokenLayout.build(
        torch.tensor([[A, A, 5]]),
        torch.tensor([[0, 0, 1]]),
        audio_token_id=A,
        streams=BOTH,
        frames=[],
        grid=TimeGrid(0.1),
    )
    assert layout.stream[0].tolist() == [PADDING, PADDING, TEXT]


@given(frames=st.integers(1, 200), ratio=st.integers(1, 7))
def test_any_ratio_interleaves_in_time(frames: int, ratio: int) -> None:
    pooled = Stream("pooled", ratio)
    layout = build([[*places(frames, (FRAMES, pooled)), 5]], [frames], (FRAMES, pooled))
    audio = layout.stream[0] >= 0
    ends = layout.seconds[0][audio, 1]
    assert (ends.diff() >= 0).all()
    for name, stream in (("frames", FRAMES), ("pooled", pooled)):
        tokens = layout.token[0][layout.stream[0] == layout.stream_index(name)].tolist()
        assert tokens == list(range(stream.tokens(frames)))
        assert all(a < b for a, b in pairwise(tokens))


def test_a_muted_stream_leaves_its_ids_empty() -> None:
    layout = build([[5, *places(3), 6, 7]], [3])
    route = Route(1, ((FRAMES, (ABSENT,)), (SUMMARY, (ABSENT,))))
    running = layout.layer_columns(route, 0).running
    assert layout.position[0][running[0]].tolist() == [0, 5, 6]
