"""Sound frozen from layer L on, in a published class: what skipping its work saves.

    python -m benchmarks.frozen --out benchmarks/frozen.json

Qwen2-Audio's class with random weights, 16 layers 512 wide, a clip of 30 s (750 tokens) encoded
once, 40 words. Three ways, in turns: the published one (sound runs in all layers), sound frozen by
hooks that put the audio tokens' states of layer L back into every layer above (they run all the
same), and by the route `frozen_from(L)`, where they are keys and values alone. The last two give
the same logits; the largest difference is reported. Times are prefills, and tokens after it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from benchmarks.core import default_device, header, medians, write
from palscope._models import AudioClips
from palscope._published import PublishedAudioModel, published_family

LAYERS, WIDTH, WORDS, SOUND, AUDIO_ID = 16, 512, 40, 750, 3_999


def random_model(device: str) -> PublishedAudioModel:
    """The class at a shape between the demo's and the published ones; its tower is tiny."""
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2},
        text_config={
            "model_type": "qwen2",
            "vocab_size": AUDIO_ID + 1,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
        },
        audio_token_index=AUDIO_ID,
    )
    model: Any = Qwen2AudioForConditionalGeneration(config).to(device)
    return PublishedAudioModel(model, published_family(model.config))


def prompt(model: PublishedAudioModel) -> dict[str, Any]:
    """Ten words, a clip of 30 s, thirty words."""
    words = torch.randint(0, AUDIO_ID, (1, WORDS))
    sound = torch.full((1, SOUND), AUDIO_ID)
    states = torch.randn(1, SOUND, WIDTH) * 0.02
    clips = AudioClips({"frames": states.to(model.device)}, (SOUND,), (30.0,), (0,), reused=False)
    ids = torch.cat([words[:, :10], sound, words[:, 10:]], 1).to(model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "audio": clips}


@contextmanager
def frozen_by_hooks(model: PublishedAudioModel, first: int) -> Generator[None, None, None]:
    """Within, every layer from `first` on gets the states that sound had there."""
    kept: list[Tensor] = []
    sound = slice(10, 10 + SOUND)

    def put_back(_layer: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0].clone()
        if hidden.shape[1] <= SOUND:
            return args  # a word that is decoded
        if not kept:
            kept.append(hidden[:, sound].clone())
        hidden[:, sound] = kept[0]
        return (hidden, *args[1:])

    handles = [each.register_forward_pre_hook(put_back) for each in model.decoder.layers[first:]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = random_model(given.device)
    inputs = prompt(model)
    published = model.route
    firsts = [0, LAYERS // 4, LAYERS // 2, 3 * LAYERS // 4]

    def prefill() -> Tensor:
        return model(**inputs, logits_to_keep=1).logits

    def routed(first: int) -> Tensor:
        with model.routed(published.frozen_from(first)):
            return prefill()

    def hooked(first: int) -> Tensor:
        with frozen_by_hooks(model, first):
            return prefill()

    calls: dict[str, Callable[[], Any]] = {"published": prefill}
    for first in firsts:
        calls[f"hooks {first}"] = lambda first=first: hooked(first)
        calls[f"skipped {first}"] = lambda first=first: routed(first)
    report = header(given.device)
    times = medians(calls, given.repeats)
    rows: list[dict[str, float]] = []
    plain = prefill()
    for first in firsts:
        by_route, by_hooks = routed(first), hooked(first)
        rows.append(
            {
                "frozen_from": first,
                "hooks": times[f"hooks {first}"] / times["published"],
                "skipped": times[f"skipped {first}"] / times["published"],
                "difference": float((by_route - by_hooks).abs().max()),
                "change": float((by_route - plain).abs().max()),
            }
        )
        print(
            f"frozen from layer {first:2} of {LAYERS}: by hooks {rows[-1]['hooks']:.2f} x the "
            f"published prefill, skipped {rows[-1]['skipped']:.2f} x; logits differ by "
            f"{rows[-1]['difference']:.1e}, from the published ones by {rows[-1]['change']:.2g}"
        )
    report |= {"layers": LAYERS, "width": WIDTH, "sound": SOUND, "words": WORDS}
    if given.out is not None:
        write(report | {"published_seconds": times["published"], "rows": rows}, given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
