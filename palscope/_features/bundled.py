"""The dictionary that comes with the package."""

from __future__ import annotations

from pathlib import Path

FEATURES_FOLDER = Path(__file__).parents[1] / "assets" / "features"
"""`dictionary`, of `demo/pal`'s encoder, and `index`, what its latents respond to in the bundled
clips; `README.md` says what they are."""
