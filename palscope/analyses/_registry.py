"""Where the analyses are: `analyses/` of a clone, or what a wheel has of it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from palscope._beside import analysis_files
from palscope.analyses._analysis import Analysis
from palscope.errors import PalscopeError


def names() -> list[str]:
    """Every analysis and command, by the name of its file."""
    return list(analysis_files())


@cache
def module_of(name: str) -> ModuleType:
    """The module of an analysis: by its name, or the file of one's own.

    Raises:
        PalscopeError: there is none.
    """
    if name in names():
        return importlib.import_module(f"palscope.analyses.{name}")
    path = Path(name)
    if not path.is_file():
        raise PalscopeError(f"{name} is no analysis, and no file; there are {', '.join(names())}.")
    spec = importlib.util.spec_from_file_location(f"palscope_own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def analysis_of(name: str) -> Analysis[Any, Any]:
    """The `ANALYSIS` of a module. Raises `PalscopeError` where it has none."""
    found = getattr(module_of(name), "ANALYSIS", None)
    if not isinstance(found, Analysis):
        raise PalscopeError(f"{name} has no ANALYSIS, an object of palscope.analyses.Analysis.")
    return found


def analyses() -> dict[str, Analysis[Any, Any]]:
    """The package's analyses by name, without the commands that are none."""
    found = {name: getattr(module_of(name), "ANALYSIS", None) for name in names()}
    return {name: each for name, each in found.items() if each is not None}
