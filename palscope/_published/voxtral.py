"""Voxtral (arXiv 2507.13264): Whisper's encoder, four tokens side by side to 80 ms, a Mistral."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import TokenizersBackend

from palscope._published.whisper_tower import WhisperTowerFamily, windowed, windows
from palscope.audio._timegrid import TimeGrid
from palscope.errors import PromptError


class Voxtral(WhisperTowerFamily):
    """Whole windows of 30 s: the silence behind a clip is heard, and has tokens of its own."""

    model_types = ("voxtral",)
    checkpoints = (
        ("mistralai/Voxtral-Mini-3B-2507", "4.7 B"),
        ("mistralai/Voxtral-Small-24B-2507", "24 B"),
    )
    architecture = "VoxtralForConditionalGeneration"
    place = "[AUDIO]"
    about_tokenizer = (
        " mistral-common's tokenizer reads no such marks from text: give palscope.load the "
        "checkpoint's folder or hub id, of which it reads tekken.json itself; where that is of an "
        "old form, pip install mistral-common."
    )

    @property
    def grid(self) -> TimeGrid:
        """Eight feature frames a token, 375 tokens a window."""
        return TimeGrid(0.08)

    def tokens(self, frames: int) -> int:
        """375 for each 30 s begun."""
        return windows(frames) * 375

    def written(self, tokens: int) -> str:
        """Behind a mark of its beginning."""
        return f"[BEGIN_AUDIO]{super().written(tokens)}"

    def chat(self, template: Any, question: str, clips: int, system: str | None) -> str:
        """As mistral-common lays it out, which takes no place without its clip.

        Raises `PromptError` for a system message: "not yet supported", say the model cards.
        """
        del template
        if system is not None:
            raise PromptError(
                "Voxtral was published without system messages; say it in the question."
            )
        return f"<s>[INST]{self.place * clips}{question}[/INST]"

    def read_tokenizer(self, folder: Path) -> Any:
        """Mistral's, as a tokenizer that reads marks from text.

        Where mistral-common is installed, `AutoTokenizer` would take its own, which does not.
        tekken.json does not say what its special tokens are for.
        """
        return TokenizersBackend.from_pretrained(
            folder, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
        )

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """By the class's own method."""
        cut, _ = windowed(features, frames, windows(frames) - 1)
        return model.get_audio_features(cut, return_dict=True).pooler_output
