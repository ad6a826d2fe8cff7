"""Options of an analysis: one typed dataclass, from which flags, widgets and commands are made.

    @dataclass(frozen=True, kw_only=True)
    class LeakageOptions(ClipOptions):
        windows: int = option(3, "stretches changed in each clip", least=1)
        window_s: float = option(0.2, "length of a changed stretch", unit="s")
        how: Literal["noise", "silence"] = option("noise", "what it becomes")

A field's type says what may be given: `int`, `float`, `str`, `bool` (a switch), `Path`, `Literal`
(one of), `tuple[T, ...]` (several), and each of them or None.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from palscope.errors import PalscopeError

OptionsT = TypeVar("OptionsT")


class _Given(Collection[Any]):
    """Every value but those of an option that was left out."""

    def __contains__(self, value: object) -> bool:
        return not (value is None or value is False or value == ())

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


GIVEN = _Given()
"""For `only_with`: the other option was given, whatever its value."""

LEFT_OUT = (None, (), False)
"""For `only_with`: the other option was not given."""


class OptionError(PalscopeError):
    """An option that does not go with the others, or holds what it cannot."""


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    least: float | None = None,
    only_with: Mapping[str, Collection[Any]] | None = None,
    page: bool = True,
    positional: bool = False,
    decides: bool = True,
) -> Any:
    """A field of an options dataclass.

    Args:
        default: `...` where one must be given.
        help: half a sentence; the default is said behind it.
        unit: of a number: `s`, `layers`, `clips`.
        least: the smallest number that is taken.
        only_with: other fields, and the values of theirs with which this one does anything
            (`GIVEN`: any; `LEFT_OUT`: none); given without them it is refused, and the page greys
            it.
        page: whether the page has a widget for it; False for what chooses clips, and for files.
        positional: stands on the command line by itself, without a flag.
        decides: whether results depend on it; False for how fast and where they are made.
    """
    told = {
        "help": help,
        "unit": unit,
        "least": least,
        "only_with": only_with or {},
        "page": page,
        "positional": positional,
        "decides": decides,
    }
    return field(default=dataclasses.MISSING if default is ... else default, metadata=told)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every analysis of a model is told."""

    model: str = option(
        ..., "checkpoint folder, or hub id (owner/name, owner/name@revision)", page=False
    )
    route: str | None = option(
        None, "another route than the checkpoint's, e.g. frames:P10.20,summary/3:F30", page=False
    )
    system: str | None = option(None, "system message (default: the chat format's own)", page=False)
    date: str | None = option(
        None, "what the chat format takes for today's, where it asks", page=False
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(
        None, "of the weights (default: float32, of a published model its own)", page=False
    )
    device_map: str | None = option(
        None, "auto: weights are spread over all GPUs and memory", page=False
    )
    bits: Literal[8, 4] | None = option(
        None, "of the weights, quantised by bitsandbytes (default: none are)", page=False
    )
    # The record has a place of its own for it.
    seed: int = option(0, "of all random numbers", page=False, decides=False)


@dataclass(frozen=True, kw_only=True)
class StoredOptions:
    """What every command is told that keeps what it measures."""

    out: Path = option(..., "folder for the results", decides=False)
    resume: bool = option(False, "go on with the run that --out holds", decides=False)


@dataclass(frozen=True)
class Setting:
    """One option, as the hosts see it.

    Attributes:
        name: of the field; the flag has dashes.
        kind: the type of one value: int, float, str, bool, Path.
        choices: what may be chosen from, if that is limited.
        several: whether it takes any number of values.
        default: None where nothing is said; `required` has none at all.
    """

    name: str
    kind: type
    choices: tuple[Any, ...]
    several: bool
    default: Any
    required: bool
    help: str
    unit: str
    least: float | None
    only_with: Mapping[str, Collection[Any]]
    page: bool
    positional: bool
    decides: bool

    @property
    def flag(self) -> str:
        """As it stands on the command line."""
        return "--" + self.name.replace("_", "-")

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether it does anything beside the other options' values."""
        return all(values.get(name) in wanted for name, wanted in self.only_with.items())


def settings_of(options: type) -> dict[str, Setting]:
    """Every option of a dataclass by name, those of its bases first."""
    hints = get_type_hints(options)
    found: dict[str, Setting] = {}
    for each in fields(options):
        kind, choices, several = _taken_apart(hints[each.name])
        required = each.default is dataclasses.MISSING
        found[each.name] = Setting(
            name=each.name,
            kind=kind,
            choices=choices,
            several=several,
            default=None if required else each.default,
            required=required,
            **each.metadata,
        )
    return found


def _taken_apart(hint: Any) -> tuple[type, tuple[Any, ...], bool]:
    """The type of one value, the choices, and whether there are several."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    several = get_origin(hint) is tuple
    if several:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return type(choices[0]), choices, several
    return hint, (), several


# -- the command line -----------------------------------------------------------------------------


def add_flags(parser: ArgumentParser, options: type, *, models: bool = False) -> None:
    """A flag for each option. What is not given will not be in the parsed namespace.

    Args:
        parser: gets them.
        options: the dataclass.
        models: `--model` takes several, and may be left out.
    """
    for setting in settings_of(options).values():
        told = _help(setting)
        if setting.positional:
            nargs = "+" if setting.several else None
            parser.add_argument(setting.name, type=_reader(setting), help=told, nargs=nargs)
            continue
        given: dict[str, Any] = {
            "dest": setting.name,
            "help": told,
            "default": argparse.SUPPRESS,
            "required": setting.required,
        }
        if models and setting.name == "model":
            given |= {"nargs": "+", "required": False}
        if setting.kind is bool:
            parser.add_argument(setting.flag, action="store_true", **given)
            continue
        if setting.several:
            given |= {"nargs": "+" if setting.required else "*", "action": "extend"}
        if setting.choices:
            given["choices"] = setting.choices
        parser.add_argument(setting.flag, type=_reader(setting), **given)


def options_of(options: type[OptionsT], given: Namespace | Mapping[str, Any]) -> OptionsT:
    """The options that were given, and the defaults of the others.

    Raises:
        OptionError: one of them does nothing beside the others, or is too small.
    """
    told: Mapping[str, Any] = vars(given) if isinstance(given, Namespace) else given
    known = settings_of(options)
    values = {
        name: tuple(value) if known[name].several else value
        for name, value in told.items()
        if name in known
    }
    for name in values:
        _check(known[name], values[name])
    made = options(**values)
    check_applies(made, values)
    return made


def check_applies(options: Any, given: Collection[str]) -> None:
    """Raise `OptionError` for an option of those `given` that does nothing beside the others."""
    known, values = settings_of(_class(options)), values_of(options)
    for name in given:
        setting = known[name]
        if not setting.applies(values):
            wanted = " and ".join(
                _wanted(known[other].flag, which) for other, which in setting.only_with.items()
            )
            raise OptionError(f"{setting.flag} only goes {wanted}; leave it out.")


def _wanted(flag: str, values: Collection[Any]) -> str:
    if values is LEFT_OUT:
        return f"without {flag}"
    return f"with {flag} {' or '.join(map(_word, values))}".rstrip()


def values_of(options: Any) -> dict[str, Any]:
    """Every option's value by name."""
    return {each.name: getattr(options, each.name) for each in fields(options)}


def command_words(options: Any) -> list[str]:
    """The command line's words that give these options: those that are no default."""
    found: list[str] = []
    values = values_of(options)
    for setting in settings_of(_class(options)).values():
        value = values[setting.name]
        if value == setting.default and not setting.required:
            continue
        if not setting.applies(values):
            continue
        found.append(setting.flag)
        if setting.kind is not bool:
            found += map(_word, _several(value))
    return found


def deciding(options: Any) -> dict[str, Any]:
    """The options that decide results, as plain data: the record's config."""
    values = values_of(options)
    known = settings_of(_class(options))
    return {
        name: [*map(_plain, _several(value))] if isinstance(value, tuple) else _plain(value)
        for name, value in values.items()
        if known[name].decides and known[name].applies(values)
    }


def count(text: str, least: int = 1) -> int:
    """The `type` of an argument that counts: a whole number from `least`, in plain digits."""
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise ArgumentTypeError(f"{text}; give a whole number from {least}")
    return int(text)


def _class(options: Any) -> type:
    return options.__class__


def _reader(setting: Setting) -> Callable[[str], Any]:
    least = setting.least
    if setting.kind is int and least is not None:
        return lambda text: count(text, int(least))
    if setting.kind is float:
        return lambda text: _number(text, least)
    return setting.kind


def _number(text: str, least: float | None) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (least is not None and value < least):
        raise ArgumentTypeError(
            f"{text}; give a number" + ("" if least is None else f" from {least:g}")
        )
    return value


def _check(setting: Setting, value: Any) -> None:
    """What a widget or a caller in Python may get wrong; argparse has said it before."""
    for each in _several(value):
        if setting.choices and each is not None and each not in setting.choices:
            raise OptionError(
                f"{setting.flag} {each}; give one of {', '.join(map(_word, setting.choices))}."
            )
        if setting.least is not None and each is not None and not each >= setting.least:
            raise OptionError(f"{setting.flag} {each}; give at least {setting.least:g}.")


def _help(setting: Setting) -> str:
    text = setting.help + (f" ({setting.unit})" if setting.unit else "")
    if setting.kind is not bool and setting.default not in (None, ()):
        text += f" (default: {' '.join(map(_word, _several(setting.default)))})"
    return text.replace("%", "%%")


def _several(value: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
