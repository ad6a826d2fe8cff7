"""Axes that several figures have."""

from __future__ import annotations

from palscope.plots._grammar import Axis

LAYER = Axis("layer", integer=True)
HEAD = Axis("head", integer=True)
TIME = Axis("time", "s")
SHARE = Axis("share of attention", limits=(0, None))
SHARE_PER_TOKEN = Axis("share of attention\nper token", limits=(0, None))
SHARE_PER_SECOND = Axis("share of attention a second", limits=(0, None))
