"""Training a connector between frozen bases, on Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from palscope.audio.compose import SAMPLE_RATE
from palscope.connectors import ConnectorConfig
from palscope.encoders import load_whisper_encoder
from palscope.models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope.models.base_weights import find_base
from palscope.models.scoring import prompt_batch, with_answers
from palscope.routing import Route
from palscope.training.examples import Example


@dataclass(frozen=True)
class Bases:
    """The frozen parts: hub ids or folders, and the encoder layers that the connector reads."""

    text: str
    encoder: str
    encoder_layers: tuple[int, ...]
    system: str | None = None


def build(
    bases: Bases, route: Route, connector: ConnectorConfig
) -> tuple[PalscopeForConditionalGeneration, PalscopeProcessor]:
    """A model with frozen pretrained bases and a fresh connector, and its processor."""
    folder = find_base(bases.text)
    language_model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    encoder = load_whisper_encoder(bases.encoder, bases.encoder_layers)
    processor = PalscopeProcessor.for_grid(
        encoder.feature_extractor(),
        AutoTokenizer.from_pretrained(folder),
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


class ExampleCollator:
    """Examples to the model's tensors, with labels on the answers alone."""

    def __init__(self, processor: PalscopeProcessor) -> None:
        self.processor = processor

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Prompts on the left, answers on the right."""
        batch = prompt_batch(self.processor, [(e.waveforms, e.question) for e in examples])
        return with_answers(self.processor, batch, [e.answer for e in examples])


@torch.no_grad()
def measure_features(
    model: PalscopeForConditionalGeneration,
    processor: PalscopeProcessor,
    examples: Dataset[Example],
    count: int,
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the encoder's features, a value a dimension, over real tokens alone.

    Of several encoders, side by side, as `Connector.standardise` takes them.
    """
    widths = [each.width for each in model.encoder.emits]
    totals, squares = ([torch.zeros(n, dtype=torch.float64) for n in widths] for _ in range(2))
    tokens = [0] * len(widths)
    for index in tqdm(range(count), desc="measuring features", unit="clip"):
        batch = prompt_batch(processor, [(examples[index].waveforms, "?")])
        outputs = model.encoder.outputs(batch["input_features"], batch["feature_lengths"])
        for which, (states, lengths) in enumerate(outputs):
            for row, length in zip(states, lengths, strict=True):
                real = row[:length].double()
                totals[which] += real.sum(0)
                squares[which] += real.square().sum(0)
                tokens[which] += int(length)
    mean = torch.cat([each / n for each, n in zip(totals, tokens, strict=True)])
    square = torch.cat([each / n for each, n in zip(squares, tokens, strict=True)])
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return mean.float(), deviation.float()


CHARACTERS_PER_TOKEN = 4
FRAMES_PER_SECOND = 10


class _LengthGrouped(Trainer):
    """Batches of examples that are about equally long, so that little time goes into padding.

    Length is that of the sequence that runs: the question, and the frames where they run too.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        examples: Any = self.train_dataset
        route: Route = cast(Any, self.model).route
        runs = any(cell.level.runs for cell in route.cells("frames"))

        def length(example: Example) -> int:
            seconds = sum(len(w) for w in example.waveforms) / SAMPLE_RATE if runs else 0
            frames = int(seconds * FRAMES_PER_SECOND)
            return len(example.question) + CHARACTERS_PER_TOKEN * frames

        return LengthGroupedSampler(
            self.args.per_device_train_batch_size,
            lengths=[length(examples[i]) for i in range(len(examples))],
            generator=torch.Generator().manual_seed(self.args.seed),
        )


def train(
    model: PalscopeForConditionalGeneration,
    processor: PalscopeProcessor,
    examples: Dataset[Example],
    arguments: TrainingArguments,
) -> None:
    """Train what is not frozen, and save model and processor to `arguments.output_dir`.

    The connector is saved in half precision. A run that was killed goes on from its last checkpoint
    in the folder.
    """
    trainer = _LengthGrouped(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=ExampleCollator(processor),
    )
    out = Path(str(arguments.output_dir))
    trainer.train(resume_from_checkpoint=any(out.glob("checkpoint-*")))
    model.connector.half()
    model.save_pretrained(out)
    processor.save_pretrained(out)


def demo_arguments(out: Path, **changes: Any) -> TrainingArguments:
    """AdamW, warm-up and cosine, as the paper (section 4); the numbers are palscope's."""
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "learning_rate": 1e-3,
        "warmup_steps": 0.06,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1.0,
        "weight_decay": 0.01,
        "per_device_train_batch_size": 12,
        "logging_steps": 20,
        "save_steps": 200,
        "save_total_limit": 1,
        "dataloader_num_workers": 1,
        "remove_unused_columns": False,
        "report_to": [],
        "use_cpu": not torch.cuda.is_available(),
    }
    return TrainingArguments(**(settings | changes))
