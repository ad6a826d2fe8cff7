"""Routes, and the layout of tokens that follows from a prompt and a route."""

from palscope._routing.columns import LayerColumns
from palscope._routing.layout import TokenLayout
from palscope._routing.notation import route_from_text, route_to_text
from palscope._routing.route import (
    ABSENT,
    ATTEND,
    CROSSED,
    FRAMES,
    FULL,
    KEYS,
    PROJECTED,
    SUMMARY,
    Level,
    Route,
    RouteCell,
    Source,
    Stream,
)

__all__ = [
    "ABSENT",
    "ATTEND",
    "CROSSED",
    "FRAMES",
    "FULL",
    "KEYS",
    "PROJECTED",
    "SUMMARY",
    "LayerColumns",
    "Level",
    "Route",
    "RouteCell",
    "Source",
    "Stream",
    "TokenLayout",
    "route_from_text",
    "route_to_text",
]
