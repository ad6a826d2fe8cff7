"""Generation: greedy against a loop without cache, beams, batches, clips used again."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from palscope._models.cache_names import cache_of
from palscope._routing import Route
from palscope._verify.tolerance import PER_LAYER, rounding
from palscope.errors import PalscopeError, PromptError
from tests import tiny

NEW = 6


@lru_cache
def model(family: str = "llama") -> Any:
    return tiny.model(Route.pal(4, [0, 2]), family)


def generate(made: Any, batch: dict[str, Tensor], **options: Any) -> Tensor:
    """The new ids; nothing ends a row early."""
    settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    out = made.generate(**batch, **(settings | options))
    return out[:, batch["input_ids"].shape[1] :]


def rows(batch: dict[str, Tensor], clips: list[int]) -> list[dict[str, Tensor]]:
    """Each row of a batch by itself."""
    alone: list[dict[str, Tensor]] = []
    first = 0
    for row, count in enumerate(clips):
        real = batch["attention_mask"][row].bool()
        one = {"input_ids": batch["input_ids"][row][real][None], "attention_mask": real[real][None]}
        if count:
            which = slice(first, first + count)
            for name in ("input_features", "feature_lengths"):
                one[name] = batch[name][which]
        first += count
        alone.append(one)
    return alone


@torch.no_grad()
def loop(made: Any, batch: dict[str, Tensor]) -> Tensor:
    """Greedy decoding without cache."""
    batch = dict(batch)
    for _ in range(NEW):
        word = made(**batch).logits[:, -1:].argmax(-1)
        one = torch.ones_like(word)
        batch["input_ids"] = torch.cat([batch["input_ids"], word], 1)
        batch["attention_mask"] = torch.cat([batch["attention_mask"].long(), one], 1)
    return batch["input_ids"][:, -NEW:]


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "phi3"])
def test_greedy_is_the_loop_without_cache(family: str) -> None:
    batch = tiny.batch([[37], [52, 30], []])
    for route in (Route.plits(4), Route.pal(4, [0, 2])):
        with model(family).routed(route):
            wanted = loop(model(family), batch)
            assert torch.equal(generate(model(family), batch), wanted)
            assert torch.equal(generate(model(family), batch, use_cache=False), wanted)


def test_what_is_heard_changes_what_is_said() -> None:
    batch = tiny.batch([[137]])
    other = batch | {"input_features": batch["input_features"].flip(2)}
    assert not torch.equal(generate(model(), batch), generate(model(), other))


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}]
)
def test_rows_of_a_batch_are_answered_as_if_alone(options: dict[str, int]) -> None:
    counts = [2, 0, 1]
    batch = tiny.batch([[31, 52], [], [37]])
    together = generate(model(), batch, **options)
    alone = [generate(model(), row, **options) for row in rows(batch, counts)]
    assert torch.equal(together, torch.cat(alone))


@torch.no_grad()
def beams_by_hand(made: Any, row: dict[str, Tensor], count: int) -> Tensor:
    """Beam search over one prompt, every beam run anew from its first word at each step."""
    beams = [(0.0, row["input_ids"])]
    for _ in range(NEW):
        grown: list[tuple[float, Tensor]] = []
        for score, ids in beams:
            clips = {k: v for k, v in row.items() if k not in ("input_ids", "attention_mask")}
            best = made(input_ids=ids, **clips).logits[0, -1].log_softmax(-1).topk(count)
            for value, word in zip(best.values, best.indices, strict=True):
                grown.append((score + value.item(), torch.cat([ids, word[None, None]], 1)))
        beams = sorted(grown, key=lambda each: -each[0])[:count]
    return beams[0][1][:, -NEW:]


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("name", ["plits", "pal"])
def test_beams_are_those_of_a_search_without_cache(name: str, family: str) -> None:
    made, counts = model(family), [1, 2, 0]
    batch = tiny.batch([[37], [52, 30], []])
    route = {"plits": Route.plits(4), "pal": Route.pal(4, [0, 2])}[name]
    with made.routed(route):
        got = generate(made, batch, num_beams=3)
        assert torch.equal(generate(made, batch, num_beams=3, use_cache=False), got)
        alone = [beams_by_hand(made, row, 3) for row in rows(batch, counts)]
        assert torch.equal(got, torch.cat(alone))
        assert not torch.equal(got, generate(made, batch))  # beams change their order here


def test_sampled_continuations_of_several_clips() -> None:
    batch = tiny.batch([[31, 52], [37]])
    options = {"do_sample": True, "num_return_sequences": 2, "top_k": 1, "temperature": 1.0}
    twice = generate(model(), batch, **options)
    assert torch.equal(twice, generate(model(), batch).repeat_interleave(2, 0))


def test_clips_are_encoded_once_also_for_beams() -> None:
    made: Any = tiny.model(Route.pal(4, [0, 2]))
    calls: list[str] = []
    made.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    for layer in (0, 2):
        projector = made.connector.layer_projectors["frames"][f"layer_{layer}"]
        projector.register_forward_hook(lambda *_, layer=layer: calls.append(f"projector {layer}"))
    generate(made, tiny.batch([[31, 52], [37]]), num_beams=3)
    assert sorted(calls) == ["encoder", "projector 0", "projector 2"]


@torch.no_grad()
def test_keys_and_values_of_a_clip_serve_further_questions() -> None:
    made: Any = tiny.model(Route.pal(4, [0, 2]))
    first, second = tiny.batch([[37]], seed=0), tiny.batch([[37]], text=(5, 0, 6), seed=0)
    second |= {k: first[k] for k in ("input_features", "feature_lengths")}
    wanted = [made(**batch).logits for batch in (first, second)]
    audio = made.encode_audio(first["input_features"], first["feature_lengths"])
    calls: list[int] = []
    project = made.connector.project_layer

    def counted(*given: Any) -> Any:
        calls.append(1)
        return project(*given)

    made.connector.project_layer = counted
    for batch, logits in zip((first, second), wanted, strict=True):
        ids = {k: batch[k] for k in ("input_ids", "attention_mask")}
        assert torch.equal(made(**ids, audio=audio).logits, logits)
        assert torch.equal(generate(made, ids, audio=audio), generate(made, batch | {}))
    # Two layers once for `audio`; generation from features makes clips of its own each time.
    assert len(calls) == 2 + 2 * 2
    # Both questions about the clip at once.
    both = tiny.batch([[37], [37]])
    same = {k: v[[0, 0]] if k.startswith("feature") else v for k, v in both.items()}
    same["input_features"] = first["input_features"][[0, 0]]
    ids = {k: both[k] for k in ("input_ids", "attention_mask")}
    apart = made(**same).logits
    tolerance = rounding(PER_LAYER * tiny.LAYERS, float(apart.abs().max()))
    torch.testing.assert_close(made(**ids, audio=audio.picked([0, 0])).logits, apart, **tolerance)


def test_kept_keys_and_values_never_cut_a_gradient() -> None:
    made: Any = tiny.model(Route.lal(4))
    batch = tiny.batch([[37]], streams=made.route.streams)
    audio = made.encode_audio(batch.pop("input_features"), batch.pop("feature_lengths"))
    with torch.no_grad():
        made(**batch, audio=audio)
    assert len(audio.keys_values) == 4
    made(**batch, audio=audio).logits[0, -1].sum().backward()
    for name, weight in made.connector.layer_projectors.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


def test_a_conversation_goes_on_from_its_cache() -> None:
    made = model()
    batch = tiny.batch([[37]])
    said = made.generate(
        **batch, max_new_tokens=3, do_sample=False, eos_token_id=None, return_dict_in_generate=True
    )
    more = torch.cat([said.sequences, torch.tensor([[7, 8, 9]])], 1)
    # What was said last is not in the cache yet.
    assert cache_of(said).get_seq_length() == said.sequences.shape[1] - 1
    fresh = batch | {"input_ids": more, "attention_mask": torch.ones_like(more)}
    wanted = generate(made, fresh)
    ids = {"input_ids": more, "attention_mask": torch.ones_like(more)}
    assert torch.equal(generate(made, ids, past_key_values=cache_of(said)), wanted)


def test_a_repetition_penalty_never_looks_up_the_audio_place() -> None:
    # The place's id lies outside of the vocabulary, as it does with Llama 3.2 and SmolLM2.
    batch = tiny.batch([[37], [52, 30]])
    plain = generate(model(), batch, max_new_tokens=30)
    penalised = generate(model(), batch, max_new_tokens=30, repetition_penalty=100.0)
    for row in range(2):
        new = penalised[row].tolist()
        assert len(set(new)) == len(new) and not set(new) & set(batch["input_ids"][row].tolist())
    assert len(set(plain[0].tolist())) < 30
    generate(model(), batch, no_repeat_ngram_size=2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt_lookup_num_tokens": 2}, PalscopeError, "assisted decoding"),
        ({"cache_implementation": "static"}, PalscopeError, "AudioCache"),
    ],
)
def test_what_generation_cannot_do_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        generate(model(), tiny.batch([[37]]), **options)


def test_prompts_that_generation_cannot_go_on_from_are_refused() -> None:
    batch = tiny.batch([[37]], text=(3, 0, 0))
    with pytest.raises(PromptError, match="ends in a clip"):
        generate(model(), batch)
    batch = tiny.batch([[37]])
    batch["attention_mask"][0, -1] = 0
    with pytest.raises(PromptError, match="Pad on the left"):
        generate(model(), batch)
    batch = tiny.batch([[37]])
    audio = model().encode_audio(batch["input_features"], batch["feature_lengths"])
    with pytest.raises(PromptError, match="not both"):
        generate(model(), batch, audio=audio)
