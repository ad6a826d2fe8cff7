"""Whisper tiny.en whole, with its published weights: what hooks, masses and batches of cells cost.

    python -m benchmarks.whisper --out benchmarks/whisper.json

A bundled clip in its window of 30 s, and a transcript of 25 tokens behind the marks. In turns:
transformers' forward pass (encoder and decoder), the hooked one without listeners, whole and on the
encoded clip, and the attention mass of every layer and head in one such pass; a
sweep of 32 patches, decoder layers by words, batched by `run_cells`, and one forward pass a cell:
with the encoder, as a loop of plain hooks has it, and on the encoded clip.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration

import palscope
from benchmarks.core import header, medians, write
from palscope.audio import bundled_scenes
from palscope.interventions import Address, Patch, Text, Zero, intervene, run_cells
from palscope.interventions._cells import with_encoded
from palscope.measures import attention_mass

NAME = "openai/whisper-tiny.en"
WORDS = " 3, 7, 1." * 4
CELLS = [(layer, word) for layer in range(4) for word in range(-8, 0)]


@torch.no_grad()
def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    read: Any = WhisperForConditionalGeneration.from_pretrained
    plain, model = read(palscope.find_base(NAME)), palscope.load(NAME)
    processor: Any = model.processor
    inputs = dict(processor(processor.chat("") + WORDS, [bundled_scenes()[0].waveform]))
    encoded = with_encoded(model, inputs)
    features, ids = inputs["input_features"], inputs["input_ids"][:, 1500:]
    cells = [[Patch(Address("cross_out", Text(word), (layer,)), Zero())] for layer, word in CELLS]
    calls: dict[str, Callable[[], Any]] = {
        "transformers": lambda: plain(input_features=features, decoder_input_ids=ids),
        "hooked": lambda: model(inputs),
        "mass": lambda: attention_mass(model, inputs, queries=[-1]),
        "hooked_encoded": lambda: model(encoded),
        "hooked_last": lambda: model(encoded, logits_to_keep=1),
        "batched": lambda: run_cells(model, encoded, cells),
        "cell": lambda: one_cell(inputs),
        "cell_encoded": lambda: one_cell(encoded),
    }

    def one_cell(prompt: dict[str, Any]) -> Any:
        with intervene(model, prompt, cells[0]):
            return model(prompt, logits_to_keep=1)

    report = header("cpu")
    times = medians(calls, given.repeats)
    report |= {
        "seconds": times,
        "hooked_to_transformers": times["hooked"] / times["transformers"],
        "mass_to_transformers": times["mass"] / times["transformers"],
        "cells_to_batched": len(cells) * times["cell"] / times["batched"],
        "encoded_cells_to_batched": len(cells) * times["cell_encoded"] / times["batched"],
    }
    for name in [name for name in report if "_to_" in name]:
        print(f"{name} {report[name]:.2f}")
    if given.out is not None:
        write(report, given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
