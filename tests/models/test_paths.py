"""The same logits by every path: cache, padding, attention kernels, half precision (oracle 3)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palscope._models.families import FAMILIES
from palscope._routing import ATTEND, FRAMES, FULL, KEYS, PROJECTED, Route
from palscope.errors import PalscopeError
from tests import flex, tiny
from tests.routing.strategies import routes

TOLERANCE = 2e-5
"""Of the largest logit, in float32."""
HALF_TOLERANCE = 0.05
"""In bfloat16, of the logits' root mean square: 0.01 to 0.03 were seen, as for the plain models."""

MIXED = tiny.both_streams([PROJECTED, FULL, ATTEND, KEYS], [FULL, ATTEND, KEYS, FULL])


@lru_cache
def model(family: str = "llama", dtype: torch.dtype = torch.float32) -> Any:
    made: Any = tiny.model(Route.pal(4, [0, 2]), family)
    return made.to(dtype)


def halved(made: Any) -> Any:
    return made.to(torch.bfloat16)


def close(got: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    got, wanted = got.float(), wanted.float()
    assert (got - wanted).abs().max().item() <= tolerance * max(1.0, wanted.abs().max().item())


def half_close(got: Tensor, wanted: Tensor) -> None:
    error, size = got.float() - wanted.float(), wanted.float()
    assert error.square().mean().sqrt() <= HALF_TOLERANCE * size.square().mean().sqrt()


def decoded(made: Any, batch: dict[str, Tensor], chunks: list[int]) -> Tensor:
    """Logits when the last columns come after the others, in `chunks`, through the cache."""
    width = batch["input_ids"].shape[1] - sum(chunks)
    first = {
        k: v[:, :width] if k in ("input_ids", "attention_mask") else v for k, v in batch.items()
    }
    out = made(**first, use_cache=True)
    logits = [out.logits]
    for chunk in chunks:
        out = made(
            input_ids=batch["input_ids"][:, width : width + chunk],
            attention_mask=batch["attention_mask"][:, : width + chunk],
            past_key_values=out.past_key_values,
        )
        width += chunk
        logits.append(out.logits)
    return torch.cat(logits, 1)


@settings(max_examples=30, derandomize=True)
@given(
    route=routes(),
    family=st.sampled_from(list(FAMILIES)),
    chunks=st.sampled_from([[1] * 5, [5], [2, 1, 2]]),
)
@torch.no_grad()
def test_cached_decoding(route: Route, family: str, chunks: list[int]) -> None:
    batch = tiny.batch([[37], [52, 30], []], text=(3, 2, 6))
    made = model(family)
    with made.routed(route):
        wanted, got = made(**batch).logits, decoded(made, batch, chunks)
    real = batch["attention_mask"].bool()
    close(got[real], wanted[real])


@settings(max_examples=30, derandomize=True)
@given(route=routes(), family=st.sampled_from(list(FAMILIES)), left=st.booleans())
@torch.no_grad()
def test_a_padded_batch(route: Route, family: str, left: bool) -> None:
    lengths = [[37], [52, 30], []]
    batch = tiny.batch(lengths, text=(3, 2, 6))
    made = model(family)
    with made.routed(route):
        together = made(**(batch if left else right_padded(batch))).logits
        first = 0
        for row, clips in enumerate(lengths):
            real = batch["attention_mask"][row].bool()
            alone = {"input_ids": batch["input_ids"][row][real][None]}
            if clips:
                which = slice(first, first + len(clips))
                own = batch["feature_lengths"][which]
                alone |= {
                    "input_features": batch["input_features"][which, :, : int(own.max())],
                    "feature_lengths": own,
                }
            first += len(clips)
            at = real if left else torch.arange(len(real)) < real.sum()
            close(together[row][at], made(**alone).logits[0])


def right_padded(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    ids, mask = batch["input_ids"].clone(), batch["attention_mask"].clone()
    for row in range(len(ids)):
        shift = -int((mask[row] == 0).sum())
        ids[row], mask[row] = ids[row].roll(shift), mask[row].roll(shift)
    return batch | {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "gemma2"])
@torch.no_grad()
def test_eager_and_fused_attention(family: str) -> None:
    batch = tiny.batch([[37], [52, 30], []])
    real = batch["attention_mask"].bool()
    made = tiny.model(Route.pal(4, [0, 2]), family)
    for route in (Route.plits(4), Route.pal(4, [0, 2]), MIXED):
        with made.routed(route):
            made.set_attn_implementation("sdpa")
            assert made.language_model.config._attn_implementation == "sdpa"
            fused = made(**batch).logits
            made.set_attn_implementation("eager")
            assert made.language_model.config._attn_implementation == "eager"
            close(made(**batch).logits[real], fused[real])


# torch's compiler, which flex attention needs, warns of torch's own jit.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch's compiler writes C++ for this kernel that does not compile without AVX2",
)
@torch.no_grad()
def test_flex_attention() -> None:
    torch.compiler.reset()  # of the shapes that other tests compiled: it would make them dynamic
    route = Route.pal(1, [0])  # one kernel: each takes seconds
    connector = tiny.full_connector(route, layers=1)
    sizes = {"num_hidden_layers": 1, "head_dim": 16}  # its kernels' smallest head
    made = tiny.model(route, connector=connector, **sizes)
    batch = tiny.batch([[37], [52, 30]])
    real = batch["attention_mask"].bool()
    fused = made(**batch).logits
    made.language_model.set_attn_implementation("flex_attention")
    close(made(**batch).logits[real], fused[real])


@torch.no_grad()
def test_flex_attention_s_masks() -> None:
    made = tiny.model(Route.pal(4, [0, 2]))
    batch = tiny.batch([[37], [52, 30]])
    real = batch["attention_mask"].bool()
    with made.routed(MIXED), flex.unfused():
        fused = made(**batch).logits
        made.language_model.set_attn_implementation("flex_attention")
        close(made(**batch).logits[real], fused[real])


def test_soft_capped_scores_never_take_the_kernel_that_drops_the_cap() -> None:
    made = tiny.model(Route.pal(4), "gemma2")
    assert made.language_model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="does not support"):
        made.language_model.set_attn_implementation("sdpa")


@torch.no_grad()
def test_an_implementation_without_masks_is_refused() -> None:
    made = tiny.model(Route.pal(4))
    made.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(PalscopeError, match="'flash_attention_2' takes no mask"):
        made(**tiny.batch([[37]]))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_bfloat16(family: str) -> None:
    made, half = model(family), model(family, torch.bfloat16)
    batch = tiny.batch([[37], [52, 30], []], text=(3, 2, 6))
    real = batch["attention_mask"].bool()
    for route in (Route.plits(4), Route.pal(4, [0, 2]), MIXED):
        with made.routed(route), half.routed(route):
            wanted = made(**batch).logits
            got = half(**batch).logits
            assert got.dtype == torch.bfloat16
            half_close(got[real], wanted[real])
            half_close(decoded(half, batch, [1, 4])[real], wanted[real])


@torch.no_grad()
def test_bfloat16_plits_errs_no_more_than_the_plain_model() -> None:
    batch = tiny.batch([[137]], streams=(FRAMES,))
    errors: dict[str, Tensor] = {}
    made, half = tiny.model(Route.plits(4)), halved(tiny.model(Route.plits(4)))
    truth = made(**batch).logits
    errors["palscope"] = half(**batch).logits.float() - truth
    audio = half.encode_audio(batch["input_features"], batch["feature_lengths"])
    ids = batch["input_ids"]
    embeds = half.language_model.get_input_embeddings()(ids.clamp(max=tiny.VOCABULARY - 1))
    embeds[ids == tiny.AUDIO_ID] = half.connector.project_input(
        "frames", audio.streams["frames"][0]
    )
    errors["plain"] = half.language_model(inputs_embeds=embeds).logits.float() - truth
    rms = {name: error.square().mean().sqrt().item() for name, error in errors.items()}
    assert rms["palscope"] < 1.2 * rms["plain"] + 1e-4


@torch.no_grad()
def test_a_half_precision_connector_in_a_float32_model() -> None:
    made = tiny.model(Route.pal(4, [0, 2]))
    batch = tiny.batch([[37]])
    wanted = made(**batch).logits
    made.connector.half()
    half_close(made(**batch).logits, wanted)


@torch.no_grad()
def test_a_cache_knows_its_route_and_its_prompt() -> None:
    made = model()
    batch = tiny.batch([[37]])
    cache = made(**batch, use_cache=True).past_key_values
    word = torch.tensor([[5]])
    with made.routed(made.route.mute("frames")), pytest.raises(ValueError, match="another route"):
        made(input_ids=word, past_key_values=cache)
    clip = {k: v for k, v in batch.items() if k.startswith(("input_f", "feature"))}
    with pytest.raises(ValueError, match="has places for 0"):
        made(input_ids=word, **clip, past_key_values=cache)
    with pytest.raises(ValueError, match="only 0 of them belong"):
        made(input_ids=torch.tensor([[tiny.AUDIO_ID]]), past_key_values=cache)
    mask = torch.ones_like(batch["attention_mask"])
    wrong = torch.cat([mask, torch.zeros(1, 1, dtype=torch.long)], 1)
    with pytest.raises(ValueError, match="cannot be padded"):
        made(input_ids=word, attention_mask=wrong, past_key_values=cache)
    with pytest.raises(ValueError, match="AudioCache"):
        made(input_ids=word, past_key_values=((torch.zeros(1),),))
    for refused in ("crop", "batch_select_indices"):
        with pytest.raises(PalscopeError):
            getattr(cache, refused)(-1)
    assert made(input_ids=word, past_key_values=cache).logits.shape == (1, 1, tiny.VOCABULARY)


@torch.no_grad()
def test_continuations_of_one_prompt_share_its_cache() -> None:
    made = model()
    batch = tiny.batch([[37], [52, 30]], text=(3, 2, 6))
    with made.routed(MIXED):
        cache = made(**batch, use_cache=True).past_key_values
        cache.batch_repeat_interleave(3)
        more = torch.randint(3, tiny.VOCABULARY, (6, 4), generator=torch.Generator().manual_seed(1))
        got = made(input_ids=more, past_key_values=cache).logits
        for row in range(6):
            prompt = row // 3
            whole = batch | {
                "input_ids": torch.cat([batch["input_ids"], more[[row, row]]], 1),
                "attention_mask": torch.cat([batch["attention_mask"], torch.ones(2, 4).long()], 1),
            }
            close(got[row], made(**whole).logits[prompt, -4:])
