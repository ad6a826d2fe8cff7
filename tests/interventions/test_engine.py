"""Cells that begin late give the numbers of whole runs, and leave out what whole runs repeat."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from palscope._hooks import HookedAudioModel
from palscope._models.audio_memory import AudioMemory
from palscope._models.families import FAMILIES
from palscope._models.resumed import ResumedRun
from palscope._routing import FRAMES, FULL, SUMMARY, Route
from palscope.errors import PalscopeError
from palscope.interventions import (
    Add,
    Address,
    Knockout,
    Noise,
    Patch,
    Resample,
    Scale,
    Sound,
    Text,
    Zero,
    capture,
    intervene,
)
from palscope.interventions import _cells as cells
from palscope.interventions import _engine as engine
from palscope.interventions._address import SITES
from palscope.interventions._cells import run_cells, run_cells_plainly
from palscope.interventions._resolve import resolve
from tests import tiny
from tests.hooks.conftest import make_hooked, noise, tone
from tests.interventions.conftest import prompt
from tests.routing.strategies import CELLS

DECODER_SITES: list[Any] = [
    name for name, site in SITES.items() if site.layers == "decoder" and name != "pattern"
]
LAST = Text(-1)


def possible(model: HookedAudioModel, inputs: Any, address: Address) -> bool:
    try:
        resolve(model, inputs, address)
    except PalscopeError:
        return False
    return True


def some_cells(model: HookedAudioModel, inputs: Any, other: Any) -> list[list[Any]]:
    """A cell at every place of the decoder that the model's route has; and some of several."""
    layers = range(tiny.LAYERS)
    places = [
        Address(site, tokens, (layer,))
        for site in DECODER_SITES
        for tokens in (Sound(0.3, 0.6), Sound(0.1, 0.3, clip=1), Text("louder"), LAST)
        for layer in layers
        if not (site.startswith("audio") and isinstance(tokens, Text))
    ]
    places += [Address("connector_output", Sound(0.2, 0.5)), Address("connector_output")]
    places += [Address("audio_state", Sound(0.3, 0.6)), Address("resid_pre", Text())]
    places = [place for place in places if possible(model, inputs, place)]
    taken = capture(model, other, *places)
    found: list[list[Any]] = [[Patch(place, Resample(taken))] for place in places]
    cuts = [
        Address("pattern", Sound(0.4, 0.7, clip=1), layers=(layer,), heads=heads, queries=queries)
        for layer in layers
        for queries in (LAST, Text())
        for heads in (None, (1,))
    ]
    found += [[Knockout(cut)] for cut in cuts if possible(model, inputs, cut)]
    late, early = Address("mlp_out", LAST, (3,)), Address("attn_out", Text("louder"), (1,))
    found += [
        [],
        [Patch(late, Zero()), Patch(early, Scale(2.0))],
        [Patch(early, Noise()), Patch(late, Add(torch.ones(32)))],
    ]
    return found


def two_clips(model: HookedAudioModel, seed: int = 0) -> dict[str, Any]:
    return model.inputs("which is louder?", noise(1.0, seed), noise(0.7, seed + 1))


def agree(model: HookedAudioModel) -> None:
    inputs = two_clips(model)
    chosen = some_cells(model, inputs, two_clips(model, 5))
    with no_whole_run():
        late = run_cells(model, inputs, chosen)
    whole = run_cells_plainly(model, inputs, chosen)
    scale = whole.abs().max()
    for cell, one, other in zip(chosen, late, whole, strict=True):
        assert (one - other).abs().max() <= 1e-5 * scale, cell
    assert len({tuple(row.tolist()) for row in whole}) > len(chosen) // 5  # cells do something


@contextmanager
def no_whole_run() -> Generator[None, None, None]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a cell ran whole")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_run_together", refuse)
        yield


@pytest.fixture(scope="module")
def both(tokenizer: Any) -> HookedAudioModel:
    return make_hooked(tokenizer, Route.pal(tiny.LAYERS))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_late_runs_give_whole_runs_numbers_under_any_route(both: Any, seed: int) -> None:
    choice = random.Random(seed).choice
    rows = [(stream, tuple(choice(CELLS) for _ in range(4))) for stream in (FRAMES, SUMMARY)]
    with both.route(Route(tiny.LAYERS, tuple(rows), choice(["all", "text"]))):
        agree(both)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_late_runs_give_whole_runs_numbers_in_every_family(tokenizer: Any, family: str) -> None:
    agree(make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), family))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_late_runs_give_whole_runs_numbers(tokenizer: Any, implementation: str) -> None:
    model = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]))
    model.model.language_model.set_attn_implementation(implementation)
    agree(model)


FROZEN = {
    "plits": Route.plits(tiny.LAYERS).frozen_from(2),
    "again": Route.plits(tiny.LAYERS).frozen_from(1).with_cell("frames", [2], FULL),
    "muted": Route.plits(tiny.LAYERS).frozen_from(2).mute("frames", [2]),
}


@pytest.mark.parametrize("name", FROZEN)
def test_late_runs_read_sound_that_was_frozen_below(plits: Any, name: str) -> None:
    """What is changed below is read by every layer above; what runs again goes on from it."""
    inputs = two_clips(plits)
    other = plits.inputs("which is louder?", tone(1.0), tone(0.7, 3000))
    with plits.route(FROZEN[name]):
        places = [
            Address(site, tokens, (layer,))
            for site in ("audio_state", "audio_v", "resid_post")
            for tokens in (Sound(0.3, 0.6), Sound(0.1, 0.3, clip=1))
            for layer in range(tiny.LAYERS)
        ]
        places += [Address("resid_pre", Text("louder"), (1,)), Address("attn_out", LAST, (3,))]
        places = [place for place in places if possible(plits, inputs, place)]
        taken = capture(plits, other, *places)
        chosen = [[Patch(place, Resample(taken))] for place in places]
        with no_whole_run():
            late = run_cells(plits, inputs, chosen)
        whole = run_cells_plainly(plits, inputs, chosen)
        plain = run_cells_plainly(plits, inputs, [[]])
    scale = whole.abs().max()
    assert (late - whole).abs().max() <= 1e-5 * scale
    assert ((whole - plain).abs().amax(1) > 1e-4 * scale).all()


def test_nothing_runs_below_a_cells_layer_or_before_its_token(
    pal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = prompt(pal)
    width = inputs["input_ids"].shape[1]
    ran: list[tuple[int, int, int]] = []
    layer_of = ResumedRun.layer

    def counted(self: Any, index: int, hidden: Any, *rest: Any) -> Any:
        ran.append((index, *hidden.shape[:2]))
        return layer_of(self, index, hidden, *rest)

    monkeypatch.setattr(ResumedRun, "layer", counted)
    cell = [[Patch(Address("mlp_out", LAST, (layer,)), Zero())] for layer in (3, 1, 2, 1)]
    run_cells(pal, inputs, cell)
    # Two rows join at layer 1, one each at the next; the last token alone runs.
    assert ran == [(1, 2, 1), (2, 3, 1), (3, 4, 1)]
    ran.clear()
    summary = Address("audio_state", Sound(0.5, 0.7, "summary"), (2,))
    first = min(int(part.columns.min()) for part in resolve(pal, inputs, summary).parts)
    layout = pal.layout(inputs)
    runs = layout.layer_columns(pal.current_route, 2).running[0]
    run_cells(pal, inputs, [[Patch(summary, Zero())]])
    assert ran == [(2, 1, int((runs >= first).sum())), (3, 1, int((runs >= first).sum()))]
    assert first > width // 4
    ran.clear()
    run_cells(pal, inputs, [[]])
    assert ran == []


def test_audio_keys_are_made_anew_for_the_rows_that_change_them_alone(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_hooked(tokenizer, Route.lal(tiny.LAYERS))
    inputs = prompt(model)
    made: list[tuple[int, int]] = []
    memory_at = AudioMemory.at

    def counted(self: Any, index: int, columns: Any, *rest: Any) -> Any:
        made.append((index, len(columns)))
        return memory_at(self, index, columns, *rest)

    places = [Address("audio_state", Sound(0.2, 0.5), layers) for layers in ((1,), (2,), (2, 3))]
    chosen = [[Patch(place, Zero())] for place in places]
    monkeypatch.setattr(AudioMemory, "at", counted)
    late = run_cells(model, inputs, chosen)
    # Behind the plain run, in all layers: one row joins at layer 1, two more at layer 2; of these
    # three, one changes layer 3.
    plain = [(layer, 1) for layer in range(tiny.LAYERS)]
    assert made == [*plain, (1, 1), (2, 2), (3, 1)]
    whole = run_cells_plainly(model, inputs, chosen)
    assert (late - whole).abs().max() <= 1e-5 * whole.abs().max()
    assert len({tuple(row.tolist()) for row in whole}) == len(chosen)


def test_cells_whose_tokens_lie_far_apart_do_not_share_a_batch(pal: Any) -> None:
    inputs = prompt(pal, seconds=3.0)
    given = cells.with_encoded(pal, inputs)
    layout = pal.layout(given)
    starts = {
        number: engine.Start(layer, column)
        for number, (layer, column) in enumerate([(2, 50), (0, 8), (1, 49), (1, 9), (3, 8)])
    }
    made = engine.Engine(pal, given)
    assert layout.width > 60
    assert made.batches(starts, None) == [[1, 3, 4], [2, 0]]
    assert made.batches(starts, 2) == [[1, 4], [3], [2, 0]]


def test_batches_are_filled_to_the_budget(pal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = cells.with_encoded(pal, prompt(pal))
    made = engine.Engine(pal, inputs)
    starts = {number: engine.Start(1, 20) for number in range(50)}
    width, config = inputs["input_ids"].shape[1], pal.model.config.text_config
    row = 4 * (width * (6 * 32 + 3 * 48) + config.vocab_size)
    monkeypatch.setattr(engine, "BUDGET_BYTES", 7 * row)
    assert [len(batch) for batch in made.batches(starts, None)] == [7] * 7 + [1]
    monkeypatch.setattr(engine, "BUDGET_BYTES", 1)
    assert [len(batch) for batch in made.batches(starts, None)] == [1] * 50


def test_cells_run_whole_where_someone_else_listens(
    pal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = prompt(pal)
    cell = [[Patch(Address("mlp_out", LAST, (3,)), Zero())]]
    plain = run_cells_plainly(pal, inputs, cell)
    assert engine.Engine.serves(pal, pal.layout(inputs))
    seen: list[Any] = []
    with pal.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda t, hook: seen.append(t.shape))]):
        assert not engine.Engine.serves(pal, pal.layout(inputs))
        listened = run_cells(pal, inputs, cell)
    assert seen and torch.equal(listened, plain)
    with pal.model.recording_attention(lambda each: seen.append(each.layer)):
        assert not engine.Engine.serves(pal, pal.layout(inputs))
        assert torch.equal(run_cells(pal, inputs, cell), plain)
    cut = Knockout(Address("pattern", Sound(0.2, 0.5), layers=(0, 1)))
    with intervene(pal, inputs, [cut]):
        assert not engine.Engine.serves(pal, pal.layout(inputs))
        both_at_once = run_cells(pal, inputs, cell, batch_size=1)
    with torch.no_grad(), intervene(pal, inputs, [cut, *cell[0]]):
        assert (pal(dict(inputs))[0, -1] - both_at_once[0]).abs().max() < 1e-5
    assert (both_at_once - plain).abs().max() > 1e-3
    handle = pal.model.encoder.register_forward_hook(lambda *_: None)
    assert not engine.Engine.serves(pal, pal.layout(inputs))
    handle.remove()
    assert engine.Engine.serves(pal, pal.layout(inputs))
