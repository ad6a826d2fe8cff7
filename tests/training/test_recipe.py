"""Recipes: those that ship, how pieces are put together, and errors that name file and key."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from palscope._connectors import LFSTConfig
from palscope._models.families import FAMILIES
from palscope._routing import Route
from palscope.datasets._examples import MIX
from palscope.errors import RecipeError, RouteError
from palscope.training._recipe import Stage
from palscope.training._recipe_files import RECIPES, read_recipe

BACKBONES = ("llama-3.2-1b", "llama-3.2-3b", "qwen2.5-1.5b")
INTEGRATIONS = ("plits", "lal", "pal", "lal+frozen-ffn")


def write(folder: Path, text: str, name: str = "r") -> str:
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder / f"{name}.yaml")


WHOLE = """
bases: {text: a, encoder: b, encoder_layers: [1]}
route: lal
data: {format: csv}
stages:
  one: {steps: 2, learning_rate: 1e-3, log_every: 1, save_every: 2}
"""


@pytest.mark.parametrize(("backbone", "integration"), list(product(BACKBONES, INTEGRATIONS)))
def test_the_papers_twelve(backbone: str, integration: str) -> None:
    recipe = read_recipe(f"paper/stages+{backbone}+{integration}")
    connector, together = recipe.stages.values()
    assert backbone in recipe.bases.text.lower()
    assert recipe.route == integration.partition("+")[0]
    # The connector first, with decoder and encoder frozen; then connector and decoder (section 4).
    assert connector.train.llm == "frozen" and connector.train.connector
    assert together.train.llm == ("frozen_ffn" if "frozen" in integration else "whole")
    assert not connector.train.encoder and not together.train.encoder
    assert all(stage.schedule == "cosine" and stage.bf16 for stage in recipe.stages.values())
    for layers in (16, 28):  # Llama-3.2-1B's; the other two's
        expected: dict[str, Any] = {"plits": Route.plits, "lal": Route.lal, "pal": Route.pal}
        assert recipe.route_for(layers) == expected[recipe.route](layers)
    for processes in (1, 2, 4, 8):
        assert all(
            stage.accumulation(processes) * processes * stage.micro_batch == 256
            for stage in recipe.stages.values()
        )


def test_ltus_four_stages_are_its_public_scripts() -> None:
    stages = list(read_recipe("ltu/stages").stages.values())
    assert [stage.learning_rate for stage in stages] == [1e-3, 1e-4, 1e-4, 1e-4]
    assert [stage.epochs for stage in stages] == [2, 2, 1, 1]
    assert [stage.micro_batch for stage in stages] == [8, 4, 4, 4]
    assert all(
        (stage.batch, stage.schedule, stage.warmup, stage.weight_decay) == (256, "linear", 100, 0)
        for stage in stages
    )
    assert stages[0].train.llm == "frozen" and not stages[0].train.encoder
    for stage in stages[1:]:
        assert stage.train.encoder and stage.train.lora is not None
        lora = stage.train.lora
        assert (lora.rank, lora.alpha, lora.dropout) == (8, 16, 0.05)
        assert lora.modules == ("q_proj", "v_proj")


def test_the_papers_fusion_of_two_encoders() -> None:
    recipe = read_recipe("paper/stages+llama-3.2-1b+sslam-clap+lal")
    assert recipe.bases.encoder_layers is None
    resampler = recipe.connector.others()["resampler"]
    assert isinstance(resampler, LFSTConfig) and resampler.reads == (0, 1, 0)
    assert recipe.connector.layers.hidden == 512  # as the others'


@pytest.mark.parametrize("integration", ["plits", "lal", "pal"])
def test_the_demos_stages(integration: str) -> None:
    recipe = read_recipe(f"demo/stages+{integration}")
    stages = list(recipe.stages.values())
    assert [stage.steps for stage in stages] == [650, 200, 600, 120]
    assert [stage.learning_rate for stage in stages] == [1e-3, 5e-4, 5e-4, 2e-4]
    assert stages[0].mix == MIX
    assert all(stage.mix.keys() == MIX.keys() for stage in stages)
    assert all(stage.train.llm == "frozen" for stage in stages)


def test_every_file_that_ships_is_part_of_a_recipe() -> None:
    pieces = {path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*")}
    used = {"demo/stages", "ltu/stages", "paper/stages", "paper/frozen-ffn", "paper/sslam-clap"}
    used |= {f"demo/{name}" for name in ("plits", "lal", "pal")}
    used |= {f"demo/{name}" for name in ("short", "short-llm", "short-frozen-ffn")}
    used |= {f"paper/{name}" for name in ("plits", "lal", "pal", *BACKBONES)}
    assert pieces - {"demo", "ltu", "paper"} == used
    assert {"llama", "qwen2"} <= set(FAMILIES)


def test_later_pieces_go_over_earlier_ones(tmp_path: Path) -> None:
    name = write(tmp_path, WHOLE.replace("1e-3", "1e-3, mix: {a/*: 0.5, b/*: 0.5}"))
    write(tmp_path, "every_stage: {batch: 8, steps: 9}\nstages: {two: {learning_rate: 1}}", "p")
    write(tmp_path, "stages:\n  one: {mix: {c/*: 1.0}}\n  two: {learning_rate: 0.5}", "q")
    recipe = read_recipe(f"{name}+p+q")
    one, two = recipe.stages.values()
    assert (one.steps, one.batch, one.learning_rate) == (2, 8, 1e-3)  # its own before the shared
    assert one.mix == {"c/*": 1.0}  # a mix is replaced as a whole
    assert (two.steps, two.batch, two.learning_rate) == (9, 8, 0.5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("route: lal", "rout: lal"), r"r\.yaml, rout: .*not permitted"),
        (("route: lal", ""), r"route: Field required"),
        (("route: lal", "route: lol"), r"r\.yaml, route: 'lol' .*plits, lal, pal"),
        (("steps: 2", "steps: 2.5"), r"r\.yaml, stages\.one\.steps: .*integer.*2\.5"),
        (("steps: 2", "steps: '2'"), r"stages\.one\.steps: .*integer"),
        (("steps: 2", "steps: 0"), r"stages\.one\.steps: .*greater than or equal to 1"),
        (("steps: 2", "epochs: 1, steps: 2"), r"stages\.one: give either steps or epochs"),
        (("steps: 2, ", ""), r"stages\.one: give either steps or epochs"),
        (("1e-3", "fast"), r"stages\.one\.learning_rate: .*number.*'fast'"),
        (("1e-3", "-1e-3"), r"stages\.one\.learning_rate: .*greater than 0"),
        (("1e-3", ".nan"), r"stages\.one\.learning_rate"),
        (("1e-3", "true"), r"stages\.one\.learning_rate"),
        (("steps: 2", "steps: 2, mix: {a: 0.5}"), r"stages\.one: the shares of mix add up to 0\.5"),
        (("steps: 2", "steps: 2, mix: {a: 2, b: -1}"), r"a share of mix is not above 0"),
        (("save_every: 2", "save_every: 3, log_every: 2"), r"twice"),
        (("save_every: 2", "save_every: 2, batch: 5, per_device: 2"), r"no multiple of per_device"),
        (("save_every: 2", "save_every: 2, train: {llm: lora}"), r"lora belongs to llm: lora"),
        (("save_every: 2", "save_every: 2, train: {connector: false}"), r"nothing is trained"),
        (("save_every: 2", "save_every: 2, train: {llm: half}"), r"train\.llm: .*'frozen'"),
        (("format: csv", "format: xml"), r"r\.yaml, data\.format: .*'labelled'"),
        (("format: csv", "format: csv, columns: {sound: x}"), r"data\.columns: sound: expected"),
        (("format: csv", "format: datasets"), None),
        (("encoder: b", "encoder: b, decoder: c"), r"r\.yaml, bases\.decoder"),
        (("encoder: b, ", ""), r"r\.yaml, bases\.encoder"),
        (("route: lal", "route: lal\nroute: pal"), r"r\.yaml.*'route' stands twice"),
        (("route: lal", "route: lal\nconnector: {pol: mean}"), r"connector: pol"),
        (("route: lal", "route: lal\nconnector: {pool: median}"), r"connector: pool: .*'mean'"),
        (("route: lal", "route: lal\nconnector: {inputs: {hidden: 0}}"), r"inputs\.hidden"),
        (("route: lal", "route: lal\nconnector: {projected_layers: {}}"), r"follow from the route"),
        (
            ("route: lal", "route: lal\nconnector: {resampler: {kind: mean}}"),
            r"connector: there is no resampler of kind 'mean'; expected one of qformer, lfst",
        ),
        (
            ("route: lal", "route: lal\nconnector: {resampler: {kind: lfst, headz: 2}}"),
            r"connector: headz",
        ),
        (("stages:\n  one", "stages:\n  One"), r"stage 'One'"),
        (("route: lal", "route: [lal"), r"r\.yaml cannot be read as YAML"),
    ],
)
def test_errors_name_file_and_key(
    tmp_path: Path, change: tuple[str, str], told: str | None
) -> None:
    name = write(tmp_path, WHOLE.replace(*change))
    if told is None:  # steps are given, as such data needs
        read_recipe(name)
        return
    with pytest.raises(RecipeError, match=told):
        read_recipe(name)


def test_logs_and_checkpoints_must_fall_together(tmp_path: Path) -> None:
    text = WHOLE.replace("log_every: 1, save_every: 2", "log_every: 2, save_every: 3")
    with pytest.raises(RecipeError, match="save_every 3 is no multiple of log_every 2"):
        read_recipe(write(tmp_path, text))


def test_an_error_is_laid_to_the_piece_that_it_comes_from(tmp_path: Path) -> None:
    name = write(tmp_path, WHOLE)
    write(tmp_path, "stages:\n  one: {warmup: -1}", "p")
    write(tmp_path, "every_stage: {bach: 3}", "q")
    with pytest.raises(RecipeError, match=r"p\.yaml, stages\.one\.warmup"):
        read_recipe(f"{name}+p")
    with pytest.raises(RecipeError, match=r"q\.yaml, stages\.one\.bach"):
        read_recipe(f"{name}+q")


def test_a_missing_piece_is_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"demo/nothing\.yaml.*demo/stages.*paper/llama-3\.2-1b"):
        read_recipe("demo/stages+nothing")
    with pytest.raises(RecipeError, match="holds no keys"):
        read_recipe(write(tmp_path, "just words"))


def test_data_without_an_end_needs_steps(tmp_path: Path) -> None:
    text = WHOLE.replace("steps: 2", "epochs: 1").replace("format: csv", "format: datasets")
    with pytest.raises(RecipeError, match="has no end; give steps"):
        read_recipe(write(tmp_path, text))


def test_a_route_of_another_depth_is_refused(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, WHOLE.replace("route: lal", "route: frames:P2.2")))
    assert str(recipe.route_for(4)).startswith("frames PP..")
    with pytest.raises(RouteError, match="4 layers, the decoder a has 5"):
        recipe.route_for(5)


def test_a_batch_is_shared_evenly_or_not_at_all() -> None:
    stage = Stage(steps=1, learning_rate=0.1, batch=12, per_device=2)
    assert [stage.accumulation(n) for n in (1, 2, 3, 6)] == [6, 3, 2, 1]
    with pytest.raises(RecipeError, match="multiple of 8"):
        stage.accumulation(4)


def test_numbers_are_what_yaml_1_2_says(tmp_path: Path) -> None:
    # PyYAML alone takes 1e-3 for text.
    assert yaml.safe_load("1e-3") == "1e-3"
    (stage,) = read_recipe(write(tmp_path, WHOLE)).stages.values()
    assert stage.learning_rate == 0.001


def bomb(levels: int = 9) -> str:
    """A few hundred bytes that stand for 10^9 lists."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (bomb(), r"\*a0 is an alias; write it out"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "is an alias"),
        ("a: &a [*a]\n", "is an alias"),
        ("[" * 5000, "nested too deeply"),
        ("a: 2001-02-31\n", "day is out of range"),
        ("a: " + "9" * 5000 + "\n", "cannot be read as YAML"),
        ("".join(f"k{n}: 1\n" for n in range(3000)), "and 2994 more"),
        ("? [1]\n: 2\n", "cannot be read as YAML"),
        ("a: 1\n'a': 2\n", "'a' stands twice"),
        ("<!doctype html><html></html>", "is a web page"),
        ("x" * (1 << 21), "2 MB; expected YAML"),
        ("!!python/object/apply:os.system [ls]\n", "cannot be read as YAML"),
    ],
)
def test_a_piece_that_asks_for_memory_or_time_is_refused_at_once(
    tmp_path: Path, text: str, told: str
) -> None:
    began = time.process_time()
    with pytest.raises(RecipeError, match=told):
        read_recipe(write(tmp_path, text))
    assert time.process_time() - began < 2
