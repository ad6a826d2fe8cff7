"""How often the host waits for the device: in a forward pass, whatever its depth, and in sweeps."""

from __future__ import annotations

import collections
from typing import Any

import pytest
import torch

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope.interventions import Address, Knockout, Patch, Resample, Scale, Sound, Text, capture
from palscope.interventions._cells import run_cells, with_encoded
from tests.devices.placed import ONE, hooked, kept
from tests.devices.pretended import waits
from tests.devices.tasks import clean, corrupt, rows

DEPTHS = (4, 8)
ROUTES = {
    "lal": Route.lal,
    "queries": lambda n: Route.lal(n).with_audio_queries(),
    "frozen": lambda n: Route.plits(n).frozen_from(n // 2),
    "pal": lambda n: Route.pal(n, range(0, n, 2)),
}

HEARD = 12
"""Of a forward pass that hears clips: ids, mask, lengths of clips, whether logits are finite."""
AGAIN = 5
"""Of one with clips that were encoded before: whether weights are still those, for the lengths."""
SWEEP, BATCH, PLACE = 8, 5, 1
"""Of a sweep, of each of its batches, and of each place that a cell edits (is it finite?)."""


def counted(call: Any) -> collections.Counter[str]:
    with waits() as found, torch.no_grad():
        call()
    return found


@pytest.mark.parametrize("route", ROUTES)
def test_a_forward_pass_waits_as_often_at_any_depth(route: str) -> None:
    each: list[list[collections.Counter[str]]] = []
    for depth in DEPTHS:
        model = hooked(ONE, ROUTES[route](depth), layers=depth)
        batch = rows(model)
        audio = model.encode_audio(batch)
        given = {name: batch[name] for name in ("input_ids", "attention_mask")} | {"audio": audio}
        out = model.model(**given, use_cache=True)
        word = torch.full((3, 1), 4, device=model.model.device)
        each.append(
            [
                counted(lambda model=model, batch=batch: model.model(**batch)),
                counted(lambda model=model, given=given: model.model(**given)),
                counted(
                    lambda model=model, word=word, out=out: model.model(
                        input_ids=word, past_key_values=out.past_key_values
                    )
                ),
            ]
        )
    for shallow, deep in zip(*each, strict=True):
        assert shallow.total() == deep.total(), deep - shallow


@pytest.mark.parametrize("route", ["plits", "lal", "pal"])
def test_what_a_forward_pass_waits_for_is_stated(route: str) -> None:
    model = kept(ONE, route)
    inputs = clean(model)
    heard = counted(lambda: model.model(**inputs))
    assert heard.total() <= HEARD, heard
    given = with_encoded(model, inputs)
    model.model(**given)
    again = counted(lambda: model.model(**given))
    assert again.total() <= AGAIN, again


def late(model: HookedAudioModel, number: int) -> list[list[Any]]:
    """So many cells, each an edit of one place."""
    layers = model.current_route.n_layers
    return [
        [Patch(Address("mlp_out", Text(-1), layers=(i % layers,)), Scale(1.0 + i))]
        for i in range(number)
    ]


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_sweep_waits_a_stated_number_of_times_at_any_depth(depth: int) -> None:
    model = hooked(ONE, Route.pal(depth, [0, 2]), layers=depth)
    given = with_encoded(model, clean(model))
    run_cells(model, given, late(model, 1))
    for cells, together in ((8, 8), (24, 24), (24, 8)):
        found = counted(
            lambda n=cells, k=together: run_cells(model, given, late(model, n), batch_size=k)
        )
        assert found.total() <= SWEEP + BATCH * (cells // together) + PLACE * cells, found


def test_knockouts_wait_once_a_layer_that_they_cut() -> None:
    model = kept(ONE, "pal")
    given = with_encoded(model, clean(model))

    def cells(layers: int) -> list[list[Any]]:
        address = [
            Address("pattern", Sound(), queries=Text(-1), layers=(i,)) for i in range(layers)
        ]
        return [[Knockout(each)] for each in address]

    two, four = (counted(lambda n=n: run_cells(model, given, cells(n))) for n in (2, 4))
    assert four.total() - two.total() == 2, four - two


def test_values_of_another_run_are_put_in_without_more() -> None:
    model = kept(ONE, "lal")
    given = with_encoded(model, clean(model))
    place = Address("audio_state", Sound(0.2, 0.5), layers=(1,))
    taken = capture(model, with_encoded(model, corrupt(model)), place)
    scaled, resampled = (
        counted(lambda change=change: run_cells(model, given, [[Patch(place, change)]]))
        for change in (Scale(2.0), Resample(taken))
    )
    assert scaled == resampled
