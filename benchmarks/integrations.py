"""PLITS, LAL and PAL side by side: training step, prefill and decoding, against the cost model.

    python -m benchmarks.integrations --shape small --out runs/integrations.json
    python -m benchmarks.integrations --shape llama-3.2-1b --rows 4 --out runs/integrations.json

Random weights, N_t words and a clip of N_a frame tokens a row; the encoder's states are given. LAL
is in all layers, PAL is LAL in the first third and a summary (r = 3) through all. A training step
is forward, backward and AdamW of the connector, the decoder frozen, a loss on every word behind the
clip. Every number stands beside PLITS's of the same turns, and beside the least that the cost model
(`palscope.measures._cost_model`) says is possible: of time, at the rates of large matrix products
and of copying that the same run measures; of memory, what the backward pass must find again, or the
cache. The report is written after every N_a.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.core import default_device, header, medians, rates, write
from palscope._connectors import ConnectorConfig, ProjectorConfig
from palscope._models import AudioClips, PalscopeForConditionalGeneration
from palscope._routing import Route
from palscope.encoders import EncoderOutput, WhisperEncoderConfig, build_encoder
from palscope.measures._cost import peak_bytes
from palscope.measures._cost_model import (
    cache_bytes,
    decoding_costs,
    forward_costs,
    least_seconds,
    prompt_layout,
    training_bytes,
    training_costs,
)

BEFORE = 8
"""Words before the clip."""


@dataclass(frozen=True)
class Shape:
    """A decoder, and the connector before it."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    encoder: int
    projector: int
    frames: tuple[int, ...]


SHAPES = {
    "toy": Shape(32, 4, 4, 2, 8, 64, 49_160, 16, 16, (16, 48)),
    "small": Shape(256, 8, 8, 2, 32, 1024, 4096, 128, 64, (64, 256, 1024, 2048)),
    "demo": Shape(576, 30, 9, 3, 64, 1536, 49152, 768, 192, (64, 256, 1024)),
    "llama-3.2-1b": Shape(
        2048, 16, 32, 8, 64, 8192, 128256, 1280, 512, (64, 256, 1024, 2048, 4096, 8192)
    ),
}


class Case:
    """One integration of a shape, with a prompt of a length."""

    def __init__(self, model: Any, frames: int, text: int, rows: int) -> None:
        self.model, self.rows, self.frames = model, rows, frames
        self.layout = prompt_layout(model, frames=frames, text=text, before=BEFORE, rows=rows)
        device, audio = model.device, model.config.audio_token_id
        words = torch.randint(3, audio - 1, self.layout.stream.shape)
        self.ids = torch.where(self.layout.stream >= 0, audio, words).to(device)
        behind = torch.zeros_like(self.ids, dtype=torch.bool)
        behind[:, BEFORE - text + 1 :] = True  # the first is behind the clip: no word predicts it
        self.labels = self.ids.masked_fill(~behind, -100)
        self.targets = int(behind.sum())
        width = model.encoder.width
        self.states = torch.randn(rows, frames, width, device=device, dtype=model.dtype)
        self.optimizer = torch.optim.AdamW(model.connector.parameters())

    def clips(self) -> AudioClips:
        """New clips, as the encoder has just left them."""
        lengths = torch.full((self.rows,), self.frames, device=self.states.device)
        streams = self.model.connector([EncoderOutput(self.states, lengths)])
        order = tuple(range(self.rows))
        frames, seconds = (self.frames,) * self.rows, (0.1 * self.frames,) * self.rows
        return AudioClips(streams, frames, seconds, order, reused=False)

    def train(self) -> None:
        """One training step."""
        self.model.train()
        self.model(input_ids=self.ids, audio=self.clips(), labels=self.labels).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def prefill(self) -> Any:
        """A new clip and its question."""
        self.model.eval()
        return self.model(input_ids=self.ids, audio=self.clips(), use_cache=True, logits_to_keep=1)

    def decoder(self) -> Callable[[], Any]:
        """Decoding steps, each one word further."""
        cache = self.prefill().past_key_values
        word = torch.full((self.rows, 1), 5, device=self.ids.device)

        @torch.no_grad()
        def step() -> Any:
            return self.model(input_ids=word, past_key_values=cache)

        return step

    @torch.no_grad()
    def difference(self, words: int = 2) -> float:
        """Largest difference of logits, words decoded one by one against all in one pass."""
        step = self.decoder()
        stepwise = torch.cat([step().logits for _ in range(words)], 1)
        ids = torch.cat([self.ids, torch.full((self.rows, words), 5, device=self.ids.device)], 1)
        whole = self.model(input_ids=ids, audio=self.clips(), logits_to_keep=words).logits
        return (whole - stepwise).abs().max().item()

    def held_bytes(self) -> int:
        """Weights, and the optimizer's states, which are there before a step."""
        seen: dict[int, int] = {}
        tensors: list[Any] = [*self.model.parameters(), *self.model.buffers()]
        for state in self.optimizer.state.values():
            tensors += [each for each in state.values() if isinstance(each, Tensor)]
        for tensor in tensors:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        return sum(seen.values())


def build(
    shape: Shape, device: str, dtype: torch.dtype, frames_per_token: int = 1
) -> dict[str, Any]:
    """The three integrations, around one decoder and one encoder."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=2**17,
        tie_word_embeddings=True,
    )
    with torch.device(device):
        decoder: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
        encoder: Any = build_encoder(
            WhisperEncoderConfig(
                d_model=shape.encoder,
                encoder_layers=1,
                encoder_attention_heads=4,
                encoder_ffn_dim=64,
                layers=(1,),
            )
        ).to(dtype)
    models: dict[str, Any] = {}
    for name, route in {
        "PLITS": Route.plits(shape.layers),
        "LAL": Route.lal(shape.layers),
        "PAL": Route.pal(shape.layers),
    }.items():
        projector = ProjectorConfig(hidden=shape.projector)
        connector = ConnectorConfig.for_route(
            route,
            inputs=projector,
            layers=projector,
            frames_per_token=frames_per_token,
            summary_width=shape.encoder,
        )
        made: Any = PalscopeForConditionalGeneration.from_parts(
            decoder, encoder, route, connector, audio_token_id=shape.vocabulary - 1
        )
        made.connector.to(device, dtype)
        made.freeze_bases()
        models[name] = made
    return models


def measure(
    cases: dict[str, Case], repeats: int, machine: dict[str, float]
) -> list[dict[str, Any]]:
    """One row an integration and phase, each beside PLITS's and beside the cost model's."""
    rows: list[dict[str, Any]] = []
    calls: dict[str, Callable[[Case], Callable[[], Any]]] = {
        "training": lambda case: case.train,
        "prefill": lambda case: case.prefill,
        "decoding": lambda case: case.decoder(),  # made when its turn comes: training is over
    }
    tables = {
        "training": {
            name: training_costs(case.model, case.layout, targets=case.targets)
            for name, case in cases.items()
        },
        "prefill": {n: forward_costs(case.model, case.layout) for n, case in cases.items()},
        "decoding": {n: decoding_costs(case.model, case.layout) for n, case in cases.items()},
    }
    for phase, call_of in calls.items():
        named = {name: call_of(case) for name, case in cases.items()}
        seconds = medians(named, repeats)
        peaks = {name: peak_bytes(call) for name, call in named.items()}
        for name, case in cases.items():
            table = tables[phase][name]
            least = least_seconds(table, **machine)
            held = case.held_bytes()
            row: dict[str, Any] = {
                "phase": phase,
                "integration": name,
                "frames": case.frames,
                "rows": case.rows,
                "seconds": seconds[name],
                "rows_per_second": case.rows / seconds[name],
                "peak_bytes": peaks[name],
                "total_bytes": peaks[name] + held,
                "flops": int(table["flops"].sum()),
                "least_seconds": least,
                "share_of_machine": least / seconds[name],
                "largest_difference": case.difference(),
            }
            if phase == "training":
                kept = training_bytes(case.model, case.layout, targets=case.targets)
                row["least_bytes"] = int(kept["bytes"].sum())
            else:
                row["least_bytes"] = int(cache_bytes(case.model, case.layout)["bytes"].sum())
            rows.append(row)
        first = next(row for row in rows if row["phase"] == phase)
        for row in rows:
            if row["phase"] == phase:
                row["throughput_ratio"] = row["rows_per_second"] / first["rows_per_second"]
                row["possible_ratio"] = first["least_seconds"] / row["least_seconds"]
                row["share_of_possible"] = row["throughput_ratio"] / row["possible_ratio"]
                row["memory_ratio"] = row["peak_bytes"] / first["peak_bytes"]
                row["total_memory_ratio"] = row["total_bytes"] / first["total_bytes"]
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A line a row: throughput and memory beside PLITS's, and the share of what is possible."""
    for row in rows:
        print(
            f"{row['phase']:>8} N_a {row['frames']:>5} {row['integration']:>5}: "
            f"{row['seconds']:8.4f} s, throughput × {row['throughput_ratio']:5.2f} "
            f"(possible {row['possible_ratio']:5.2f}, share {row['share_of_possible']:4.2f}; "
            f"of the machine {row['share_of_machine']:4.2f}), "
            f"peak {row['peak_bytes'] / 2**20:8.1f} MiB × {row['memory_ratio']:4.2f}, "
            f"with weights × {row['total_memory_ratio']:4.2f}; "
            f"least {row['least_bytes'] / 2**20:8.1f} MiB",
            flush=True,
        )


def main() -> None:
    """Measure at every length, print and write as it goes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--frames", type=int, nargs="+", help="N_a, the shape's by default")
    parser.add_argument("--text", type=int, default=128, help="N_t")
    parser.add_argument("--rows", type=int, default=1, help="prompts in a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/integrations.json"))
    args = parser.parse_args()
    device = default_device()
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    shape = SHAPES[args.shape]
    machine = rates(device, dtype)
    report: dict[str, Any] = header(device) | {
        "shape": args.shape,
        "sizes": shape.__dict__,
        "dtype": str(dtype),
        "text": args.text,
        "rates": machine,
        "table": [],
    }
    models = build(shape, device, dtype)
    for frames in args.frames or shape.frames:
        cases = {n: Case(model, frames, args.text, args.rows) for n, model in models.items()}
        rows = measure(cases, args.repeats, machine)
        show(rows)
        report["table"] += rows
        write(report, args.out)


if __name__ == "__main__":
    main()
