"""Effects of heads: planted heads are found, changes of outputs are those of cuts, windows too."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope._routing import Route
from palscope._routing.layout import TEXT
from palscope.errors import HookError, PalscopeError
from palscope.interventions import (
    Address,
    Knockout,
    Sound,
    Text,
    capture,
    intervene,
)
from palscope.measures import _head_effects as effects
from palscope.measures import head_effects, shortest_window
from palscope.measures._metrics import Answers
from tests import tiny
from tests.hooks.conftest import noise
from tests.planted import HEADS, LAYERS, Pathway, plant

AT = 5
EVENT = Sound(0.5, 0.6)
ANSWERS = Answers((), 11, 12)


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits"])
def test_the_planted_head_comes_first_and_no_other_has_an_effect(pathway: Pathway) -> None:
    planted = plant(pathway, layer=2, head=3)
    inputs = planted.inputs("A", AT)
    whole = planted.difference(planted.model(inputs).detach())
    table = head_effects(
        planted.model, inputs, answers=Answers((), *planted.answers), sounds=[EVENT]
    )
    assert len(table) == LAYERS * HEADS
    first = table.iloc[0]
    assert (first["layer"], first["head"]) == (2, 3)
    assert first["effect"] == -whole < -5
    # The planted norm is nearly linear: to first order the estimate is the whole effect.
    assert first["estimate"] == pytest.approx(-whole, rel=0.2)
    assert not table["estimate"].iloc[1:].any() and not table["effect"].iloc[1:].any()


def test_a_head_that_attends_and_writes_nothing_has_mass_and_no_effect() -> None:
    planted = plant("decoy", layer=1, head=2)
    answers = Answers((), *planted.answers)
    table: Any = head_effects(planted.model, planted.inputs("A", AT), answers=answers)
    by_head = table.set_index(["layer", "head"])
    assert planted.other is not None
    decoy, real = by_head.loc[planted.other], by_head.loc[(1, 2)]
    assert decoy["mass"] > real["mass"] > 0
    assert decoy["effect"] == decoy["estimate"] == 0 and real["effect"] < -1


def cut_outputs(model: Any, inputs: Any, layer: int, head: int, sound: Sound) -> Any:
    """What the head gives at each text token, and what it gives when it is cut off from `sound`."""
    address = Address("head_output", Text(), layers=(layer,))
    plain = capture(model, inputs, address)
    with intervene(model, inputs, [Knockout(Address("pattern", sound, (layer,), (head,)))]):
        cut = capture(model, inputs, address)
    ((_, a),) = plain.values.items()
    ((_, b),) = cut.values.items()
    return a[:, head], b[:, head]


@pytest.mark.parametrize("sound", [Sound(), Sound(0.2, 0.6), Sound(0.0, 0.3, "summary")])
def test_changes_of_outputs_are_those_that_a_cut_makes(
    pal: Any, sound: Sound, monkeypatch: Any
) -> None:
    inputs = pal.inputs("Which sound is this?", noise(1.3))
    changes: list[Any] = []
    own = effects.output_change

    def noted(*args: Any, **kwargs: Any) -> Any:
        changes.append(own(*args, **kwargs))
        return changes[-1]

    monkeypatch.setattr(effects, "output_change", noted)
    table: Any = head_effects(pal, inputs, answers=ANSWERS, sounds=[sound], checked=0)
    seen = sorted(set(table.dropna(subset=["mass"])["layer"]))
    assert len(changes) == len(seen)
    for layer, change in zip(seen, changes, strict=True):
        for head in (0, 3):
            plain, cut = cut_outputs(pal, inputs, layer, head, sound)
            torch.testing.assert_close(change[head], cut - plain, atol=2e-6, rtol=1e-4)
            assert (cut != plain).any()


def test_estimates_are_the_slope_of_the_answer_along_the_change(pal: Any) -> None:
    inputs = pal.inputs("Which sound is this?", noise(1.3))
    table: Any = head_effects(pal, inputs, answers=ANSWERS, checked=4)
    assert table["effect"].notna().sum() == 4
    step = 0.02

    for row in table.head(3).itertuples():
        layer, head = int(row.layer), int(row.head)
        plain, cut = cut_outputs(pal, inputs, layer, head, Sound())
        ends: list[float] = []
        for sign in (-1, 1):
            moved = partial(add_to_text, pal, inputs, layer, head, sign * step * (cut - plain))
            logits = pal.run_with_hooks(inputs, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", moved)])
            last = logits[0, -1].detach().double()
            ends.append(float(last[ANSWERS.clean] - last[ANSWERS.corrupt]))
        assert row.estimate == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=0.02, abs=1e-4)


def add_to_text(
    model: Any, inputs: Any, layer: int, head: int, change: Any, z: Any, hook: Any
) -> Any:
    """What one head gives at text tokens, changed by a plain hook of TransformerLens's own."""
    layout = model.layout(inputs)
    running = layout.layer_columns(model.current_route, layer).running[0]
    text = (layout.stream[0][running] == TEXT).nonzero()[:, 0]
    z = z.clone()
    z[0, text, head] += change
    return z


def test_checked_heads_have_the_effect_of_cutting_them_plainly(pal: Any) -> None:
    inputs = pal.inputs("Which sound is this?", noise(1.3))
    sounds = [Sound(0.2, 0.5, "frames"), Sound(0.7, 0.9, "summary")]
    table: Any = head_effects(pal, inputs, answers=ANSWERS, sounds=sounds, checked=5)

    def difference() -> float:
        last = pal(inputs)[0, -1].detach().double()
        return float(last[ANSWERS.clean] - last[ANSWERS.corrupt])

    plain = difference()
    assert table["effect"].notna().sum() == 5 and (table["effect"].head(5) != 0).all()
    for row in table.head(5).itertuples():
        layer, head = int(row.layer), int(row.head)
        seen = sounds if layer in (0, 2) else sounds[1:]  # frames are keys in layers 0 and 2 alone
        cuts = [Knockout(Address("pattern", each, (layer,), (head,))) for each in seen]
        with intervene(pal, inputs, cuts):
            assert row.effect == pytest.approx(difference() - plain, abs=1e-5)
    ordered = table["effect"].head(5).abs().to_numpy()
    assert (np.diff(ordered) <= 0).all()


def test_layers_that_do_not_see_the_sound_are_missing_and_last(make: Any) -> None:
    model = make(Route.lal(tiny.LAYERS, [1]))
    inputs = model.inputs("what?", noise(0.7))
    table: Any = head_effects(model, inputs, answers=Answers((), 11, None), checked=99)
    heads = model.cfg.n_heads
    assert set(table["layer"].head(heads)) == {1} and table["effect"].notna().sum() == heads
    assert table[["mass", "estimate", "effect"]].iloc[heads:].isna().all(axis=None)
    # Attention to sound, measured on its own.
    pattern = capture(model, inputs, Address("pattern", Sound(), (1,)))
    ((_, weights),) = pattern.values.items()
    given = table.head(heads).set_index("head")["mass"].sort_index().to_numpy()
    np.testing.assert_allclose(given, weights.sum(-1).mean(-1).numpy(), rtol=1e-4)


def test_the_shortest_window_is_the_planted_layer_or_layers() -> None:
    one = plant("lal", layer=2)
    answers = Answers((), *one.answers)
    inputs = one.inputs("A", AT)
    found = shortest_window(one.model, inputs, answers=answers, sounds=[EVENT])
    assert found[["first_layer", "last_layer"]].to_numpy().tolist() == [[2, 2]]
    assert found["share"].tolist() == [1.0] and found["effect"].iloc[0] < -5
    elsewhere = shortest_window(one.model, inputs, answers=answers, sounds=[Sound(0.0, 0.2)])
    assert not len(elsewhere) and list(elsewhere) == list(found)


@pytest.mark.parametrize("wanted", [2, 3])
def test_no_window_one_layer_shorter_does_as_much(pal: Any, wanted: int, monkeypatch: Any) -> None:
    inputs = pal.inputs("what?", noise(0.7))
    asked: list[int] = []

    def planted(model: Any, given: Any, edges: Any, windows: Any, *, answers: Any) -> Any:
        asked.append(len(windows[0]))
        # Layers 1 to `wanted` all need to be cut.
        hit = [all(layer in window for layer in range(1, 1 + wanted)) for window in windows]
        cut = pd.DataFrame(
            {
                "run": "cut",
                "first_layer": [window[0] for window in windows],
                "last_layer": [window[-1] for window in windows],
                "logit_diff_change": [-3.0 if each else 0.0 for each in hit],
            }
        )
        return pd.concat([pd.DataFrame({"run": ["plain"]}), cut], ignore_index=True)

    monkeypatch.setattr(effects, "attention_knockout", planted)
    found = shortest_window(pal, inputs, answers=ANSWERS)
    assert found[["first_layer", "last_layer"]].to_numpy().tolist() == [[1, wanted]]
    assert wanted - 1 in asked


def test_what_cannot_be_asked_is_refused(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.7))
    two = pal.processor([pal.processor.chat("what?")] * 2, [noise(0.7)] * 2, sampling_rate=16_000)
    with pytest.raises(PalscopeError, match="one prompt"):
        head_effects(pal, dict(two), answers=ANSWERS)
    with pytest.raises(PalscopeError, match="lies outside of clip 0"):
        head_effects(pal, inputs, answers=ANSWERS, sounds=[Sound(3.0, 4.0)])
    with pytest.raises(PalscopeError, match="a share of 0"):
        shortest_window(pal, inputs, answers=ANSWERS, share=0)
    listening = pal.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda pattern, hook: None)])
    with listening, pytest.raises(HookError, match="did not run through its attention function"):
        head_effects(pal, inputs, answers=ANSWERS)
    silent = pal.current_route.mute("frames").mute("summary")
    with pal.route(silent), pytest.raises(PalscopeError, match="in no layer"):
        head_effects(pal, inputs, answers=ANSWERS)
