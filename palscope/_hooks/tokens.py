"""Words and tokens of the hooked model: those of its processor, one start mark, no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge.sources._bridge_builder import detect_tokenizer_bos_eos

from palscope._hooks.firing import FiringBridge
from palscope.errors import PalscopeError


class TokensBridge(FiringBridge):
    """A bridge whose tokenizer is the processor's, as it is.

    TransformerLens would make another one that puts a start mark before every text, so that
    `tokenizer.encode(word)[0]` were that mark, and a chat prompt had it twice.
    """

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        if self._tokenizer is not None:
            raise PalscopeError(
                "the tokenizer is the processor's, which knows the places of clips; it cannot be "
                "replaced. Load the model with another processor."
            )
        self._tokenizer = value
        prepends, appends = detect_tokenizer_bos_eos(value)
        self.cfg.tokenizer_prepends_bos, self.cfg.tokenizer_appends_eos = prepends, appends
        # A text is read by the model as by the processor.
        self.cfg.default_prepend_bos = prepends

    def to_tokens(
        self, input: str | list[str], prepend_bos: bool | None = None, *args: Any, **kwargs: Any
    ) -> Int[Tensor, "batch columns"]:
        """TransformerLens's `to_tokens`, as the processor reads a text; never two start marks.

        Args:
            prepend_bos: whether each row begins with the start mark; by default where the
                processor's tokenizer sets it, or the text has it.
        """
        if self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos:
            input = self._unmarked(input)
        return super().to_tokens(input, prepend_bos, *args, **kwargs)

    def _unmarked(self, texts: Any) -> Any:
        """Texts without the start mark that they begin with, for one to be put there."""
        mark = self.tokenizer.bos_token
        if mark is None:
            return texts
        if isinstance(texts, str):
            return texts.removeprefix(mark)
        return [text.removeprefix(mark) for text in texts]

    def to_string(self, tokens: Any) -> str | list[str]:
        """TransformerLens's `to_string`, also of the tokens that `attach_clips` gives."""
        return super().to_string(self.plain_tokens(torch.as_tensor(tokens)))

    def to_str_tokens(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `to_str_tokens`, also of the tokens that `attach_clips` gives."""
        if isinstance(input, Tensor):
            input = self.plain_tokens(input)
        return super().to_str_tokens(input, *args, **kwargs)

    def plain_tokens(self, tokens: Int[Tensor, "*columns"]) -> Int[Tensor, "*columns"]:
        """`tokens` with the processor's id at audio places, where `attach_clips` put another."""
        return torch.where(tokens >= self._first_sound_id, self.model.audio_token_id, tokens)

    @property
    def _first_sound_id(self) -> int:
        """Above all words: from here on an id names the clip that it is a place of."""
        return max(len(self.tokenizer), int(self.cfg.d_vocab), self.model.audio_token_id + 1)

    def _read(
        self, texts: str | Sequence[str], prepend_bos: bool | None, padding_side: str | None
    ) -> tuple[Int[Tensor, "batch columns"], Int[Tensor, "batch columns"]]:
        """Tokens of texts, and their attention mask."""
        rows = [texts] if isinstance(texts, str) else list(texts)
        ids = self.to_tokens(rows, prepend_bos, padding_side)
        mask = torch.zeros_like(ids)
        for row, text in zip(mask, rows, strict=True):
            length = self.to_tokens(text, prepend_bos).shape[1]
            if (padding_side or self.tokenizer.padding_side) == "left":
                row[-length:] = 1
            else:
                row[:length] = 1
        return ids, mask
