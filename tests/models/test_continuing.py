"""A cached prompt goes on with clips, new ones and the same one growing, as if given at once."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palscope._models import AudioClips
from palscope._models.families import FAMILIES
from palscope._routing import Route
from palscope.errors import PalscopeError, PromptError
from tests import flex, tiny
from tests.models.test_paths import close, half_close
from tests.routing.strategies import routes


@lru_cache
def model(family: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    made: Any = tiny.model(Route.pal(4, [0, 2]), family, **changes)
    return made.to(dtype)


def in_parts(made: Any, batch: dict[str, Tensor], widths: list[int]) -> Tensor:
    """Logits of the batch's one row in parts of so many columns, its clips where they stand.

    A clip that is cut is cut where its tokens are whole; its parts go on from one another.
    """
    ids = batch["input_ids"]
    whole = made.layout(ids, feature_lengths=batch["feature_lengths"])
    audio = made.encode_audio(batch["input_features"], batch["feature_lengths"])
    cache: Any = None
    logits: list[Tensor] = []
    first = 0
    for width in widths:
        at = slice(first, first + width)
        clips, goes_on = clips_between(whole, audio, at)
        if clips is not None and goes_on:
            clips = replace(clips, goes_on=True)
        out = made(input_ids=ids[:, at], audio=clips, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits.append(out.logits)
        first += width
    assert first == ids.shape[1]
    for name in ("stream", "clip", "token", "position"):
        assert torch.equal(getattr(cache.layout, name), getattr(whole, name)), name
    return torch.cat(logits, 1)


def clips_between(whole: Any, audio: AudioClips, at: slice) -> tuple[AudioClips | None, bool]:
    """The tokens that stand in columns `at`, as clips; and whether the first of them goes on."""
    here, before = whole.clip[0, at], set(whole.clip[0, : at.start].tolist())
    numbers = sorted({int(clip) for clip in here if clip >= 0})
    if not numbers:
        return None, False
    parts: dict[str, list[Tensor]] = {name: [] for name in audio.streams}
    frames: list[int] = []
    seconds: list[float] = []
    for clip in numbers:
        for index, stream in enumerate(whole.streams):
            mine = (here == clip) & (whole.stream[0, at] == index)
            parts[stream.name].append(audio.streams[stream.name][clip][whole.token[0, at][mine]])
        frames.append(len(parts["frames"][-1]))
        sound = whole.seconds[0, at][here == clip]
        seconds.append(float(sound[:, 1].max() - sound[:, 0].min()))
    streams = {
        name: torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
        for name, part in parts.items()
    }
    clips = AudioClips(streams, tuple(frames), tuple(seconds), tuple(range(len(numbers))))
    return clips, numbers[0] in before


# Columns: 3 words; 137 feature frames = 14 frame tokens, 5 summaries; 2 words; 6 + 2; 4 words.
LENGTHS = [[137, 60]]
CUTS = {
    "after each kind": [3, 19, 2, 8, 4],
    "text and clip together": [3 + 19, 2 + 8, 4],
    "two clips at once": [3, 19 + 2 + 8 + 4],
    "the first grows": [3, 4, 12, 3, 2 + 8, 4],
    "both grow, text between": [3 + 8, 8, 3 + 2 + 4, 4 + 2, 2],
}


def widths_of(batch: dict[str, Tensor], widths: list[int]) -> list[int]:
    """The last part takes what is left."""
    return [*widths[:-1], batch["input_ids"].shape[1] - sum(widths[:-1])]


def one_row() -> dict[str, Tensor]:
    return tiny.batch(LENGTHS)


@settings(max_examples=40, derandomize=True)
@given(
    route=routes(),
    family=st.sampled_from(list(FAMILIES)),
    cut=st.sampled_from(list(CUTS)),
)
@torch.no_grad()
def test_a_prompt_in_parts_is_the_prompt_at_once(route: Route, family: str, cut: str) -> None:
    batch, made = one_row(), model(family)
    with made.routed(route):
        close(in_parts(made, batch, widths_of(batch, CUTS[cut])), made(**batch).logits)


@pytest.mark.parametrize("cut", list(CUTS))
@torch.no_grad()
def test_the_integrations_in_parts(cut: str) -> None:
    batch, made = one_row(), model()
    for route in (
        Route.plits(4),
        Route.lal(4),
        Route.pal(4, [0, 2]),
        Route.plits(4).frozen_from(2),
        Route.plits(4).with_audio_queries(),
    ):
        with made.routed(route):
            close(in_parts(made, batch, widths_of(batch, CUTS[cut])), made(**batch).logits)


@torch.no_grad()
def test_eager_attention_in_parts() -> None:
    batch, made = one_row(), model(attn_implementation="eager")
    for route in (Route.plits(4), Route.lal(4), Route.pal(4, [0, 2])):
        with made.routed(route):
            got = in_parts(made, batch, widths_of(batch, CUTS["both grow, text between"]))
            close(got, made(**batch).logits)


@torch.no_grad()
def test_flex_attention_in_parts() -> None:
    batch, made = one_row(), tiny.model(Route.pal(4, [0, 2]), head_dim=16)
    wanted = made(**batch).logits
    made.language_model.set_attn_implementation("flex_attention")
    with flex.unfused():
        close(in_parts(made, batch, widths_of(batch, CUTS["two clips at once"])), wanted)


@torch.no_grad()
def test_half_precision_in_parts() -> None:
    batch, made = one_row(), model(dtype=torch.bfloat16)
    for route in (Route.plits(4), Route.lal(4), Route.pal(4, [0, 2])):
        with made.routed(route):
            got = in_parts(made, batch, widths_of(batch, CUTS["the first grows"]))
            half_close(got, made(**batch).logits)


@torch.no_grad()
def test_rows_of_a_batch_go_on_with_clips_of_their_own() -> None:
    made = model()
    first, second = tiny.batch([[37], [52, 30]], seed=1), tiny.batch([[40], [40]], seed=2)
    second = {
        k: v[:, :-1] if k in ("input_ids", "attention_mask") else v for k, v in second.items()
    }
    second["input_ids"][second["attention_mask"] == 0] = 7  # what continues cannot be padded
    frames = ("input_features", "feature_lengths")
    width = max(x["input_features"].shape[2] for x in (first, second))
    padded = [
        torch.nn.functional.pad(x["input_features"], (0, width - x["input_features"].shape[2]))
        for x in (first, second)
    ]
    order = [0, 3, 1, 2, 4]  # row by row
    whole = {
        "input_ids": torch.cat([first["input_ids"], second["input_ids"]], 1),
        "attention_mask": torch.cat(
            [first["attention_mask"], torch.ones_like(second["input_ids"])], 1
        ),
        "input_features": torch.cat(padded)[order],
        "feature_lengths": torch.cat([first["feature_lengths"], second["feature_lengths"]])[order],
    }
    for route in (Route.plits(4), Route.pal(4, [0, 2])):
        with made.routed(route):
            wanted = made(**whole).logits
            cache = made(**first, use_cache=True).past_key_values
            new = {k: second[k] for k in ("input_ids", *frames)}
            got = made(**new, past_key_values=cache).logits
        close(got, wanted[:, first["input_ids"].shape[1] :])


@torch.no_grad()
def test_generation_goes_on_with_a_clip() -> None:
    made = model()
    first, second = tiny.batch([[37]], seed=1), tiny.batch([[40]], seed=2)
    options: Any = {
        "max_new_tokens": 5,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    ids = torch.cat([first["input_ids"], second["input_ids"]], 1)
    mask = torch.ones_like(ids)
    both = tiny.batch([[37, 40]])
    both["input_features"][0, :, :37] = first["input_features"][0]
    both["input_features"][1] = second["input_features"][0]
    both |= {"input_ids": ids, "attention_mask": mask}
    wanted = made.generate(**both, **options)[:, ids.shape[1] :]
    assert not torch.equal(wanted, made.generate(**first, **options)[:, -5:])
    features = {k: second[k] for k in ("input_features", "feature_lengths")}
    audio = made.encode_audio(**features)
    for clip in (features, {"audio": audio}):
        cache = made(**first, use_cache=True).past_key_values
        out = made.generate(
            input_ids=ids, attention_mask=mask, past_key_values=cache, **clip, **options
        )
        assert torch.equal(out[:, ids.shape[1] :], wanted)
    cache = made(**first, use_cache=True).past_key_values
    with pytest.raises(PromptError, match="has places for 0"):
        made.generate(input_ids=first["input_ids"], past_key_values=cache, **features, **options)
    with pytest.raises(PalscopeError, match="a cached prompt has the rows it has"):
        made.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            num_beams=2,
            **clip,
            **options,
        )


@torch.no_grad()
def test_a_clip_goes_on_only_from_a_cache() -> None:
    made, batch = model(), tiny.batch([[60]])
    audio = made.encode_audio(batch["input_features"], batch["feature_lengths"])
    with pytest.raises(PromptError, match="go on from a clip that was heard before"):
        made(input_ids=batch["input_ids"], audio=replace(audio, goes_on=True))
