"""How light a colour is, for tests of contrast."""

from __future__ import annotations

import numpy as np


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of a hexadecimal colour."""
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
