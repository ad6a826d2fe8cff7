"""Recipes: bases, route, connector, data and the stages of a training, each field checked."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from palscope._connectors import ConnectorConfig, LFSTConfig, ProjectorConfig, QFormerConfig
from palscope._connectors.connector import RESAMPLERS
from palscope._registry import find
from palscope._routing import Route, route_from_text
from palscope.errors import RecipeError, RouteError
from palscope.training._recipe_errors import messages

INTEGRATIONS = {"plits": Route.plits, "lal": Route.lal, "pal": Route.pal}
PromptFormat = Literal["chat", "instruction"]
Format = Literal["labelled", "openaqa", "csv", "datasets"]


@dataclass(frozen=True)
class Bases:
    """The pretrained parts: hub ids or folders.

    Attributes:
        text: the decoder.
        encoder: the encoder (`palscope.encoders.load_encoder`).
        encoder_layers: those that the connector reads, where the encoder offers a choice; by
            default those that the encoder was saved with, or the last.
        system: the chat format's system message.
    """

    text: str
    encoder: str
    encoder_layers: tuple[int, ...] | None = None
    system: str | None = None


class Strict(BaseModel):
    """Nothing unknown, nothing converted, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Lora(Strict):
    """Low-rank adapters on the decoder's linear layers (peft).

    Attributes:
        rank: of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: before the adapters.
        modules: names of the layers that get one, as `q_proj`.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    modules: tuple[str, ...] = Field(default=("q_proj", "v_proj"), min_length=1)


class Trained(Strict):
    """Which parts a stage trains.

    Attributes:
        connector: the connector.
        llm: the decoder: nothing of it, the whole, all but its feed-forward networks, or `lora`.
        encoder: the audio encoder.
        lora: the adapters where `llm` is `lora`.
    """

    connector: bool = True
    llm: Literal["frozen", "whole", "frozen_ffn", "lora"] = "frozen"
    encoder: bool = False
    lora: Lora | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Trained:
        if not (self.connector or self.encoder or self.llm != "frozen"):
            raise ValueError("nothing is trained; set connector, llm or encoder")
        if (self.llm == "lora") != (self.lora is not None):
            raise ValueError("lora belongs to llm: lora, and is needed there")
        return self


class Stage(Strict):
    """One stage of a training. AdamW throughout (paper, section 4); the numbers are ours.

    Attributes:
        train: the parts that learn.
        steps: optimiser steps; or
        epochs: passes over the rows that the mix chooses.
        learning_rate: the highest.
        schedule: its shape after the warm-up.
        warmup: share of the steps below 1, a number of steps from 1 on.
        batch: examples in a step, over all processes and accumulated micro-batches.
        per_device: examples in a micro-batch; all of `batch` by default.
        weight_decay: of AdamW, on matrices alone.
        max_grad_norm: gradients are scaled down to this norm.
        bf16: products in bfloat16; bases that are frozen are held in it too.
        gradient_checkpointing: compute activations again in the backward pass.
        mix: share of each kind of example: families of the demo's examples, else patterns of
            `domain/task`, such as `audiocaps/*`. Without one, all rows alike.
        log_every: steps between logged losses.
        save_every: steps between checkpoints, a multiple of `log_every`.
    """

    train: Trained = Trained()
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    learning_rate: float = Field(gt=0, lt=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(default=0.06, ge=0)
    batch: int = Field(default=12, ge=1)
    per_device: int | None = Field(default=None, ge=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    bf16: bool = False
    gradient_checkpointing: bool = False
    mix: dict[str, float] = {}
    log_every: int = Field(default=20, ge=1)
    save_every: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.batch % self.micro_batch:
            raise ValueError(f"batch {self.batch} is no multiple of per_device {self.per_device}")
        if self.save_every % self.log_every:
            # The loss between two logs would be averaged over fewer steps after a kill.
            raise ValueError(
                f"save_every {self.save_every} is no multiple of log_every {self.log_every}"
            )
        if any(share <= 0 for share in self.mix.values()):
            raise ValueError("a share of mix is not above 0; leave it out")
        if self.mix and not math.isclose(sum(self.mix.values()), 1.0, abs_tol=1e-6):
            raise ValueError(f"the shares of mix add up to {sum(self.mix.values()):g}, not to 1")
        return self

    @property
    def micro_batch(self) -> int:
        """Examples that one process takes at once."""
        return self.per_device or self.batch

    def accumulation(self, processes: int) -> int:
        """Micro-batches a step of each of so many processes.

        Raises:
            RecipeError: they cannot share the batch evenly.
        """
        at_once = self.micro_batch * processes
        if self.batch % at_once:
            raise RecipeError(
                f"a batch of {self.batch} cannot be shared by {processes} processes with "
                f"per_device {self.micro_batch}: batch must be a multiple of {at_once}."
            )
        return self.batch // at_once


COLUMNS = ("audio", "question", "answer", "domain", "task", "split")


class Data(Strict):
    """Where examples come from and which are fit. All but `format` is palscope's.

    Attributes:
        format: `labelled` (the demo's manifest), `openaqa` (JSON), `csv`, or `datasets` (streamed).
        columns: other names of the columns `audio, question, answer, domain, task, split`.
        split: rows of other splits are left out, where rows have a split.
        max_seconds: longer sound is cut.
        max_characters: rows with more in question and answer are bad.
        max_bad: the largest share of bad rows.
    """

    format: Format
    columns: dict[str, str] = {}
    split: str = "train"
    max_seconds: float = Field(default=30.0, gt=0)
    max_characters: int = Field(default=2000, ge=1)
    max_bad: float = Field(default=0.02, ge=0, le=1)

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(columns.keys() - set(COLUMNS)):
            raise ValueError(f"{', '.join(unknown)}: expected some of {', '.join(COLUMNS)}")
        return columns


class AnswerSamples(Strict):
    """Greedy answers to held-out questions while training.

    Attributes:
        every: steps between them; 0 for none.
        count: questions.
        max_new_tokens: of an answer.
    """

    every: int = Field(default=200, ge=0)
    count: int = Field(default=4, ge=1)
    max_new_tokens: int = Field(default=32, ge=1)


class Projector(Strict):
    """As `ProjectorConfig`; its scale may be left to the decoder."""

    hidden: int = Field(default=512, ge=1)
    depth: int = Field(default=2, ge=1)
    output_rms: float | None = Field(default=None, gt=0)

    def config(self, output_rms: float) -> ProjectorConfig:
        """With `output_rms` where the recipe leaves it open."""
        return ProjectorConfig(self.hidden, self.depth, self.output_rms or output_rms)


_CONNECTOR = TypeAdapter(ConnectorConfig)


class ConnectorShape(Strict):
    """A connector but for the streams and layers that the route decides.

    Attributes:
        inputs: of the input projectors. An `output_rms` of null is that of the token embeddings.
        layers: of the layer projectors. An `output_rms` of null is 1 / √width.
    All else are fields of `ConnectorConfig`; its `resampler` is written `{kind: lfst, …}`.
    """

    model_config = ConfigDict(extra="allow")

    inputs: Projector = Projector()
    layers: Projector = Projector()

    @model_validator(mode="after")
    def _others_fit(self) -> ConnectorShape:
        if "projected_layers" in (self.model_extra or {}):
            raise ValueError("projected_layers follow from the route; leave them out")
        try:
            self.others()
        except ValidationError as error:
            raise ValueError("; ".join(messages(error))) from error
        return self

    def others(self) -> dict[str, Any]:
        """The remaining fields of `ConnectorConfig`, as it holds them."""
        given = dict(self.model_extra or {})
        resampler = given.pop("resampler", None)
        config = _CONNECTOR.validate_json(json.dumps(given), strict=True, extra="forbid")
        others = {name: getattr(config, name) for name in given}
        return others | ({} if resampler is None else {"resampler": _resampler(resampler)})


def _resampler(given: Any) -> QFormerConfig | LFSTConfig:
    """`{kind: lfst, …}` as the settings of that kind."""
    settings = dict(cast("dict[str, Any]", given)) if isinstance(given, dict) else {}
    kind = settings.pop("kind", None)
    adapter: Any = TypeAdapter(find(RESAMPLERS, kind, "resampler of kind").config_class)
    return adapter.validate_json(json.dumps(settings), strict=True, extra="forbid")


class Recipe(Strict):
    """A whole training.

    Attributes:
        bases: the pretrained parts.
        route: `plits`, `lal`, `pal`, or a route in one word (`frames:P10.20`).
        connector: its shape.
        prompt: `chat`, the tokenizer's own format, or `instruction`, LTU's.
        standardise_over: clips over which the encoder's features are measured before stage 1.
        data: the examples.
        samples: answers while training.
        stages: by name, in order.
    """

    bases: Bases
    route: str
    connector: ConnectorShape = ConnectorShape()
    prompt: PromptFormat = "chat"
    standardise_over: int = Field(default=200, ge=1)
    data: Data
    samples: AnswerSamples = AnswerSamples()
    stages: dict[str, Stage] = Field(min_length=1)

    @field_validator("route")
    @classmethod
    def _is_route(cls, route: str) -> str:
        if route not in INTEGRATIONS:
            try:
                route_from_text(route)
            except RouteError as error:
                raise ValueError(f"{error} Or one of {', '.join(INTEGRATIONS)}") from error
        return route

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name, stage in self.stages.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
                raise ValueError(f"stage {name!r}: small letters, digits, - and _ only")
            if stage.steps is None and self.data.format in ("labelled", "datasets"):
                raise ValueError(
                    f"stage {name!r}: data of format {self.data.format} has no end; give steps"
                )
        return self

    def route_for(self, n_layers: int) -> Route:
        """The route for a decoder of so many layers.

        Raises:
            RouteError: the recipe's is for another number.
        """
        if self.route in INTEGRATIONS:
            return INTEGRATIONS[self.route](n_layers)
        route = route_from_text(self.route)
        if route.n_layers != n_layers:
            raise RouteError(
                f"the recipe's route has {route.n_layers} layers, the decoder "
                f"{self.bases.text} has {n_layers}; write it for that many."
            )
        return route
