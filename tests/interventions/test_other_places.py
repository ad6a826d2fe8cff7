"""Values of another place of another run, against plain torch hooks on a model without any."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing.layout import TEXT
from palscope.errors import PalscopeError
from palscope.interventions import (
    Address,
    Patch,
    Resample,
    Sound,
    Text,
    capture,
    intervene,
    run_cells,
)
from tests import tiny, vocabulary
from tests.interventions.conftest import prompt

LATER, EARLIER = 3, 1


def places(model: HookedAudioModel, inputs: dict[str, Tensor], kind: str) -> list[int]:
    """Places of the last token, or of the summary, among what runs in a layer."""
    layout = model.layout(inputs)
    running = layout.layer_columns(model.current_route, EARLIER).running[0].tolist()
    text = [at for at, column in enumerate(running) if int(layout.stream[0, column]) == TEXT]
    return text[-1:] if kind == "last" else [at for at in range(len(running)) if at not in text]


@torch.no_grad()
def by_hand(
    model: HookedAudioModel,
    source: dict[str, Tensor],
    target: dict[str, Tensor],
    kind: str,
    layers: dict[int, int],
) -> Tensor:
    """Logits of the last token, with the output of layer `layers[at]` put out by layer `at`."""
    twin: Any = tiny.model(model.current_route, vocab_size=vocabulary.COUNT)
    twin.config.audio_token_id = model.model.audio_token_id
    mine = places(model, target, kind)
    kept: dict[int, Tensor] = {}

    def hidden(out: Any) -> Tensor:
        return out[0] if isinstance(out, tuple) else out

    def keeping(layer: int) -> Any:
        return lambda _module, _args, out: kept.update({layer: hidden(out)[0, mine].clone()})

    def putting(layer: int) -> Any:
        def put(_module: Any, _args: Any, out: Any) -> Any:
            new = hidden(out).clone()
            new[0, mine] = kept[layer]
            return (new, *out[1:]) if isinstance(out, tuple) else new

        return put

    def run(inputs: dict[str, Tensor], hooks: dict[int, Any]) -> Tensor:
        modules = twin.language_model.model.layers
        handles = [modules[at].register_forward_hook(hook) for at, hook in hooks.items()]
        logits = twin(**inputs).logits[0, -1]
        for handle in handles:
            handle.remove()
        return logits

    run(source, {later: keeping(later) for later in layers.values()})
    return run(target, {earlier: putting(later) for earlier, later in layers.items()})


@pytest.mark.parametrize("kind", ["last", "summary"])
@pytest.mark.parametrize("own", [True, False], ids=["back-patching", "another clip"])
@torch.no_grad()
def test_a_later_layer_stands_in_an_earlier_one(
    pal: HookedAudioModel, kind: str, own: bool
) -> None:
    target = prompt(pal, 0)
    source = target if own else prompt(pal, 1)
    tokens = Text(-1) if kind == "last" else Sound(stream="summary")
    later, earlier = (Address("resid_post", tokens, (layer,)) for layer in (LATER, EARLIER))
    patch = Patch(earlier, Resample(source, later))
    with intervene(pal, target, [patch]):
        got = pal(target)[0, -1]
    wanted = by_hand(pal, source, target, kind, {EARLIER: LATER})
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert (got - pal(target)[0, -1]).abs().max() > 1e-2
    # What was captured before is the same, and so are cells that share passes.
    taken = Patch(earlier, Resample(capture(pal, source, later), later))
    cells = run_cells(pal, target, [[taken], [patch]])
    torch.testing.assert_close(cells, got.expand(2, -1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_one_layer_goes_into_several_and_several_into_as_many(pal: HookedAudioModel) -> None:
    target, source = prompt(pal, 0), prompt(pal, 1)

    def got(into: tuple[int, ...], out_of: tuple[int, ...]) -> Tensor:
        places = (Address("resid_post", Text(-1), layers) for layers in (into, out_of))
        where, at = places
        with intervene(pal, target, [Patch(where, Resample(source, at))]):
            return pal(target)[0, -1]

    # The last layer that is changed decides: the token's state is put in there anew.
    wanted = by_hand(pal, source, target, "last", {0: 3, 1: 3})
    torch.testing.assert_close(got((0, 1), (3,)), wanted, atol=1e-4, rtol=1e-4)
    wanted = by_hand(pal, source, target, "last", {0: 2, 1: 3})
    torch.testing.assert_close(got((0, 1), (2, 3)), wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(PalscopeError, match=r"values of 2 layers .* cannot go into 3 layers"):
        got((0, 1, 2), (2, 3))


def test_places_that_do_not_fit_are_told(pal: HookedAudioModel) -> None:
    target = prompt(pal, 0)
    last = Address("resid_post", Text(-1), (EARLIER,))
    for at, says in (
        (Address("resid_post", Text(), (LATER,)), "Source and target must cover as many"),
        (Address("audio_state", layers=(0,)), "are taken from one hook point a layer"),
        (Address("encoder_output"), "Source and target must cover as many"),
    ):
        with (
            pytest.raises(PalscopeError, match=says),
            intervene(pal, target, [Patch(last, Resample(target, at))]),
        ):
            pal(target)
