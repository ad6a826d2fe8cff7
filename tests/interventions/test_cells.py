"""Cells that share a forward pass give the numbers of one block each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope._routing import Route
from palscope.errors import PalscopeError
from palscope.interventions import (
    Address,
    Knockout,
    Patch,
    Reroute,
    Resample,
    Sound,
    Text,
    Zero,
    _cells,
    capture,
    intervene,
)
from palscope.interventions._cells import run_cells, run_cells_plainly
from tests import tiny
from tests.hooks.conftest import noise
from tests.interventions.conftest import prompt, two_rows
from tests.interventions.test_apply import EVERYWHERE


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_cells_are_blocks(pal: Any, batch_size: int) -> None:
    inputs = pal.inputs("which is louder?", noise(1.0), noise(0.7, 1))
    other = pal.inputs("which is louder?", noise(1.0, 2), noise(0.7, 3))
    text = {"digit": Text("louder")}
    places = [
        Address(a.site, text.get(getattr(a.tokens, "what", ""), a.tokens), a.layers, a.heads)
        for a in EVERYWHERE
        if a.site != "pattern"
    ]
    cells: list[list[Any]] = [[Patch(place, Resample(other))] for place in places]
    cells += [
        [],
        [Knockout(Address("pattern", Sound(0.2, 0.5, clip=1), layers=(0,), heads=(2,)))],
        [Reroute(Route.pal(tiny.LAYERS, [2]))],
        [Reroute(Route.pal(tiny.LAYERS, [2])), Patch(Address("mel", Sound(clip=1)), Zero())],
        [Reroute(Route.pal(tiny.LAYERS, [2])), Patch(Address("mlp_out", Text(-1), (1,)), Zero())],
    ]
    found = run_cells(pal, inputs, cells, batch_size=batch_size)
    for cell, row in zip(cells, found, strict=True):
        with torch.no_grad(), intervene(pal, inputs, cell):
            wanted = pal(dict(inputs))[0, -1]
        assert (row - wanted).abs().max() < 1e-4, cell
    assert len({tuple(row.tolist()) for row in found}) == len(cells)


def test_cells_on_another_route_alone_run_whole(pal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, patch = prompt(pal), Patch(Address("mlp_out", Text(-1), (2,)), Zero())
    whole, ran = _cells._run_whole, list[int]()

    def counted(model: Any, inputs: Any, encoded: Any, asked: Any, *rest: Any) -> Any:
        ran.append(len(asked))
        return whole(model, inputs, encoded, asked, *rest)

    monkeypatch.setattr(_cells, "_run_whole", counted)
    other = Reroute(Route.pal(tiny.LAYERS, [2]))
    found = run_cells(pal, inputs, [[Reroute(pal.current_route), patch], [patch], [other, patch]])
    assert ran == [1] and torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_values_captured_once_serve_every_cell(pal: Any) -> None:
    inputs, other = prompt(pal), prompt(pal, seed=1)
    taken = capture(pal, other, Address("audio_state"), Address("head_output", Text(-1)))
    places = [
        Address("audio_state", Sound(0.2, 0.4, "frames"), layers=(2,)),
        Address("audio_state", Sound(0.2, 0.4)),
        Address("head_output", Text(-1), layers=(1,), heads=(2,)),
    ]
    once = run_cells(pal, inputs, [[Patch(place, Resample(taken))] for place in places])
    anew = run_cells(pal, inputs, [[Patch(place, Resample(other))] for place in places])
    assert torch.equal(once, anew)
    with pytest.raises(PalscopeError, match="was not captured"):
        run_cells(pal, inputs, [[Patch(Address("mlp_out", Text(-1)), Resample(taken))]])


def test_several_prompts_are_refused(pal: Any) -> None:
    with pytest.raises(PalscopeError, match="one prompt"):
        run_cells(pal, two_rows(pal), [[]])


def test_progress_is_shown_where_it_is_asked_for_alone(
    pal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, cell = prompt(pal), [[Patch(Address("mlp_out", Text(-1), (3,)), Zero())]]
    run_cells(pal, inputs, cell)
    assert capsys.readouterr() == ("", "")
    run_cells(pal, inputs, cell, progress=True)
    assert "0/1" in capsys.readouterr().err


def test_no_more_cells_share_a_pass_than_are_allowed(pal: Any) -> None:
    inputs, cell = prompt(pal), [Patch(Address("mel", Sound(0.2, 0.5)), Zero())]
    rows: list[int] = []
    hook = pal.model.language_model.model.norm.register_forward_hook(
        lambda _module, _args, out: rows.append(len(out))
    )
    run_cells_plainly(pal, inputs, [cell] * 5, batch_size=2)
    assert rows == [2, 2, 1]
    rows.clear()
    run_cells(pal, inputs, [cell] * 3, batch_size=2)  # into the encoder: runs whole
    assert rows == [2, 1]
    hook.remove()
