"""The table of what is inherited from TransformerLens: rows, what they must cover, how it reads."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import transformer_lens.tools
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools import analysis

from tests.hooks.inherited.bench import Bench

MODULES = ("patching", "head_detector", "evals", "SVDInterpreter", "utilities.exploratory_utils")
"""Of TransformerLens, beside its package `tools`, what takes a model."""

Check = Callable[[Bench, str], None]


@dataclass(frozen=True)
class Row:
    """Members that are inherited, and what is said and tried of each of them.

    Attributes:
        names: of members.
        says: what they equal, or why they are refused.
        check: tries one of them.
        works: whether they are not refused.
        at_once: whether the check tries all of them whatever name it is given.
    """

    names: tuple[str, ...]
    says: str
    check: Check
    works: bool = True
    at_once: bool = False

    def tried(self, bench: Bench) -> None:
        """Try each member."""
        for name in self.names[: 1 if self.at_once else None]:
            self.check(bench, name)
            bench.model.reset_hooks(including_permanent=True)


def row(names: str, says: str, check: Check, *, at_once: bool = False) -> Row:
    """One of members that work."""
    return Row(tuple(names.split()), says, check, at_once=at_once)


def refused(
    names: str, says: str, call: Callable[[Bench, str], Any], error: Any, match: str
) -> Row:
    """One of members that are refused, with an error that says why."""

    def check(bench: Bench, name: str) -> None:
        with pytest.raises(error, match=match):
            call(bench, name)

    return Row(tuple(names.split()), says, check, works=False)


def own_members(kind: type) -> set[str]:
    """The public members that TransformerLens gives a class."""
    ours = [each for each in kind.__mro__ if each.__module__.startswith("transformer_lens")]
    return {name for each in ours for name in vars(each) if not name.startswith("_")}


def bridge_members() -> set[str]:
    """Public methods and properties of the bridge."""
    return own_members(TransformerBridge)


def cache_members() -> set[str]:
    """Public methods of a cache of activations."""
    return own_members(ActivationCache)


def tool_members() -> set[str]:
    """Public functions that take a model, and the methods that do; what `analysis` exports."""
    found = set(analysis.__all__)
    modules = [importlib.import_module(f"transformer_lens.{name}") for name in MODULES]
    tools = transformer_lens.tools
    for each in pkgutil.walk_packages(tools.__path__, f"{tools.__name__}."):
        if "._" not in each.name:
            modules.append(importlib.import_module(each.name))
    for module in modules:
        found |= set(_taking_a_model(module))
    patching = importlib.import_module("transformer_lens.patching")
    return found | {name for name in vars(patching) if name.startswith("get_act_patch")}


def _taking_a_model(module: Any) -> Iterator[str]:
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        if (inspect.isfunction(member) or inspect.isclass(member)) and _takes(member):
            yield name
        if inspect.isclass(member):
            for inner, method in vars(member).items():
                function = getattr(method, "__func__", method)
                if not inner.startswith("_") and inspect.isfunction(function) and _takes(function):
                    yield f"{name}.{inner}"


def _takes(function: Any) -> bool:
    try:
        return bool({"model", "bridge"} & set(inspect.signature(function).parameters))
    except ValueError:
        return False


def table(rows: list[Row]) -> str:
    """As docs/hooks.md has it."""
    lines = ["| of TransformerLens | | equals, or why not |", "|---|---|---|"]
    for each in rows:
        names = ", ".join(f"`{name}`" for name in each.names)
        lines.append(f"| {names} | {'works' if each.works else 'refused'} | {each.says} |")
    return "\n".join(lines)
