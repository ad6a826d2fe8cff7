"""Open answers matched to the nearest label by text embedding, as LTU scores classification.

LTU (Gong et al. 2023, arXiv 2305.10790) embeds "sound of " and the lower-cased answer or label by a
commercial model and takes the label with the largest cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from palscope._hub import cached_snapshot, hub_reachable
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.processor import AudioProcessor
from palscope.errors import BenchmarkError

Embedder = Callable[[Sequence[str]], Float[np.ndarray, "texts width"]]
"""Texts to vectors."""


def nearest_labels(
    answers: Sequence[str], labels: Sequence[str], embed: Embedder
) -> list[str | None]:
    """The label nearest to each answer by the cosine of their embeddings; None for an empty answer.

    Of labels that are equally near the first is taken.

    Raises:
        ValueError: the embedder gives something else than a finite vector a text.
    """
    said = [answer.strip().lower() for answer in answers]
    texts = list(dict.fromkeys(text for text in said if text))
    if not texts:
        return [None] * len(said)
    named = [label.replace("_", " ").lower() for label in labels]
    vectors = np.asarray(embed([f"sound of {text}" for text in (*texts, *named)]), np.float64)
    if (
        vectors.ndim != 2
        or len(vectors) != len(texts) + len(named)
        or not np.isfinite(vectors).all()
    ):
        raise ValueError(
            f"the embedder gave an array of shape {vectors.shape} for {len(texts) + len(named)} "
            "texts; expected a finite vector for each."
        )
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    best = (unit[: len(texts)] @ unit[len(texts) :].T).argmax(1)
    found = dict(zip(texts, best, strict=True))
    return [labels[int(found[text])] if text else None for text in said]


def sentence_embedder(name: str) -> Embedder:
    """A model of the `sentence-transformers` library, by folder or hub id.

    Raises:
        BenchmarkError: the library is not installed, or the model cannot be had or loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise BenchmarkError(
            "--embedder needs sentence-transformers: pip install 'palscope[captions]'."
        ) from None
    require_hub_model(name)
    model_class: Any = SentenceTransformer
    try:
        model = model_class(name, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BenchmarkError(f"--embedder {name} cannot be loaded: {error}") from error
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def decoder_embedder(model: AudioLanguageModel, processor: AudioProcessor) -> Embedder:
    """The mean of the decoder's own input embeddings over a text's tokens.

    Our default where no embedder is named: it needs no other model, and knows words, not meanings.
    """
    table: Any = model.get_input_embeddings()

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
        rows: list[np.ndarray] = []
        for text in texts:
            ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            vectors = table(torch.tensor(ids, device=table.weight.device))
            rows.append(vectors.float().mean(0).cpu().numpy())
        return np.stack(rows)

    return embed


def require_hub_model(name: str) -> None:
    """Raise `BenchmarkError` where a model is neither a folder, nor cached, nor to be fetched."""
    cached = cached_snapshot(name if "/" in name else f"sentence-transformers/{name}")
    if not Path(name).is_dir() and cached is None and not hub_reachable():
        raise BenchmarkError(
            f"{name} is no local folder, is not in the hub's cache, and the hub is out of reach."
        )
