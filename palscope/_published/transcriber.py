"""Encoder–decoders that write down what is said: what they have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from palscope._published.family import PublishedFamily
from palscope.errors import CheckpointError, PromptError


class Transcriber(PublishedFamily):
    """An encoder–decoder whose prompts are marks, and whose vocabulary has no word for sound."""

    decoder_path = "model.decoder"
    tower_path = "model.encoder"
    head_path = "proj_out"
    place = "<|audio|>"
    crosses = True
    takes_questions = False
    adds_marks = False
    decoder_settings: ClassVar[type[Any]]
    """The config's class by the names that decoders have."""

    @property
    def decoder_config(self) -> Any:
        """The decoder's sizes, in which it is no encoder–decoder: its run is palscope's."""
        kernel = getattr(self.config, "_attn_implementation", None)
        own = {"is_encoder_decoder": False, "attn_implementation": kernel}
        return self.decoder_settings(**(self.config.to_dict() | own))

    @property
    def audio_token_id(self) -> int:
        """The first behind the vocabulary."""
        return int(self.config.vocab_size)

    def add_places(self, tokenizer: Any, *places: str) -> None:
        """Add words for sound behind all others, where they are not there yet.

        Raises:
            CheckpointError: the tokenizer knows more words than the model, or fewer.
        """
        words = self.config.vocab_size
        own = len(tokenizer) - sum(place in tokenizer.get_vocab() for place in places)
        if own != words:
            raise CheckpointError(
                f"the tokenizer, a {type(tokenizer).__name__}, is of another checkpoint: its "
                f"vocabulary has {own} words, the model's {words}. Give the model's own."
            )
        tokenizer.add_tokens(list(places), special_tokens=True)

    def check_alone(self, clips: int, system: str | None) -> None:
        """Raise `PromptError` for several clips, or a system message."""
        if system is not None or clips > 1:
            given = "a system message" if system is not None else f"{clips} clips"
            raise PromptError(
                f"{type(self).__name__} was given {given}; it takes one clip, and no words about "
                "it."
            )
