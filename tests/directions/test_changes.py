"""Steering and erasing in the running model against plain torch hooks and plain generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import palscope
from palscope._routing import Route
from palscope._routing.layout import TEXT
from palscope._sweeps.record import weights_hashes
from palscope.directions import Direction, Eraser, Steer
from palscope.errors import PalscopeError
from palscope.interventions import Address, Patch, Sound, Text, intervene
from tests import tiny, vocabulary
from tests.dashboards.conftest import saved
from tests.hooks.conftest import make_hooked
from tests.interventions.conftest import prompt

LAYER, NEW, DOSE, WIDTH = 2, 4, 3.0, 32
HOOK = f"blocks.{LAYER}.hook_resid_post"


@pytest.fixture(scope="module")
def pal() -> Any:
    return make_hooked(vocabulary.tokenizer(), Route.pal(tiny.LAYERS, [0, 2]))


def direction(hook_point: str, width: int = WIDTH) -> Direction:
    drawn = torch.Generator().manual_seed(5)
    return Direction(torch.randn(width, generator=drawn), hook_point)


def plain_twin(model: Any) -> Any:
    """The same weights without any hook of palscope's."""
    twin: Any = tiny.model(model.current_route, vocab_size=vocabulary.COUNT)
    twin.config.audio_token_id = model.model.audio_token_id
    return twin


@pytest.mark.parametrize("tokens", ["text", "last", "sound"])
@torch.no_grad()
def test_generation_is_steered_where_the_address_says(pal: Any, tokens: str) -> None:
    """All text goes on to what is generated; the last token and sound are the prompt's alone."""
    inputs = prompt(pal)
    layout = pal.layout(inputs)
    running = layout.layer_columns(pal.current_route, LAYER).running[0].tolist()
    text = [at for at, column in enumerate(running) if int(layout.stream[0, column]) == TEXT]
    sound = [at for at in range(len(running)) if at not in text]
    places = {"text": text, "last": text[-1:], "sound": sound}[tokens]
    where = {"text": Text(), "last": Text(-1), "sound": Sound(stream="summary")}[tokens]
    added = DOSE * direction(HOOK).vector

    def edit(_module: Any, _args: Any, out: Any) -> Any:
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        if hidden.shape[1] > 1:
            hidden[0, places] += added
        elif tokens == "text":
            hidden += added
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    settings: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
    settings |= {"return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}
    twin = plain_twin(pal)
    plain = twin.generate(**inputs, **settings)
    handle = twin.language_model.model.layers[LAYER].register_forward_hook(edit)
    wanted = twin.generate(**inputs, **settings)
    handle.remove()
    patch = Patch(Address("resid_post", where, (LAYER,)), Steer(direction(HOOK), DOSE))
    with intervene(pal, inputs, [patch]):
        got = pal.model.generate(**inputs, **settings)
    assert got.sequences.tolist() == wanted.sequences.tolist()
    for ours, theirs, bare in zip(got.logits, wanted.logits, plain.logits, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        assert (ours - bare).abs().max() > 1e-2


@torch.no_grad()
def test_the_encoder_is_erased_at_the_seconds_that_are_named(pal: Any) -> None:
    inputs, hook = prompt(pal), "audio_blocks.0.hook_out"

    def seen() -> Tensor:
        _, cache = pal.run_with_cache(dict(inputs), names_filter=[hook], logits_to_keep=1)
        return cache[hook]

    plain = seen()
    drawn = torch.Generator().manual_seed(1)
    left, right = (
        torch.randn(*shape, generator=drawn, dtype=torch.float64)
        for shape in ((2, plain.shape[-1]), (plain.shape[-1], 2))
    )
    eraser = Eraser(left, right, torch.full(plain.shape[-1:], 0.5, dtype=torch.float64), hook)
    patch = Patch(Address("encoder_block", Sound(0.2, 0.6), (0,)), eraser)
    with intervene(pal, inputs, [patch]):
        got = seen()
    wanted = plain.clone()
    rows = plain[0, 10:30].double()  # 20 ms each
    wanted[0, 10:30] = (rows - ((rows - 0.5) @ right) @ left).float()
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-4)
    assert torch.equal(got[0, 30:], plain[0, 30:]) and not torch.equal(got, plain)


def test_another_place_or_model_is_refused(pal: Any, tmp_path: Path) -> None:
    inputs = prompt(pal)
    model = palscope.load(saved(Route.pal(tiny.LAYERS, [0, 2]), tmp_path / "one"))
    record = {"weights": weights_hashes(model), "route": model.current_route.to_dict()}
    other = palscope.load(saved(Route.plits(tiny.LAYERS), tmp_path / "other"))
    width = WIDTH
    eye = torch.eye(width, dtype=torch.float64)
    vector = direction(HOOK).vector
    where = Address("resid_post", Text(-1), (LAYER,))
    for change, what in (
        (lambda **about: Steer(Direction(vector, **about)), "direction"),
        (lambda **about: Eraser(eye[:1], eye[:, :1], eye[0], **about), "eraser"),
    ):
        with (
            pytest.raises(PalscopeError, match=f"this {what} is of blocks.0.hook_resid_post"),
            intervene(pal, inputs, [Patch(where, change(hook_point="blocks.0.hook_resid_post"))]),
        ):
            pal(inputs)
        mine = Patch(where, change(hook_point=HOOK, record=record))
        again = prompt(model)
        with torch.no_grad(), intervene(model, again, [mine]):
            model(again)
        with (
            pytest.raises(PalscopeError, match=f"this {what} is of another model or route"),
            intervene(other, prompt(other), [mine]),
        ):
            pass
