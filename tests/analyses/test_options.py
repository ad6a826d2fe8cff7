"""Options of every analysis and command: numbers say the least they may be, and are held to it."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import MISSING, field, make_dataclass
from typing import Any

import pytest

from palscope.analyses._options import OptionError, Setting, add_flags, options_of, settings_of
from palscope.analyses._registry import module_of, names


def described(name: str) -> Any:
    """The object of a file in `analyses/`."""
    module: Any = module_of(name)
    return getattr(module, "ANALYSIS", None) or module.COMMAND


ALL = {
    f"{name} {setting.flag}": setting
    for name in names()
    for setting in settings_of(described(name).options).values()
    if not setting.positional
}
NUMBERS = [
    pytest.param(setting, id=name)
    for name, setting in ALL.items()
    if setting.kind is int and not setting.choices and setting.name not in ("seed", "seeds")
]
SEVERAL = [pytest.param(setting, id=name) for name, setting in ALL.items() if setting.several]


def alone(setting: Setting) -> tuple[type, ArgumentParser]:
    """The options and the command line of a command that has this option and no other."""
    told = {
        key: getattr(setting, key)
        for key in ("help", "unit", "least", "page", "positional", "decides")
    }
    left_out = MISSING if setting.required else setting.default
    own = field(default=left_out, metadata=told | {"only_with": {}})
    kind: Any = tuple[setting.kind, ...] if setting.several else setting.kind | None
    options = make_dataclass("One", [(setting.name, kind, own)], kw_only=True)
    parser = ArgumentParser()
    add_flags(parser, options)
    return options, parser


@pytest.mark.parametrize("setting", NUMBERS)
def test_a_whole_number_says_its_least_and_is_held_to_it(setting: Setting) -> None:
    assert setting.least in (0, 1, 2)  # of what is counted there may be one, none, or two halves
    least = int(setting.least)
    options, parser = alone(setting)
    given = parser.parse_args([setting.flag, str(least)])
    held = getattr(options_of(options, given), setting.name)
    assert held == ((least,) if setting.several else least)
    for bad in (str(least - 1), f"{least}.5", "²"):
        with pytest.raises(SystemExit):
            parser.parse_args([f"{setting.flag}={bad}"])
    with pytest.raises(OptionError, match=f"give at least {least}"):
        options_of(options, {setting.name: (least - 1,) if setting.several else least - 1})


@pytest.mark.parametrize("setting", SEVERAL)
def test_of_several_values_there_may_be_none_unless_one_must_be_given(setting: Setting) -> None:
    options, parser = alone(setting)
    if setting.required:
        with pytest.raises(SystemExit):
            parser.parse_args([setting.flag])
    else:
        given = parser.parse_args([setting.flag])
        assert getattr(options_of(options, given), setting.name) == ()
    given = parser.parse_args([setting.flag, "1", "2", setting.flag, "3"])
    wanted = tuple(map(setting.kind, "123"))
    assert getattr(options_of(options, given), setting.name) == wanted
