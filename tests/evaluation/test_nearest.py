from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from palscope._routing import Route
from palscope.errors import BenchmarkError
from palscope.evaluation import _nearest as nearest
from palscope.evaluation._nearest import decoder_embedder, nearest_labels, sentence_embedder
from tests import tiny

SEEN: list[str] = []


def spelling(texts: Sequence[str]) -> np.ndarray:
    SEEN[:] = texts
    return np.array(
        [[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float
    )


def test_the_nearest_label_is_told_by_the_angle() -> None:
    labels = ["Crying_baby", "dog"]
    said = ["DOGS, dogs, dogs, dogs", "a baby cries", "", "dog"]
    assert nearest_labels(said, labels, spelling) == ["dog", "Crying_baby", None, "dog"]
    assert SEEN[-2:] == ["sound of crying baby", "sound of dog"]
    assert nearest_labels(["", " "], labels, spelling) == [None, None]
    # not by length, which a longer label has more of
    assert nearest_labels(["dog"], ["dog barks at dog", "dog"], spelling) == ["dog"]


@pytest.mark.parametrize("shape", [(3,), (1, 4)])
def test_an_embedder_that_gives_something_else_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected a finite vector for each"):
        nearest_labels(["dog"], ["dog"], lambda texts: np.ones(shape))
    with pytest.raises(ValueError, match="finite"):
        nearest_labels(["dog"], ["dog"], lambda texts: np.full((2, 3), np.nan))


def test_the_decoders_own_embeddings_are_averaged_over_tokens() -> None:
    model = tiny.model(Route.plits(tiny.LAYERS))

    class Processor:
        def tokenizer(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": [len(word) for word in text.split()]}

    embed = decoder_embedder(model, Processor())
    table = model.get_input_embeddings().weight.detach().numpy()
    assert embed(["a bb", "ccc"]) == pytest.approx(
        np.stack([table[1:3].mean(0), table[3]]), abs=1e-6
    )


def test_a_model_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "hub_reachable", lambda: False)
    monkeypatch.setattr(nearest, "cached_snapshot", lambda name: None)
    with pytest.raises(BenchmarkError, match=r"nobody/nothing is no local folder.*out of reach"):
        nearest.require_hub_model("nobody/nothing")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(BenchmarkError, match=r"pip install 'palscope\[captions\]'"):
        sentence_embedder("nobody/nothing")
