"""Granite Speech Plus: what its projector reads."""

from __future__ import annotations

import torch

import palscope
from tests.published.contract import noise
from tests.published.tiny import granite_speech_plus as tiny


@torch.no_grad()
def test_the_projector_reads_the_middle_layer_s_output_with_the_guess_in_it() -> None:
    hooked = palscope.load(tiny.model(), processor=tiny.processor())
    inputs = hooked.inputs("what do you hear ?", noise(1.0))
    names = ["audio_projector.hook_in", "audio_blocks.1.hook_in", "audio_blocks.1.hook_out"]
    _, cache = hooked.run_with_cache(inputs, names_filter=names)
    read, above, last = (cache[name] for name in names)
    assert torch.equal(read, torch.cat([above, last], dim=-1))
