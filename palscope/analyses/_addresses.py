"""Sites as they are named on the command line."""

from __future__ import annotations

import re
from typing import Any

from palscope.analyses._options import OptionError
from palscope.interventions import Address


def address_of(text: str) -> Address:
    """A site with its layers, e.g. resid_post:3,5. Raises `OptionError` where it is none."""
    site, _, told = text.partition(":")
    if told and not re.fullmatch(r"\d+(,\d+)*", told):
        raise OptionError(f"--at {text}: layers are numbers, e.g. {site}:3,5.")
    layers = tuple(int(each) for each in told.split(",")) if told else None
    known: Any = site
    return Address(known, layers=layers)
