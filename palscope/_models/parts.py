"""What the decoder's run needs of a model, and where a layer's audio can be read and edited."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from palscope._routing import Route, Stream


class AudioTaps(nn.Module):
    """Where one layer's audio can be read and edited, on its way to being keys and values.

    Identity modules, so that forward hooks and nnsight reach them. Shapes: `state`
    `[batch, audio, d_model]`; `k`, `v` `[batch, audio, kv_heads, head_dim]`, before RoPE. They fire
    in layers that hold a stream at level `keys`, once a prompt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: nn.Module = nn.Identity()
        self.k: nn.Module = nn.Identity()
        self.v: nn.Module = nn.Identity()


class StreamProjectors(Protocol):
    """What a model needs of a connector: the states of streams, and for which routes."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Those of which there are tokens."""
        ...

    def project_input(self, stream: str, tokens: Tensor) -> Tensor:
        """The state that `stream` carries upwards from the bottom of the decoder."""
        ...

    def project_layer(self, stream: str, layer: int, tokens: Tensor) -> Tensor:
        """The state of `stream` that `layer` reads as keys and values."""
        ...

    def layer_projector(self, stream: str, layer: int) -> nn.Module:
        """What makes that state."""
        ...

    def check_serves(self, route: Route) -> None:
        """Check that there are weights for `route`. Raises `RouteError` when there are none."""
        ...


class Parts(Protocol):
    """What the decoder's run needs of a model."""

    decoder: Any
    connector: StreamProjectors
    audio_taps: nn.ModuleList

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embeddings of words."""
        ...
