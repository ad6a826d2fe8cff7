"""From a clip's mel frames to the tokens of its streams: Whisper, pooling, summary, projectors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from tests.reference.edits import Token, Trace

FRAME_S = 0.01
ENCODED_S = 0.02


class Sound:
    """One clip at a time, never padded. `weights` by their names, `config` as JSON holds it."""

    def __init__(self, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
        self.weights = weights
        self.encoder = config["encoder"]
        self.connector = config["connector"]
        self.ratios = {s["name"]: s["ratio"] for s in config["route"]["streams"]}
        self.per_token = self.connector["frames_per_token"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(
            x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        )

    def encoded(self, mel: Tensor, named: list[Token], trace: Trace) -> Tensor:
        """`[tokens, width]` of `[frames, bins]`: the chosen hidden states side by side."""
        weights, name = self.weights, "encoder.model"
        frames = mel.shape[0]
        padded = torch.cat([mel.new_zeros(1, mel.shape[1]), mel, mel.new_zeros(1, mel.shape[1])])
        kernel = weights[f"{name}.conv1.weight"]  # [out, in, 3]
        x = sum(padded[i : i + frames] @ kernel[:, :, i].T for i in range(3))
        x = gelu(x + weights[f"{name}.conv1.bias"])
        tokens = math.ceil(frames / 2)
        padded = torch.cat([x.new_zeros(1, x.shape[1]), x, x.new_zeros(2, x.shape[1])])
        kernel = weights[f"{name}.conv2.weight"]
        x = sum(padded[i : i + 2 * tokens : 2] @ kernel[:, :, i].T for i in range(3))
        x = gelu(x + weights[f"{name}.conv2.bias"])
        x = x + weights[f"{name}.embed_positions.weight"][:tokens]
        heads = self.encoder["encoder_attention_heads"]
        states = [x]
        for i in range(self.encoder["encoder_layers"]):
            layer = f"{name}.layers.{i}"
            y = self.norm(f"{layer}.self_attn_layer_norm", x)
            q, k, v = (
                self.linear(f"{layer}.self_attn.{part}_proj", y).view(tokens, heads, -1)
                for part in "qkv"
            )
            scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
            read = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
            x = x + self.linear(f"{layer}.self_attn.out_proj", read)
            y = self.norm(f"{layer}.final_layer_norm", x)
            x = x + self.linear(f"{layer}.fc2", gelu(self.linear(f"{layer}.fc1", y)))
            x = trace("encoder_block", i, named, x)
            states.append(x)
        states[-1] = self.norm(f"{name}.layer_norm", states[-1])
        return torch.cat([states[i] for i in self.encoder["layers"]], 1)

    def frames(self, encoded: Tensor) -> Tensor:
        """Standardised, and averaged over what each frame token pools."""
        mean, deviation = (self.weights[f"connector.pool.{n}"] for n in ("mean", "deviation"))
        parts = ((encoded - mean) / deviation).split(self.per_token)
        return torch.stack([part.mean(0) for part in parts])

    def summary(self, stream: str, frames: Tensor) -> Tensor:
        """A strided convolution over whole groups of frame tokens, the last filled with zeros."""
        kernel = self.weights[f"connector.summaries.{stream}.conv.weight"]  # [out, in, ratio]
        bias = self.weights[f"connector.summaries.{stream}.conv.bias"]
        made: list[Tensor] = []
        for group in frames.split(kernel.shape[2]):
            made.append(bias + sum(kernel[:, :, i] @ frame for i, frame in enumerate(group)))
        return torch.stack(made)

    def tokens(self, stream: str, clip: int, count: int, seconds: float) -> list[Token]:
        """Those of a stream, without a column."""
        step = self.ratios[stream] * self.per_token * ENCODED_S
        return [
            Token(-1, stream, i, clip, i * step, min((i + 1) * step, seconds)) for i in range(count)
        ]

    def streams(self, mel: Tensor, clip: int, trace: Trace) -> dict[str, Tensor]:
        """The tokens of each stream before its projectors, of `mel` `[bins, frames]`."""
        seconds = mel.shape[1] * FRAME_S

        def even(name: str, count: int, step: float) -> list[Token]:
            return [
                Token(-1, name, i, clip, i * step, min((i + 1) * step, seconds))
                for i in range(count)
            ]

        x = trace("mel", -1, even("mel", mel.shape[1], FRAME_S), mel.T)
        named = even("encoded", math.ceil(len(x) / 2), ENCODED_S)
        x = trace("encoder_output", -1, named, self.encoded(x, named, trace))
        made = {"frames": self.frames(x)}
        for stream in self.ratios:
            if stream != "frames":
                made[stream] = self.summary(stream, made["frames"])
        return {
            name: trace("connector_output", -1, self.tokens(name, clip, len(x), seconds), x)
            for name, x in made.items()
        }

    def project(self, name: str, x: Tensor) -> Tensor:
        """An MLP with GELU between its linear maps."""
        numbers = sorted(
            int(key.split(".")[-2])
            for key in self.weights
            if key.startswith(f"{name}.") and key.endswith(".weight")
        )
        for i in numbers:
            x = self.linear(f"{name}.{i}", x if i == 0 else gelu(x))
        return x

    def project_input(self, stream: str, x: Tensor) -> Tensor:
        return self.project(f"connector.input_projectors.{stream}", x)

    def project_layer(self, stream: str, layer: int, x: Tensor) -> Tensor:
        return self.project(f"connector.layer_projectors.{stream}.layer_{layer}", x)
