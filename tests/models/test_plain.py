"""PLITS, text alone and LAL against plain Hugging Face, over all families (oracles 1 and 2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from palscope._models.families import FAMILIES
from palscope._routing import ABSENT, ATTEND, FRAMES, FULL, KEYS, PROJECTED, Route
from tests import tiny

TOLERANCE = 1e-5
FRAMES_ALONE = (FRAMES,)


@lru_cache
def model(family: str) -> Any:
    return tiny.model(Route.plits(4), family)


@lru_cache
def pal(family: str) -> Any:
    return tiny.model(Route.pal(4, [0, 2]), family)


def close(got: Tensor, wanted: Tensor) -> None:
    assert (got - wanted).abs().max().item() < TOLERANCE * max(1.0, wanted.abs().max().item())


def plain_logits(model: Any, batch: dict[str, Tensor], row: int, clips: list[int]) -> Tensor:
    """The decoder's own logits of one row, its audio places filled with `inputs_embeds`."""
    real = batch["attention_mask"][row].bool()
    ids = batch["input_ids"][row][real]
    embeds = model.language_model.get_input_embeddings()(ids.clamp(max=tiny.VOCABULARY - 1))
    if clips:
        audio = model.encode_audio(batch["input_features"], batch["feature_lengths"])
        tokens = [audio.streams["frames"][i, : audio.frames[i]] for i in clips]
        embeds[ids == tiny.AUDIO_ID] = model.connector.project_input("frames", torch.cat(tokens))
    return model.language_model(inputs_embeds=embeds[None], use_cache=False).logits[0]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_plits_is_the_plain_model_on_projected_embeddings(family: str) -> None:
    # Longer than the sliding windows of 7 of the families that have one.
    batch = tiny.batch([[137], [52, 30], []], streams=FRAMES_ALONE)
    logits = model(family)(**batch).logits
    for row, clips in enumerate([[0], [1, 2], []]):
        real = batch["attention_mask"][row].bool()
        close(logits[row][real], plain_logits(model(family), batch, row, clips))


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "phi3"])
@torch.no_grad()
def test_so_it_is_with_eager_attention(family: str) -> None:
    eager = tiny.model(Route.plits(4), family, attn_implementation="eager")
    assert eager.language_model.config._attn_implementation == "eager"
    batch = tiny.batch([[137], [52]], streams=FRAMES_ALONE)
    logits = eager(**batch).logits
    for row in (0, 1):
        real = batch["attention_mask"][row].bool()
        close(logits[row][real], plain_logits(eager, batch, row, [row]))


@pytest.mark.parametrize("family", ["mistral", "qwen2", "gemma2", "gemma3_text"])
@torch.no_grad()
def test_windows_bite_in_these_tests(family: str) -> None:
    batch = tiny.batch([[137]], streams=FRAMES_ALONE)
    wide = tiny.model(Route.plits(4), family, sliding_window=400)
    difference = wide(**batch).logits - model(family)(**batch).logits
    assert difference[0, -1].abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_prompt_without_audio_is_the_plain_models(family: str) -> None:
    batch = tiny.batch([[], []], text=(8, 0, 4))
    changing = tiny.both_streams([ABSENT, ATTEND, FULL, KEYS], [PROJECTED, ABSENT, FULL, ATTEND])
    for route in (Route.pal(4, [0, 2]), changing):
        with pal(family).routed(route):
            logits = pal(family)(**batch).logits
        for row in (0, 1):
            real = batch["attention_mask"][row].bool()
            close(logits[row][real], plain_logits(pal(family), batch, row, []))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_lal_fed_with_plits_states_gives_plits_text(family: str) -> None:
    """Oracle 1."""
    made = model(family)
    batch = tiny.batch([[137], [52, 30], []], streams=FRAMES_ALONE)
    plits = made(**batch, output_hidden_states=True)
    layout = made.layout(
        batch["input_ids"], batch["attention_mask"], feature_lengths=batch["feature_lengths"]
    )
    memory = layout.layer_columns(Route.lal(4), 0).memory.clamp(min=0)[..., None]
    # A PLITS sequence is a whole row, so its places count from the padding's end as columns do.
    assert plits.hidden_states[0].shape[1] == layout.width

    def feed(layer: int) -> Any:
        state = plits.hidden_states[layer]
        fed = state.gather(1, memory.expand(-1, -1, state.shape[-1]))
        return lambda *_: fed

    handles = [
        made.audio_taps[layer].state.register_forward_hook(feed(layer)) for layer in range(4)
    ]
    try:
        with made.routed(Route.lal(4)):
            lal = made(**batch).logits
    finally:
        for handle in handles:
            handle.remove()
    text = layout.stream == -1
    close(lal[text], plits.logits[text])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_changes_nothing_changes_no_bit(family: str) -> None:
    """Oracle 2: the same route again, and hooks that return their input."""
    made = pal(family)
    batch = tiny.batch([[37], [52, 30]])
    before = made(**batch).logits
    with made.routed(Route.from_dict(made.route.to_dict())):
        assert torch.equal(made(**batch).logits, before)
    with pytest.raises(ZeroDivisionError), made.routed(made.route.mute("frames")):
        assert not torch.equal(made(**batch).logits, before)
        raise ZeroDivisionError
    assert torch.equal(made(**batch).logits, before)
    for tap in ("k", "v"):
        fired: list[str] = []

        def returning(_module: Any, _args: Any, out: Tensor, fired: list[str] = fired) -> Tensor:
            fired.append("once")
            return out

        handles = [getattr(t, tap).register_forward_hook(returning) for t in made.audio_taps]
        assert torch.equal(made(**batch).logits, before)
        assert len(fired) == 2
        for handle in handles:
            handle.remove()
    # A listener to the state makes keys of the batch's columns rather than of the stored clips, so
    # the same sums may be rounded in another order.
    handle = made.audio_taps[0].state.register_forward_hook(lambda m, a, out: out)
    close(made(**batch).logits, before)
    handle.remove()


@torch.no_grad()
def test_taps_reach_the_logits() -> None:
    made = pal("llama")
    batch = tiny.batch([[37]])
    before = made(**batch).logits
    for tap in ("state", "k", "v"):
        handle = getattr(made.audio_taps[2], tap).register_forward_hook(lambda m, a, out: out * 2)
        assert not torch.equal(made(**batch).logits, before), tap
        handle.remove()
