"""Training a connector for each placement of audio: short runs, alike but for the route.

So few steps show how fast placements learn, not what they reach in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import Tensor

from palscope._connectors import ConnectorConfig, ProjectorConfig
from palscope._routing import Route
from palscope._routing.depths import Placement
from palscope._routing.notation import route_to_text
from palscope._sweeps.record import file_hash
from palscope.audio import TimeGrid
from palscope.datasets._examples import DemoExamples
from palscope.datasets._manifest import Corpus
from palscope.encoders._base import EncoderTokens
from palscope.training._demo import BASES, ENCODER_WIDTH, LAYER_RMS, TEXT_RMS, WIDTH
from palscope.training._folders import is_trained, mark_trained
from palscope.training._matched import matched_connector
from palscope.training._recipe import Stage
from palscope.training._trained import prepare
from palscope.training._trainer import build, measure_features, train, training_arguments

PARAMETERS = 7_760_000
"""About those of the demo's LAL: 30 layer projectors with 192 hidden channels."""
INPUTS = ProjectorConfig(hidden=512, output_rms=TEXT_RMS)
"""Of the summary, beside layer projectors: as the demo's PAL."""
DEEP_INPUTS = ProjectorConfig(depth=3, output_rms=TEXT_RMS)
"""Where there are no layer projectors: as the demo's PLITS."""
LAYER_PROJECTORS = ProjectorConfig(output_rms=LAYER_RMS)
MIX = {"sound": 0.4, "digit": 0.3, "instrument": 0.3}
"""Single clips of the three domains, which are what is scored."""
MEASURED = 200
"""Clips over which the encoder's features are standardised."""


@dataclass(frozen=True)
class Schedule:
    """What all placements of a comparison share; all else is the demo's recipe."""

    steps: int
    batch: int = 12
    learning_rate: float = 1e-3
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
    manifest: Path,
    save_every: int = 25,
) -> dict[str, Path]:
    """Train those that are not trained yet, one after the other.

    One that was killed goes on from its last checkpoint.

    Args:
        placements: equal names are trained once.
        corpus: the clips; those of split `train` are heard.
        out: gets a checkpoint folder a placement.
        schedule: of every training.
        manifest: what the corpus was read from, for the record.
        save_every: steps between checkpoints.

    Returns:
        The checkpoint of each placement, by name.

    Raises:
        PalscopeError: a folder holds a training with another schedule, route or manifest.
    """
    folders: dict[str, Path] = {}
    statistics: tuple[Tensor, Tensor] | None = None
    for placement in {each.name: each for each in placements}.values():
        folders[placement.name] = folder = out / folder_name(placement)
        wanted = {
            "name": placement.name,
            "route": route_to_text(placement.route),
            "manifest_sha256": file_hash(manifest),
            "mix": MIX,
            **asdict(schedule),
        }
        if is_trained(folder, wanted, "schedule, route or manifest"):
            continue
        set_seed(schedule.seed)
        connector = connector_for(placement.route, schedule.parameters)
        model, processor = build(BASES, placement.route, connector)
        if statistics is None:
            heard = DemoExamples(corpus, size=MEASURED, seed=schedule.seed, mix=MIX)
            statistics = measure_features(model, processor, heard, MEASURED)
        model.connector.standardise(*statistics)
        stage = Stage(
            steps=schedule.steps,
            batch=schedule.batch,
            learning_rate=schedule.learning_rate,
            bf16=schedule.bf16,
            save_every=save_every,
            log_every=save_every,
        )
        prepare(model, stage.train, bf16=stage.bf16)
        size = schedule.steps * schedule.batch
        torch.manual_seed(schedule.seed)
        train(
            model,
            processor,
            DemoExamples(corpus, size=size, seed=schedule.seed, mix=MIX),
            stage,
            training_arguments(stage, folder, steps=schedule.steps, seed=schedule.seed),
        )
        mark_trained(folder, {"steps": schedule.steps})
    return folders


def connector_for(route: Route, parameters: int) -> ConnectorConfig:
    """The demo's connector for `route`, with hidden layers that give about `parameters`."""
    projected = any(cell.symbol == "P" for _, cells in route.rows for cell in cells)
    return matched_connector(
        route,
        parameters,
        encoders=[EncoderTokens(ENCODER_WIDTH, TimeGrid(0.02))],
        width=WIDTH,
        inputs=INPUTS if projected else DEEP_INPUTS,
        layers=LAYER_PROJECTORS,
    )
