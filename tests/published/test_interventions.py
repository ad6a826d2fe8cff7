"""Interventions in seconds reach a published tower: held against plain hooks on the plain class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._verify.tolerance import PER_LAYER, rounding
from palscope.errors import HookError, PalscopeError
from palscope.interventions import (
    Address,
    Patch,
    Resample,
    Scale,
    Sound,
    Zero,
    capture,
    intervene,
    resolve,
)
from palscope.interventions._cells import run_cells, run_cells_plainly
from tests.published.conftest import noise, two_rows
from tests.published.tiny import qwen2_audio

QUESTION = "which digit is spoken first?"
SECONDS = 0.9
WHERE = Sound(0.3, 0.6)
PLACES = {
    "layer 0": ("model.audio_tower.layers.0", "output", slice(15, 30)),
    "layer 1": ("model.audio_tower.layers.1", "output", slice(15, 30)),
    "projector": ("model.multi_modal_projector", "input", slice(7, 15)),
    "features": ("model.audio_tower.conv1", "input", slice(30, 60)),
}
"""The plain class's module, which side of it, and the tokens of 20 ms (40 ms, 10 ms) of `WHERE`."""
ADDRESSES = {
    "layer 0": Address("encoder_block", WHERE, layers=(0,)),
    "layer 1": Address("encoder_block", WHERE, layers=(1,)),
    "projector": Address("encoder_output", WHERE),
    "features": Address("mel", WHERE),
}


def prompt(model: HookedAudioModel, seed: int = 0, seconds: float = SECONDS) -> dict[str, Tensor]:
    return model.inputs(QUESTION, noise(seconds, seed))


def logits(model: HookedAudioModel, inputs: Any, *patches: Patch) -> Tensor:
    with torch.no_grad(), intervene(model, inputs, patches):
        return model(dict(inputs), logits_to_keep=1)[:, -1]


def edited_plainly(clip: Any, place: str, edit: Callable[[Tensor], Any]) -> Tensor:
    """Last logits of the plain class, with `edit` of the tokens `[…, tokens, width]` at a place."""
    path, side, tokens = PLACES[place]
    model, processor = qwen2_audio.model(), qwen2_audio.processor()
    content = [{"type": "audio"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = processor(text=text, audio=[clip], sampling_rate=16_000, return_tensors="pt")

    def on(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        edit(tensor[..., tokens] if place == "features" else tensor[:, tokens])
        return tensor

    module = model.get_submodule(path)
    if side == "input":
        module.register_forward_pre_hook(lambda _, given: (on(given[0]), *given[1:]))
    else:
        module.register_forward_hook(
            lambda _, __, out: on(out) if isinstance(out, Tensor) else (on(out[0]), *out[1:])
        )
    with torch.no_grad():
        return model(**inputs).logits[:, -1]


@pytest.mark.parametrize("place", PLACES)
def test_an_edit_in_seconds_is_a_plain_hook_on_the_plain_class(
    qwen2: HookedAudioModel, place: str
) -> None:
    inputs = prompt(qwen2)
    wanted = edited_plainly(noise(SECONDS), place, lambda tokens: tokens.mul_(-1.5))
    plain = logits(qwen2, inputs)
    found = logits(qwen2, inputs, Patch(ADDRESSES[place], Scale(-1.5)))
    assert not torch.allclose(found, plain, atol=1e-2)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_values_of_another_run_come_from_the_same_seconds(
    qwen2: HookedAudioModel, place: str
) -> None:
    taken: list[Tensor] = []
    edited_plainly(noise(SECONDS, 1), place, lambda tokens: taken.append(tokens.clone()))
    wanted = edited_plainly(noise(SECONDS), place, lambda tokens: tokens.copy_(taken[0]))
    patch = Patch(ADDRESSES[place], Resample(prompt(qwen2, seed=1)))
    torch.testing.assert_close(logits(qwen2, prompt(qwen2), patch), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("address", "seconds"),
    [
        (Address("encoder_block", layers=(0,)), 2.0),
        (Address("encoder_block", layers=(1,)), 2.0),
        (Address("encoder_output"), 2.0),
        (Address("mel"), 30.0),  # a convolution hears the filling behind a shorter clip
    ],
)
def test_all_tokens_of_a_place_make_the_source_run(
    qwen2: HookedAudioModel, address: Address, seconds: float
) -> None:
    source, target = (prompt(qwen2, seed, seconds) for seed in (1, 0))
    found = logits(qwen2, target, Patch(address, Resample(source)))
    torch.testing.assert_close(found, logits(qwen2, source), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, logits(qwen2, target), atol=1e-2)


@pytest.mark.parametrize("site", ["mel", "encoder_block", "encoder_output", "connector_output"])
def test_only_the_clip_that_is_meant_is_changed(qwen2: HookedAudioModel, site: Any) -> None:
    batch = two_rows(qwen2)
    address = Address(site, Sound(0.1, 0.3, clip=1))
    alone = {name: value[1:] for name, value in batch.items()}
    with pytest.raises(PalscopeError, match="row 0 has 1 clip"):
        resolve(qwen2, batch, address)
    first = Address(site, Sound(0.1, 0.3))
    together = logits(qwen2, batch, Patch(first, Zero()))
    rows = [qwen2.inputs("what?", noise(0.5)), alone]
    for row, inputs in enumerate(rows):
        alone_too = logits(qwen2, inputs, Patch(first, Zero()))[0]
        tolerance = rounding(PER_LAYER * 5, float(alone_too.abs().max()))
        torch.testing.assert_close(together[row], alone_too, **tolerance)
    output = Address("connector_output", Sound(clip=0)), Address("connector_output", Sound(clip=1))
    plain = capture(qwen2, alone, *output).values
    with intervene(qwen2, alone, [Patch(address, Scale(3.0))]):
        edited = capture(qwen2, alone, *output).values
    moved = {
        row for (hook, row), value in edited.items() if not torch.equal(value, plain[hook, row])
    }
    assert moved == {1}


def test_seconds_say_what_they_cover(qwen2: HookedAudioModel) -> None:
    inputs = prompt(qwen2, seconds=0.5)  # 50 frames: the last 20 ms have no audio token
    tokens = {
        site: tuple(resolve(qwen2, inputs, Address(site)).covered[["tokens", "end_s"]].iloc[0])
        for site in ("mel", "encoder_block", "encoder_output", "connector_output")
    }
    assert tokens == {
        "mel": (50, 0.5),
        "encoder_block": (25, 0.5),
        "encoder_output": (12, 0.48),
        "connector_output": (12, 0.48),
    }


def test_cells_share_passes_and_give_the_numbers_of_one_after_the_other(
    qwen2: HookedAudioModel,
) -> None:
    target, source = prompt(qwen2), prompt(qwen2, seed=1)
    sites: list[Any] = ["mel", "encoder_block", "encoder_output", "connector_output", "audio_state"]
    addresses = [Address(site, Sound(0.4, 0.7)) for site in sites]
    taken = capture(qwen2, source, *addresses)
    cells = [[Patch(address, Resample(taken))] for address in addresses]
    wanted = torch.stack([logits(qwen2, target, *cell)[0] for cell in cells])
    for found in (
        run_cells(qwen2, target, cells, batch_size=2),
        run_cells_plainly(qwen2, target, cells),
    ):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


def test_a_call_with_other_clips_is_refused(qwen2: HookedAudioModel) -> None:
    inputs = prompt(qwen2)
    with (
        pytest.raises(HookError, match="called with other inputs than"),
        intervene(qwen2, inputs, [Patch(ADDRESSES["layer 0"], Zero())]),
    ):
        qwen2(prompt(qwen2, seconds=0.5))


def test_generation_hears_the_change(qwen2: HookedAudioModel) -> None:
    inputs = prompt(qwen2)
    with intervene(qwen2, inputs, [Patch(ADDRESSES["layer 0"], Scale(-1.5))]):
        out: Any = qwen2.model.generate(**inputs, max_new_tokens=2, do_sample=False)
        first = qwen2(dict(inputs), logits_to_keep=1)[0, -1].argmax()
    assert out[0, inputs["input_ids"].shape[1]] == first
