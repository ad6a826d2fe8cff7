"""Patches while words are generated: the prompt's values change, and what follows keeps its own.

The oracle is a loop over the plain model without cache, in which hooks by hand write the other
run's states at the prompt's columns.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing.layout import TEXT
from palscope.interventions import Address, Patch, Resample, Text, Zero, intervene
from tests import tiny, vocabulary
from tests.interventions.conftest import prompt

LAYER, NEW = 2, 4


def columns(model: HookedAudioModel, inputs: dict[str, Tensor]) -> tuple[list[int], list[int]]:
    """Places of text among what runs in the layer, and of all that follows the prompt's end."""
    layout = model.layout(inputs)
    running = layout.layer_columns(model.current_route, LAYER).running[0].tolist()
    kinds = layout.stream[0].tolist()
    return [at for at, column in enumerate(running) if kinds[column] == TEXT], running


@torch.no_grad()
def loop(
    model: HookedAudioModel, inputs: dict[str, Tensor], edit: Any
) -> tuple[list[int], list[Tensor]]:
    """Greedy words and their logits, of a twin without hooks of palscope's."""
    twin: Any = tiny.model(model.current_route, vocab_size=vocabulary.COUNT)
    twin.config.audio_token_id = model.model.audio_token_id
    batch = {name: inputs[name] for name in inputs}
    handle = twin.language_model.model.layers[LAYER].register_forward_hook(edit)
    words: list[int] = []
    logits: list[Tensor] = []
    for _ in range(NEW):
        last = twin(**batch).logits[0, -1]
        logits.append(last)
        words.append(int(last.argmax()))
        batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([[words[-1]]])], 1)
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    handle.remove()
    return words, logits


@pytest.mark.parametrize("name", ["pal", "plits"])
@torch.no_grad()
def test_a_resampled_text_keeps_what_is_generated(name: str, request: Any) -> None:
    model: HookedAudioModel = request.getfixturevalue(name)
    inputs, other = prompt(model, 0), prompt(model, 1)
    text, running = columns(model, inputs)
    hook = f"blocks.{LAYER}.hook_resid_post"
    _, cache = model.run_with_cache(other, names_filter=hook)
    taken = cache[hook][0]
    assert taken.shape[0] == len(running)

    def edit(_module: Any, _args: Any, out: Any) -> Any:
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        hidden[0, text] = taken[text]
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    words, logits = loop(model, inputs, edit)
    where = Address("resid_post", Text(), (LAYER,))
    settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
    told = {"return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}
    with intervene(model, inputs, [Patch(where, Resample(other))]):
        said = model.model.generate(**inputs, **settings, **told)
    assert said.sequences[0, -NEW:].tolist() == words
    for got, wanted in zip(said.logits, logits, strict=True):
        torch.testing.assert_close(got[0], wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)
    plain = model.model.generate(**inputs, **settings, **told)
    assert (plain.logits[0] - logits[0]).abs().max() > 1e-3


@torch.no_grad()
def test_all_text_is_zeroed_with_the_words_that_follow(pal: HookedAudioModel) -> None:
    inputs = prompt(pal)
    text, running = columns(pal, inputs)

    def edit(_module: Any, _args: Any, out: Any) -> Any:
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        hidden[0, [*text, *range(len(running), hidden.shape[1])]] = 0
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    _, logits = loop(pal, inputs, edit)
    told: Any = {"return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}
    with intervene(pal, inputs, [Patch(Address("resid_post", Text(), (LAYER,)), Zero())]):
        said = pal.model.generate(
            **inputs, max_new_tokens=NEW, do_sample=False, eos_token_id=None, **told
        )
    for got, wanted in zip(said.logits, logits, strict=True):
        torch.testing.assert_close(got[0], wanted, atol=1e-5, rtol=1e-5)
