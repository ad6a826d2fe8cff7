"""YAML files in which a mistake is not read as something else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
import yaml.composer

from palscope._files import read_text
from palscope.errors import RecipeError

_LARGEST = 1 << 20
"""Bytes of a file."""


def read_yaml(file: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A YAML file's mapping. Raises `RecipeError` when it has none; `keys` are some it may have."""
    text = read_text(file, f"YAML with some of {', '.join(keys)}", RecipeError, largest=_LARGEST)
    try:
        piece = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise RecipeError(f"{file} cannot be read as YAML: it is nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 31st of February
        told = " ".join(str(error).split())
        raise RecipeError(f"{file} cannot be read as YAML: {told}.") from error
    if not isinstance(piece, dict):
        raise RecipeError(f"{file} holds no keys; expected some of {', '.join(keys)}.")
    return piece


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes `1e-3` for a number and a key given twice for an error.

    Nor does it take aliases: a few hundred bytes of them stand for more than memory holds.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            parser: Any = self
            event = parser.peek_event()
            raise yaml.composer.ComposerError(
                None,
                None,
                f"*{event.anchor} is an alias; write it out",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):  # others are refused below
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)
