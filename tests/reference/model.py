"""A second implementation of a palscope model on Llama, written from the design's table of levels.

Plain torch, and nothing of palscope: weights by their names, config and route as JSON holds them.
One row at a time, without padding, cache, masks or hooks, in the precision of the weights given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.reference.edits import Cut, Edit, Token, Trace
from tests.reference.sound import FRAME_S, Sound

RUNS = ("attend", "full")


class Reference:
    """A model of one set of weights."""

    def __init__(self, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
        """`weights` of a checkpoint with its bases; `config` as in its `config.json`."""
        self.weights = {k: v.detach().double() for k, v in weights.items() if v.is_floating_point()}
        self.config = config
        self.text = config["text_config"]
        self.sound = Sound(self.weights, config)
        self.heads = self.text["num_attention_heads"]
        self.kv_heads = self.text["num_key_value_heads"]
        self.size = self.text["head_dim"]

    def layout(
        self, ids: Sequence[int], frames: Sequence[int], seconds: Sequence[float]
    ) -> list[Token]:
        """Words, and in place of each clip its frames with every summary behind what it pools."""
        tokens: list[Token] = []
        clip = 0
        while len(tokens) < len(ids):
            word = ids[len(tokens)]
            if word != self.config["audio_token_id"]:
                tokens.append(Token(len(tokens), "text", word))
                continue
            made = {
                name: self.sound.tokens(name, clip, -(-frames[clip] // ratio), seconds[clip])
                for name, ratio in self.sound.ratios.items()
            }
            for heard in range(1, frames[clip] + 1):
                for name, ratio in self.sound.ratios.items():
                    if heard % ratio == 0 or heard == frames[clip]:
                        token = made[name][(heard - 1) // ratio]
                        tokens.append(replace(token, column=len(tokens)))
            clip += 1
        assert len(tokens) == len(ids) and clip == len(frames)
        return tokens

    def __call__(
        self,
        ids: Sequence[int],
        mels: Sequence[Tensor],
        route: dict[str, Any],
        *,
        edits: Sequence[Edit] = (),
        cuts: Sequence[Cut] = (),
    ) -> tuple[dict[int, Tensor], Trace]:
        """Logits by column, of the tokens that run in the last layer; and what was seen on the way.

        Args:
            ids: one row, audio places included, without padding.
            mels: `[bins, frames]` of each of its clips.
            route: as `Route.to_dict()` writes it.
        """
        trace = Trace(edits)
        clips = [self.sound.streams(mel.double(), i, trace) for i, mel in enumerate(mels)]
        lengths = [mel.shape[1] * FRAME_S for mel in mels]
        tokens = self.layout(ids, [len(clip["frames"]) for clip in clips], lengths)
        levels = {row["name"]: row["levels"] for row in route["streams"]}
        sources = {row["name"]: row["sources"] for row in route["streams"]}

        def level(token: Token, layer: int) -> str:
            if token.stream == "text":
                return "full"
            return levels[token.stream][layer] if token.stream in levels else "absent"

        def carried(stream: str) -> bool:
            cells = zip(levels.get(stream, ()), sources.get(stream, ()), strict=True)
            return any(a != "absent" and b == "carried" for a, b in cells)

        table = self.weights["language_model.model.embed_tokens.weight"]
        state = torch.zeros(len(tokens), table.shape[1], dtype=table.dtype)
        for i, token in enumerate(tokens):
            if token.stream == "text":
                state[i] = table[token.number]
            elif carried(token.stream):
                made = clips[token.clip][token.stream][token.number]
                state[i] = self.sound.project_input(token.stream, made)
        for layer in range(route["n_layers"]):
            running = [t for t in tokens if level(t, layer) in RUNS]
            memory = [t for t in tokens if level(t, layer) == "keys"]
            fed = [t for t in running if level(t, layer) == "full"]
            entering = [
                self.sound.project_layer(t.stream, layer, clips[t.clip][t.stream][t.number])
                if sources[t.stream][layer] == "projected"
                else state[t.column]
                for t in memory
            ]
            at = [t.column for t in running]
            taken = trace("resid_pre", layer, running, state[at])
            audio = [i for i, t in enumerate(running) if t.stream != "text"]
            if audio:
                taken = taken.clone()
                taken[audio] = trace(
                    "audio_state", layer, [running[i] for i in audio], taken[audio]
                )
            read = taken[:0]
            if memory:
                read = trace("audio_state", layer, memory, torch.stack(entering))
            after = self.layer(layer, running, taken, memory, read, fed, route, trace, cuts)
            state = state.index_copy(0, torch.tensor(at), after)
        last = [t.column for t in tokens if level(t, route["n_layers"] - 1) in RUNS]
        head = self.weights.get("language_model.lm_head.weight", table)
        logits = self.norm("norm", state[last]) @ head.T
        return dict(zip(last, logits, strict=True)), trace

    def layer(
        self,
        layer: int,
        running: list[Token],
        x: Tensor,
        memory: list[Token],
        read: Tensor,
        fed: list[Token],
        route: dict[str, Any],
        trace: Trace,
        cuts: Sequence[Cut],
    ) -> Tensor:
        """One decoder layer on the states of what runs and of what is read alone."""
        name = f"language_model.model.layers.{layer}"

        def project(part: str, y: Tensor, heads: int) -> Tensor:
            return (y @ self.weights[f"{name}.self_attn.{part}_proj.weight"].T).view(
                len(y), heads, self.size
            )

        keys, values = [], []
        for group, states in ((memory, read), (running, x)):
            normed = self.norm(f"layers.{layer}.input_layernorm", states)
            k = project("k", normed, self.kv_heads)
            v = project("v", normed, self.kv_heads)
            audio = [i for i, t in enumerate(group) if t.stream != "text"]
            if audio:
                tokens = [group[i] for i in audio]
                k, v = k.clone(), v.clone()
                k[audio] = trace("audio_k", layer, tokens, k[audio])
                v[audio] = trace("audio_v", layer, tokens, v[audio])
            keys.append(self.turned(k, group))
            values.append(v)
        every = [*memory, *running]
        query = project("q", self.norm(f"layers.{layer}.input_layernorm", x), self.heads)
        query = self.turned(query, running)
        shared = self.heads // self.kv_heads
        k, v = (torch.cat(each).repeat_interleave(shared, 1) for each in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", query, k) / math.sqrt(self.size)
        closed = torch.tensor(
            [
                [
                    key.column > q.column
                    or (
                        route["frame_readers"] == "text"
                        and key.stream == "frames"
                        and q.stream not in ("text", "frames")
                    )
                    for key in every
                ]
                for q in running
            ]
        ).expand(self.heads, -1, -1)
        for cut in cuts:
            if cut.layers is None or layer in cut.layers:
                asks = torch.tensor([cut.queries(q) for q in running])
                gives = torch.tensor([cut.keys(key) for key in every])
                closed = closed.clone()
                heads = slice(None) if cut.heads is None else list(cut.heads)
                closed[heads] |= asks[:, None] & gives[None, :]
        pattern = scores.masked_fill(closed, -torch.inf).softmax(-1)
        pattern = trace("pattern", layer, running, pattern.transpose(0, 1)).transpose(0, 1)
        out = torch.einsum("hqk,khd->qhd", pattern, v)
        out = trace("head_output", layer, running, out).flatten(1)
        out = out @ self.weights[f"{name}.self_attn.o_proj.weight"].T
        y = x + trace("attn_out", layer, running, out)
        goes = [i for i, t in enumerate(running) if t in fed]
        z = self.norm(f"layers.{layer}.post_attention_layernorm", y[goes])
        z = trace("mlp_in", layer, fed, z)
        gate, up = (z @ self.weights[f"{name}.mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        out = (silu(gate) * up) @ self.weights[f"{name}.mlp.down_proj.weight"].T
        out = trace("mlp_out", layer, fed, out)
        y = y.index_add(0, torch.tensor(goes), out)
        return trace("resid_post", layer, running, y)

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.text["rms_norm_eps"])
        return x * scale * self.weights[f"language_model.model.{name}.weight"]

    def turned(self, x: Tensor, tokens: Sequence[Token]) -> Tensor:
        """`[tokens, heads, size]` turned by their positions: pairs are `i` and `i + size / 2`."""
        half = self.size // 2
        base = self.text["rope_parameters"]["rope_theta"]
        speed = torch.tensor(
            [base ** (-2 * i / self.size) for i in range(half)], dtype=torch.float64
        )
        position = torch.tensor([t.column for t in tokens], dtype=torch.float64)
        angle = position[:, None, None] * speed
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)
