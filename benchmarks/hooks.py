"""What hooks cost: palscope's hooked model, TransformerLens's bridge and nnsight, side by side.

    python -m benchmarks.hooks --models tiny demo/plits demo/lal demo/pal --out runs/hooks.json

Every ratio is to the plain Hugging Face model's forward pass of the same turn, the clip encoded and
logits of every column computed. `tiny` is a random decoder of the demo's depth, 64 wide, unembedded
at the last column alone: its arithmetic is next to nothing, and what remains is Python's cost. On
models that run as PLITS, TransformerLens's own bridge takes part: it wraps the decoder alone and is
given the sequence of states that palscope puts into it (`inputs_embeds`), so it does the same
arithmetic, and so does the decoder in plain transformers that its ratios are to. The largest
differences of logits are printed beside the ratios.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnsight import NNsight, save
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.core import default_device, header, medians, write
from palscope._connectors import ConnectorConfig
from palscope._hooks import HookedAudioModel
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._models.base_weights import find_base
from palscope._models.finding import find_checkpoint
from palscope._models.scoring import prompt_batch
from palscope._routing import Route
from palscope.encoders import WhisperEncoderConfig, build_encoder

QUESTION = "What sound is this?"
LAYERS = 30  # of the demo's decoder


def tiny() -> tuple[Any, PalscopeProcessor]:
    """PLITS in a random decoder of 30 layers, 64 wide, with the demo's tokenizer."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))
    route = Route.plits(LAYERS)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    encoder: Any = build_encoder(
        WhisperEncoderConfig(
            d_model=16,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            layers=(1,),
        )
    )
    connector = ConnectorConfig.for_route(route)
    processor = PalscopeProcessor(encoder.feature_extractor(), tokenizer, 10, [1])
    model = PalscopeForConditionalGeneration.from_parts(
        LlamaForCausalLM(config),
        encoder,
        route,
        connector,
        audio_token_id=processor.audio_token_id,
    )
    return model.eval(), processor


def load(name: str, device: str) -> tuple[Any, PalscopeProcessor]:
    """A checkpoint, or the tiny model."""
    if name == "tiny":
        model, processor = tiny()
    else:
        found = find_checkpoint(name)
        model = PalscopeForConditionalGeneration.from_pretrained(found)
        processor = PalscopeProcessor.from_pretrained(found)
    return model.to(device), processor


def entering(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The sequence of states that enters the decoder."""
    return model(**inputs, output_hidden_states=True).hidden_states[0]


def residuals_of(view: Any, layers: Any, *args: Any, **kwargs: Any) -> Any:
    """nnsight: every layer's output and the logits, saved."""
    with view.trace(*args, **kwargs):
        saved = save([layer.output for layer in layers])
        logits = view.output.logits.save()
    return logits, saved


def traced(view: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """nnsight: the logits alone."""
    with view.trace(*args, **kwargs):
        logits = view.output.logits.save()
    return logits


def residual(name: str) -> bool:
    """Whether a hook point is a residual stream behind a layer."""
    return name.endswith("hook_resid_post")


def measure(name: str, samples: np.ndarray, repeats: int, device: str) -> dict[str, Any]:
    """All ways on one model: seconds, ratios to plain, and largest differences of logits."""
    plain, processor = load(name, device)
    inputs: dict[str, Any] = {}
    inputs |= prompt_batch(processor, [([samples], QUESTION)], device)
    inputs["logits_to_keep"] = 1 if name == "tiny" else 0
    hooked = HookedAudioModel(copy.deepcopy(plain), processor)
    view = NNsight(copy.deepcopy(plain))
    calls: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain(**inputs).logits,
        "hooked": lambda: hooked(inputs),
        "hooked, residuals": lambda: hooked.run_with_cache(inputs, names_filter=residual)[0],
        "hooked, everything": lambda: hooked.run_with_cache(inputs)[0],
        "nnsight": lambda: traced(view, **inputs),
        "nnsight, residuals": lambda: residuals_of(
            view, view.language_model.model.layers, **inputs
        )[0],
    }
    to_plain = {"plain": tuple(calls)}
    if plain.route == Route.plits(plain.route.n_layers):
        with torch.no_grad():
            states = entering(plain, inputs)
        decoder = plain.language_model
        alike = {"use_cache": False, "logits_to_keep": inputs["logits_to_keep"]}
        bridge: Any = build_bridge_from_module(
            copy.deepcopy(decoder), "LlamaForCausalLM", hf_config=decoder.config
        )
        calls |= {
            "decoder": lambda: decoder(inputs_embeds=states, **alike).logits,
            "bridge": lambda: bridge(states, **alike),
            "bridge, residuals": lambda: bridge.run_with_cache(
                states, names_filter=residual, **alike
            )[0],
            "bridge, everything": lambda: bridge.run_with_cache(states, **alike)[0],
        }
        to_plain["decoder"] = ("decoder", "bridge", "bridge, residuals", "bridge, everything")
    with torch.no_grad():
        seconds = medians(calls, repeats)
        logits = {way: call() for way, call in calls.items()}
    return {
        "columns": inputs["input_ids"].shape[1],
        "ways": {
            way: {
                "seconds": seconds[way],
                "ratio": seconds[way] / seconds[reference],
                "ratio_to": reference,
                "largest_difference": (logits[way] - logits[reference]).abs().max().item(),
            }
            for reference, ways in to_plain.items()
            for way in ways
        },
    }


def main() -> None:
    """Measure each model, print and write as it goes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", default=["tiny", "demo/plits", "demo/lal", "demo/pal"]
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of sound")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/hooks.json"))
    args = parser.parse_args()
    device = default_device()
    samples = np.random.default_rng(0).normal(size=int(args.seconds * 16_000)) * 0.1
    report: dict[str, Any] = header(device) | {"seconds_of_sound": args.seconds, "models": {}}
    for name in args.models:
        found = measure(name, samples.astype(np.float32), args.repeats, device)
        report["models"][name] = found
        print(f"\n{name}, {found['columns']} columns")
        for way, row in found["ways"].items():
            print(
                f"{way:>20}: {row['seconds']:.4f} s, × {row['ratio']:.2f} of {row['ratio_to']}, "
                f"logits differ by {row['largest_difference']:.1e}",
                flush=True,
            )
        write(report, args.out)


if __name__ == "__main__":
    main()
