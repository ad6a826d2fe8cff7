"""Any intervention, on padded rows of several clips, against the second implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope.interventions import (
    Add,
    Address,
    Knockout,
    Patch,
    Reroute,
    Resample,
    Scale,
    Sound,
    Text,
    Zero,
    capture,
    intervene,
)
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise
from tests.reference.compare import CLOSE, compare, rows
from tests.reference.edits import Change, Cut, Edit, Token, sound, text
from tests.reference.model import Reference

ROUTES = {
    "plits": Route.plits(tiny.LAYERS),
    "lal": Route.lal(tiny.LAYERS),
    "pal": Route.pal(tiny.LAYERS, [0, 2]),
}
SECONDS = ((0.75, 0.42), (0.5, 0.61, 0.33))
"""Of the clips of each row; spans are drawn in the second of each."""
COUNTS = [len(row) for row in SECONDS]
SHORTEST = 0.42
HEARD = ["mel", "encoder_block", "encoder_output", "connector_output"]
MEMORY = ["audio_state", "audio_k", "audio_v"]
RUNNING = ["resid_pre", "resid_post", "attn_out", "mlp_in", "mlp_out", "head_output"]
WITH_HEADS = ("audio_k", "audio_v", "head_output")
CHANGES = ["zero", "scale", "add", "resample"]
WORDS = 256
"""Of the 49,152, those whose logits are compared."""
SINGLE = {"atol": 1e-5, "rtol": 1e-5}
"""TransformerLens's softmax is in single precision: eight roundings (6e-8) of values up to 6."""


@dataclass
class Setting:
    """A hooked model, its reference, and two prompts that differ in their sounds alone."""

    hooked: HookedAudioModel
    reference: Reference
    inputs: dict[str, Tensor]
    other: dict[str, Tensor]
    plain: Tensor
    traces: list[Any]
    """Of each row of `other`, what the reference saw."""


@pytest.fixture(scope="module", params=ROUTES)
def setting(request: Any) -> Setting:
    route = ROUTES[request.param]
    twin = tiny.model(route, vocab_size=vocabulary.COUNT)
    hooked = make_hooked(vocabulary.tokenizer(), route)
    hooked.model.double()
    weights = twin.state_dict()
    weights["language_model.lm_head.weight"] = weights["language_model.lm_head.weight"][:WORDS]
    reference = Reference(weights, hooked.model.config.to_dict())
    inputs, other = (prompt(hooked, seed) for seed in (0, 10))
    with torch.no_grad():
        plain = hooked(inputs)[..., :WORDS]
    traces = [reference(ids, mels, route.to_dict())[1] for _, ids, mels in rows(other, COUNTS)]
    return Setting(hooked, reference, inputs, other, plain, traces)


def prompt(model: HookedAudioModel, seed: int) -> dict[str, Tensor]:
    processor = model.processor
    texts = [
        processor.chat("what?", clips=2),
        processor.chat("which of the three came first?", clips=3),
    ]
    clips = [noise(s, seed + i) for i, s in enumerate(s for row in SECONDS for s in row)]
    return dict(processor(texts, clips, sampling_rate=16_000))


def check(setting: Setting, interventions: list[Any], **rules: Any) -> None:
    """The interventions give what the reference gives under the rules, and not the plain logits."""
    model = setting.hooked
    with torch.no_grad(), intervene(model, setting.inputs, interventions):
        logits = model(setting.inputs)[..., :WORDS]
    route = next((i.route for i in interventions[::-1] if isinstance(i, Reroute)), None)
    compare(
        setting.reference, logits, setting.inputs, COUNTS, route or model.current_route, **rules
    )
    assert (logits - setting.plain)[:, -1].abs().amax(1).min() > 100 * CLOSE["atol"]


def change_of(setting: Setting, name: str, site: str, heads: Any) -> tuple[Any, list[Change]]:
    """palscope's change, and the reference's for each row."""
    if name == "resample":

        def taken(trace: Any) -> Change:
            def of(old: Tensor, tokens: Any, layer: int) -> Tensor:
                values = trace.of(site, layer, tokens)
                return values if heads is None else values[:, heads]

            return of

        return Resample(setting.other), [taken(trace) for trace in setting.traces]
    rules: dict[str, tuple[Any, Change]] = {
        "zero": (Zero(), lambda old, *_: torch.zeros_like(old)),
        "scale": (Scale(-0.5), lambda old, *_: -0.5 * old),
    }
    if name == "add":
        seen = setting.traces[0].seen
        layer = min(layer for place, layer in seen if place == site)
        width = next(iter(seen[site, layer].values())).shape[-1]
        direction = torch.linspace(-1, 1, width, dtype=torch.float64)
        rules["add"] = (Add(direction, 0.7), lambda old, *_: old + 0.7 * direction)
    return rules[name][0], [rules[name][1]] * len(COUNTS)


@settings(max_examples=10, derandomize=True)
@given(data=st.data())
def test_any_patch_of_sound(setting: Setting, data: st.DataObject) -> None:
    route = setting.hooked.current_route
    runs = any(route.cell(s.name, 0).level.runs for s in route.streams)
    site: Any = data.draw(st.sampled_from([*HEARD, *MEMORY, *(RUNNING if runs else [])]))
    start = data.draw(st.integers(0, int(SHORTEST * 1000) - 30)) / 1000 + 0.0003
    end = data.draw(st.floats(start + 0.001, SHORTEST))
    name = data.draw(st.sampled_from([c for c in CHANGES if c != "add" or "output" not in site]))
    layers = None
    if site not in ("mel", "encoder_output", "connector_output"):
        layers = data.draw(st.sampled_from([None, (0,)]))
    heads = None
    if site in WITH_HEADS:
        heads = data.draw(st.sampled_from([None, (2, 3)]))
    places = heads if site == "head_output" or heads is None else (1,)  # of grouped keys
    change, rules = change_of(setting, name, site, places)
    patch = Patch(Address(site, Sound(start, end, clip=1), layers, heads), change)
    check_rows(setting, patch, site, sound(start, end, 1), rules, layers, places)


@pytest.mark.parametrize("clip", [0, 1])
@pytest.mark.parametrize("site", HEARD)
def test_each_clip_before_the_decoder(setting: Setting, site: Any, clip: int) -> None:
    zero: Change = lambda old, *_: torch.zeros_like(old)  # noqa: E731
    layers = (0,) if site == "encoder_block" else None
    patch = Patch(Address(site, Sound(0.1, 0.3, clip=clip), layers), Zero())
    check_rows(setting, patch, site, sound(0.1, 0.3, clip), [zero] * len(COUNTS), layers)


def check_rows(
    setting: Setting,
    patch: Patch,
    site: str,
    which: Any,
    rules: list[Change],
    *where: Any,
    close: dict[str, float] = CLOSE,
) -> None:
    """As `check`, where the reference's change differs from row to row."""
    model, route = setting.hooked, setting.hooked.current_route
    with torch.no_grad(), intervene(model, setting.inputs, [patch]):
        logits = model(setting.inputs)[..., :WORDS]
    for row, (real, ids, mels) in enumerate(rows(setting.inputs, COUNTS)):
        edit = Edit(site, which, rules[row], *where)
        wanted, _ = setting.reference(ids, mels, route.to_dict(), edits=[edit])
        got = logits[row][real][list(wanted)]
        torch.testing.assert_close(got, torch.stack(list(wanted.values())), **close)
        assert (got - setting.plain[row][real][list(wanted)]).abs().max() > 10 * close["atol"]


@pytest.mark.parametrize(
    ("site", "change"),
    list(zip(RUNNING, ["resample", "add", "zero", "scale", "zero", "resample"], strict=True)),
)
def test_patches_of_all_text(setting: Setting, site: str, change: str) -> None:
    heads = (1, 2) if site == "head_output" else None
    made, rules = change_of(setting, change, site, heads)
    patch = Patch(Address(site, Text(), (1, 3), heads), made)
    check_rows(setting, patch, site, text, rules, (1, 3), heads)


@settings(max_examples=6, derandomize=True)
@given(
    start=st.floats(0, SHORTEST - 0.02),
    length=st.floats(0.001, SHORTEST),
    layers=st.sampled_from([None, (0,), (0, 2)]),
    heads=st.sampled_from([None, (0, 3)]),
    clip=st.sampled_from([0, 1]),
)
def test_knockouts_of_seconds(
    setting: Setting, start: float, length: float, layers: Any, heads: Any, clip: int
) -> None:
    end = min(start + length, SHORTEST)
    address = Address("pattern", Sound(start, end, clip=clip), layers, heads)
    cut = Cut(text, sound(start, end, clip), layers, heads)
    check(setting, [Knockout(address)], cuts=[cut])


def test_a_knockout_between_sounds(setting: Setting) -> None:
    route = setting.hooked.current_route
    if not any(route.cell(s.name, 0).level.runs for s in route.streams):
        pytest.skip("no sound reads")
    address = Address("pattern", Sound(0.1, 0.3), (0,), None, Sound(clip=1))
    cut = Cut(lambda t: t.clip == 1, sound(0.1, 0.3), (0,))
    check(setting, [Knockout(address)], cuts=[cut])


def test_two_interventions_act_in_their_order(setting: Setting) -> None:
    where = Address("audio_v", Sound(0.1, 0.3, clip=1), (0,))
    direction = torch.linspace(-1, 1, 8, dtype=torch.float64)
    add: Change = lambda old, *_: old + direction  # noqa: E731
    double: Change = lambda old, *_: 2 * old  # noqa: E731
    which = sound(0.1, 0.3, 1)
    forth = [Edit("audio_v", which, change, (0,)) for change in (add, double)]
    patches = [Patch(where, Add(direction)), Patch(where, Scale(2))]
    check(setting, patches, edits=forth)
    check(setting, patches[::-1], edits=forth[::-1])


def test_patterns_are_changed_for_the_queries_and_keys_that_are_named(setting: Setting) -> None:
    which = sound(0.1, 0.3, 1)
    columns = [[t.column for t in tokens(setting, row) if which(t)] for row in range(len(COUNTS))]
    address = Address("pattern", Sound(0.1, 0.3, clip=1), (2,), (1, 3))
    rules: list[Change] = []
    for row in range(len(COUNTS)):
        keys = [i for i, t in enumerate(keys_of(setting, row, 2)) if t.column in columns[row]]
        rules.append(lambda old, *_, keys=keys: old.index_fill(2, torch.tensor(keys), 0.0))
    check_rows(setting, Patch(address, Zero()), "pattern", text, rules, (2,), (1, 3), close=SINGLE)


def tokens(setting: Setting, row: int) -> list[Token]:
    _, ids, mels = list(rows(setting.inputs, COUNTS))[row]
    frames = [-(-mel.shape[1] // 10) for mel in mels]
    return setting.reference.layout(ids, frames, [mel.shape[1] / 100 for mel in mels])


def keys_of(setting: Setting, row: int, layer: int) -> list[Token]:
    """In the reference's order: what is read alone, then what runs."""
    route = setting.hooked.current_route

    def level(token: Token) -> str:
        return "full" if token.clip < 0 else route.cell(token.stream, layer).level.value

    every = tokens(setting, row)
    return [t for t in every if level(t) == "keys"] + [t for t in every if level(t) == "full"]


OTHERS: dict[str, Callable[[Route], Route]] = {
    "muted": lambda route: route.mute(route.streams[-1].name, [1, 2]),
    "fewer layers": lambda route: route.keep("frames", [0, 1]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_reroutes_alone_and_beside_a_patch(setting: Setting, name: str) -> None:
    route = OTHERS[name](setting.hooked.current_route)
    check(setting, [Reroute(route)])
    where = Address("audio_k", Sound(0.1, 0.3, clip=1), (0,))
    zero: Change = lambda old, *_: torch.zeros_like(old)  # noqa: E731
    edit = Edit("audio_k", sound(0.1, 0.3, 1), zero, (0,))
    check(setting, [Patch(where, Zero()), Reroute(route)], edits=[edit])


def test_of_two_reroutes_the_last_one_holds(setting: Setting) -> None:
    before = setting.hooked.current_route
    first, second = (make(before) for make in OTHERS.values())
    for route, pair in ((second, [first, second]), (first, [second, first])):
        check(setting, [Reroute(each) for each in pair])
        with setting.hooked.route(route), torch.no_grad():
            alone = setting.hooked(setting.inputs)
        with torch.no_grad(), intervene(setting.hooked, setting.inputs, map(Reroute, pair)):
            assert torch.equal(setting.hooked(setting.inputs), alone)
        assert setting.hooked.current_route == before


@torch.no_grad()
def test_what_is_captured_is_what_the_reference_saw(setting: Setting) -> None:
    route = setting.hooked.current_route
    levels = {stream.name: route.cell(stream.name, 0).level for stream in route.streams}
    runs = any(level.runs for level in levels.values())
    # A stream may enter several projectors, at a hook point each, so connector_output is left out.
    for site in [*HEARD[:-1], *MEMORY, *(RUNNING if runs else [])]:
        layers = None if site in ("mel", "encoder_output") else (0,)
        taken = capture(setting.hooked, setting.other, Address(site, Sound(clip=1), layers))
        found = 0
        for (hook, row), values in taken.values.items():
            row = [1, 1 + COUNTS[0]].index(row) if site in HEARD else row
            seen = setting.traces[row].seen[site, -1 if layers is None else 0]
            mine = {name: value for name, value in seen.items() if name[1:2] == (1,)}
            if site in MEMORY:
                read = "hook_audio" in hook
                mine = {k: v for k, v in mine.items() if levels[k[0]].runs != read}
            elif site in RUNNING:
                mine = {k: v for k, v in mine.items() if len(k) == 3}
            torch.testing.assert_close(values.double(), torch.stack(list(mine.values())), **CLOSE)
            found += 1
        kinds = len({level.runs for level in levels.values()}) if site in MEMORY else 1
        assert found == kinds * len(COUNTS)
