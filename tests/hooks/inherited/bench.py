"""What the rows of the table are tried on: a model, a pair of sounds, and the decoder alone."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import AutoModelForCausalLM

import palscope
from palscope._models.processor import AUDIO_TOKEN
from palscope._routing import Route
from tests import tiny
from tests.hooks.conftest import make_hooked, noise, tone
from tests.published.tiny import qwen2_audio

QUESTION = "what is heard?"


class Bench:
    """A hooked model and two sounds asked about in the same words.

    `text`: TransformerLens's own bridge, on a copy of the decoder alone.
    """

    def __init__(self, kind: str, tokenizer: Any) -> None:
        self.kind = kind
        if kind == "published":
            plain: Any = qwen2_audio.model()
            self.model: Any = palscope.load(plain, processor=qwen2_audio.processor())
            self.untouched: Any = qwen2_audio.model()
            decoder = {"model": self.untouched.model.language_model, "head": self.untouched.lm_head}
        else:
            route = Route.plits(tiny.LAYERS)
            route = Route.lal(tiny.LAYERS, [0, 2]) if kind == "lal" else route
            self.model = make_hooked(tokenizer, route)
            self.untouched = tiny.model(route, vocab_size=tokenizer.vocab_size)
            whole = self.untouched.language_model
            decoder = {"model": whole.model, "head": whole.lm_head}
        self.text = _text_bridge(decoder, self.model)
        place = "<|AUDIO|>" if kind == "published" else AUDIO_TOKEN
        self.clean, self.corrupt = (
            dict(self.model.processor(f"it {place} is", [sound], sampling_rate=16_000))
            for sound in (tone(0.2), noise(0.2))
        )
        self.lens: Any = None
        self.last = f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post"

    @contextmanager
    def attach_clips(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Within, tokens of the two sounds."""
        with self.model.attach_clips(self.clean, self.corrupt) as tokens:
            yield tokens

    @functools.cached_property
    @torch.no_grad()
    def caches(self) -> tuple[Any, Any]:
        """Of the clean run and of the corrupt one."""
        return tuple(self.model.run_with_cache(each)[1] for each in (self.clean, self.corrupt))

    @functools.cached_property
    @torch.no_grad()
    def logits(self) -> Tensor:
        """Of the clean run, by the plain model."""
        return self.model.model(**self.clean).logits

    @functools.cached_property
    def running(self) -> Tensor:
        """Columns of the tokens that run."""
        return self.model.layout(self.clean).layer_columns(self.model.current_route, 0).running[0]

    def metric(self, logits: Tensor) -> Tensor:
        """Of the last word's next."""
        return logits[0, -1, 5]

    def changed(self) -> Any:
        """A copy, to change."""
        return copy.deepcopy(self.model)


def _text_bridge(decoder: dict[str, Any], like: Any) -> Any:
    config = decoder["model"].config
    alone: Any = AutoModelForCausalLM.from_config(config)
    alone.model.load_state_dict(decoder["model"].state_dict())
    alone.lm_head.load_state_dict(decoder["head"].state_dict())
    architecture = type(alone).__name__
    made: Any = build_bridge_from_module(alone.eval(), architecture, hf_config=config)
    made._tokenizer = like.processor.tokenizer
    return made
