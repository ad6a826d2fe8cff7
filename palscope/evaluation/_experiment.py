"""The paper's experiments as data: which systems are trained, on which routes each is asked.

Each is a YAML file beside this one (`paper/`), with a claim of the paper and one section a scale:
`paper`, for its backbones and data, and `here`, for the demo's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from palscope._routing import Route, route_from_text
from palscope.errors import RecipeError
from palscope.training._recipe import Recipe, Strict
from palscope.training._recipe_files import read_recipe
from palscope.training._yaml_files import read_yaml

EXPERIMENTS = Path(__file__).parent / "paper"
OWN = "own route"
"""Under which a system was trained."""


class SystemPlan(Strict):
    """One system: what its recipe has beyond that of the others.

    Attributes:
        pieces: of the recipe, joined to the scale's by `+`.
        changes: laid over the recipe, such as a route or another encoder.
        under: other routes on which the trained system is asked too, by name, each in one word.
    """

    pieces: str = ""
    changes: dict[str, Any] = Field(default_factory=dict[str, Any])
    under: dict[str, str] = Field(default_factory=dict[str, str])


class ExperimentScale(Strict):
    """The systems at one size.

    Attributes:
        recipe: what all systems share, as `palscope.training._recipe_files.read_recipe` takes it.
        seeds: each system is trained once for each.
        baseline: the system that the others are compared with.
        systems: by name.
        benchmarks: what is asked, by their names in `palscope.evaluation._benchmarks`; none: the
            validation rows of the data, which then are labelled clips.
        needs: what has to be had for it, in words.
    """

    recipe: str
    seeds: tuple[int, ...] = Field(min_length=1)
    baseline: str
    systems: dict[str, SystemPlan] = Field(min_length=1)
    benchmarks: tuple[str, ...] = ()
    needs: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentScale:
        if self.baseline not in self.systems:
            raise ValueError(
                f"baseline {self.baseline!r} is none of the systems {', '.join(self.systems)}"
            )
        return self


class Experiment(Strict):
    """An experiment of the paper.

    Attributes:
        title: what is compared.
        claim: what the paper says, with the place.
        scales: by name.
    """

    title: str
    claim: str
    scales: dict[str, ExperimentScale] = Field(min_length=1)


@dataclass(frozen=True)
class System:
    """A system of an experiment, ready to be trained.

    Attributes:
        name: in the experiment.
        recipe: its training.
        under: the routes on which it is asked beside its own.
    """

    name: str
    recipe: Recipe
    under: Mapping[str, Route]


def experiment_names() -> list[str]:
    """Those that come with palscope."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def read_experiment(name: str) -> Experiment:
    """An experiment that comes with palscope, or a YAML file of one's own.

    Raises:
        RecipeError: there is none, or a key is unknown, missing or has an impossible value.
    """
    file = Path(name) if name.endswith(".yaml") else EXPERIMENTS / f"{name}.yaml"
    if not file.is_file():
        raise RecipeError(
            f"there is no experiment {name!r}; give a YAML file or one of "
            f"{', '.join(experiment_names())}."
        )
    plain = read_yaml(file, list(Experiment.model_fields))
    try:
        return Experiment.model_validate_json(json.dumps(plain))
    except TypeError as error:  # a date, or a key that is no text
        raise RecipeError(f"experiment {file}: holds what JSON cannot ({error}).") from error
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise RecipeError(f"experiment {file}: {'; '.join(found)}.") from error


def systems_of(scale: ExperimentScale) -> list[System]:
    """The systems with their recipes read.

    Raises:
        RecipeError, RouteError: a recipe or a route cannot be read.
    """
    return [
        System(
            name,
            read_recipe("+".join(filter(None, [scale.recipe, plan.pieces])), plan.changes),
            {other: route_from_text(text) for other, text in plan.under.items()},
        )
        for name, plan in scale.systems.items()
    ]
