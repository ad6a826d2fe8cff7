"""The demo's tokenizer with fewer words, for tiny models.

With all 49,152 a tiny model's pass is mostly its logits, and opening it is mostly reading them.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer

from palscope._models.base_weights import find_base
from palscope.datasets._questions import LABELS

FREQUENT = 3000
"""So many of the demo's first tokens; its chat template and labels are split as by the demo."""

ASKED = "What is heard? which digit is spoken first? which one is louder?"
"""Kept whole as well: prompts are as long as the demo's."""


def whole_tokenizer() -> Any:
    """The demo's."""
    return AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))


def tokenizer() -> Any:
    """Like the demo's, chat template included, but that rarer words are split further."""
    return copy.deepcopy(_cut())


@functools.cache
def _cut() -> Any:
    whole = whole_tokenizer()
    with TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        file = Path(folder) / "tokenizer.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        model = content["model"]
        made_of = {"".join(pair): pair for pair in model["merges"]}

        def with_parts(token: str) -> Iterator[str]:
            yield token
            for part in made_of.get(token, ()):
                yield from with_parts(part)

        kept = {token for token, id in model["vocab"].items() if id < FREQUENT}
        labels = [label for labels in LABELS.values() for label in labels]
        chat = whole.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
        for text in (chat + "assistant", ASKED, *labels, *(f" {label}" for label in labels)):
            for token in whole.tokenize(text):
                kept.update(with_parts(token))
        model["merges"] = [pair for pair in model["merges"] if "".join(pair) in kept]
        in_order = sorted(kept, key=model["vocab"].get)
        model["vocab"] = {token: id for id, token in enumerate(in_order)}
        file.write_text(json.dumps(content), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


COUNT: int = tokenizer().vocab_size
