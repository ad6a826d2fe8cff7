"""Which models a run is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from palscope.analyses._models import models_of
from palscope.analyses._options import OptionError


def test_a_model_is_called_as_its_folder() -> None:
    given = {"model": ["runs/pal", "owner/name"], "seed": 1}
    assert models_of(given) == {
        "pal": {"model": "runs/pal", "seed": 1},
        "name": {"model": "owner/name", "seed": 1},
    }
    assert models_of({"model": "pal"}) == {"pal": {"model": "pal"}}
    with pytest.raises(OptionError, match="called alike"):
        models_of({"model": ["a/pal", "b/pal"]})


def test_a_file_gives_each_its_own_options(tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    config.write_text("models:\n  a: {model: x}\n  b, frozen: {model: x, route: F2, bits: 4}\n")
    assert models_of({"config": config, "n": 2}) == {
        "a": {"model": "x", "n": 2},
        "b, frozen": {"model": "x", "route": "F2", "bits": 4, "n": 2},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {}", "expected names"),
        ("models: {a/b: {model: x}}", "'a/b' names a folder"),
        ("models: {a: x}", "expected some of model, route"),
        ("models: {a: {model: x, precision: 4}}", "no such keys: precision"),
        ("models: {a: {model: x, bits: four}}", "expected int"),
        ("models: {a: {route: F2}}", "give the checkpoint"),
    ],
)
def test_what_is_wrong_in_it_is_told(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    config.write_text(text)
    with pytest.raises(OptionError, match=message):
        models_of({"config": config})


@pytest.mark.parametrize("given", [{}, {"model": ["x"], "config": Path("models.yaml")}])
def test_models_are_named_once(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="give --model"):
        models_of(given)
