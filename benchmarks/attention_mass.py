"""What attention mass costs: beside a plain forward pass, and against reading patterns.

    python -m benchmarks.attention_mass --out runs/attention_mass.json
    python -m benchmarks.attention_mass --model demo/lal --tokens 500 --out runs/mass-demo.json

One clip of `--tokens` audio tokens and 128 tokens of text around it, the clip's keys and values
made in the run. Timed, the repeats taking turns, and their peak memory taken:

- plain: the Hugging Face model, fused, unhooked;
- pathway, pathway of all text, keys: `pathway_mass` of the last token, of every text token, and
  `attention_mass` (a table with a row a key) of the last token;
- bridge: `run_with_hooks` on every layer's `hook_pattern`, the last token's row summed by pathway;
- nnsight: the same from the second output of every `self_attn`, on an eager copy of the model.

Without `--model` the decoder is random, of the demo's width and few layers. Prints, and writes as
JSON with machine and versions: ratios to plain, the largest difference between masses, and how peak
memory grows with the audio (a line through the lengths, and how far off it they lie). A way that
would fill the memory that is free is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from nnsight import NNsight

from benchmarks.core import default_device, header, medians, write
from palscope._connectors import ConnectorConfig
from palscope._hooks import HookedAudioModel
from palscope._models import (
    AudioClips,
    PalscopeConfig,
    PalscopeForConditionalGeneration,
    PalscopeProcessor,
)
from palscope._models.finding import find_checkpoint
from palscope._routing import Route
from palscope.encoders import EncoderOutput
from palscope.measures import attention_mass, by_pathway, pathway_mass
from palscope.measures._cost import peak_bytes
from palscope.measures._pathway_mass import pathway_sets

TEXT = 128
DEMO = "demo/pal"
"""Gives the random decoder its widths, and every model its tokenizer."""
PEERS = ("bridge", "nnsight")
COPIES = 4
"""Tensors as large as a pattern that eager attention holds at once, at most."""
SHARE = 0.75
"""Of the memory that is free: what patterns may fill."""


def random_model(integration: str, layers: int, columns: int) -> PalscopeForConditionalGeneration:
    """A random model of the demo's widths, with a context of `columns`."""
    config: Any = PalscopeConfig.from_pretrained(find_checkpoint(DEMO).folder)
    text = copy.deepcopy(config.text_config)
    text.num_hidden_layers, text.max_position_embeddings = layers, columns
    route: Route = getattr(Route, integration)(layers)
    shapes = config.parsed_connector()
    connector = ConnectorConfig.for_route(
        route,
        inputs=next(iter(shapes.inputs.values())),
        layers=next(iter(shapes.layers.values())),
        frames_per_token=shapes.frames_per_token,
        summary_width=shapes.summary_width,
    )
    torch.manual_seed(0)
    return PalscopeForConditionalGeneration(
        PalscopeConfig(
            text_config=text,
            encoder=config.encoder,
            connector=connector.to_dict(),
            route=route.to_dict(),
            audio_token_id=config.audio_token_id,
        )
    ).eval()


def prompt(model: PalscopeForConditionalGeneration, tokens: int) -> dict[str, Any]:
    """Words, one clip of `tokens` frame tokens, words; the clip encoded, from random states."""
    generator = torch.Generator().manual_seed(0)
    length = torch.tensor([tokens * model.connector.config.frames_per_token])
    states = torch.randn(1, int(length), model.encoder.width, generator=generator)
    with torch.no_grad():
        streams = model.connector(
            [EncoderOutput(states.to(model.device, model.dtype), length.to(model.device))]
        )
    seconds = tokens * model.frame_grid.seconds_per_token
    columns = sum(stream.tokens(tokens) for stream in model.route.streams)
    words = torch.randint(100, 1000, (TEXT,), generator=generator)
    audio = torch.full((columns,), model.config.audio_token_id)
    ids = torch.cat([words[:16], audio, words[16:]])[None].to(model.device)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "audio": AudioClips(streams, (tokens,), (seconds,), (0,)),
    }


class Case:
    """One model and prompt, and every way to its masses `[layers, heads, pathways]`."""

    def __init__(self, model: PalscopeForConditionalGeneration, tokens: int) -> None:
        self.plain: Any = model
        self.eager: Any = copy.deepcopy(model)
        self.eager.language_model.set_attn_implementation("eager")
        self.view: Any = NNsight(self.eager)
        demo: Any = PalscopeProcessor.from_pretrained(find_checkpoint(DEMO))
        processor = PalscopeProcessor(
            demo.feature_extractor,
            demo.tokenizer,
            demo.features_per_frame,
            [stream.ratio for stream in model.route.streams],
        )
        self.hooked = HookedAudioModel(copy.deepcopy(model), processor)
        self.inputs = prompt(model, tokens)
        layout = self.hooked.layout(self.inputs)
        sets = torch.stack(list(pathway_sets(layout).values()))[:, 0]
        columns = [layout.layer_columns(model.route, i) for i in range(model.route.n_layers)]
        self.members = [sets[:, each.keys[0]].T.to(model.dtype) for each in columns]
        pattern = max(each.keys.shape[1] * each.running.shape[1] for each in columns)
        heads = model.config.text_config.num_attention_heads
        self.pattern_bytes = pattern * heads * model.dtype.itemsize

    def calls(self) -> dict[str, Callable[[], Any]]:
        """What is compared, by name; a peer that would not fit is left out."""
        calls: dict[str, Callable[[], Any]] = {
            "plain": self.run_plain,
            "pathway": lambda: pathway_mass(self.hooked, self.fresh()),
            "pathway of all text": lambda: pathway_mass(self.hooked, self.fresh(), queries="text"),
            "keys": lambda: attention_mass(self.hooked, self.fresh()),
        }
        if COPIES * self.pattern_bytes < SHARE * free_bytes():
            calls |= {"bridge": self.run_bridge, "nnsight": self.run_nnsight}
        return calls

    def fresh(self) -> dict[str, Any]:
        """The prompt, its clip as if it were new."""
        self.inputs["audio"].keys_values.clear()
        return self.inputs

    def run_plain(self) -> Any:
        """The forward pass that a measure stands beside."""
        with torch.no_grad():
            return self.plain(**self.fresh(), logits_to_keep=1)

    def run_bridge(self) -> torch.Tensor:
        """Masses from the bridge's patterns."""
        found: dict[int, torch.Tensor] = {}

        def keep(pattern: Any, hook: Any) -> None:
            layer = hook.layer()
            found[layer] = pattern[0, :, -1] @ self.members[layer]

        hooks = [(f"blocks.{i}.attn.hook_pattern", keep) for i in range(len(self.members))]
        with torch.no_grad():
            self.hooked.run_with_hooks(self.fresh(), fwd_hooks=hooks, logits_to_keep=1)
        return torch.stack([found[layer] for layer in sorted(found)])

    def run_nnsight(self) -> torch.Tensor:
        """Masses from eager attention's second output."""
        found: list[Any] = []
        with torch.no_grad(), self.view.trace(**self.fresh(), logits_to_keep=1):
            for layer, members in enumerate(self.members):
                attention = self.view.language_model.model.layers[layer].self_attn.output[1]
                found.append((attention[0, :, -1] @ members).save())
        return torch.stack(found)

    def differences(self, calls: dict[str, Any]) -> dict[str, float]:
        """The largest difference of each way's masses from `pathway_mass`'s."""
        shape = (len(self.members), -1, self.members[0].shape[1])
        ours = torch.tensor(calls["pathway"]()["mass"].to_numpy()).view(shape)
        last = self.inputs["input_ids"].shape[1] - 1
        of_text: Any = calls["pathway of all text"]()
        others = {
            "pathway of all text": of_text[of_text["query"] == last]["mass"],
            "keys": by_pathway(calls["keys"]())["mass"],
        }
        found = {
            name: torch.tensor(mass.to_numpy(), dtype=ours.dtype).view(shape)
            for name, mass in others.items()
        }
        found |= {name: calls[name]().float().cpu() for name in PEERS if name in calls}
        return {name: float((mass - ours).abs().max()) for name, mass in found.items()}


def free_bytes() -> int:
    """Memory that is free on the device."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Time, peak memory, and differences of each way; ratios to plain."""
    calls = case.calls()
    differences = case.differences(calls)
    seconds = medians(calls, repeats)
    peaks: dict[str, int] = {}
    for name, call in calls.items():
        case.fresh()  # what a call before has left with the clip would be freed within this one
        peaks[name] = peak_bytes(call)
    ways: dict[str, Any] = {
        name: {
            "seconds": seconds[name],
            "ratio": seconds[name] / seconds["plain"],
            "peak_bytes": peaks[name],
            "peak_ratio": peaks[name] / peaks["plain"],
            "difference": differences.get(name),
        }
        for name in calls
    }
    for name in PEERS:
        if name not in calls:
            gib = COPIES * case.pattern_bytes / 2**30
            ways[name] = {"left_out": f"its patterns would hold about {gib:.0f} GiB at once"}
    return ways


def growth(by_tokens: dict[int, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """A line through each way's peaks: bytes a token, and the farthest point's share off it."""
    lines: dict[str, dict[str, float]] = {}
    for name in next(iter(by_tokens.values())):
        points = [(n, w[name]["peak_bytes"]) for n, w in by_tokens.items() if "seconds" in w[name]]
        if len(points) > 2:
            tokens, peaks = np.array(points, dtype=float).T
            line = np.polyfit(tokens, peaks, 1)
            off = np.abs(np.polyval(line, tokens) - peaks) / peaks.max()
            lines[name] = {"bytes_per_token": float(line[0]), "off_the_line": float(off.max())}
    return lines


def show(name: str, tokens: int, ways: dict[str, Any]) -> None:
    """Print one table."""
    print(
        f"\n{name}, {tokens} audio tokens (plain: {ways['plain']['seconds']:.3f} s, "
        f"{ways['plain']['peak_bytes'] / 2**20:.1f} MiB)"
    )
    for way, row in ways.items():
        if "left_out" in row:
            print(f"  {way:<20} left out: {row['left_out']}")
        else:
            print(
                f"  {way:<20} time {row['ratio']:6.2f}  memory {row['peak_ratio']:7.2f}  "
                f"difference {row['difference'] or 0:.1e}"
            )


def main() -> None:
    """Run all, saving as it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a checkpoint; by default a random decoder")
    parser.add_argument(
        "--integrations",
        nargs="+",
        default=["lal", "pal", "plits"],
        choices=["lal", "pal", "plits"],
        help="of the random decoder",
    )
    parser.add_argument("--layers", type=int, default=4, help="of the random decoder")
    parser.add_argument("--tokens", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/attention_mass.json"))
    args = parser.parse_args()
    device = default_device()
    report = header(device) | {"text_tokens": TEXT, "models": {}}
    for name in [args.model] if args.model else args.integrations:
        model: Any = (
            PalscopeForConditionalGeneration.from_pretrained(name)
            if args.model
            else random_model(name, args.layers, 2 * max(args.tokens) + TEXT)
        )
        by_tokens: dict[int, dict[str, Any]] = {}
        for tokens in args.tokens:
            by_tokens[tokens] = measure(Case(model.to(device), tokens), args.repeats)
            show(name, tokens, by_tokens[tokens])
            report["models"][name] = {
                "layers": model.route.n_layers,
                "tokens": by_tokens,
                "memory": growth(by_tokens),
            }
            write(report, args.out)
        print("  memory:", report["models"][name]["memory"])


if __name__ == "__main__":
    main()
