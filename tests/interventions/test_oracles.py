"""Two other implementations of activation patching give palscope's numbers.

Both are loops of one forward pass a cell: TransformerLens's on the text's sites of the bridge, and
one written by hand for nnsight on the audio's sites of the plain Hugging Face model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from nnsight import NNsight
from torch import Tensor
from transformer_lens import patching

from palscope._hooks import HookedAudioModel
from palscope._routing import FRAMES, SUMMARY, Route
from palscope.interventions import Address, Patch, Resample, Sound, Text, capture, intervene
from palscope.interventions._cells import run_cells
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise, tone

QUESTION = "What is heard here?"
SECONDS = 0.6
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
ROUTES = {
    "plits": Route.plits(tiny.LAYERS),
    "lal": Route.lal(tiny.LAYERS),
    "pal": Route.pal(tiny.LAYERS, [0, 2]),
}
SITES = {"resid_pre": "resid_pre", "attn_out": "attn_out", "mlp_out": "mlp_out", "z": "head_output"}
"""TransformerLens's names of activations, and palscope's of the same sites."""

Metric = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def readout() -> Tensor:
    """A direction over the whole vocabulary: a metric to which every logit matters."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(vocabulary.COUNT, generator=generator) / vocabulary.COUNT**0.5


@pytest.fixture(scope="module", params=ROUTES)
def model(request: Any) -> HookedAudioModel:
    return make_hooked(vocabulary.tokenizer(), ROUTES[request.param])


@pytest.fixture(scope="module")
def runs(model: HookedAudioModel) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs of a clean and of a corrupt clip."""
    clean, corrupt = (model.inputs(QUESTION, clip) for clip in (tone(SECONDS), noise(SECONDS)))
    return clean, corrupt


def text_places(model: HookedAudioModel, inputs: Any) -> list[tuple[int, int, int]]:
    """(layer, place among the tokens that run there, column) of the text behind the clip."""
    layout = model.layout(inputs)
    behind = int((layout.stream[0] >= 0).nonzero().max())
    places: list[tuple[int, int, int]] = []
    for layer in range(tiny.LAYERS):
        running = layout.layer_columns(model.current_route, layer).running[0].tolist()
        # Each fourth: enough of them, in a test that runs twice as many forward passes.
        wanted = [column for column in running if column > behind][::-4]
        places += [(layer, running.index(column), column) for column in wanted]
    return places


@pytest.mark.parametrize("activation", SITES)
@torch.no_grad()
def test_transformerlens_patches_text_to_the_same_numbers(
    model: HookedAudioModel, runs: Any, readout: Tensor, activation: str
) -> None:
    clean, corrupt = runs
    places = text_places(model, corrupt)
    heads = range(model.cfg.n_heads) if activation == "z" else [None]
    cells = [(layer, at, column, head) for layer, at, column in places for head in heads]
    index = pd.DataFrame(
        [(layer, at) if head is None else (layer, at, head) for layer, at, _, head in cells]
    )
    setter = (
        patching.layer_pos_head_vector_patch_setter
        if activation == "z"
        else patching.layer_pos_patch_setter
    )
    _, cache = model.run_with_cache(clean)
    with model.attach_clips(corrupt):
        expected = patching.generic_activation_patch(
            model,
            corrupt["input_ids"],
            cache,
            lambda logits: logits[0, -1] @ readout,
            setter,
            activation,
            index_df=index,
        )
    taken = Resample(capture(model, clean, Address(SITES[activation])))
    patches = [
        Patch(
            Address(
                SITES[activation],
                Text(column),
                (layer,),
                None if head is None else (head,),
            ),
            taken,
        )
        for layer, _, column, head in cells
    ]
    got = run_cells(model, corrupt, [[patch] for patch in patches]) @ readout
    torch.testing.assert_close(got, expected, **CLOSE)
    with intervene(model, corrupt, patches[-1:]):
        single = model(corrupt)[0, -1] @ readout
    torch.testing.assert_close(single, expected[-1], **CLOSE)
    plain = model(corrupt)[0, -1] @ readout
    assert (expected - plain).abs().max() > 100 * CLOSE["atol"]  # both do something


def plain_twin(model: HookedAudioModel, route: Route) -> Any:
    """The same weights as a Hugging Face model of its own, without the bridge's hooks."""
    twin = tiny.model(route, vocab_size=vocabulary.COUNT)
    twin.config.audio_token_id = model.model.config.audio_token_id
    return twin


def spans(model: HookedAudioModel, inputs: Any, stream: str) -> dict[Sound, list[int]]:
    """Stretches of sound, and the numbers of the stream's tokens in them, told by the layout."""
    layout = model.layout(inputs)
    table = layout.table(0)
    tokens = table[table["stream"] == stream]
    found: dict[Sound, list[int]] = {}
    for start, end in ((0.0, 0.3), (0.3, SECONDS), (0.0, SECONDS)):
        inside = tokens[(tokens["start_s"] < end - 1e-3) & (tokens["end_s"] > start + 1e-3)]
        found[Sound(start, end, stream)] = inside["token"].tolist()
    return found


@pytest.mark.parametrize("model", ["lal", "pal"], indirect=True)
@pytest.mark.parametrize("tap", ["state", "k", "v"])
@torch.no_grad()
def test_an_nnsight_loop_patches_audio_to_the_same_numbers(
    model: HookedAudioModel, runs: Any, readout: Tensor, tap: str
) -> None:
    clean, corrupt = runs
    route = model.current_route
    twin = plain_twin(model, route)
    layers = route.layers("frames")
    view = NNsight(twin)
    site = f"audio_{tap}"
    expected: list[Tensor] = []
    cells: list[list[Patch]] = []
    for layer in layers:
        with view.trace(**clean):
            kept = getattr(view.audio_taps[layer], tap).output.save()
        for sound, tokens in spans(model, corrupt, "frames").items():
            with view.trace(**corrupt):
                values = getattr(view.audio_taps[layer], tap).output.clone()
                values[:, tokens] = kept[:, tokens]
                getattr(view.audio_taps[layer], tap).output = values
                logits = view.output.logits.save()
            expected.append(logits[0, -1] @ readout)
            cells.append([Patch(Address(site, sound, (layer,)), Resample(clean))])
    got = run_cells(model, corrupt, cells) @ readout
    torch.testing.assert_close(got, torch.stack(expected), **CLOSE)
    plain = model(corrupt)[0, -1] @ readout
    assert (got - plain).abs().max() > 100 * CLOSE["atol"]


@torch.no_grad()
def test_an_nnsight_loop_patches_the_connectors_output_to_the_same_numbers(
    model: HookedAudioModel, runs: Any, readout: Tensor
) -> None:
    clean, corrupt = runs
    view = NNsight(plain_twin(model, model.current_route))
    with view.trace(**clean):
        kept = view.connector.output.save()
    expected: list[Tensor] = []
    cells: list[list[Patch]] = []
    for stream in model.current_route.streams:
        for sound, tokens in spans(model, corrupt, stream.name).items():
            with view.trace(**corrupt):
                streams = dict(view.connector.output)
                streams[stream.name] = streams[stream.name].clone()
                streams[stream.name][:, tokens] = kept[stream.name][:, tokens]
                view.connector.output = streams
                logits = view.output.logits.save()
            expected.append(logits[0, -1] @ readout)
            cells.append([Patch(Address("connector_output", sound), Resample(clean))])
    got = run_cells(model, corrupt, cells) @ readout
    torch.testing.assert_close(got, torch.stack(expected), **CLOSE)
    plain = model(corrupt)[0, -1] @ readout
    assert (got - plain).abs().max() > 100 * CLOSE["atol"]


def runs_in(route: Route, stream: Any) -> bool:
    return route.cell(stream.name, 0).level.runs


@pytest.mark.parametrize("model", ["plits", "pal"], indirect=True)
@torch.no_grad()
def test_an_nnsight_loop_patches_carried_audio_to_the_same_numbers(
    model: HookedAudioModel, runs: Any, readout: Tensor
) -> None:
    """Audio that runs is patched in the residual stream that a layer takes in."""
    clean, corrupt = runs
    route = model.current_route
    (stream,) = (s for s in (FRAMES, SUMMARY) if s in route.streams and runs_in(route, s))
    view = NNsight(plain_twin(model, route))
    layout = model.layout(corrupt)
    expected: list[Tensor] = []
    cells: list[list[Patch]] = []
    for layer in range(tiny.LAYERS):
        running = layout.layer_columns(route, layer).running[0].tolist()
        table = layout.table(0, torch.tensor(running))
        with view.trace(**clean):
            kept = view.language_model.model.layers[layer].input.save()
        for sound, tokens in spans(model, corrupt, stream.name).items():
            places = table.index[
                (table["stream"] == stream.name) & table["token"].isin(tokens)
            ].tolist()
            with view.trace(**corrupt):
                values = view.language_model.model.layers[layer].input.clone()
                values[:, places] = kept[:, places]
                view.language_model.model.layers[layer].input = values
                logits = view.output.logits.save()
            expected.append(logits[0, -1] @ readout)
            cells.append([Patch(Address("audio_state", sound, (layer,)), Resample(clean))])
    got = run_cells(model, corrupt, cells) @ readout
    torch.testing.assert_close(got, torch.stack(expected), **CLOSE)
    plain = model(corrupt)[0, -1] @ readout
    assert (got - plain).abs().max() > 100 * CLOSE["atol"]
