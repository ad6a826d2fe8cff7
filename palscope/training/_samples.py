"""What the model answers while it is trained: greedy answers to held-out questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from palscope._files import write_text, writing
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._models.scoring import greedy_tokens, prompt_batch
from palscope.audio import Waveform
from palscope.audio._compose import SAMPLE_RATE
from palscope.datasets._examples import Example
from palscope.training._recipe import AnswerSamples


def clips_of(example: Example) -> list[Waveform]:
    """An example's clips with their rate, for encoders that take another one."""
    return [Waveform(samples, SAMPLE_RATE, "a training clip") for samples in example.waveforms]


class SampleAnswers(TrainerCallback):
    """Asks every so many steps, and writes `samples.jsonl` (and TensorBoard's text).

    A line holds `step, kind, question, expected, answer`. Training is not touched: decoding is
    greedy, so no random number is drawn.

    Args:
        model: in training.
        processor: its processor.
        examples: what is asked.
        settings: how often and how long.
        file: gets a line an answer.
        writer: a TensorBoard writer, or None.
    """

    def __init__(
        self,
        model: PalscopeForConditionalGeneration,
        processor: PalscopeProcessor,
        examples: Sequence[Example],
        settings: AnswerSamples,
        file: Path,
        writer: Any = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.examples = list(examples)
        self.settings = settings
        self.file = file
        self.writer = writer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the answers of steps that a killed run has to do again."""
        if state.is_world_process_zero:
            lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
            kept = [line for line in lines if 0 <= _step(line) <= state.global_step]
            write_text(self.file, "".join(f"{line}\n" for line in kept))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask, where it is time to."""
        step = state.global_step
        if not self.settings.every or not self.examples:
            return
        if step % self.settings.every and step != state.max_steps:
            return
        # Every process asks, for where weights are sharded none can do so alone; the first writes.
        self.model.eval()
        asked = [(clips_of(example), example.question) for example in self.examples]
        batch = prompt_batch(self.processor, asked, self.model.device)
        # Products as in training: bases that are held in bfloat16 need it.
        with torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=bool(args.bf16)):
            new = greedy_tokens(self.model, self.processor, batch, self.settings.max_new_tokens)
        answers = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        self.model.train()
        if not state.is_world_process_zero:
            return
        with writing(self.file), self.file.open("a", encoding="utf-8") as file:
            for example, given in zip(self.examples, answers, strict=True):
                line = {
                    "step": step,
                    "kind": example.kind,
                    "question": example.question,
                    "expected": example.answer,
                    "answer": given.strip(),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if self.writer is not None:
            told = "\n\n".join(
                f"**{example.question}** {example.answer} → {given}"
                for example, given in zip(self.examples, answers, strict=True)
            )
            self.writer.add_text("samples", told, step)


def _step(line: str) -> int:
    """Of a line of the file; -1 of one that a kill or a full disk has torn."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1
