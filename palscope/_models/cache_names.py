"""What transformers calls a cache: `cache` from 5.24 on, `past_key_values` before.

Nothing else in palscope knows that there are two names. Its own models take either and give both,
whatever is installed; transformers' own modules are called by the installed name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from transformers.modeling_outputs import CausalLMOutputWithPast

from palscope.errors import PalscopeError

OLD, NEW = "past_key_values", "cache"
INSTALLED = NEW if NEW in {each.name for each in fields(CausalLMOutputWithPast)} else OLD
"""The name in the installed transformers: of a keyword, and of an output's field."""
OTHER = OLD if INSTALLED == NEW else NEW

_Cache = TypeVar("_Cache")


def only_cache(new: _Cache | None, old: _Cache | None) -> _Cache | None:
    """The cache, given as `cache` or as `past_key_values`.

    Raises:
        PalscopeError: two are given.
    """
    if new is not None and old is not None and new is not old:
        raise PalscopeError(
            "cache and past_key_values are two names of one thing: give the cache by one of them."
        )
    return old if new is None else new


def cache_in(given: Mapping[str, Any]) -> Any:
    """The cache among keyword arguments, by either name; None without one.

    Raises:
        PalscopeError: there are two.
    """
    return only_cache(given.get(NEW), given.get(OLD))


def cache_of(output: Any) -> Any:
    """The cache of an output that a class of transformers made, as `generate` gives it."""
    return getattr(output, INSTALLED)


def naming_cache(given: Mapping[str, Any], name: str = INSTALLED) -> dict[str, Any]:
    """Keyword arguments, with a cache among them called `name`.

    Raises:
        PalscopeError: there are two.
    """
    named = {key: value for key, value in given.items() if key not in (OLD, NEW)}
    if NEW in given or OLD in given:
        named[name] = cache_in(given)
    return named


class AudioOutput(CausalLMOutputWithPast):
    """What a model gives; its cache is both `cache` and `past_key_values`."""


# Class and field are of the installed transformers; the other name leads to it, without a warning.
setattr(AudioOutput, OTHER, property(lambda output: getattr(output, INSTALLED)))
