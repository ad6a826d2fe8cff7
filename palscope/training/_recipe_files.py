"""Recipes as they are written: pieces of YAML.

A recipe is written in pieces that are put together from left to right, a later one's value over an
earlier one's: `paper/stages+llama-3.2-1b+pal` is `paper/stages.yaml`, then its neighbours
`llama-3.2-1b.yaml` and `pal.yaml`. The pieces that come with palscope lie beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from palscope.errors import RecipeError
from palscope.training._recipe import Recipe
from palscope.training._recipe_errors import EVERY_STAGE, messages
from palscope.training._yaml_files import read_yaml

RECIPES = Path(__file__).parent / "recipes"


def read_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of that name.

    Args:
        name: pieces joined by `+`. The first is a YAML file, or the name of one that comes with
            palscope (`demo/stages`); the others lie in the same folder.
        changes: laid over them, like one more piece.

    Raises:
        RecipeError: a piece is missing or no YAML, or a key is unknown, missing or has a value of
            the wrong type or an impossible one; the message names file and key.
    """
    pieces = [(file, read_yaml(file, _keys())) for file in _files(name)]
    merged: dict[str, Any] = {}
    for piece in (*(piece for _, piece in pieces), changes or {}):
        merged = _over(merged, piece)
    shared = merged.pop(EVERY_STAGE, {})
    stages = merged.get("stages")
    if isinstance(stages, dict):
        merged["stages"] = {
            key: _over(shared, {} if own is None else own) if isinstance(shared, dict) else own
            for key, own in stages.items()
        }
    try:
        return Recipe.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        found = "; ".join(messages(error, pieces))
        raise RecipeError(f"recipe {name}: {found}.") from error
    except TypeError as error:  # a date, or a key that is no text
        raise RecipeError(f"recipe {name}: holds what JSON cannot ({error}).") from error


def _files(name: str) -> list[Path]:
    first, *others = name.split("+")
    file = Path(first)
    if not file.is_file():
        file = RECIPES / first if first.endswith(".yaml") else RECIPES / f"{first}.yaml"
    files = [file, *(file.with_name(f"{other.removesuffix('.yaml')}.yaml") for other in others)]
    for file in files:
        if not file.is_file():
            there = sorted(
                path.relative_to(RECIPES).with_suffix("").as_posix()
                for path in RECIPES.rglob("*.yaml")
            )
            raise RecipeError(
                f"recipe {name!r}: there is no {file}; give a YAML file, or pieces of these: "
                f"{', '.join(there)}."
            )
    return files


def _keys() -> list[str]:
    return [*Recipe.model_fields, EVERY_STAGE]


def _over(below: Any, above: Any) -> Any:
    """`above` laid over `below`: mappings key by key, anything else as a whole.

    A mix is one thing: shares of two would not add up.
    """
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    merged = dict(cast("dict[Any, Any]", below))
    for key, value in cast("dict[Any, Any]", above).items():
        merged[key] = value if key == "mix" else _over(merged.get(key), value)
    return merged
