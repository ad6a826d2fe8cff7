"""The loss is over text alone; gradients reach the connector; Trainer runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

from palscope._models.families import FAMILIES
from palscope._routing import FULL, Route
from palscope.errors import PalscopeError, PromptError
from tests import tiny


def answered(words: int = 3) -> dict[str, Tensor]:
    """A batch whose last `words` columns are the targets."""
    batch = tiny.batch([[37], [52, 30], []], text=(3, 2, 6))
    labels = batch["input_ids"].clone()
    labels[:, :-words] = -100
    return batch | {"labels": labels}


def gradients(made: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    made.zero_grad()
    made(**batch).loss.backward()
    return {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}


def by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    losses = [
        cross_entropy(logits[row, column - 1], labels[row, column])
        for row in range(len(labels))
        for column in range(1, labels.shape[1])
        if labels[row, column] != -100
    ]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_cross_entropy_over_targets(family: str, training: bool) -> None:
    made = tiny.model(family=family).train(training)
    batch = answered()
    out = made(**batch)
    logits = made.eval()(**{k: v for k, v in batch.items() if k != "labels"}).logits
    torch.testing.assert_close(out.loss, by_hand(logits, batch["labels"]))
    assert (out.logits is None) is training


def test_targets_that_are_no_text_do_not_count() -> None:
    made = tiny.model()
    batch = answered()
    every = batch["input_ids"].clone()  # audio places, padding and all, as users do
    lal_text = every.clone()
    layout = made.layout(
        batch["input_ids"], batch["attention_mask"], feature_lengths=batch["feature_lengths"]
    )
    text = layout.stream == -1
    lal_text[~text] = -100
    # In a route without running audio, nothing predicts the word right behind a clip.
    behind = torch.zeros_like(text)
    behind[:, 1:] = text[:, 1:] & (layout.stream[:, :-1] >= 0)
    assert behind.sum() == 3
    first = torch.zeros_like(text)
    first[:, 1:] = text[:, 1:] & ~layout.real[:, :-1]
    for route, skipped in ((tiny.both_streams(FULL, FULL), first), (Route.lal(4), first | behind)):
        labels = lal_text.masked_fill(skipped, -100)
        with made.routed(route):
            logits = made(**batch).logits
            loss = made(**(batch | {"labels": every})).loss
            torch.testing.assert_close(loss, by_hand(logits, labels))


def test_labels_without_a_target_are_refused() -> None:
    batch = answered()
    with pytest.raises(PromptError, match="hold no target"):
        tiny.model()(**(batch | {"labels": torch.full_like(batch["labels"], -100)}))


def test_accumulated_losses_are_the_whole_batchs() -> None:
    made = tiny.model().train()
    whole = {
        k: v[:2] if not k.startswith(("input_f", "feature")) else v for k, v in answered().items()
    }
    whole["labels"][0, -1] = -100  # rows with different numbers of targets
    count = int((whole["labels"] != -100).sum())
    parts: list[Tensor] = []
    for row, clips in ((0, slice(0, 1)), (1, slice(1, 3))):
        part = {k: whole[k][row : row + 1] for k in ("input_ids", "attention_mask", "labels")}
        part |= {k: whole[k][clips] for k in ("input_features", "feature_lengths")}
        parts.append(made(**part, num_items_in_batch=count).loss)
    torch.testing.assert_close(torch.stack(parts).sum(), made(**whole).loss)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_frozen_bases_every_used_projector_learns_and_nothing_else(family: str) -> None:
    made = tiny.model(Route.pal(4, [0, 2]), family).train()
    made.freeze_bases()
    found = gradients(made, answered())
    assert all(name.startswith("connector.") for name in found)
    used = ("layer_projectors.frames.layer_0", "layer_projectors.frames.layer_2")
    for part in (*used, "input_projectors.summary", "summaries.summary"):
        grads = [g for name, g in found.items() if part in name]
        assert grads and all(g.any() and g.isfinite().all() for g in grads), part
    assert not any("layer_projectors.frames.layer_1" in name for name in found)


@pytest.mark.parametrize(
    "route",
    [
        Route.plits(4),
        Route.lal(4),
        Route.pal(4, [0, 2]),
        Route.lal(4).with_audio_queries(),
        Route.plits(4).frozen_from(2),
        Route.plits(4).mute("frames", [1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("frozen", [True, False])
def test_gradient_checkpointing_changes_no_gradient(route: Route, frozen: bool) -> None:
    made = tiny.model(family="gemma3_text").train()
    if frozen:
        made.freeze_bases()
    batch = answered()
    with made.routed(route):
        wanted = gradients(made, batch)
        made.gradient_checkpointing_enable()
        ran: list[int] = []
        layer = made.language_model.model.layers[1]
        handle = layer.register_forward_pre_hook(lambda *_: ran.append(1))
        got = gradients(made, batch)
        handle.remove()
        made.gradient_checkpointing_disable()
    assert len(ran) == 2  # forward, and again in the backward pass
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient)


def test_the_checkpointing_that_loses_gradients_is_refused() -> None:
    with pytest.raises(PalscopeError, match="use_reentrant"):
        tiny.model().gradient_checkpointing_enable({"use_reentrant": True})


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        batch = tiny.batch([[37]], seed=index)
        labels = batch["input_ids"].clone()
        labels[:, :-3] = -100
        return {k: v[0] for k, v in (batch | {"labels": labels}).items()}


# transformers 5.23 has another name for it, which older ones do not know.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer_lowers_the_loss_of_a_frozen_model(tmp_path: Path, checkpointing: bool) -> None:
    made = tiny.model(Route.pal(4, [0, 2]))
    made.freeze_bases()
    before = {n: p.clone() for n, p in made.named_parameters()}
    switched: Any = {"gradient_checkpointing": True} if checkpointing else {}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        **switched,
    )
    trainer = Trainer(model=made, args=arguments, train_dataset=Rows())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4 and losses[-1] < losses[0]
    # Means over all targets of a step: about log(89) at the start.
    assert 3 < losses[0] < 9
    moved = {n for n, p in made.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(name.startswith("connector.") for name in moved)
