"""An intervention acts on the inputs that it was made for, however given, and on no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope._routing import FULL
from palscope.errors import HookError, PalscopeError
from palscope.interventions import (
    Add,
    Address,
    Knockout,
    Patch,
    Resample,
    Sound,
    Text,
    Zero,
    capture,
    intervene,
)
from palscope.interventions._cells import copies_of, with_encoded
from tests import tiny
from tests.hooks.conftest import make_hooked, noise
from tests.interventions.conftest import QUESTION, prompt, two_rows

EACH = [
    Patch(Address("resid_pre", Text("digit"), layers=(1,)), Add(torch.linspace(-2, 2, 32))),
    Patch(Address("audio_state", Sound(0.2, 0.5), layers=(0,)), Zero()),
    Patch(Address("connector_output", Sound(0.2, 0.5)), Zero()),
    Patch(Address("encoder_output", Sound(0.2, 0.5)), Zero()),
    Patch(Address("mel", Sound(0.2, 0.5)), Zero()),
    Knockout(Address("pattern", Sound(0.2, 0.5))),
]


def site(intervention: Any) -> str:
    return f"{type(intervention).__name__} {intervention.address.site}"


def logits(model: Any, made_for: Any, called: Any, intervention: Any) -> torch.Tensor:
    with torch.no_grad(), intervene(model, made_for, [intervention]):
        return model(dict(called))[:, -1]


@pytest.mark.parametrize("intervention", EACH, ids=site)
def test_other_inputs_are_refused(pal: Any, intervention: Any) -> None:
    inputs = prompt(pal)
    text = {**inputs, "input_ids": inputs["input_ids"].clone()}
    text["input_ids"][0, -3] += 1  # the same columns, another word
    padded = {
        name: torch.cat([torch.zeros_like(inputs[name][:, :1]), inputs[name]], 1)
        for name in ("input_ids", "attention_mask")
    }
    others = {
        "the text is another": text,
        "clips are longer": prompt(pal, seconds=2.0),
        "last token is shorter": prompt(pal, seconds=0.97),
        "padding": {**inputs, **padded},
        "two rows": two_rows(pal),
        "two clips": pal.inputs(QUESTION, noise(0.5), noise(0.5)),
        "other question": pal.inputs("what is it?", noise(1.0)),
    }
    for name, other in others.items():
        with pytest.raises(HookError, match=r"made for|other inputs"):
            logits(pal, inputs, other, intervention)
            pytest.fail(name)
    for name in ("what is it?", f"{QUESTION} say!"):
        with pytest.raises(HookError, match="other inputs"), intervene(pal, inputs, [intervention]):
            pal.ask(name, noise(1.0))


@pytest.mark.parametrize("intervention", EACH, ids=site)
def test_the_same_inputs_given_otherwise_are_the_same(pal: Any, intervention: Any) -> None:
    inputs = prompt(pal)
    wanted = logits(pal, inputs, inputs, intervention)
    assert not torch.equal(wanted, pal(dict(inputs))[:, -1])
    again = prompt(pal) | {
        "input_ids": inputs["input_ids"].to(torch.int32),
        "attention_mask": inputs["attention_mask"].bool(),
    }
    assert torch.equal(logits(pal, inputs, again, intervention), wanted)
    without = {name: value for name, value in inputs.items() if name != "attention_mask"}
    assert torch.equal(logits(pal, inputs, without, intervention), wanted)
    if intervention.address.site not in ("connector_output", "encoder_output", "mel"):
        encoded = with_encoded(pal, inputs)
        assert torch.allclose(logits(pal, inputs, encoded, intervention), wanted, atol=1e-5)
    with torch.no_grad(), intervene(pal, inputs, [intervention]):
        said = pal.ask(QUESTION, noise(1.0), max_new_tokens=3)
        ids = pal.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :]
    assert said == pal.tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("intervention", EACH, ids=site)
def test_in_another_clip_of_that_length_it_acts_as_if_made_for_it(
    pal: Any, intervention: Any
) -> None:
    inputs, other = prompt(pal), prompt(pal, seed=1)
    wanted = logits(pal, other, other, intervention)
    assert not torch.equal(wanted, pal(dict(other))[:, -1])
    assert torch.equal(logits(pal, inputs, other, intervention), wanted)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.sampled_from(["is it a dog?", "is it a cat?"]), st.sampled_from([0.3, 0.31, 0.4])),
    st.tuples(st.sampled_from(["is it a dog?", "is it a cat?"]), st.sampled_from([0.3, 0.31, 0.4])),
    st.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1)]),
    st.sampled_from(EACH[1:]),
)
def test_a_call_is_taken_only_where_addresses_mean_the_same(
    pal: Any, made: Any, called: Any, rows: tuple[int, int], intervention: Any
) -> None:
    first, second = (
        copies_of(pal.inputs(question, noise(seconds)), count)
        for (question, seconds), count in zip((made, called), rows, strict=True)
    )
    intervention = type(intervention)(
        Address(intervention.address.site, Sound(0.1, 0.25)),
        *([Zero()] if isinstance(intervention, Patch) else []),
    )
    if made == called and rows[0] == rows[1]:
        assert torch.equal(
            logits(pal, first, second, intervention), logits(pal, second, second, intervention)
        )
    else:
        with pytest.raises(HookError):
            logits(pal, first, second, intervention)


def test_what_acts_on_a_part_of_its_tokens_is_told(pal: Any) -> None:
    """Of the prompt's beginning alone, and of one that a cache holds in part."""
    inputs = prompt(pal)
    width = inputs["input_ids"].shape[1]
    patch = Patch(Address("resid_pre", Text((1, width - 1)), layers=(1,)), Zero())
    begun = inputs | {name: inputs[name][:, :-2] for name in ("input_ids", "attention_mask")}
    with pytest.raises(HookError, match="did not find all"), intervene(pal, inputs, [patch]):
        cache = pal.model(**begun, use_cache=True).past_key_values
    with torch.no_grad(), intervene(pal, inputs, [patch]):
        cache = pal.model(**begun, use_cache=True).past_key_values
        rest = {"input_ids": inputs["input_ids"][:, -2:], "past_key_values": cache}
        got = pal.model(**rest).logits[:, -1]
    assert torch.allclose(got, logits(pal, inputs, inputs, patch), atol=1e-4)
    with torch.no_grad():
        rest["past_key_values"] = pal.model(**begun, use_cache=True).past_key_values
    with pytest.raises(HookError, match="did not find all"), intervene(pal, rest, [patch]):
        pal.model(**rest)
    with pytest.raises(PalscopeError, match="their cache"):
        capture(pal, rest, patch.address)


def test_the_route_may_not_change_within_the_block(pal: Any) -> None:
    inputs = prompt(pal)
    patch = Patch(Address("audio_state", Sound(0.2, 0.5)), Zero())
    late = pal.current_route.mute("frames", [0])
    with (
        pytest.raises(HookError, match="another route"),
        intervene(pal, inputs, [patch]),
        pal.route(late),
    ):
        pal(dict(inputs))
    with torch.no_grad(), intervene(pal, inputs, []):  # nothing was resolved in these inputs
        pal(dict(two_rows(pal)))


def test_a_prompt_in_a_cache_is_counted_from_its_beginning(pal: Any) -> None:
    """What continues a cached prompt has columns behind it, and they are those of the whole."""
    inputs = prompt(pal)
    whole = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    steer = Patch(Address("resid_pre", Text(-1), layers=(1,)), Add(torch.linspace(-2, 2, 32)))
    cut = Knockout(Address("pattern", Sound(0.2, 0.5), layers=(0, 1), queries=Text(-1)))
    with torch.no_grad():
        for intervention in (steer, cut):
            wanted = logits(pal, inputs, inputs, intervention)
            begun = {name: inputs[name][:, :-2] for name in whole}
            given_clips = {n: inputs[n] for n in ("input_features", "feature_lengths")}
            cache = pal.model(**begun, **given_clips, use_cache=True).past_key_values
            rest = {"input_ids": inputs["input_ids"][:, -2:], "past_key_values": cache}
            with intervene(pal, rest, [intervention]):
                got = pal.model(**rest).logits[:, -1]
            assert torch.allclose(got, wanted, atol=1e-4)


def test_a_source_of_several_rows_gives_each_row_its_own(pal: Any) -> None:
    """Of two clips in the first row and one in the second, each row's first clip is patched."""
    processor = pal.processor
    texts = [processor.chat("what?", clips=2), processor.chat("what is it?")]

    def batch(seed: int) -> dict[str, Any]:
        clips = [noise(0.3, seed), noise(0.3, seed + 1), noise(0.3, seed + 2)]
        return dict(processor(texts, clips, sampling_rate=16_000))

    target, source = batch(0), batch(10)
    swapped = {**target, "input_features": target["input_features"].clone()}
    for clip in (0, 2):
        swapped["input_features"][clip] = source["input_features"][clip]
    with torch.no_grad():
        wanted = pal(dict(swapped))[:, -1]
    for place in ("mel", "encoder_output", "connector_output"):
        got = logits(pal, target, target, Patch(Address(place), Resample(source)))
        assert torch.allclose(got, wanted, atol=1e-5), place
    three = copies_of(prompt(pal), 3)
    with pytest.raises(PalscopeError, match="as many as the target's, or one"):
        logits(pal, three, three, Patch(Address("audio_v"), Resample(copies_of(prompt(pal), 2))))


def test_patterns_of_two_addresses_are_each_their_own(pal: Any) -> None:
    inputs = prompt(pal)
    layer, keys = (0,), Sound(0.2, 0.5, "frames")
    two = [
        Address("pattern", keys, layer, queries=Text("digit")),
        Address("pattern", Sound(0.4, 0.9, "frames"), layer, (1,), queries=Text(-1)),
    ]
    both = capture(pal, inputs, *two)
    with torch.no_grad():
        _, cache = pal.run_with_cache(dict(inputs), names_filter="blocks.0.attn.hook_pattern")
    pattern = cache["blocks.0.attn.hook_pattern"][0]
    columns = pal.layout(inputs).layer_columns(pal.current_route, 0)
    for address in two:
        (part,) = both.at(pal, address).parts.values()
        (value,) = both.at(pal, address).values.values()
        assert part.queries is not None
        at = [columns.keys[0].tolist().index(int(c)) for c in part.columns]
        reads = [columns.running[0].tolist().index(int(c)) for c in part.queries]
        heads = list(address.heads or range(4))
        assert torch.equal(value, pattern[heads][:, reads][..., at])
        alone = capture(pal, inputs, address).at(pal, address)
        assert all(
            torch.equal(alone.values[key], each)
            for key, each in both.at(pal, address).values.items()
        )
    with pytest.raises(PalscopeError, match="not captured"):
        both.at(pal, Address("pattern", keys, layer, queries=Text("first")))


def test_two_streams_that_run_together_leak_each_by_itself(tokenizer: Any) -> None:
    from palscope.audio import Waveform
    from palscope.measures._leakage import leakage

    model = make_hooked(tokenizer, tiny.both_streams(FULL, FULL))
    sound = Waveform(np.asarray(noise(1.0)), 16_000, "noise")
    table = leakage(model, sound, 0.3, 0.5)
    counts: Any = table.groupby(["site", "layer", "stream"]).size()
    for layer in range(tiny.LAYERS):
        assert counts["resid_post", layer, "frames"] == 10
        assert counts["resid_post", layer, "summary"] == 4
    inputs = model.inputs("What is heard?", sound)
    with torch.no_grad():
        assert torch.isfinite(model(dict(inputs))).all()
