"""What all of the demo's trainings share: the frozen bases, and the scales to start at."""

from __future__ import annotations

from palscope.training._recipe_files import read_recipe

LAYERS = 30
"""Of SmolLM2-135M."""
WIDTH = 576
"""Of SmolLM2-135M's residual stream."""
ENCODER_WIDTH = 768
"""Two layers of Whisper tiny.en side by side."""

_RECIPE = read_recipe("demo/stages+pal")
BASES = _RECIPE.bases
TEXT_RMS = _RECIPE.connector.inputs.config(1.0).output_rms
"""Root mean square of SmolLM2's token embeddings."""
LAYER_RMS = _RECIPE.connector.layers.config(1.0).output_rms
"""1 / sqrt(width)."""
