"""Parts of encoder layers that several classes call alike."""

from __future__ import annotations

from palscope.encoders import Component


def projections() -> dict[str, Component]:
    """Of an attention."""
    return {name: Component(f"{name}_proj") for name in ("q", "k", "v", "o")}


def encoder_layer() -> dict[str, Component]:
    """A layer with a Llama's names and two linear maps fed forward, by Whisper's names."""
    return {
        "ln1": Component("input_layernorm"),
        "attn": Component("self_attn", parts=projections()),
        "ln2": Component("post_attention_layernorm"),
        "mlp_in": Component("mlp.fc1"),
        "mlp_out": Component("mlp.fc2"),
    }
