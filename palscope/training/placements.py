"""Training a connector for each placement of audio: short runs, alike but for the route.

After so few steps it shows how fast placements learn, not what they reach in the end. The learning
rate stays constant after its warm-up, so that the runs of a comparison can be stopped after any
number of steps, equal for all, and go on later.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import set_seed

from palscope.connectors import ConnectorConfig, ProjectorConfig
from palscope.errors import PalscopeError
from palscope.routing import Route
from palscope.routing.depths import Placement
from palscope.routing.notation import route_to_text
from palscope.sweeps.record import file_hash
from palscope.sweeps.store import write_json
from palscope.training.demo import BASES, ENCODER_WIDTH, LAYER_RMS, TEXT_RMS, WIDTH
from palscope.training.examples import DemoExamples
from palscope.training.manifest import Corpus
from palscope.training.matched import matched_connector
from palscope.training.trainer import build, demo_arguments, measure_features, train

PARAMETERS = 7_760_000
"""About those of the demo's LAL: 30 layer projectors with 192 hidden channels."""
INPUTS = ProjectorConfig(hidden=512, output_rms=TEXT_RMS)
"""Of the summary, beside layer projectors: as the demo's PAL."""
DEEP_INPUTS = ProjectorConfig(depth=3, output_rms=TEXT_RMS)
"""Where there are no layer projectors: as the demo's PLITS."""
LAYER_PROJECTORS = ProjectorConfig(output_rms=LAYER_RMS)
MIX = {"sound": 0.4, "digit": 0.3, "instrument": 0.3}
"""Single clips of the three domains, which are what is scored."""
EXAMPLES = 1200
"""Different training examples; longer runs hear them again."""
MEASURED = 200
"""Clips over which the encoder's features are standardised."""
BEGUN, DONE = "begun.json", "trained.json"


@dataclass(frozen=True)
class Schedule:
    """What all placements of a comparison share; all else is the demo's recipe."""

    batch: int = 12
    learning_rate: float = 1e-3
    warmup_steps: int = 6
    seed: int = 0
    bf16: bool = False
    parameters: int = PARAMETERS


def folder_name(placement: Placement) -> str:
    """`LAL 0-9` as a folder: `lal_0-9`."""
    return placement.name.lower().replace(" ", "_")


def train_placements(
    placements: Sequence[Placement],
    corpus: Corpus,
    out: Path,
    schedule: Schedule,
    *,
    steps: int,
    manifest: Path,
    save_every: int = 25,
) -> dict[str, Path]:
    """Train each up to `steps` steps, one after the other.

    One that was killed goes on from its last checkpoint, and so does one that has had fewer steps.

    Args:
        placements: equal names are trained once.
        corpus: the clips; those of split `train` are heard.
        out: gets a checkpoint folder a placement.
        schedule: of every training.
        steps: how far to train.
        manifest: what the corpus was read from, for the record.
        save_every: steps between checkpoints.

    Returns:
        The checkpoint of each placement, by name.

    Raises:
        PalscopeError: a folder holds a training with another schedule, route or manifest, or one
            that has had more steps.
    """
    folders: dict[str, Path] = {}
    statistics: tuple[Tensor, Tensor] | None = None
    for placement in {each.name: each for each in placements}.values():
        folders[placement.name] = folder = out / folder_name(placement)
        if _steps_done(folder, placement, schedule, manifest, steps) == steps:
            continue
        set_seed(schedule.seed)
        connector = connector_for(placement.route, schedule.parameters)
        model, processor = build(BASES, placement.route, connector)
        if statistics is None:
            heard = DemoExamples(corpus, size=MEASURED, seed=schedule.seed, mix=MIX)
            statistics = measure_features(model, processor, heard, MEASURED)
        model.connector.standardise(*statistics)
        if schedule.bf16:
            for base in (model.language_model, model.encoder):
                cast(Any, base).bfloat16()
        torch.manual_seed(schedule.seed)
        train(
            model,
            processor,
            DemoExamples(corpus, size=EXAMPLES, seed=schedule.seed, mix=MIX),
            demo_arguments(
                folder,
                max_steps=steps,
                learning_rate=schedule.learning_rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=schedule.warmup_steps,
                per_device_train_batch_size=schedule.batch,
                seed=schedule.seed,
                bf16=schedule.bf16,
                save_steps=save_every,
            ),
        )
        write_json(folder / DONE, {"steps": steps})
    return folders


def connector_for(route: Route, parameters: int) -> ConnectorConfig:
    """The demo's connector for `route`, with hidden layers that give about `parameters`."""
    projected = any(cell.symbol == "P" for _, cells in route.rows for cell in cells)
    return matched_connector(
        route,
        parameters,
        encoder_width=ENCODER_WIDTH,
        width=WIDTH,
        inputs=INPUTS if projected else DEEP_INPUTS,
        layers=LAYER_PROJECTORS,
    )


def _steps_done(
    folder: Path, placement: Placement, schedule: Schedule, manifest: Path, steps: int
) -> int:
    """How many steps the training in `folder` has finished; it is begun where there is none."""
    wanted = {
        "name": placement.name,
        "route": route_to_text(placement.route),
        "manifest_sha256": file_hash(manifest),
        "mix": MIX,
        "examples": EXAMPLES,
        **asdict(schedule),
    }
    begun = folder / BEGUN
    if not begun.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(begun, wanted)
        return 0
    if json.loads(begun.read_text(encoding="utf-8")) != wanted:
        raise PalscopeError(
            f"{folder} holds a training with another schedule, route or manifest; give another "
            "folder, or remove that one."
        )
    if not (folder / DONE).is_file():
        return 0
    done = int(json.loads((folder / DONE).read_text(encoding="utf-8"))["steps"])
    if done > steps:
        raise PalscopeError(
            f"{folder} was trained for {done} steps; expected {steps} or fewer: ask for as many."
        )
    return done
