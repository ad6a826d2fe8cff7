"""Gradients are those of finite differences, and fall where an answer was planted, nowhere else."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import WhisperFeatureExtractor

from palscope._hooks import HookedAudioModel
from palscope._models.clips import AudioClips
from palscope._routing import Route
from palscope.audio._mel import mel_bin_hz
from palscope.errors import PalscopeError
from palscope.interventions import (
    Address,
    Change,
    Knockout,
    Patch,
    Resample,
    Sound,
    Text,
    capture,
    intervene,
)
from palscope.interventions._capture import Captured
from palscope.measures._attribution import (
    attribution_at,
    attribution_patching,
    completeness,
    integrated_gradients,
)
from palscope.measures._metrics import Answers
from palscope.measures._patching import GridCell, activation_patching
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise
from tests.planted import (
    A_CHANNEL,
    B_CHANNEL,
    LAYERS,
    RELAY,
    UNIT,
    WORDS,
    Pathway,
    Planted,
    plant,
)

AT = 5  # the event's frame, 0.5 to 0.6 s
ANSWERS = Answers((), WORDS.index("A"), WORDS.index("B"))
SITES = ("audio_state", "connector_output", "encoder_output", "mel")
NOTHING = 1e-9  # nats; what is planted moves the answer by 15 and more


def ends(planted: Planted) -> dict[str, Any]:
    """Runs with A and B, whose sound elsewhere differs too."""
    return {
        "clean": planted.inputs("A", AT, nuisance=1),
        "corrupt": planted.inputs("B", AT, nuisance=2),
    }


def found(table: Any, *columns: str) -> set[Any]:
    """The cells that have any attribution."""
    cells = table[table["attribution"].abs() > NOTHING]
    named = [tuple(row) for row in cells[list(columns)].to_numpy().tolist()]
    return {row[0] for row in named} if len(columns) == 1 else set(named)


# -- planted circuits -----------------------------------------------------------------------------


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits", "relay", "decoy"])
@pytest.mark.parametrize("measure", [attribution_patching, integrated_gradients])
def test_only_what_was_planted_gets_any(pathway: Pathway, measure: Any) -> None:
    planted = plant(pathway, other=(2, 0) if pathway == "decoy" else None)
    addresses = [Address(site) for site in SITES]
    table = measure(planted.model, **ends(planted), addresses=addresses, answers=ANSWERS)
    sites = dict(iter(table.groupby("site")))
    place = (planted.stream, planted.event_token(AT))
    # A token that runs hands the event on to the layer that reads it. Integrated gradients set all
    # layers' states, so that only the layer that reads counts.
    carried = pathway in ("summary", "plits") and measure is attribution_patching
    layers = range(planted.layer + 1) if carried else [planted.layer]
    assert found(sites["audio_state"], "layer", "stream", "token") == {
        (layer, *place) for layer in layers
    }
    assert found(sites["connector_output"], "stream", "token") == {place}
    # A frame is five tokens of the encoder. Of the mel frames it reads every other one.
    assert found(sites["encoder_output"], "token") == set(range(5 * AT, 5 * AT + 5))
    heard = {(frame, channel) for frame in range(50, 60, 2) for channel in (A_CHANNEL, B_CHANNEL)}
    assert found(sites["mel"], "token", "bin") == heard
    event = sites["mel"][sites["mel"]["token"] == 50].iloc[0]
    assert (event["start_s"], event["end_s"]) == (0.5, 0.51)
    assert (table["attribution"][table["attribution"].abs() > NOTHING] > 0.1).all()


def test_text_is_named_by_its_column() -> None:
    """The relay's word holds the class from the layer after its head to the last that reads it."""
    planted = plant("relay")
    address = Address("resid_pre", Text())
    table = attribution_patching(
        planted.model, **ends(planted), addresses=[address], answers=ANSWERS
    )
    column = planted.relay_column()
    assert planted.inputs(None, 0)["input_ids"][0, column] == WORDS.index(RELAY)
    expected = {(layer, "text", column) for layer in range(planted.layer + 1, LAYERS)}
    assert found(table, "layer", "stream", "token") == expected
    assert table["start_s"].isna().all()


def linear(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> HookedAudioModel:
    """The planted model with norms that scale by a constant: between two runs it is linear."""
    for module in planted.model.model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            monkeypatch.setattr(module, "forward", lambda x: x * UNIT)
    return planted.model


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("pathway", ["lal", "summary", "plits"])
def test_where_the_model_is_linear_attribution_is_exact_patching(
    pathway: Pathway, direction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant(pathway)
    model = linear(planted, monkeypatch)
    told: dict[str, Any] = {**ends(planted), "answers": ANSWERS, "direction": direction}
    times = [Sound(0.0, 0.3), Sound(0.3, 0.6), Sound(0.6, 1.2)]
    cells = [
        *(GridCell((Address("audio_state", at, (layer,)),)) for layer in range(4) for at in times),
        *(GridCell((Address("connector_output", at),)) for at in times),
        *(GridCell((Address("encoder_output", at),)) for at in times),
    ]
    patching = activation_patching(model, cells=cells, **told)
    effects = patching.loc[patching["run"] == "patch", "logit_diff"].to_numpy()
    target = patching.loc[patching["run"] == "target", "logit_diff"].item()
    assert np.abs(effects - target).max() > 15
    whole = [Address(site) for site in SITES[:3]]
    table = attribution_patching(model, addresses=whole, **told)
    estimates = [attribution_at(table, *cell.addresses) for cell in cells]
    np.testing.assert_allclose(estimates, effects - target, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_integrated_gradients_of_a_linear_model_are_complete(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant("lal")
    model = linear(planted, monkeypatch)
    table = integrated_gradients(
        model,
        **ends(planted),
        addresses=[Address(site) for site in SITES[:3]],
        answers=ANSWERS,
        steps=steps,
    )
    checked = completeness(table)
    assert (checked["difference"] > 15).all()
    assert checked["error"].max() < 1e-4


def test_attribution_sums_over_whole_tokens() -> None:
    planted = plant("lal")
    table = attribution_patching(
        planted.model, **ends(planted), addresses=[Address("audio_state")], answers=ANSWERS
    )
    total = table["attribution"].sum()
    assert total > 15

    def at(start: float, end: float | None = None, **named: Any) -> float:
        layers = named.pop("layers", None)
        return attribution_at(table, Address("audio_state", Sound(start, end, **named), layers))

    assert at(0.55, 0.56) == pytest.approx(total)
    for elsewhere in (at(0.0, 0.5), at(0.6), at(0.5, 0.6, layers=(2,))):
        assert abs(elsewhere) < NOTHING
    assert at(0.5, 0.6, layers=(1,)) == at(0.0, stream="frames") == pytest.approx(total)
    assert abs(at(0.5, 0.6, stream="summary")) < NOTHING
    for nothing in (
        Address("mel", Sound()),
        Address("audio_state", Sound(stream="other")),
        Address("audio_state", Sound(), (9,)),
        Address("resid_pre", Text()),
    ):
        with pytest.raises(PalscopeError):
            attribution_at(table, nothing)


# -- finite differences ---------------------------------------------------------------------------


class Along(Change):
    """Values moved a little from a run towards another."""

    continues = False

    def __init__(self, way: Captured, far: float) -> None:
        self.way, self.far = way, far

    def __call__(self, part: Any, old: Any, which: Any = None) -> Any:
        return old + self.far * self.way.for_part(part, old, which)


@pytest.fixture(scope="module", params=["pal", "plits"])
def double(request: Any) -> HookedAudioModel:
    routes = {"pal": Route.pal(tiny.LAYERS, [0, 2]), "plits": Route.plits(tiny.LAYERS)}
    return in_double(make_hooked(vocabulary.whole_tokenizer(), routes[request.param]))


def in_double(model: HookedAudioModel) -> HookedAudioModel:
    """The model in double precision, its norms too, which Hugging Face computes in single."""
    model.model.double()
    for module in model.model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = partial(double_norm, module)
    return model


def double_norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    return norm.weight * x * scale


def runs(model: HookedAudioModel, seconds: float = 0.7) -> dict[str, Any]:
    clean, corrupt = (model.inputs("what is it?", noise(seconds, seed)) for seed in (1, 2))
    return {"clean": clean, "corrupt": corrupt}


TINY_ANSWERS = Answers((7,), 11, 12)
"""With a common beginning, behind which the deciding token is predicted."""


def measured(model: HookedAudioModel, inputs: Any, metric: str, *changes: Any) -> float:
    with torch.no_grad(), intervene(model, inputs, changes):
        logits = model(dict(inputs))[0, -1]
    clean, corrupt = TINY_ANSWERS.clean, TINY_ANSWERS.corrupt
    if metric == "logprob":
        return float(logits.log_softmax(-1)[clean])
    return float(logits[clean] - logits[corrupt])


def slope(
    model: HookedAudioModel, source: Any, target: Any, address: Address, metric: str, far: float
) -> float:
    """Central difference of the metric along the way from the target's values to the source's."""
    there, here = (capture(model, inputs, address) for inputs in (source, target))
    way = replace(there, values={key: there.values[key] - here.values[key] for key in there.values})
    plus, minus = (
        measured(model, target, metric, Patch(address, Along(way, sign * far))) for sign in (1, -1)
    )
    return (plus - minus) / (2 * far)


@pytest.mark.parametrize(
    ("direction", "metric"), [("denoising", "logit_diff"), ("noising", "logprob")]
)
def test_gradients_are_those_of_finite_differences(
    double: HookedAudioModel, direction: Any, metric: Any
) -> None:
    running = double.current_route.streams[-1].name
    told = runs(double)
    table = attribution_patching(
        double,
        **told,
        addresses=[
            *(Address(site) for site in SITES),
            Address("encoder_block", layers=(0,)),
            Address("resid_post", Sound(stream=running), layers=(1,)),
            Address("attn_out", Text(-1), layers=(2,)),
        ],
        answers=TINY_ANSWERS,
        direction=direction,
        metric=metric,
    )
    clean, corrupt = (TINY_ANSWERS.behind(told[name]) for name in ("clean", "corrupt"))
    source, target = (clean, corrupt) if direction == "denoising" else (corrupt, clean)
    at = Sound(0.3, 0.4)
    for address in (
        Address("mel", at),
        Address("encoder_block", at, (0,)),
        Address("encoder_output", at),
        Address("connector_output", at),
        Address("audio_state", at, (0,)),
        Address("audio_state", at, (2,)),
        Address("resid_post", Sound(0.3, 0.4, running), (1,)),
    ):
        expected = slope(double, source, target, address, metric, 1e-5)
        assert abs(expected) > 1e-4, address
        assert attribution_at(table, address) == pytest.approx(expected, rel=1e-5), address
    last: Any = table[table["site"] == "attn_out"]
    expected = slope(double, source, target, Address("attn_out", Text(-1), (2,)), metric, 1e-5)
    assert last["attribution"].item() == pytest.approx(expected, rel=1e-5)


def test_a_bin_of_the_mel_spectrogram_is_a_cell(double: HookedAudioModel) -> None:
    """Of one bin alone: the others' way is put to zero."""
    told = runs(double)
    table: Any = attribution_patching(
        double, **told, addresses=[Address("mel")], answers=TINY_ANSWERS
    )
    source, target = (TINY_ANSWERS.behind(told[name]) for name in ("clean", "corrupt"))
    address = Address("mel", Sound(0.4, 0.41))
    there, here = (capture(double, inputs, address) for inputs in (source, target))
    ((key, value),) = there.values.items()
    for number in (0, 5):
        way = torch.zeros_like(value)
        way[:, number] = (value - here.values[key])[:, number]
        plus, minus = (
            measured(
                double,
                target,
                "logit_diff",
                Patch(address, Along(replace(there, values={key: way}), far)),
            )
            for far in (1e-5, -1e-5)
        )
        cell = table[(table["token"] == 40) & (table["bin"] == number)]
        assert cell["attribution"].item() == pytest.approx((plus - minus) / 2e-5, rel=1e-4)
    assert len(table) == 70 * 8


@pytest.mark.slow
def test_later_windows_of_a_long_clip_are_reached(make: Any) -> None:
    model = in_double(make(Route.plits(tiny.LAYERS)))
    told = runs(model, 30.3)
    table: Any = attribution_patching(
        model, **told, addresses=[Address("mel")], answers=TINY_ANSWERS
    )
    source, target = (TINY_ANSWERS.behind(told[name]) for name in ("clean", "corrupt"))
    for where in (Sound(29.9, 30.0), Sound(30.1, 30.2)):
        address = Address("mel", where)
        expected = slope(model, source, target, address, "logit_diff", 1e-4)
        assert attribution_at(table, address) == pytest.approx(expected, rel=1e-3)


# -- integrated gradients -------------------------------------------------------------------------


def by_hand(model: HookedAudioModel, source: Any, target: Any, steps: int) -> dict[str, Any]:
    """Integrated gradients of the connector's tokens by midpoints, without any hook."""
    ids = {name: target[name] for name in ("input_ids", "attention_mask")}
    there, here = (model.encode_audio(inputs) for inputs in (source, target))
    total = {name: torch.zeros_like(value) for name, value in here.streams.items()}
    for step in range(steps):
        point = (step + 0.5) / steps
        streams = {
            name: (here.streams[name] + point * (there.streams[name] - here.streams[name]))
            .detach()
            .requires_grad_(True)
            for name in total
        }
        clips = AudioClips(streams, here.frames, here.seconds, here.order)
        logits = model.model(**ids, audio=clips).logits[0, -1]
        metric = logits[TINY_ANSWERS.clean] - logits[TINY_ANSWERS.corrupt]
        for name, gradient in zip(
            total, torch.autograd.grad(metric, list(streams.values())), strict=True
        ):
            total[name] += gradient / steps
    return {
        name: (value * (there.streams[name] - here.streams[name])).sum(-1)[0].detach().numpy()
        for name, value in total.items()
    }


@pytest.mark.slow
def test_integrated_gradients_are_those_made_without_hooks(double: HookedAudioModel) -> None:
    told = runs(double)
    source, target = (TINY_ANSWERS.behind(told[name]) for name in ("clean", "corrupt"))
    table: Any = integrated_gradients(
        double,
        **told,
        addresses=[Address("connector_output")],
        answers=TINY_ANSWERS,
        steps=20,
        batch_size=6,
    )
    for stream, expected in by_hand(double, source, target, 25).items():
        mine = table[table["stream"] == stream].sort_values("token")["attribution"]
        np.testing.assert_allclose(mine, expected, atol=2e-3 * np.abs(expected).max())
    assert completeness(table)["error"].item() < 1e-3


def test_paths_end_where_patching_does(double: HookedAudioModel) -> None:
    """One layer's path ends in its exact patch; a path of all sound ends in the other run."""
    told = runs(double)
    addresses = [
        Address("audio_state", layers=(2,)),
        Address("audio_state"),
        Address("mel"),
        Address("encoder_output"),
    ]
    table = integrated_gradients(
        double, **told, addresses=addresses, answers=TINY_ANSWERS, steps=24, batch_size=24
    )
    source, target = (TINY_ANSWERS.behind(told[name]) for name in ("clean", "corrupt"))
    start = measured(double, target, "logit_diff")
    one = measured(double, target, "logit_diff", Patch(addresses[0], Resample(source)))
    whole = measured(double, source, "logit_diff")
    assert abs(one - start) > 0.003 and abs(whole - start) > 0.01
    checked = completeness(table)
    expected = [one - start, *[whole - start] * 3]
    np.testing.assert_allclose(checked["difference"], expected, rtol=1e-9)
    tokens = checked[checked["site"] != "mel"]
    np.testing.assert_allclose(tokens["attribution"], tokens["difference"], rtol=1e-3)


def test_more_steps_complete_the_sum(double: HookedAudioModel) -> None:
    told: dict[str, Any] = {**runs(double), "addresses": [Address("mel")], "answers": TINY_ANSWERS}
    errors = [
        completeness(integrated_gradients(double, **told, steps=steps))["error"].item()
        for steps in (1, 32)
    ]
    assert errors[1] < 0.3 * errors[0]


def test_the_batch_changes_nothing(double: HookedAudioModel) -> None:
    told: dict[str, Any] = {
        **runs(double),
        "addresses": [Address("audio_state"), Address("mel")],
        "answers": TINY_ANSWERS,
        "steps": 3,
    }
    one, all_ = (integrated_gradients(double, **told, batch_size=size) for size in (1, 5))
    pd.testing.assert_frame_equal(one, all_, rtol=1e-9, atol=1e-12)


# -- how it behaves -------------------------------------------------------------------------------


def test_the_same_sound_gets_nothing(pal: HookedAudioModel) -> None:
    inputs = pal.inputs("what is it?", noise(0.5))
    told: dict[str, Any] = {"addresses": [Address(site) for site in SITES], "answers": TINY_ANSWERS}
    assert (attribution_patching(pal, inputs, inputs, **told)["attribution"] == 0).all()
    table = integrated_gradients(pal, inputs, inputs, **told, steps=2)
    assert (table["attribution"] == 0).all() and (table["difference"].abs() < 1e-5).all()


def test_the_model_is_left_as_it_was(pal: HookedAudioModel) -> None:
    told = runs(pal)
    before = measured(pal, told["clean"], "logit_diff")
    weights = list(pal.model.parameters())
    weights[0].requires_grad_(False)
    wanted = [weight.requires_grad for weight in weights]
    try:
        with torch.no_grad():
            attribution_patching(pal, **told, addresses=[Address("mel")], answers=TINY_ANSWERS)
        assert [weight.requires_grad for weight in weights] == wanted
        assert all(weight.grad is None for weight in weights)
        assert not any(point.has_hooks() for point in pal.hook_dict.values())
        assert measured(pal, told["clean"], "logit_diff") == before
    finally:
        weights[0].requires_grad_(True)


def test_interventions_in_force_are_measured() -> None:
    """Where text may not read the event, nothing is left to attribute."""
    planted = plant("lal")
    told = ends(planted)
    cut = Knockout(Address("pattern", Sound(0.5, 0.6), (planted.layer,)))
    with intervene(planted.model, told["corrupt"], [cut]):
        table = attribution_patching(
            planted.model, **told, addresses=[Address("audio_state")], answers=ANSWERS
        )
    assert not found(table, "layer", "token")


def test_mel_bins_are_where_the_filters_peak() -> None:
    extractor: Any = WhisperFeatureExtractor()
    filters = extractor.mel_filters  # [frequencies, bins]
    resolution = extractor.sampling_rate / 2 / (len(filters) - 1)
    peaks = filters.argmax(0) * resolution
    assert np.abs(mel_bin_hz(80, 16_000) - peaks).max() <= resolution


def test_wrong_questions_are_refused(pal: HookedAudioModel) -> None:
    told = runs(pal)

    def ask(*addresses: Address, answers: Answers = TINY_ANSWERS, **changes: Any) -> None:
        attribution_patching(pal, **(told | changes), addresses=addresses, answers=answers)

    with pytest.raises(PalscopeError, match="heads"):
        ask(Address("head_output", Text(-1)))
    with pytest.raises(PalscopeError, match="no address"):
        ask()
    with pytest.raises(PalscopeError, match="logprob"):
        ask(Address("mel"), answers=Answers((), 5, None))
    with pytest.raises(PalscopeError, match="length"):
        ask(Address("mel"), corrupt=pal.inputs("what is it?", noise(0.4)))
    two = {name: torch.cat([value] * 2) for name, value in told["clean"].items()}
    with pytest.raises(PalscopeError, match="one prompt"):
        ask(Address("mel"), clean=two, corrupt=two)
    with pytest.raises(PalscopeError, match="steps"):
        integrated_gradients(pal, **told, addresses=[Address("mel")], answers=TINY_ANSWERS, steps=0)
