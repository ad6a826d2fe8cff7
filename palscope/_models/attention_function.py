"""Another function in place of an attention's own, for the length of a call.

Hugging Face's attention finds its function by the name that its config gives. For a block's length
a module's config names one of palscope's here, which is given the module's own beside what that
would get.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

_REDIRECTED = "palscope_redirected"

AttentionFunction = Callable[..., Any]
"""`(module, query, key, value, mask, **kwargs)`, as `ALL_ATTENTION_FUNCTIONS` holds them."""


@contextmanager
def redirected(attention: Any, function: AttentionFunction) -> Generator[None, None, None]:
    """Within, to the thread that opens it, `attention` calls `function(own, module, query, …)`.

    Args:
        attention: Hugging Face's module.
        function: gets the module's own function first.
    """
    config = attention.config
    attention.config = _Redirected(config, function)
    try:
        yield
    finally:
        attention.config = config


class _Redirected:
    """A layer's config which, to the thread that made it, names the function in between."""

    def __init__(self, config: Any, function: AttentionFunction) -> None:
        self.own = config
        self.function = function
        self._thread = threading.get_ident()

    @property
    def _attn_implementation(self) -> str:
        mine = threading.get_ident() == self._thread
        return _REDIRECTED if mine else self.own._attn_implementation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


def _redirect(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> Any:
    """The function in between, called with the module's own."""
    config = module.config
    # Eager attention is no entry of the table: each family's forward falls back on its own.
    # It may be decorated (a keyword renamed): what counts is where the function itself stands.
    forward = inspect.unwrap(cast(Callable[..., Any], type(module).forward))
    eager: Any = forward.__globals__["eager_attention_forward"]
    own = ALL_ATTENTION_FUNCTIONS.get_interface(config.own._attn_implementation, eager)
    return config.function(own, module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(_REDIRECTED, _redirect)
