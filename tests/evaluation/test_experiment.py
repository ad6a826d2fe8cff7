"""The paper's experiments: every file can be carried out, and systems differ as they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palscope._connectors import Connector
from palscope._routing import Route
from palscope.audio import TimeGrid
from palscope.encoders._base import EncoderTokens
from palscope.errors import RecipeError
from palscope.evaluation._benchmarks.registry import BENCHMARKS
from palscope.evaluation._experiment import experiment_names, read_experiment, systems_of
from palscope.evaluation._reproduce import (
    BenchmarkFiles,
    check_answerable,
    folder_name,
    scale_of,
)
from palscope.training._trainer import connector_for

LAYERS, WIDTH = 30, 576  # of SmolLM2-135M
ENCODER_WIDTHS = {  # two layers of each encoder side by side
    "openai/whisper-tiny.en": [768],
    "openai/whisper-base": [1024],
    "whisper-tiny-base": [768, 1024],
}
PAPER_LAYERS = 16  # of Llama-3.2-1B
SCALES = [(name, scale) for name in experiment_names() for scale in read_experiment(name).scales]


class Decoder:
    """As much of the demo's decoder as a connector's shape hangs on."""

    def get_input_embeddings(self) -> Any:
        return torch.nn.Embedding(4, WIDTH)


def test_all_eight_are_there_with_both_scales() -> None:
    assert len(experiment_names()) == 8
    both = {name for name, scale in SCALES if scale == "paper"}
    # Other encoders' weights are no part of palscope, nor is it known with which the paper began.
    assert set(experiment_names()) - both == {"cross_encoder", "resamplers"}
    assert {name for name, scale in SCALES if scale == "here"} == set(experiment_names())


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_system_has_a_recipe_and_routes_that_fit(name: str, scale: str) -> None:
    chosen = read_experiment(name).scales[scale]
    assert set(chosen.benchmarks) <= set(BENCHMARKS)
    assert bool(chosen.benchmarks) == (scale == "paper")
    systems = systems_of(chosen)
    assert len({folder_name(system.recipe) for system in systems}) == len(systems)
    for system in systems:
        own = system.recipe.route_for(LAYERS if scale == "here" else PAPER_LAYERS)
        for under in system.under.values():
            assert under.n_layers == own.n_layers
            assert under.streams == own.streams
            assert under != own


@pytest.mark.parametrize("name", experiment_names())
def test_connectors_of_an_experiment_are_alike_in_size(name: str) -> None:
    # Else size would be compared, not placement.
    counts: list[int] = []
    for system in systems_of(read_experiment(name).scales["here"]):
        route: Route = system.recipe.route_for(LAYERS)
        connector = connector_for(system.recipe.connector, route, Decoder())
        widths = ENCODER_WIDTHS[system.recipe.bases.encoder]
        tokens = [EncoderTokens(width, TimeGrid(0.02)) for width in widths]
        with torch.device("meta"):
            made = Connector(connector, tokens, WIDTH, route.streams)
        counts.append(sum(weight.numel() for weight in made.parameters()))
    assert max(counts) < 1.005 * min(counts)


def test_systems_of_other_experiments_are_trained_once() -> None:
    def folders(name: str) -> dict[str, str]:
        systems = systems_of(read_experiment(name).scales["here"])
        return {system.name: folder_name(system.recipe) for system in systems}

    assert folders("lal_against_plits")["LAL"] == folders("injection_depth")["all 30 layers"]
    assert folders("lal_against_plits")["PAL"] == folders("layer_split")["first 10"]
    assert folders("lal_against_plits")["PLITS"] == folders("cross_encoder")["PLITS, tiny.en"]
    assert folders("cross_encoder")["LAL, tiny.en"] == folders("resamplers")["pool, tiny.en"]


def test_a_part_keeps_the_baseline() -> None:
    experiment = read_experiment("lal_against_plits")
    part = scale_of(experiment, "here", [7], ["PAL"])
    assert (list(part.systems), part.seeds) == (["PLITS", "PAL"], (7,))
    with pytest.raises(RecipeError, match="no system Lal; there are PLITS, LAL, PAL"):
        scale_of(experiment, "here", None, ["Lal"])
    with pytest.raises(RecipeError, match="no scale 'big'; there are here, paper"):
        scale_of(experiment, "big")


def test_benchmarks_without_questions_are_refused_before_training(tmp_path: Path) -> None:
    scale = read_experiment("pathway_masking").scales["paper"]
    files = {"mmau": BenchmarkFiles(tmp_path / "mmau.json")}
    with pytest.raises(RecipeError, match="no questions given for mmar, mmsu"):
        check_answerable(scale, files)
    check_answerable(scale, dict.fromkeys(scale.benchmarks, files["mmau"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: a\nclaim: b\n", "scales: Field required"),
        ("title: a\nclaim: b\nscale: {}\nscales: {}\n", "scale: Extra inputs"),
        (
            "title: a\nclaim: b\nscales: {here: {recipe: r, seeds: [0], baseline: x, systems: "
            "{y: {}}}}",
            "baseline 'x' is none of the systems y",
        ),
        ("title: [", "cannot be read as YAML"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        read_experiment(str(file))


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match="audio_queries, cross_encoder"):
        read_experiment("depth")


def test_a_file_is_read_as_recipes_are(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    system = "{changes: {stages: {labels: {learning_rate: 2e-3}}}}"
    scale = f"{{recipe: demo/short+lal, seeds: [0], baseline: x, systems: {{x: {system}}}}}"
    file.write_text(f"title: a\nclaim: b\nscales: {{here: {scale}}}", encoding="utf-8")
    (read,) = systems_of(read_experiment(str(file)).scales["here"])
    assert [stage.learning_rate for stage in read.recipe.stages.values()] == [2e-3]
    file.write_text("title: a\ntitle: b\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="'title' stands twice"):
        read_experiment(str(file))
