"""Addresses name exact tokens, say what they cover, and refuse what is not there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope._routing import ATTEND, FRAMES, Route
from palscope.errors import PalscopeError, PromptError
from palscope.interventions import Address, Sound, Text, capture, resolve
from tests import tiny
from tests.interventions.conftest import prompt, two_rows


def covered(model: Any, inputs: Any, address: Address) -> list[tuple[Any, ...]]:
    table = resolve(model, inputs, address).covered
    return list(table.itertuples(index=False, name=None))


def test_seconds_take_every_token_they_overlap_and_say_so(pal: Any) -> None:
    inputs = prompt(pal)
    found = resolve(pal, inputs, Address("audio_state", Sound(0.12, 0.38), layers=(0,)))
    assert list(found.covered.itertuples(index=False, name=None)) == [
        (0, "frames", 3, 1, 3, 0.1, 0.4),
        (0, "summary", 2, 0, 1, 0.0, 0.6),
    ]
    assert "asked 0.12 s to 0.38 s of clip 0" in str(found)
    assert "frames 1 to 3 = 0.10 to 0.40 s" in str(found)
    # Frames are keys at layer 0, the summary runs there: two hook points, the same moments.
    hooks = {part.hook: part.columns.tolist() for part in found.parts}
    layout = pal.layout(inputs).table(0)
    for hook, stream, tokens in (
        ("blocks.0.attn.hook_audio_state", "frames", [1, 2, 3]),
        ("blocks.0.hook_resid_pre", "summary", [0, 1]),
    ):
        mine = layout[(layout["stream"] == stream) & layout["token"].isin(tokens)]
        assert hooks[hook] == mine["column"].tolist()


def test_edges_that_only_touch_do_not_count(pal: Any) -> None:
    rows = covered(pal, prompt(pal), Address("audio_state", Sound(0.3, 0.6, "frames")))
    assert rows == [(0, "frames", 3, 3, 5, 0.3, 0.6)]


def test_layers_are_those_in_which_the_tokens_stand(pal: Any) -> None:
    inputs = prompt(pal)

    def layers(address: Address) -> set[Any]:
        return {part.layer for part in resolve(pal, inputs, address).parts}

    assert layers(Address("audio_k", Sound(stream="frames"))) == {0, 2}
    assert layers(Address("audio_k", Sound(stream="summary"))) == {0, 1, 2, 3}
    with pal.route(Route.pal(tiny.LAYERS, [2])):
        assert layers(Address("audio_k", Sound(stream="frames"))) == {2}
    with pytest.raises(PalscopeError, match=r"layer 1 under this route .*frames absent"):
        layers(Address("audio_state", Sound(stream="frames"), layers=(1,)))
    with pytest.raises(PalscopeError, match="in no layer"):
        layers(Address("resid_pre", Sound(stream="frames")))


@pytest.mark.parametrize(
    ("site", "step", "stream"),
    [
        ("mel", 0.01, "mel frames"),
        ("encoder_block", 0.02, "encoder tokens"),
        ("encoder_output", 0.02, "encoder tokens"),
    ],
)
def test_sites_before_the_decoder_have_their_own_grid(
    pal: Any, site: Any, step: float, stream: str
) -> None:
    ((_, name, tokens, first, last, start, end),) = covered(
        pal, prompt(pal), Address(site, Sound(0.4, 0.5))
    )
    count = round(0.1 / step)
    assert (name, tokens, first, last) == (stream, count, 4 * count, 5 * count - 1)
    assert (start, end) == pytest.approx((0.4, 0.5))


def test_every_row_of_a_padded_batch_has_its_own_columns(pal: Any) -> None:
    inputs = two_rows(pal)
    found = resolve(pal, inputs, Address("audio_k", Sound(0.1, 0.3, "frames"), layers=(0,)))
    assert {part.row for part in found.parts} == {0, 1}
    layout = pal.layout(inputs)
    for part in found.parts:
        table = layout.table(part.row).set_index("column").loc[part.columns.tolist()]
        assert table["token"].tolist() == [1, 2]
        assert set(table["stream"]) == {"frames"} and set(table["clip"]) == {0}
    second = two_rows(pal)
    with pytest.raises(PalscopeError, match=r"clip 1 does not exist: row 0 has 1"):
        resolve(pal, second, Address("audio_k", Sound(clip=1)))


def test_text_is_found_by_the_string_it_spells(pal: Any) -> None:
    inputs = prompt(pal)
    (part,) = resolve(pal, inputs, Address("resid_pre", Text("digit"), layers=(1,))).parts
    ids = inputs["input_ids"][0][part.columns]
    assert pal.tokenizer.decode(ids).strip() == "digit"
    with pytest.raises(PromptError, match="'instrument' is not in the prompt"):
        resolve(pal, inputs, Address("resid_pre", Text("instrument")))
    with pytest.raises(PromptError, match="more than once"):
        resolve(pal, inputs, Address("resid_pre", Text("i")))


def test_text_columns_count_from_either_end(pal: Any) -> None:
    inputs = two_rows(pal)
    parts = resolve(pal, inputs, Address("resid_post", Text(-1), layers=(3,))).parts
    assert [part.columns.tolist() for part in parts] == [[inputs["input_ids"].shape[1] - 1]] * 2
    with pytest.raises(PromptError, match="padding"):
        resolve(pal, inputs, Address("resid_post", Text(0)))
    sound = int((pal.layout(inputs).stream[1] >= 0).nonzero()[0])
    with pytest.raises(PromptError, match="sound; address it by"):
        resolve(pal, inputs, Address("resid_post", Text(sound)))
    with pytest.raises(PromptError, match="does not exist"):
        resolve(pal, inputs, Address("resid_post", Text(500)))


def test_heads_are_query_heads(pal: Any) -> None:
    inputs = prompt(pal)  # 4 query heads on 2 key-value heads
    (part,) = resolve(pal, inputs, Address("audio_k", Sound(stream="frames"), (0,), (2, 3))).parts
    assert part.heads == (1,)
    with pytest.raises(PalscopeError, match=r"query heads \[2, 3\] share"):
        resolve(pal, inputs, Address("audio_k", Sound(stream="frames"), (0,), (3,)))
    (part,) = resolve(pal, inputs, Address("head_output", Text(-1), (0,), (3,))).parts
    assert part.heads == (3,)
    with pytest.raises(PalscopeError, match="head 4 does not exist; the last is 3"):
        resolve(pal, inputs, Address("head_output", heads=(4,)))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (lambda: Sound(0.5, 0.5), "empty"),
        (lambda: Sound(-0.1, 0.5), "starts at 0"),
        (lambda: Sound(float("nan")), "no stretch"),
        (lambda: Text(""), "empty string"),
        (lambda: Address("audio_state", Text(-1)), "sound only"),
        (lambda: Address("mel", layers=(0,)), "no layers"),
        (lambda: Address("resid_pre", heads=(0,)), "no heads"),
        (lambda: Address("resid_pre", queries=Text(-1)), "no queries"),
        (lambda: Address("resid_pre", layers=()), "name none"),
        (lambda: Address("residual"), "no site 'residual'"),
    ],
)
def test_what_names_nothing_is_refused(address: Any, message: str) -> None:
    with pytest.raises(PalscopeError, match=message):
        address()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (Address("audio_state", Sound(1.0)), "outside of clip 0, which is 1.00 s long"),
        (Address("audio_state", Sound(0.5, 1.3)), "outside of clip 0"),
        (Address("mel", Sound(0.5, 1.3)), "outside of clip 0"),
        (Address("audio_state", Sound(clip=1)), "clip 1 does not exist"),
        (Address("audio_state", Sound(stream="words")), "no stream 'words'"),
        (Address("mel", Sound(stream="frames")), "before the streams"),
        (Address("resid_pre", layers=(4,)), "layer 4 does not exist"),
        (Address("encoder_block", layers=(7,)), "encoder layer 7 does not exist"),
        (Address("waveform"), "edit_waveform"),
    ],
)
def test_what_lies_outside_is_refused(pal: Any, address: Address, message: str) -> None:
    with pytest.raises(PalscopeError, match=message):
        resolve(pal, prompt(pal), address)


def test_encoded_clips_have_no_encoder_to_address(pal: Any) -> None:
    inputs = prompt(pal)
    encoded = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    encoded["audio"] = pal.encode_audio(inputs)
    assert resolve(pal, encoded, Address("audio_state")).parts
    for site in ("mel", "encoder_output", "connector_output"):
        with pytest.raises(PalscopeError, match="input_features"):
            resolve(pal, encoded, Address(site))


def test_the_feed_forward_networks_output_is_found_where_some_tokens_skip_it(plits: Any) -> None:
    attending = Route(tiny.LAYERS, ((FRAMES, (ATTEND,) * tiny.LAYERS),))
    inputs = prompt(plits)
    parts = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    with plits.route(attending):
        taken = capture(plits, inputs, *(Address(site, Text(), (2,)) for site in parts))
        found = [
            taken.at(plits, Address(site, Text("digit"), (2,))).values.popitem()[1]
            for site in parts
        ]
        assert torch.allclose(found[0] + found[1] + found[2], found[3], atol=1e-5)
        assert found[2].abs().max() > 0.01
        with pytest.raises(PalscopeError, match="none of the addressed tokens"):
            resolve(plits, inputs, Address("mlp_out", Sound(0.2, 0.5), (2,)))


def test_neurons_that_have_no_name_are_told(pal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = prompt(pal)
    names = {part.hook for part in resolve(pal, inputs, Address("encoder_neurons")).parts}
    assert names == {f"audio_blocks.{layer}.mlp_out.hook_in" for layer in (0, 1)}
    monkeypatch.setattr(type(pal), "hook_dict", property(lambda _: {}))
    with pytest.raises(PalscopeError, match=r"whisper does not name .* blocks.0 \(mlp_out\)"):
        resolve(pal, inputs, Address("encoder_neurons"))
