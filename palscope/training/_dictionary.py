"""Training a dictionary on stored activations, on Hugging Face's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from palscope._features.dictionary import Dictionary, Kind
from palscope._features.formats import load_dictionary, save_dictionary
from palscope._features.objective import Objective, unstandardised
from palscope._features.store import Activations, belonging
from palscope._files import writing
from palscope._finite import all_finite
from palscope.errors import PalscopeError
from palscope.training._folders import is_trained, mark_trained
from palscope.training._trainer import StopAtNonsense, last_whole

_MEASURED = 100_000
"""Rows whose mean and scale stand for all."""

Scale = Literal["all", "dimension"]


def train_dictionary(
    rows: Activations,
    folder: str | Path,
    *,
    d_sae: int,
    steps: int,
    kind: Kind = "batchtopk",
    k: int = 32,
    targets: Activations | None = None,
    skip: bool = False,
    scale: Scale = "all",
    batch_size: int = 4096,
    learning_rate: float = 3e-3,
    dead_after: int = 500_000,
    seed: int = 0,
    **arguments: Any,
) -> Dictionary:
    """Train a dictionary of `rows`, and save it to `folder` as SAELens 6 reads it.

    Rows are standardised by their mean and scale, which the saved dictionary has in its weights, so
    that it takes rows as they are; `about` keeps both. Once trained, it is read from the folder. A
    training that was killed goes on from its last checkpoint there, by the same call.

    Args:
        rows: what it takes, of training clips (`Activations.of_clips`).
        folder: of checkpoints and result.
        d_sae: latents.
        steps: of the optimiser.
        kind: of activation (`Dictionary`).
        k: latents a row.
        targets: what a transcoder gives: rows of the same tokens at another hook point.
        skip: a transcoder's linear map beside the latents.
        scale: "all" divides rows by one number, so that the error counts where the variance is;
            "dimension" each dimension by its own deviation, so that all count alike.
        batch_size: rows a step.
        learning_rate: at its highest; it rises for 5 % of the steps and falls along a cosine.
        dead_after: rows for which a latent has not fired before it gets a loss of its own.
        seed: of weights and order.
        arguments: other `transformers.TrainingArguments`.

    Raises:
        PalscopeError: rows are not finite or not those of the targets, the loss is no number, the
            folder holds another training, or a file cannot be written.
    """
    folder = Path(folder)
    pairs = _Pairs(rows, targets)
    wanted: dict[str, Any] = {
        **{"d_sae": d_sae, "steps": steps, "kind": kind, "k": k, "skip": skip, "scale": scale},
        **{"batch_size": batch_size, "learning_rate": learning_rate, "dead_after": dead_after},
        "seed": seed,
        "rows": pairs.about(),
    }
    if is_trained(folder, wanted, "settings or rows"):
        return load_dictionary(folder)
    torch.manual_seed(seed)
    dictionary = Dictionary(
        rows.width,
        d_sae,
        kind=kind,
        k=k,
        d_out=None if targets is None else targets.width,
        skip=skip,
    )
    measured = pairs.standardise(scale, seed)
    objective = Objective(dictionary, dead_after)
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "warmup_steps": steps // 20,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1.0,
        "seed": seed,
        "save_steps": max(1, steps // 10),
        "save_total_limit": 1,
        "logging_steps": max(1, steps // 50),
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "report_to": [],
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_drop_last": len(pairs) >= batch_size,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    last = last_whole(folder)
    trainer = _RowTrainer(
        model=objective,
        args=TrainingArguments(**(settings | arguments)),
        train_dataset=pairs,
        data_collator=_as_it_is,
        callbacks=[StopAtNonsense(), _UnitRows(objective)],
    )
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{last}") if last else None)
    made = unstandardised(objective.dictionary, measured)
    made.about = {
        "hook_point": rows.hook_point,
        **({} if targets is None else {"hook_point_out": targets.hook_point}),
        "streams": pairs.streams(),
        "model": rows.store.record["weights"]["checkpoint"]["name"],
        "record": belonging(rows.store.record),
        "training": {name: wanted[name] for name in wanted if name != "rows"},
        **measured,
    }
    if trainer.args.process_index == 0:
        with writing(folder):
            trainer.state.save_to_json(str(folder / "trainer_state.json"))
            save_dictionary(made, folder)
    mark_trained(folder, {"steps": steps})
    return load_dictionary(folder)


def _as_it_is(batch: Any) -> Any:
    return batch


class _Pairs(Dataset[dict[str, Tensor]]):
    """Rows and what should become of them, standardised."""

    def __init__(self, rows: Activations, targets: Activations | None) -> None:
        self.rows = rows
        self.targets = targets
        if not len(rows):
            raise PalscopeError(f"there are no rows at {rows.hook_point} to train on.")
        if targets is not None:
            places: list[Any] = [each.rows[["clip", "start", "end"]] for each in (rows, targets)]
            if not places[0].equals(places[1]):
                raise PalscopeError(
                    f"rows at {rows.hook_point} and {targets.hook_point} are not of the same "
                    "tokens; a transcoder needs both sites in one store."
                )
        self._measured: dict[str, Tensor] = {}

    def about(self) -> dict[str, Any]:
        """What decides them: the sites, and the store's shards by their digests."""
        table: Any = self.rows.rows
        both = [self.rows] if self.targets is None else [self.rows, self.targets]
        return {
            "hook_points": [each.hook_point for each in both],
            "shards": self.rows.store.record["shards"],
            "count": len(table),
            "clips": int(table["clip"].nunique()),
        }

    def streams(self) -> list[str]:
        """Kinds of tokens that rows are of."""
        table: Any = self.rows.rows
        return sorted(set(table["stream"]))

    def standardise(self, scale: Scale, seed: int) -> dict[str, list[float]]:
        """Measure mean and scale, which rows are given by from now on."""
        order = np.random.default_rng(seed).permutation(len(self))[:_MEASURED]
        order.sort()
        for name, each in (("", self.rows), ("_out", self.targets or self.rows)):
            values = each[order].float()
            if not all_finite(values):
                raise PalscopeError(f"rows at {each.hook_point} hold NaN or infinity.")
            deviation = values.std(0, correction=0)
            if scale == "all":
                deviation = deviation.square().mean().sqrt().expand(each.width)
            self._measured |= {
                f"mean{name}": values.mean(0),
                f"scale{name}": deviation.clamp(min=1e-6),
            }
        return {name: value.tolist() for name, value in self._measured.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([row]).items()}

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        """A batch at once, as a `DataLoader` asks for it."""
        x = self._standard(self.rows[rows], "")
        y = x if self.targets is None else self._standard(self.targets[rows], "_out")
        return {"x": x, "y": y}

    def _standard(
        self, values: Float[Tensor, "rows width"], which: str
    ) -> Float[Tensor, "rows width"]:
        return (values.float() - self._measured[f"mean{which}"]) / self._measured[f"scale{which}"]


class _UnitRows(TrainerCallback):
    """Keeps the decoder's rows at length 1, around every step of the optimiser."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before it."""
        self.objective.drop_gradient_along_rows()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Behind it."""
        self.objective.keep_unit_rows()


class _RowTrainer(Trainer):
    """What cannot be written is told in one sentence."""

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with writing(str(self.args.output_dir)):
            super()._save_checkpoint(*args, **kwargs)
