"""What a stage trains is what it names: weights before and after, and adapters in the weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from palscope._models import PalscopeForConditionalGeneration
from palscope._models.families import FAMILIES
from palscope._routing import Route
from palscope.errors import CheckpointError, RecipeError
from palscope.training._recipe import Lora, Trained
from palscope.training._trained import add_adapters, merged, prepare
from tests import tiny


def answered() -> dict[str, Tensor]:
    batch = tiny.batch([[37], [52]])
    labels = batch["input_ids"].clone()
    labels[:, :-3] = -100
    return batch | {"labels": labels}


def moved(model: Any, train: Trained) -> set[str]:
    """The parameters that a step of training changes."""
    prepare(model, train, bf16=False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # an adapter's lower half moves once its upper half has
        model.train()(**answered()).loss.backward()
        optimiser.step()
    return {
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_ffn_stays_and_attention_learns(family: str) -> None:
    model = tiny.model(Route.pal(4, range(4)), family)
    changed = moved(model, Trained(llm="frozen_ffn"))
    ffn = {name for name, _ in model.named_parameters() if ".mlp." in name}
    assert len(ffn) >= 8 and not ffn & changed
    attention = {
        name
        for name, value in model.named_parameters()
        if name.startswith("language_model") and ".self_attn." in name and value.ndim == 2
    }
    assert attention and attention <= changed
    assert any(name.startswith("connector.") for name in changed)
    assert not any(name.startswith("encoder.") for name in changed)


def test_each_part_is_trained_where_it_is_named_and_nowhere_else() -> None:
    def parts(train: Trained) -> set[str]:
        changed = moved(tiny.model(Route.pal(4, range(4))), train)
        return {name.partition(".")[0] for name in changed}

    assert parts(Trained()) == {"connector"}
    assert parts(Trained(connector=False, llm="whole")) == {"language_model"}
    assert parts(Trained(connector=False, encoder=True)) == {"encoder"}
    assert parts(Trained(encoder=True, llm="whole")) == {"connector", "encoder", "language_model"}


def test_with_the_whole_decoder_every_weight_of_it_learns() -> None:
    model = tiny.model(Route.pal(4, range(4)))
    changed = moved(model, Trained(llm="whole"))
    assert {n for n, _ in model.named_parameters() if n.startswith("language_model")} <= changed


def test_what_is_trained_is_stored_and_what_is_not_may_be_referred_to() -> None:
    model = tiny.model(Route.pal(4, range(4)))
    model.config.store_base = False
    prepare(model, Trained(), bf16=True)
    assert not model.config.store_base
    assert model.language_model.dtype == torch.bfloat16
    assert model.connector.pool.mean.dtype == torch.float32
    model = tiny.model(Route.pal(4, range(4)))
    model.config.store_base = False
    prepare(model, Trained(llm="frozen_ffn"), bf16=True)
    assert model.config.store_base
    assert model.language_model.dtype == torch.float32  # and the encoder, which is stored with it
    assert next(model.encoder.parameters()).dtype == torch.float32


def test_a_trained_base_is_never_left_out(tmp_path: Path) -> None:
    model = tiny.model(Route.pal(4, range(4)))
    prepare(model, Trained(llm="whole"), bf16=False)
    model.config.store_base = False
    with pytest.raises(CheckpointError, match="would not be saved"):
        model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="would not be saved"):
        model.save_pretrained(tmp_path, state_dict=model.state_dict())


LORA = Lora(rank=3, alpha=5, dropout=0.0, modules=("q_proj", "k_proj", "v_proj", "up_proj"))


def adapted() -> PalscopeForConditionalGeneration:
    """A model with adapters that do something."""
    model = tiny.model(Route.pal(4, [0, 2]))
    prepare(model, Trained(llm="lora", lora=LORA), bf16=False)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.3)
    return model.eval()


def test_adapters_learn_and_what_they_adapt_does_not() -> None:
    changed = moved(tiny.model(Route.pal(4, range(4))), Trained(llm="lora", lora=LORA))
    inside = {name for name in changed if name.startswith("language_model")}
    assert len(inside) == 4 * 4 * 2 and all(".lora_" in name for name in inside)


def test_an_adapter_on_keys_and_values_changes_what_is_heard() -> None:
    model = adapted()
    with torch.no_grad():  # those of the text alone are left
        for name, value in model.named_parameters():
            if "lora_" in name and not any(each in name for each in ("k_proj", "v_proj")):
                value.zero_()
    batch = answered()
    with_adapters = model(**batch).logits
    model.load_state_dict(
        {k: torch.zeros_like(v) if "lora_" in k else v for k, v in model.state_dict().items()}
    )
    assert (with_adapters - model(**batch).logits).abs().max() > 1e-3


def test_adapters_are_merged_as_peft_does_and_the_logits_stay(tmp_path: Path) -> None:
    from peft.tuners.lora import LoraLayer

    model = adapted()
    batch = answered()
    logits = model(**batch).logits
    state = merged(model.state_dict(), LORA)
    # The oracle: peft's own merging.
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            module.merge()
            torch.testing.assert_close(
                state[f"{name}.weight"], module.base_layer.weight, atol=1e-6, rtol=1e-5
            )
    plain = tiny.model(Route.pal(4, [0, 2]))
    assert state.keys() == plain.state_dict().keys()
    model.save_pretrained(tmp_path, state_dict=state)
    again = PalscopeForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**batch).logits, logits, atol=1e-4, rtol=1e-4)
    assert (plain(**batch).logits - logits).abs().max() > 1e-2


def test_adapters_for_layers_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="no layer called query, w1"):
        add_adapters(tiny.model(), Lora(modules=("query", "q_proj", "w1")))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RecipeError, match=r"palscope\[training\]"):
        add_adapters(tiny.model(), Lora())
