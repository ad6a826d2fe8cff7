"""What changing each feature of a dictionary does to an answer, and what the feature is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from _answers import Ask, once
from _dictionaries import cached_dictionary, units_of
from _edited import CHECKED, answers_of
from _feature_edits import ERROR, FeatureEdit
from _under_edits import inputs_about, inputs_under, route_under, versions

from palscope._features.effects import feature_effects


def effects_of_features(ask: Ask, rival: str, change: FeatureEdit) -> pd.DataFrame:
    """What `change` does, made of one feature at a time, to the answer's lead over its rival.

    Args:
        change: of no feature yet.

    Returns:
        The table of `palscope._features.effects.feature_effects`, `feature` as text, the error
        being `error`; and `name`, which the index proposes, if there is one.

    Raises:
        PalscopeError: the dictionary does not fit, or touches nothing there.
    """
    key = ("features", rival, change, versions([change]))
    table: pd.DataFrame = once(ask, key, lambda: _effects(ask, rival, change))
    return table.assign(name=_names(change.dictionary, table["feature"]))


def _effects(ask: Ask, rival: str, change: FeatureEdit) -> pd.DataFrame:
    hook_point = cached_dictionary(change.dictionary).about.get("hook_point")
    with route_under(ask, [change]):
        table: Any = feature_effects(
            ask.opened.model,
            inputs_under(ask, [change]),
            change.change(lambda source: inputs_about(ask, source, change.seconds)),
            answers=answers_of(ask, rival),
            tokens=change.tokens,
            at=hook_point,
            checked=CHECKED,
        )
    return table.assign(feature=table["feature"].astype("string").fillna(ERROR).astype(str))


def _names(dictionary: str, features: Any) -> list[str]:
    """What the index proposes; not remembered, for an index may be made meanwhile."""
    units = units_of(dictionary)
    if units is None:
        return [""] * len(features)
    names: Mapping[int, str] = units.table["name"].to_dict()
    return ["" if each == ERROR else names.get(int(each), "") for each in features]
