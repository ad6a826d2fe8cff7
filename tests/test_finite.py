"""Numbers that are not finite end in an error that says where, at every hand-over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope._finite import all_finite, squares_finite
from palscope._hooks import HookedAudioModel
from palscope._models import PalscopeForConditionalGeneration
from palscope._models.scoring import batched_choice_logprobs
from palscope._routing import Route
from palscope.audio import Waveform, load_audio
from palscope.audio._compose import active_part, at_level, level
from palscope.encoders._front_end import checked
from palscope.errors import AudioError, CheckpointError, PalscopeError
from palscope.interventions import Add, Address, Noise, Patch, Scale, Sound, Text, intervene
from tests import tiny, vocabulary
from tests.encoders.small import CONFIGS
from tests.hooks.conftest import make_hooked, noise

NAN, INF = float("nan"), float("inf")
PLITS = Route.plits(tiny.LAYERS)
SOUNDS = sorted(kind for kind in CONFIGS if "vision" not in kind)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=16), max_size=40),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.booleans(),
)
def test_one_pass_finds_what_a_look_at_each_number_finds(
    numbers: list[float], dtype: torch.dtype, large: bool
) -> None:
    values = torch.tensor(numbers, dtype=torch.float64).to(dtype)
    if large:  # sums of these overflow, though none of them is infinite
        values = torch.cat([values, torch.full((3,), torch.finfo(dtype).max, dtype=dtype)])
    assert all_finite(values) == bool(values.isfinite().all())


def test_numbers_that_a_norm_makes_zeros_of_are_found() -> None:
    norm = torch.nn.RMSNorm(4)
    large = torch.full((1, 4), 1e20)
    assert not norm(large).any() and all_finite(norm(large))
    assert not squares_finite(large) and squares_finite(large / 1e10)


# -- sound ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOUNDS)
@pytest.mark.parametrize("peak", [1e18, 3e38])
def test_no_front_end_makes_features_of_overflow(kind: str, peak: float) -> None:
    """Behind the entrance, which refuses such samples where they are given as they are."""
    config = CONFIGS[kind]
    samples = np.clip(noise(0.5) * 5, -1, 1)
    assert all_finite(checked(config.features(samples)).values)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = checked(config.features(samples * np.float32(peak))).values
    except AudioError as error:
        assert "so loud that its features overflow" in str(error)
    else:  # where nothing overflows
        assert all_finite(found)


def test_the_demo_s_front_end_says_that_a_clip_is_too_loud(plits: HookedAudioModel) -> None:
    with pytest.raises(AudioError, match=r"full scale|so loud"):
        plits.ask("what?", noise(0.3) * np.float32(1e19))


def test_samples_that_overflow_on_their_way_are_refused() -> None:
    square = np.sign(np.sin(np.arange(4000))).astype(np.float32) * np.float32(3.4e38)
    with pytest.raises(AudioError, match=r"NaN or infinite|full scale"):
        load_audio(square, native_rate=8_000)
    with pytest.raises(AudioError, match="mixed holds NaN"):
        Waveform(np.array([0.0, NAN], dtype=np.float32), 16_000, "mixed")


@settings(max_examples=30, deadline=None)
@given(st.integers(-44, 37), st.floats(1e-3, 1.0))
def test_levels_are_set_of_samples_of_any_size(exponent: int, wanted: float) -> None:
    """Squares of single-precision samples overflow from 1e19 and vanish below 1e-23."""
    shape = np.concatenate([np.zeros(4000), np.sin(np.arange(8000)), np.zeros(4000)])
    samples = (shape * 10.0**exponent).astype(np.float32)
    if not samples.any():
        return
    assert level(at_level(samples, wanted)) == pytest.approx(wanted, rel=1e-3)
    assert active_part(samples) == active_part(shape.astype(np.float32))


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "bad"), [("connector", NAN), ("language_model", INF)])
def test_a_checkpoint_with_such_weights_is_not_loaded(
    tmp_path: Path, part: str, bad: float
) -> None:
    made = tiny.model(PLITS)
    name, weight = next((n, p) for n, p in made.named_parameters() if n.startswith(part))
    with torch.no_grad():
        weight.view(-1)[-1] = bad
    made.config.store_base = True
    made.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"hold NaN or infinity: {name}"):
        PalscopeForConditionalGeneration.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def plits() -> HookedAudioModel:
    return make_hooked(vocabulary.tokenizer(), PLITS)


@pytest.mark.parametrize(
    "name",
    [
        "language_model.lm_head.weight",
        "language_model.model.layers.3.mlp.down_proj.weight",
        "encoder.model.layers.0.fc1.weight",
        "connector.pool.weight",
    ],
)
def test_weights_that_went_wrong_later_are_named_instead_of_an_answer(name: str) -> None:
    made = tiny.model(PLITS)
    names = dict(made.named_parameters())
    name = name if name in names else next(n for n in names if n.startswith(name.split(".")[0]))
    with torch.no_grad():
        names[name].view(-1)[0] = NAN
    batch = tiny.batch([[31]], streams=PLITS.streams)
    for call in (
        lambda: made(**batch),
        lambda: made(**batch, logits_to_keep=1),
        lambda: made.generate(**batch, max_new_tokens=2),
    ):
        with pytest.raises(PalscopeError, match=f"not finite: {name}"):
            call()


def test_features_that_are_not_finite() -> None:
    batch = tiny.batch([[31]], streams=PLITS.streams)
    batch["input_features"][0, 2, 4] = INF
    with pytest.raises(AudioError, match="input_features hold NaN or infinity"):
        tiny.model(PLITS)(**batch)


def test_half_precision_that_overflows_is_no_answer() -> None:
    made = tiny.model(PLITS).half()
    with torch.no_grad():
        made.language_model.lm_head.weight.mul_(3e4)
    with pytest.raises(PalscopeError, match=r"beyond what float16 holds \(6\.6e\+04\)"):
        made(**tiny.batch([[31]], streams=PLITS.streams))


# -- changes --------------------------------------------------------------------------------------

AT = Address("resid_post", Text(-1), layers=[1])


@pytest.mark.parametrize(
    "change",
    [
        Add(torch.full((32,), INF)),
        Add(torch.ones(32), NAN),
        Add(torch.ones(32), 1e25),
        Scale(NAN),
        Scale(1e30),
        Noise(INF),
    ],
    ids=["add inf", "add nan", "add 1e25", "scale nan", "scale 1e30", "noise inf"],
)
def test_a_change_that_is_not_finite_is_told(plits: HookedAudioModel, change: Any) -> None:
    inputs = plits.inputs("what?", noise(0.3))
    for address in (AT, Address("connector_output", Sound())):
        with (
            pytest.raises(PalscopeError, match=f"{type(change).__name__} made values that hold"),
            torch.no_grad(),
            intervene(plits, inputs, [Patch(address, change)]),
        ):
            plits(inputs)


def test_a_direction_beyond_half_precision_is_told(plits: HookedAudioModel) -> None:
    """Finite in single precision, infinite where it is added."""
    half = make_hooked(plits.tokenizer, PLITS)
    half.model.half()
    inputs = half.inputs("what?", noise(0.3))
    with (
        pytest.raises(PalscopeError, match=r"Add made values .* in torch.float16"),
        torch.no_grad(),
        intervene(half, inputs, [Patch(AT, Add(torch.full((32,), 1e6)))]),
    ):
        half(inputs)


def test_what_a_hook_of_one_s_own_makes_is_told_at_the_logits(
    plits: HookedAudioModel, request: pytest.FixtureRequest
) -> None:
    def spoil(tensor: Any, hook: Any) -> Any:
        return tensor * NAN

    hooks = [("blocks.2.hook_resid_post", spoil)]
    with pytest.raises(PalscopeError, match="All weights are finite, so a hook"):
        plits.run_with_hooks(plits.inputs("what?", noise(0.3)), fwd_hooks=hooks)
    request.addfinalizer(plits.reset_hooks)
    plits.add_hook(*hooks[0])
    for call in (
        lambda: plits.ask("what?", noise(0.3)),
        lambda: batched_choice_logprobs(
            plits.model, plits.processor, [([noise(0.3)], "what?", ["yes", "no"])]
        ),
    ):
        with pytest.raises(PalscopeError, match="the logits hold NaN"):
            call()
