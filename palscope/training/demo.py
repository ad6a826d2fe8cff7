"""What all of the demo's trainings share: the frozen bases, and the scales to start at."""

from __future__ import annotations

from palscope.training.trainer import Bases

LAYERS = 30
"""Of SmolLM2-135M."""
LAYER_RMS = 1 / 24
"""1 / sqrt(width)."""
TEXT_RMS = 0.136
"""Root mean square of SmolLM2's token embeddings."""
BASES = Bases(
    text="HuggingFaceTB/SmolLM2-135M-Instruct",
    encoder="openai/whisper-tiny.en",
    encoder_layers=(2, 4),
    system="Listen.",
)
ENCODER_WIDTH = 768
"""Two layers of Whisper tiny.en side by side."""
WIDTH = 576
"""Of SmolLM2-135M's residual stream."""
