"""What hooks and routes cost, side by side in one run.

    python benchmarks/core.py --models demo/plits demo/lal demo/pal --out runs/core.json

Prints, and writes as JSON with machine and versions:
- the hooked forward pass without listeners, with residuals cached and with all cached, as ratios to
  the plain Hugging Face model's, with the largest difference of logits;
- prefill (as generation does it: the last position's logits alone), decoding, and the memory of
  prefill and cache of each integration, as ratios to the first.
Each timing is the median of interleaved repeats, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm.auto import tqdm

from palscope.hooks import HookedAudioModel
from palscope.measures.cost import peak_bytes
from palscope.models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope.models.checkpoints import find_checkpoint
from palscope.models.scoring import prompt_batch

QUESTION = "What sound is this?"


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each call, its repeats taking turns with the others'."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in tqdm(range(repeats + 1), desc="timing", leave=False):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def overhead(name: str, samples: np.ndarray, repeats: int, device: str) -> dict[str, float]:
    """Hooked against plain, on one model."""
    folder = find_checkpoint(name)
    processor = PalscopeProcessor.from_pretrained(folder)
    plain: Any = PalscopeForConditionalGeneration.from_pretrained(folder).to(device)
    twin: Any = PalscopeForConditionalGeneration.from_pretrained(folder).to(device)
    hooked = HookedAudioModel(twin, processor)
    inputs = prompt_batch(processor, [([samples], QUESTION)], device)
    with torch.no_grad():
        seconds = medians(
            {
                "plain": lambda: plain(**inputs),
                "hooked": lambda: hooked(inputs),
                "residuals": lambda: hooked.run_with_cache(
                    inputs, names_filter=lambda n: n.endswith("hook_resid_post")
                ),
                "everything": lambda: hooked.run_with_cache(inputs),
            },
            repeats,
        )
        difference = (plain(**inputs).logits - hooked(inputs)).abs().max().item()
    ratios = {key: value / seconds["plain"] for key, value in seconds.items()}
    return ratios | {"plain_seconds": seconds["plain"], "largest_difference": difference}


def integrations(
    names: list[str], samples: np.ndarray, repeats: int, device: str
) -> dict[str, dict[str, float]]:
    """Prefill of one clip and a question, one decoding step, and the cache, for each model."""
    prefill: dict[str, Callable[[], Any]] = {}
    decode: dict[str, Callable[[], Any]] = {}
    sizes: dict[str, dict[str, float]] = {}
    for name in names:
        folder = find_checkpoint(name)
        processor = PalscopeProcessor.from_pretrained(folder)
        model: Any = PalscopeForConditionalGeneration.from_pretrained(folder).to(device)
        inputs = prompt_batch(processor, [([samples], QUESTION)], device)
        with torch.no_grad():
            audio = model.encode_audio(inputs["input_features"], inputs["feature_lengths"])
            ids, mask = inputs["input_ids"], inputs["attention_mask"]

            def run(
                model: Any = model, ids: Any = ids, mask: Any = mask, audio: Any = audio
            ) -> Any:
                audio.keys_values.clear()  # a new clip each time
                return model(
                    input_ids=ids,
                    attention_mask=mask,
                    audio=audio,
                    use_cache=True,
                    logits_to_keep=1,
                )

            first = run()
            sizes[name] = {
                "audio_columns": float((ids == processor.audio_token_id).sum()),
                "cache_mib": first.past_key_values.nbytes / 2**20,
                "prefill_peak_mib": peak_bytes(run) / 2**20,
            }

            def step(model: Any = model, cache: Any = first.past_key_values) -> Any:
                return model(input_ids=torch.full((1, 1), 5, device=device), past_key_values=cache)

        prefill[name], decode[name] = run, step
    with torch.no_grad():
        prefill_seconds, decode_seconds = medians(prefill, repeats), medians(decode, repeats)
    return {
        name: sizes[name]
        | {
            "prefill_seconds": prefill_seconds[name],
            "prefill_ratio": prefill_seconds[name] / prefill_seconds[names[0]],
            "prefill_peak_ratio": sizes[name]["prefill_peak_mib"]
            / sizes[names[0]]["prefill_peak_mib"],
            "decode_seconds": decode_seconds[name],
            "decode_ratio": decode_seconds[name] / decode_seconds[names[0]],
        }
        for name in names
    }


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["demo/plits", "demo/lal", "demo/pal"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 50.0], help="of sound")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("runs/core.json"))
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    noise = np.random.default_rng(0).normal(size=int(max(args.seconds) * 16_000)) * 0.1
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "overhead": {},
        "integrations": {},
    }
    for seconds in args.seconds:
        samples = noise[: int(seconds * 16_000)].astype(np.float32)
        table = integrations(args.models, samples, args.repeats, device)
        report["integrations"][f"{seconds:g} s"] = table
        print(f"\n{seconds:g} s of sound" + "".join(f"\n  {n}: {row}" for n, row in table.items()))
    for name in args.models:
        samples = noise[: 5 * 16_000].astype(np.float32)
        report["overhead"][name] = overhead(name, samples, args.repeats, device)
        print(f"\n{name}, hooked against plain: {report['overhead'][name]}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
