"""What `forward` refuses, and what it does with prompts at the edge."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch

from palscope._routing import Route
from palscope.errors import AudioError, PalscopeError, PromptError, RouteError
from tests import tiny


@lru_cache
def model() -> Any:
    return tiny.model()


def test_clips_and_places_must_fit() -> None:
    batch = tiny.batch([[37]])
    without = {k: v for k, v in batch.items() if not k.startswith(("input_f", "feature"))}
    with pytest.raises(PromptError, match="Give one clip for each"):
        model()(**without)
    lengths = batch["feature_lengths"]
    with pytest.raises(PromptError, match="Was the prompt cut"):
        model()(**(batch | {"feature_lengths": lengths + 20}))
    with pytest.raises(PromptError, match="as many feature_lengths"):
        model()(**{k: v for k, v in batch.items() if k != "feature_lengths"})
    with pytest.raises(PromptError, match="as many feature_lengths"):
        model()(**(batch | {"feature_lengths": lengths.repeat(2)}))
    with pytest.raises(PromptError, match="has places for 0"):
        model()(**tiny.batch([[]]), input_features=batch["input_features"], feature_lengths=lengths)
    with pytest.raises(PalscopeError, match="give input_ids"):
        model()(inputs_embeds=torch.zeros(1, 3, 32))
    with pytest.raises(AudioError, match="8 mel bins"):
        model()(**(batch | {"input_features": torch.zeros(1, 80, 37)}))


def test_position_ids_other_than_the_layouts_are_refused() -> None:
    batch = tiny.batch([[37], []])
    own = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        wanted = model()(**batch).logits
        assert torch.equal(model()(**batch, position_ids=own).logits, wanted)
    with pytest.raises(PromptError, match="position_ids differ"):
        model()(**batch, position_ids=own + 1)


def test_two_hours_are_refused_before_anything_is_computed() -> None:
    frames = 2 * 60 * 60 * 100
    clip = torch.zeros(1, 8, 1).expand(1, 8, frames)
    tokens = frames // 10
    places = tokens + -(-tokens // 3)
    ids = torch.tensor([[5, *[tiny.AUDIO_ID] * places, 6]])
    calls: list[int] = []
    made = tiny.model()
    made.encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    given = {"input_ids": ids, "input_features": clip, "feature_lengths": torch.tensor([frames])}
    for call in (made, made.generate):
        with pytest.raises(
            PromptError, match=r"96002 columns, 96000 of them audio.*positions for 512"
        ):
            call(**given)
    assert not calls


def test_padding_takes_no_room_in_the_context() -> None:
    made = tiny.model(max_position_embeddings=30)
    batch = tiny.batch([[37]])
    pad = torch.zeros(1, 30, dtype=torch.long)
    wide = batch | {k: torch.cat([pad, batch[k]], 1) for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        made(**wide)


def test_routes_that_do_not_fit_are_refused_and_change_nothing() -> None:
    made = tiny.model()
    before = made.route
    with pytest.raises(RouteError, match="has 5 layers, this decoder 4"):
        made.route = Route.plits(5)
    with pytest.raises(RouteError, match="has 5 layers, the decoder 4"):
        tiny.model(Route.plits(5))
    with pytest.raises(RouteError), made.routed(Route.plits(3)):
        raise AssertionError("never entered")
    with made.routed(Route.plits(4)):
        with made.routed(Route.lal(4)):
            assert made.route == Route.lal(4)
        assert made.route == Route.plits(4)
    assert made.route == before


def test_hidden_states_come_with_the_columns_that_run() -> None:
    batch = tiny.batch([[37], [52]])
    route = Route.pal(4).mute("summary", [1])
    with torch.no_grad(), model().routed(route):
        out = model()(**batch, output_hidden_states=True)
    layout = model().layout(
        batch["input_ids"], batch["attention_mask"], feature_lengths=batch["feature_lengths"]
    )
    assert len(out.hidden_states) == 5
    for layer, hidden in enumerate(out.hidden_states):
        columns = layout.layer_columns(route, min(layer, 3)).running
        assert hidden.shape[:2] == columns.shape
    logits = model().language_model.lm_head(out.hidden_states[-1])
    running = layout.layer_columns(route, 3).running
    for row in (0, 1):
        kept = running[row] >= 0
        torch.testing.assert_close(out.logits[row, running[row][kept]], logits[row][kept])


def test_a_stream_that_was_away_comes_back_as_it_left() -> None:
    route = Route.plits(4).mute("frames", [1, 2])
    made = tiny.model(Route.plits(4))
    batch = tiny.batch([[37]], streams=made.route.streams)
    seen: dict[int, torch.Tensor] = {}
    for layer in (0, 3):
        made.language_model.model.layers[layer].register_forward_hook(
            lambda m, args, out, layer=layer: seen.update({layer: out if layer == 0 else args[0]})
        )
    with torch.no_grad(), made.routed(route):
        made(**batch)
    layout = made.layout(batch["input_ids"], feature_lengths=batch["feature_lengths"])
    frames = layout.stream[0] == 0
    assert torch.equal(seen[0][0][frames], seen[3][0][frames])
    assert not torch.equal(seen[0][0][~frames], seen[3][0][~frames])


def test_logits_to_keep() -> None:
    batch = tiny.batch([[37], [52]])
    with torch.no_grad():
        every, last = model()(**batch).logits, model()(**batch, logits_to_keep=2).logits
    torch.testing.assert_close(last, every[:, -2:])


@torch.no_grad()
def test_a_clip_alone_and_beside_longer_ones() -> None:
    batch = tiny.batch([[12, 137], [52]])
    one = tiny.batch([[12]])
    one["input_features"] = batch["input_features"][:1, :, :12]
    audio = model().encode_audio(batch["input_features"], batch["feature_lengths"])
    alone = model().encode_audio(one["input_features"], one["feature_lengths"])
    assert audio.frames == (2, 14, 6) and alone.frames == (2,)
    for name, tokens in alone.streams.items():
        torch.testing.assert_close(audio.streams[name][:1, : tokens.shape[1]], tokens)
