"""Which models a run is of: those of `--model`, or those that a YAML file names.

models:
Qwen2-Audio 7B: {model: Qwen/Qwen2-Audio-7B-Instruct, dtype: bfloat16, device_map: auto}
the same, frozen from layer 16: {model: Qwen/Qwen2-Audio-7B-Instruct, route: frames:F16k16}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from palscope.analyses._options import OptionError, Options, settings_of
from palscope.errors import short
from palscope.training._yaml_files import read_yaml


def models_of(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each model, by its name.

    Args:
        given: options by name; `model` one or several, or `config` a YAML file.

    Raises:
        OptionError: neither or both are given, two models are called alike, or the file says of a
            model what no option is.
        RecipeError: the file cannot be read.
    """
    shared = {name: value for name, value in given.items() if name not in ("model", "config")}
    config, models = given.get("config"), given.get("model")
    if (config is None) == (not models):
        raise OptionError("give --model: a checkpoint's folder or hub id; or several by --config.")
    if config is not None:
        return {name: {**shared, **own} for name, own in _configured(config).items()}
    models = [models] if isinstance(models, str) else list(dict.fromkeys(cast("list[str]", models)))
    names = [Path(model).name for model in models]
    if len(set(names)) < len(names):
        raise OptionError(f"two models are called alike ({', '.join(names)}); run them apart.")
    return {name: {**shared, "model": each} for name, each in zip(names, models, strict=True)}


def _configured(config: Path) -> dict[str, dict[str, Any]]:
    models: Any = read_yaml(config, ["models"]).get("models") or {}
    if not isinstance(models, dict) or not models:
        raise OptionError(f"{config}: models is {short(models)}; expected names, each a key.")
    return {str(name): _checked(name, own) for name, own in cast("dict[Any, Any]", models).items()}


def _checked(name: Any, own: Any) -> dict[str, Any]:
    known = settings_of(Options)
    if not re.fullmatch(r"[\w ,.-]*\w[\w.-]*", str(name)):
        raise OptionError(
            f"{name!r} names a folder of results: letters, digits, spaces and , . - _ only."
        )
    if not isinstance(own, dict):
        raise OptionError(f"{name} is {short(own)}; expected some of {', '.join(known)}.")
    values = cast("dict[str, Any]", own)
    if unknown := sorted(str(each) for each in values if each not in known):
        raise OptionError(f"{name}: no such keys: {', '.join(unknown)}; {', '.join(known)}.")
    for key, value in values.items():
        if not isinstance(value, known[key].kind):
            wanted = known[key].kind.__name__
            raise OptionError(f"{name}: {key} is {short(value)}; expected {wanted}.")
    if "model" not in values:
        raise OptionError(f"{name}: give the checkpoint, `model`: a folder or a hub id.")
    return values
