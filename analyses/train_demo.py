"""Train the demo checkpoints: PLITS, LAL or PAL between frozen SmolLM2-135M and Whisper tiny.en.

    python analyses/train_demo.py pal --manifest MANIFEST.csv --out demo/pal

The manifest has the columns `path, domain, label, split`; docs/demo.md says where the data comes
from. A killed run goes on where its last checkpoint stands.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from palscope.connectors import ConnectorConfig, ProjectorConfig
from palscope.models import PalscopeForConditionalGeneration
from palscope.routing import Route
from palscope.training.demo import BASES, LAYER_RMS, LAYERS, TEXT_RMS
from palscope.training.examples import MIX, DemoExamples
from palscope.training.manifest import Corpus
from palscope.training.trainer import build, demo_arguments, measure_features, train


@dataclass(frozen=True)
class Stage:
    """A stage of training; the mix gives each family of examples its share."""

    steps: int
    learning_rate: float
    mix: dict[str, float]


STAGES = {
    1: Stage(650, 1e-3, MIX),
    # Instruments lag behind after the first stage: they are told apart by timbre alone.
    2: Stage(
        200,
        5e-4,
        {
            "sound": 0.20,
            "digit": 0.15,
            "instrument": 0.45,
            "temporal_digits": 0.10,
            "temporal_sounds": 0.05,
            "mixed": 0.05,
        },
    ),
    # Order and number take longest to learn, and the stage before costs digits.
    3: Stage(
        600,
        5e-4,
        {
            "sound": 0.12,
            "digit": 0.18,
            "instrument": 0.17,
            "temporal_digits": 0.31,
            "temporal_sounds": 0.18,
            "mixed": 0.04,
        },
    ),
    # A short one at a low rate: PLITS had lost digits to the questions about time.
    4: Stage(
        120,
        2e-4,
        {
            "sound": 0.15,
            "digit": 0.35,
            "instrument": 0.13,
            "temporal_digits": 0.22,
            "temporal_sounds": 0.10,
            "mixed": 0.05,
        },
    ),
}
ROUTES = {"plits": Route.plits(LAYERS), "lal": Route.lal(LAYERS), "pal": Route.pal(LAYERS)}
SHAPES: dict[str, Any] = {
    "plits": {"inputs": ProjectorConfig(hidden=2048, depth=3, output_rms=TEXT_RMS)},
    "lal": {"layers": ProjectorConfig(hidden=192, output_rms=LAYER_RMS)},
    "pal": {
        "inputs": ProjectorConfig(hidden=512, output_rms=TEXT_RMS),
        "layers": ProjectorConfig(hidden=448, output_rms=LAYER_RMS),
        "summary_width": 512,
    },
}
"""Seven to eight million trained parameters each, so that size does not rank the integrations."""


def main() -> None:
    """Train one of the three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("integration", choices=sorted(ROUTES))
    parser.add_argument("--manifest", type=Path, required=True, help="CSV: path,domain,label,split")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="decoded clips")
    parser.add_argument("--stage", type=int, choices=sorted(STAGES), default=1)
    parser.add_argument("--init", type=Path, help="checkpoint that a later stage starts from")
    parser.add_argument("--steps", type=int, help="the stage's by default")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 bases and products")
    parser.add_argument("--threads", type=int, help="CPU threads (all by default)")
    args = parser.parse_args()
    stage = STAGES[args.stage]
    steps = args.steps or stage.steps
    if (args.stage > 1) != (args.init is not None):
        parser.error("a later stage starts from --init, stage 1 from nothing")

    if args.threads:
        torch.set_num_threads(args.threads)
    set_seed(args.seed)
    route = ROUTES[args.integration]
    connector = ConnectorConfig.for_route(route, **SHAPES[args.integration])
    model, processor = build(BASES, route, connector)
    corpus = Corpus.open(args.manifest, args.cache)
    examples = DemoExamples(
        corpus, size=steps * args.batch, seed=args.seed + args.stage - 1, mix=stage.mix
    )
    if args.init is None:
        model.connector.standardise(*measure_features(model, processor, examples, 200))
    else:
        first = PalscopeForConditionalGeneration.from_pretrained(args.init)
        model.connector.load_state_dict(first.connector.state_dict())
    if args.bf16:
        model.language_model.bfloat16()
        model.encoder.bfloat16()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{args.integration}: {trained / 1e6:.2f} M parameters to train\n{route}")
    torch.manual_seed(args.seed)
    train(
        model,
        processor,
        examples,
        demo_arguments(
            args.out,
            max_steps=steps,
            learning_rate=stage.learning_rate,
            per_device_train_batch_size=args.batch,
            seed=args.seed,
            bf16=args.bf16,
        ),
    )


if __name__ == "__main__":
    main()
