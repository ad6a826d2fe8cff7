"""Several encoders of one clip: each hears at its own rate, and is what it is alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope.audio import Waveform
from palscope.encoders import Several, SeveralConfig, build_encoder, encoder_config
from palscope.encoders._config import GivenClip
from palscope.errors import AudioError, CheckpointError, PalscopeError
from palscope.interventions import Address, Patch, Scale, Sound, intervene, resolve
from tests.encoders import small
from tests.encoders.test_every_encoder import sound


def together(*names: str) -> Any:
    return Several.of(*(small.encoder(name, seed) for seed, name in enumerate(names)))


@pytest.mark.parametrize("names", [("sslam", "clap"), ("clap", "whisper", "clap")])
@torch.inference_mode()
def test_each_part_gives_what_it_gives_alone(names: tuple[str, ...]) -> None:
    made = together(*names)
    clips = [sound(0.61, 1), sound(3.3, 2)]
    heard = [made.config.extract(GivenClip(clip)) for clip in clips]
    width = max(each.values.shape[1] for each in heard)
    batch = torch.stack(
        [torch.nn.functional.pad(h.values, (0, width - h.values.shape[1])) for h in heard]
    )
    frames = torch.tensor([each.frames for each in heard])
    assert batch.shape[1] == made.bins
    outputs = made.outputs(batch, frames)
    assert [(o.states.shape[2], g) for o, (_, g) in zip(outputs, made.emits, strict=True)] == [
        (part.width, part.grid) for part in made.parts
    ]
    for seed, (name, out) in enumerate(zip(names, outputs, strict=True)):
        alone = small.encoder(name, seed)
        for row, clip in enumerate(clips):
            features = alone.config.extract(GivenClip(clip))
            states = alone(features.values[None], torch.tensor([features.frames])).states[0]
            assert out.lengths[row] == len(states)
            torch.testing.assert_close(out.states[row, : len(states)], states, atol=2e-5, rtol=1e-5)


def test_frames_are_those_that_all_parts_have() -> None:
    made = together("clap", "sslam")
    for samples in (7001, 7056, 7057, 44_099):  # at 44.1 kHz, which the parts resample
        clip = GivenClip(Waveform(np.ones(samples, np.float32), 44_100, "ones"))
        own = [part.config.extract(clip).frames for part in made.parts]
        assert made.config.extract(clip).frames == min(own) >= max(own) - 1


def test_a_model_hears_with_both_and_is_saved(tmp_path: Any) -> None:
    made = together("sslam", "clap")
    model, processor = small.whole(made)
    assert processor.sample_rate == 48_000
    clips = [sound(0.5, 1), sound(0.9, 2)]
    batch = processor([processor.chat("what was it")] * 2, clips)
    with torch.no_grad():
        logits = model(**batch).logits[:, -1]
        alone = model(**processor(processor.chat("what was it"), clips[0])).logits[0, -1]
    torch.testing.assert_close(logits[0], alone, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = PalscopeProcessor.from_pretrained(tmp_path)([processor.chat("what was it")] * 2, clips)
    assert torch.equal(again["input_features"], batch["input_features"])
    back = PalscopeForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(back(**again).logits[:, -1], logits)


def test_the_parts_are_hooked_and_addressed_each_on_its_own_grid() -> None:
    hooked = small.hooked(together("sslam", "ast"))
    inputs = hooked.inputs("what was it", sound(0.5, 1))
    names = [name for name in hooked.hook_dict if name.startswith(("audio_sslam", "audio_ast"))]
    with torch.no_grad():
        _, cache = hooked.run_with_cache(inputs, names_filter=names)
        plain = hooked(inputs)
    assert set(names) <= set(cache)
    where = resolve(hooked, inputs, Address("encoder_block", Sound(0.2, 0.4), layers=(1,)))
    assert where.covered["end_s"].tolist() == pytest.approx([0.48, 0.4])
    assert {part.hook for part in where.parts} == {
        "audio_sslam_blocks.1.hook_out",
        "audio_ast_blocks.1.hook_out",
    }
    for site in ("mel", "encoder_block", "encoder_output"):
        patch = Patch(Address(site, Sound(0.2, 0.4)), Scale(3.0))
        with torch.no_grad(), intervene(hooked, inputs, [patch]):
            assert (hooked(inputs) - plain).abs().max() > 1e-5


def test_settings() -> None:
    config = together("clap", "whisper", "clap").config
    assert encoder_config(config.to_dict()) == config
    made: Any = build_encoder(config)
    assert made.prefixes == ("clap_", "whisper_", "clap_2_")
    for parts in ((), (small.CONFIGS["clap"].to_dict(),), (config.to_dict(),) * 2):
        with pytest.raises(CheckpointError, match="two or more"):
            SeveralConfig(parts)
    with pytest.raises(CheckpointError, match="a width each"):
        _ = made.width
    with pytest.raises(AudioError, match="on one another"):
        made.outputs(torch.zeros(1, 7, 100), torch.tensor([100]))


def test_what_follows_one_encoder_says_so() -> None:
    hooked = small.hooked(together("sslam", "whisper"))
    with pytest.raises(PalscopeError, match="one encoder"):
        hooked.audio_stream()
