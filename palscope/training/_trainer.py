"""Training on Hugging Face's Trainer: a model of pretrained bases, its batches, and one stage."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from palscope._connectors import ConnectorConfig
from palscope._files import writing
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._models.base_weights import load_base, load_tokenizer
from palscope._models.checkpoints import BASES
from palscope._models.scoring import prompt_batch, with_answers
from palscope._routing import Route
from palscope._sweeps import processes
from palscope.audio._compose import SAMPLE_RATE
from palscope.datasets._examples import Example
from palscope.encoders import load_encoder
from palscope.errors import PalscopeError
from palscope.training._recipe import AnswerSamples, Bases, ConnectorShape, PromptFormat, Stage
from palscope.training._samples import SampleAnswers, clips_of
from palscope.training._trained import merged

INSTRUCTION = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{ message.content + '\n\n' }}{%- else -%}"
    "{%- set words = message.content.split('<|audio|>') | last -%}"
    "{{- message.content[: message.content | length - words | length] -}}"
    "{{- '### Instruction:\n' + words -}}"
    "{%- if '### Input:' not in words -%}{{- '\n\n### Input:\n' -}}{%- endif -%}"
    "{{- '\n\n### Response:\n' -}}"
    "{%- endif -%}{%- endfor -%}"
)
"""LTU's prompt as a chat template: the clips, the question, an input that may be empty."""


def build(
    bases: Bases,
    route: Route,
    connector: ConnectorConfig | ConnectorShape,
    prompt: PromptFormat = "chat",
) -> tuple[PalscopeForConditionalGeneration, PalscopeProcessor]:
    """A model with frozen pretrained bases and a fresh connector, and its processor."""
    language_model = load_base(bases.text, dtype=torch.float32)
    chosen: dict[str, Any] = (
        {} if bases.encoder_layers is None else {"layers": bases.encoder_layers}
    )
    encoder = load_encoder(bases.encoder, **chosen)
    if isinstance(connector, ConnectorShape):
        connector = connector_for(connector, route, language_model)
    tokenizer = load_tokenizer(bases.text)
    if prompt == "instruction":
        tokenizer.chat_template = INSTRUCTION
    processor = PalscopeProcessor.for_grid(
        encoder.feature_extractor(),
        tokenizer,
        connector.frame_grid(encoder.emits),
        route.streams,
        system=bases.system,
    )
    model = PalscopeForConditionalGeneration.from_parts(
        language_model,
        encoder,
        route,
        connector,
        audio_token_id=processor.audio_token_id,
        text_base=bases.text,
        encoder_base=bases.encoder,
    )
    model.freeze_bases()
    return model, processor


def connector_for(shape: ConnectorShape, route: Route, language_model: Any) -> ConnectorConfig:
    """The connector that `route` needs into a decoder, of this shape.

    Where the shape leaves the scale open, sound enters at the scale of the decoder's own: the root
    mean square of its token embeddings, and of 1 / √width below a layer's norm.
    """
    embeddings = language_model.get_input_embeddings().weight
    rms = float(embeddings.detach().float().square().mean().sqrt())
    width = int(embeddings.shape[1])
    return ConnectorConfig.for_route(
        route,
        inputs=shape.inputs.config(rms),
        layers=shape.layers.config(1 / math.sqrt(width)),
        **shape.others(),
    )


class ExampleCollator:
    """Examples to the model's tensors, with labels on the answers alone."""

    def __init__(self, processor: PalscopeProcessor) -> None:
        self.processor = processor

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Prompts on the left, answers on the right."""
        batch = prompt_batch(self.processor, [(clips_of(e), e.question) for e in examples])
        return with_answers(self.processor, batch, [e.answer for e in examples])


@torch.no_grad()
def measure_features(
    model: PalscopeForConditionalGeneration,
    processor: PalscopeProcessor,
    examples: Dataset[Example],
    count: int,
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the encoder's features, a value a dimension, over real tokens alone.

    Those of several encoders stand side by side, as `Connector.standardise` takes them.
    """
    widths = [each.width for each in model.encoder.emits]
    totals, squares = ([torch.zeros(w, dtype=torch.float64) for w in widths] for _ in range(2))
    tokens = [0] * len(widths)
    taken: Any = _first(examples, count)
    device = next(model.encoder.parameters()).device
    for example in tqdm(taken, desc="measuring features", unit="clip", total=count):
        batch = prompt_batch(processor, [(clips_of(example), "?")], device)
        outputs = model.encoder.outputs(batch["input_features"], batch["feature_lengths"])
        for part, (states, lengths) in enumerate(outputs):
            counts: list[int] = lengths.tolist()
            for row, length in zip(states.cpu(), counts, strict=True):
                real = row[:length].double()
                totals[part] += real.sum(0)
                squares[part] += real.square().sum(0)
                tokens[part] += length
    means = [total / n for total, n in zip(totals, tokens, strict=True)]
    squared = [square / n for square, n in zip(squares, tokens, strict=True)]
    mean, square = torch.cat(means), torch.cat(squared)
    return mean.float(), (square - mean.square()).clamp(min=0).sqrt().float()


def _first(examples: Any, count: int) -> Any:
    """The first so many examples; of fewer, all."""
    if not hasattr(examples, "__len__"):
        return islice(examples, count)
    return (examples[index] for index in range(min(count, len(examples))))


@runtime_checkable
class _Measured(Protocol):
    """Examples whose durations are known without making them."""

    def seconds(self, index: int) -> float:
        """Of sound."""
        ...


class StageTrainer(Trainer):
    """Trains in the examples' own order: the same on every route, however many processes share it.

    What is accumulated into a step is shared out by duration, so that little goes into padding;
    which examples make up a step does not hang on that. (Batches of equally long examples would
    save more. But length goes with the kind of sound, and what counts as length with the route:
    systems would learn from other batches than those that they are compared with.)
    """

    def __init__(self, *args: Any, stage: Stage, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage = stage

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with writing(str(self.args.output_dir)):
            super()._save_checkpoint(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        examples: Any = self.train_dataset
        order = range(len(examples))
        batch = self.stage.batch
        if self.stage.micro_batch == batch:
            return order
        hidden = processes.rank() > 0
        seconds = [_seconds(examples, n) for n in tqdm(order, "measuring examples", disable=hidden)]
        return [
            index
            for start in order[::batch]
            for index in sorted(order[start : start + batch], key=seconds.__getitem__)
        ]


def _seconds(examples: Any, index: int) -> float:
    if isinstance(examples, _Measured):
        return examples.seconds(index)
    return sum(map(len, examples[index].waveforms)) / SAMPLE_RATE


class StopAtNonsense(TrainerCallback):
    """Ends a training whose loss is no number any more, rather than let it run on for days."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise PalscopeError(
                f"the loss is {loss} at step {state.global_step}: lower the learning rate, or look "
                f"for the batch; the last checkpoint is in {args.output_dir}."
            )


def train(
    model: PalscopeForConditionalGeneration,
    processor: PalscopeProcessor,
    examples: Dataset[Example],
    stage: Stage,
    arguments: TrainingArguments,
    *,
    heldout: Sequence[Example] = (),
    samples: AnswerSamples | None = None,
) -> None:
    """Train what is not frozen, and save model and processor to `arguments.output_dir`.

    A run that was killed goes on from its last checkpoint in the folder. Beside the checkpoint,
    `trainer_state.json` holds the logged losses, `samples.jsonl` the answers while training, and
    `tensorboard/` both where TensorBoard is installed.

    Args:
        model: prepared by `palscope.training._trained.prepare`, or with frozen bases.
        processor: its processor.
        examples: what is trained on, in the order of their indices.
        stage: whose adapters and batches these are.
        arguments: from `training_arguments`.
        heldout: asked while training.
        samples: how often; never by default.

    Raises:
        PalscopeError: the loss is no number, FSDP was asked for and is not to be had, or a file
            cannot be written: after that the training goes on from its last checkpoint.
    """
    out = Path(str(arguments.output_dir))
    last = last_whole(out)
    writer = _tensorboard(out / "tensorboard", last) if arguments.process_index == 0 else None
    if stage.gradient_checkpointing:
        # By the model's own method: the Trainer's argument has another name in newer versions.
        model.gradient_checkpointing_enable()
    callbacks: list[TrainerCallback] = [StopAtNonsense()]
    if writer is not None:
        callbacks.append(TensorBoardCallback(writer))
    if samples is not None:
        file = out / "samples.jsonl"
        callbacks.append(SampleAnswers(model, processor, heldout, samples, file, writer))
    trainer = StageTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=ExampleCollator(processor),
        callbacks=callbacks,
        stage=stage,
    )
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and not trainer.is_fsdp_enabled:
        raise PalscopeError(
            "FSDP was asked for, but accelerate shards weights on GPUs alone and would train "
            "without; leave --use_fsdp out."
        )
    trainer.train(resume_from_checkpoint=str(out / f"checkpoint-{last}") if last else None)
    state = cast("dict[str, Tensor]", trainer.accelerator.get_state_dict(trainer.model_wrapped))
    if arguments.process_index == 0:
        with writing(out):
            trainer.state.save_to_json(str(out / "trainer_state.json"))
            _save(model, processor, state, stage, out)
    processes.wait()


def last_whole(out: Path) -> int:
    """The step of the last checkpoint that was written to its end; 0 where there is none.

    Those that a kill or a full disk tore, which would be taken for the last one, are removed.
    """
    steps = [0]
    for folder in out.glob("checkpoint-*"):
        try:  # the Trainer writes it last
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            steps.append(int(folder.name.removeprefix("checkpoint-")))
        except (OSError, ValueError):
            if processes.rank() == 0:
                shutil.rmtree(folder, ignore_errors=True)
    processes.wait()
    return max(steps)


def _save(
    model: PalscopeForConditionalGeneration,
    processor: PalscopeProcessor,
    state: dict[str, Tensor],
    stage: Stage,
    out: Path,
) -> None:
    """The connector alone in half precision, or the whole in float32."""
    if stage.train.lora is not None:
        state = merged(state, stage.train.lora)
    if not model.config.store_base:
        state = {
            name: value.half() if value.is_floating_point() else value
            for name, value in state.items()
            if not name.startswith(BASES)
        }
    model.save_pretrained(out, state_dict=state)
    processor.save_pretrained(out)


def _tensorboard(folder: Path, last: int) -> Any:
    """A writer that goes on after step `last`; None where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return cast(Any, SummaryWriter)(str(folder), purge_step=last + 1 if last else None)


def training_arguments(
    stage: Stage, out: Path, *, steps: int, seed: int = 0, **changes: Any
) -> TrainingArguments:
    """A stage's settings as the Trainer knows them: AdamW, warm-up, a schedule.

    Args:
        stage: the settings.
        out: folder of checkpoints and result.
        steps: of the stage (`Stage.steps`, or what its epochs come to).
        seed: of the order.
        changes: other arguments.

    Raises:
        RecipeError: the processes cannot share the batch.
    """
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": steps,
        "learning_rate": stage.learning_rate,
        "warmup_steps": stage.warmup if stage.warmup < 1 else int(stage.warmup),
        "lr_scheduler_type": stage.schedule,
        "max_grad_norm": stage.max_grad_norm,
        "weight_decay": stage.weight_decay,
        "per_device_train_batch_size": stage.micro_batch,
        "gradient_accumulation_steps": stage.accumulation(processes.world_size()),
        "bf16": stage.bf16,
        "seed": seed,
        "logging_steps": stage.log_every,
        "logging_nan_inf_filter": False,
        "save_steps": stage.save_every,
        "save_total_limit": 1,
        "dataloader_num_workers": 1,
        "accelerator_config": {"dispatch_batches": False},
        "remove_unused_columns": False,
        "report_to": [],
        "use_cpu": not torch.cuda.is_available(),
    }
    return TrainingArguments(**(settings | changes))
