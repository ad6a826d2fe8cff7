"""One rule says which tokens a stretch of sound takes, at every site and in every measure."""

from __future__ import annotations

import functools
import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palscope._connectors.regions import find_regions
from palscope._routing import FRAMES, Route, Stream, TokenLayout
from palscope.audio._timegrid import TimeGrid, overlaps, rounded
from palscope.errors import AudioError, PalscopeError
from palscope.interventions import Address, Sound, resolve
from palscope.interventions._tokens import token_columns
from palscope.measures._attribution import attribution_at
from palscope.measures._grids import steps
from palscope.measures._pathway_mass import seconds_set
from palscope.measures._seconds import by_seconds, tokens_within
from tests import tiny
from tests.hooks.conftest import make_hooked, noise

AUDIO = 9
HOURS = 3
STREAMS = (FRAMES, Stream("summary", 3))

GRIDS = {
    "Whisper's, an hour": (Fraction(20, 1000), 3600),
    "40 ms": (Fraction(40, 1000), 2 * 3600),
    "Voxtral's": (Fraction(80, 1000), HOURS * 3600),
    "the demo's": (Fraction(100, 1000), HOURS * 3600),
    "SSLAM's": (Fraction(160, 1000), HOURS * 3600),
    "CLAP's": (Fraction(3125, 10000), HOURS * 3600),
    "thirteen a second": (Fraction(1, 13), HOURS * 3600),
}


@functools.cache
def heard(name: str) -> tuple[TimeGrid, int, TokenLayout, pd.DataFrame]:
    """The grid, its tokens in the clip, a prompt with the clip, and the table of its sound."""
    step, seconds = GRIDS[name]
    grid = TimeGrid(float(step))
    n = grid.tokens(seconds)
    audio = sum(stream.tokens(n) for stream in STREAMS)
    layout = TokenLayout.build(
        torch.tensor([[5, *[AUDIO] * audio, 6]]),
        None,
        audio_token_id=AUDIO,
        streams=STREAMS,
        frames=[n],
        grid=grid,
        durations=[seconds],
    )
    frames = (layout.stream[0] == 0).nonzero()[:, 0]
    edges = layout.seconds[0, frames].numpy()
    table: Any = pd.DataFrame({"start_s": edges[:, 0], "end_s": edges[:, 1]})
    table = table.assign(row=0, query=1, layer=0, head=0, clip=0, mass=1.0, key=frames.numpy())
    return grid, n, layout, table.assign(pathway="frames", site="audio_state", attribution=1.0)


def exactly(step: Fraction, n: int, start: Fraction, end: Fraction) -> range:
    """The tokens that overlap a stretch, in exact arithmetic."""
    return range(int(start // step), min(n, int(-(-end // step))))


@settings(max_examples=35, deadline=None)
@given(st.sampled_from(list(GRIDS)), st.data())
def test_every_site_takes_what_overlaps_in_exact_arithmetic(name: str, data: Any) -> None:
    step, seconds = GRIDS[name]
    grid, n, layout, table = heard(name)
    # Edges of tokens, and others: a millisecond apart or more from any, or right on it.
    on_edges = st.integers(0, n - 1).map(lambda i: i * step)
    elsewhere = st.integers(0, seconds * 1000 - 1).map(lambda ms: Fraction(ms, 1000))
    start = data.draw(on_edges | elsewhere)
    length = data.draw(st.integers(1, 40).map(lambda i: i * step) | elsewhere.filter(bool))
    end = min(start + length, Fraction(seconds))
    t0, t1 = float(start), float(end)
    wanted = exactly(step, n, start, end)

    def tokens(stream: str) -> list[int]:
        columns = token_columns(None, Sound(t0, t1, stream), layout, 0)
        return layout.token[0, columns].tolist()

    assert tokens("frames") == [*wanted]
    assert tokens("summary") == [*exactly(3 * step, -(-n // 3), start, end)]
    assert grid.tokens_between(t0, t1, n) == wanted
    mine = seconds_set(layout, t0, t1)[0] & (layout.stream[0] == 0)
    assert layout.token[0, mine].tolist() == [*wanted]
    assert by_seconds(table, t0, t1)["mass"].sum() == len(wanted)
    (covered,) = tokens_within(table, t0, t1).itertuples()
    edges = [rounded(float(edge * step)) for edge in (wanted[0], wanted[-1] + 1)]
    assert (covered.tokens, covered.start_s) == (len(wanted), edges[0])
    assert covered.end_s == min(edges[1], seconds)
    assert attribution_at(table, Address("audio_state", Sound(t0, t1))) == len(wanted)
    regions = find_regions(grid, torch.tensor([[t0, t1]], dtype=torch.float64), n)
    assert regions.index[regions.inside].tolist() == [*wanted]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, HOURS * 36_000), st.floats(1e-9, 1e-3))
def test_a_stretch_takes_one_token_at_least_and_none_that_it_only_touches(
    token: int, length: float
) -> None:
    grid, n = TimeGrid(0.1), HOURS * 36_000 + 2
    start = token * 0.1
    assert grid.tokens_between(start, start + max(length, 1e-8), n) == range(token, token + 1)
    later = grid.tokens_between(start + 0.05, start + 0.1 + 9e-7, n)
    assert later == range(token, token + 1)
    assert len(grid.tokens_between(start + 0.05, start + 0.1 + 2e-6, n)) == 2


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (2.0, 1.0), (-0.1, 1.0), (float("nan"), 1.0)])
def test_no_measure_takes_tokens_for_what_is_no_stretch(stretch: Any) -> None:
    _, _, layout, table = heard("the demo's")
    for call in (
        lambda: overlaps(np.zeros(1), np.ones(1), *stretch),
        lambda: seconds_set(layout, *stretch),
        lambda: by_seconds(table, *stretch),
    ):
        with pytest.raises(AudioError, match="no stretch of time"):
            call()
    with pytest.raises(PalscopeError):
        Sound(*stretch)


SITES = ("encoder_block", "encoder_output", "connector_output", "audio_state", "audio_k", "mel")


@pytest.fixture(scope="module")
def long(tokenizer: Any) -> tuple[Any, Any, Any]:
    """A clip of a minute, which two windows of the encoder hear, and its layout."""
    model = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), max_position_embeddings=1024)
    inputs = model.inputs("what?", noise(60.0))
    return model, inputs, model.layout(inputs)


@settings(max_examples=15, deadline=None)
@given(tenth=st.integers(0, 597), tenths=st.integers(1, 3))
@example(tenth=320, tenths=1)
def test_sites_agree_on_the_seconds_of_a_clip(long: Any, tenth: int, tenths: int) -> None:
    """Stretches of whole frame tokens (0.1 s) are whole encoder tokens and mel frames, too."""
    model, inputs, layout = long
    start, end = tenth / 10, (tenth + tenths) / 10
    for site in SITES:
        frames = None if site in ("encoder_block", "encoder_output", "mel") else "frames"
        found = resolve(model, inputs, Address(site, Sound(start, end, frames)), layout)
        (row,) = found.covered.itertuples()
        assert (row.start_s, row.end_s) == (start, end), site
        each = {"mel": 0.01, "encoder_block": 0.02, "encoder_output": 0.02}.get(site, 0.1)
        assert row.tokens == round(tenths * 0.1 / each)


@pytest.mark.parametrize("pieces", [2, 90])
def test_a_clip_that_goes_on_has_the_seconds_of_a_whole_one(pieces: int) -> None:
    grid, n = TimeGrid(0.1), 400
    each: dict[str, Any] = {"audio_token_id": AUDIO, "streams": (FRAMES,), "grid": grid}
    piece = TokenLayout.build(
        torch.full((1, n), AUDIO), None, frames=[n], durations=[n / 10], **each
    )
    layout = piece
    for _ in range(pieces - 1):
        layout = layout.followed_by(piece, grid, goes_on=True)
    ids = torch.full((1, n * pieces), AUDIO)
    whole = TokenLayout.build(ids, None, frames=[n * pieces], durations=[n * pieces / 10], **each)
    assert torch.equal(layout.seconds, whole.seconds)


@pytest.mark.parametrize(("seconds", "step"), [(1.0, 0.1), (3600.0, 0.3), (0.01, 0.002), (0.7, 1)])
def test_steps_make_up_a_clip_and_each_has_a_name(seconds: float, step: float) -> None:
    found = steps(seconds, step)
    exact = Fraction(str(seconds)) / Fraction(str(step))
    assert len(found) == -(-exact.numerator // exact.denominator)
    sounds = list(found.values())
    assert sounds[0].start == 0 and sounds[-1].end == seconds
    assert all(a.end == b.start for a, b in itertools.pairwise(sounds))
