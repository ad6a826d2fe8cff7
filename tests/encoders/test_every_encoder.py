"""What every encoder keeps: a clip's states are its own, hooks fire, sites are seconds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from palscope._models import AudioStream, PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._routing import Route
from palscope.audio import Waveform
from palscope.audio._bundled import bundled_clips
from palscope.audio._timegrid import SECONDS_PER_FEATURE
from palscope.audio._waveform import load_audio
from palscope.encoders import ClipFeatures, Encoder, encoder_config
from palscope.encoders._config import GivenClip
from palscope.errors import AudioError, PalscopeError
from palscope.interventions import (
    Address,
    Patch,
    Resample,
    Sound,
    Zero,
    capture,
    intervene,
    resolve,
)
from palscope.measures._leakage import leakage
from tests import tiny
from tests.encoders import small

every = pytest.mark.parametrize("name", list(small.CONFIGS))
SOUND = [name for name in small.CONFIGS if "vision" not in name]
hearing = pytest.mark.parametrize("name", SOUND)
RATE = 48_000


def sound(seconds: float, seed: int = 0) -> Waveform:
    """A bundled clip from a place that depends on the seed, in noise."""
    clip = load_audio(bundled_clips().path[0], sample_rate=RATE)
    noise = 0.01 * np.random.default_rng(seed).normal(size=round(seconds * RATE))
    clean = np.resize(clip.samples[10_000 * seed :], round(seconds * RATE))
    return Waveform((clean + noise).astype(np.float32), RATE, f"sound {seed}")


def clip(name: str, seconds: float, seed: int = 0) -> Any:
    """A sound; for those that see, an image."""
    if name in SOUND:
        return sound(seconds, seed)
    return np.random.default_rng(seed).integers(0, 255, (40, 50, 3)).astype(np.uint8)


def batch_of(made: Encoder, features: list[ClipFeatures]) -> tuple[torch.Tensor, torch.Tensor]:
    """In one tensor, NaN where a clip has no columns of its own."""
    width = max(each.values.shape[1] for each in features)
    batch = torch.full((len(features), made.bins, width), float("nan"))
    for row, each in zip(batch, features, strict=True):
        row[:, : each.values.shape[1]] = each.values
    return batch, torch.tensor([each.frames for each in features])


def test_there_is_a_small_one_of_every_kind() -> None:
    small_ones = {config.kind for config in small.CONFIGS.values()}
    assert set(small.BUILT_IN) == small_ones | {"several"}


@hearing
@torch.inference_mode()
def test_a_batch_gives_each_clip_what_it_gets_alone(name: str) -> None:
    made = small.encoder(name)
    window = made.window * SECONDS_PER_FEATURE
    lengths = (0.02, 0.7, min(1.3 * window, 12.0))  # the last longer than most windows
    features = [
        made.config.extract(GivenClip(sound(seconds, seed))) for seed, seconds in enumerate(lengths)
    ]
    batch, frames = batch_of(made, features)
    states, tokens = made(batch, frames)
    for i, (each, seconds) in enumerate(zip(features, lengths, strict=True)):
        alone = made(each.values[None], frames[i : i + 1]).states[0]
        assert tokens[i] == len(alone) == made.grid.tokens(seconds) == made.tokens(each.frames)
        torch.testing.assert_close(states[i, : len(alone)], alone, atol=2e-5, rtol=1e-5)
        assert not states[i, len(alone) :].any()
    assert states[1, 1].std() > 0.05


# Whisper's windows of 30 s: tests/encoders/test_whisper.py.
@pytest.mark.parametrize("name", [name for name in SOUND if name != "whisper"])
@torch.inference_mode()
def test_windows_are_encoded_one_by_one(name: str) -> None:
    made = small.encoder(name)
    rate, window = made.config.sample_rate, made.window * SECONDS_PER_FEATURE
    long = load_audio(sound(1.4 * window, 1), sample_rate=rate).samples
    cut = round(window * rate)
    parts = [made.config.features(piece) for piece in (long[:cut], long[cut:])]
    whole = made.config.features(long)
    states = made(whole.values[None], torch.tensor([whole.frames])).states[0]
    alone = [made(p.values[None], torch.tensor([p.frames])).states[0] for p in parts]
    torch.testing.assert_close(states, torch.cat(alone), atol=2e-5, rtol=1e-5)


@every
def test_settings_survive_json(name: str) -> None:
    config = small.CONFIGS[name]
    assert encoder_config(json.loads(json.dumps(config.to_dict()))) == config


@hearing
def test_sound_that_cannot_be_used(name: str) -> None:
    config = small.CONFIGS[name]
    for samples in (np.zeros(0, np.float32), np.full(900, np.nan, np.float32)):
        with pytest.raises(AudioError):
            config.features(samples)
    silent = config.features(np.zeros(16_000, np.float32)).values
    assert silent.isfinite().all()


@every
def test_a_model_of_it_hears_is_saved_and_loaded(name: str, tmp_path: Any) -> None:
    hooked = small.hooked(small.encoder(name))
    clips = [clip(name, 0.5, 1), clip(name, 0.9, 2)]
    inputs = [hooked.inputs("what was it", each) for each in clips]
    with torch.no_grad():
        alone = [hooked(each)[0, -1] for each in inputs]
        prompts = [hooked.processor.chat("what was it")] * 2
        together = hooked(dict(hooked.processor(prompts, clips)))[:, -1]
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)

    small.whole(small.encoder(name))[0].save_pretrained(tmp_path)
    hooked.processor.save_pretrained(tmp_path)
    model = PalscopeForConditionalGeneration.from_pretrained(tmp_path)
    processor = PalscopeProcessor.from_pretrained(tmp_path)
    again = processor([hooked.processor.chat("what was it")], clips[:1])
    assert torch.equal(again["input_features"], inputs[0]["input_features"])
    assert torch.equal(again["input_ids"], inputs[0]["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(model(**again).logits[0, -1], alone[0], atol=1e-5, rtol=1e-5)


@every
def test_every_hook_point_of_the_encoder_fires(name: str) -> None:
    hooked = small.hooked(small.encoder(name))
    inputs = hooked.inputs("what was it", clip(name, 0.5))
    inside = [
        point
        for point in hooked.hook_dict
        if point.startswith("audio_") and point.endswith(("hook_in", "hook_out"))
    ]
    wanted = [point for point in inside if hooked.can_fire(point)]
    kinds = {point.split(".")[0] for point in wanted}
    assert kinds >= {f"audio_{part}" for part in hooked.model.encoder.components()}
    assert any(".attn." in point for point in wanted) and any("mlp_out" in p for p in wanted)
    with torch.no_grad():
        logits, cache = hooked.run_with_cache(inputs, names_filter=wanted)
        assert set(wanted) <= set(cache)
        torch.testing.assert_close(logits, hooked(inputs), atol=1e-5, rtol=1e-5)
    assert not set(inside) - set(wanted) - {p for p in inside if "projector" in p or "input_" in p}


@every
def test_layers_are_addressed_in_seconds(name: str) -> None:
    """Every token of the last layer set to another run's makes the answer the other run's."""
    hooked = small.hooked(small.encoder(name))
    encoder = hooked.model.encoder
    last = len(encoder.blocks) - 1
    inputs, other = (hooked.inputs("what was it", clip(name, 0.5, seed)) for seed in (1, 2))
    spans = encoder.blocks[last].grid.spans(4)
    some = resolve(
        hooked, inputs, Address("encoder_block", Sound(0.0, spans[0, 1]), layers=(last,))
    )
    assert some.covered["tokens"].tolist() == [encoder.blocks[last].grid.per_step]
    assert some.covered["end_s"].tolist() == pytest.approx([spans[0, 1]])

    with torch.no_grad():
        plain, wanted = hooked(inputs)[0, -1], hooked(other)[0, -1]
        for layer in range(last + 1):
            address = Address("encoder_block", Sound(), layers=(layer,))
            patch = Patch(address, Resample(capture(hooked, other, address)))
            with intervene(hooked, inputs, [patch]):
                changed = hooked(inputs)[0, -1]
            if layer == last and getattr(encoder.config, "layers", (0,)) in ((0,), (last + 1,)):
                # Nothing but this layer's states is read by the connector.
                torch.testing.assert_close(changed, wanted, atol=1e-5, rtol=1e-4)
            assert (changed - plain).abs().max() > 1e-4


@every
def test_features_are_addressed_in_seconds_or_refused(name: str) -> None:
    hooked = small.hooked(small.encoder(name))
    inputs = hooked.inputs("what was it", clip(name, 0.6, 1))
    address = Address("mel", Sound(0.08, 0.2))
    if hooked.model.encoder.mel_hook is None:
        with pytest.raises(PalscopeError, match="edit the sound itself"):
            resolve(hooked, inputs, address)
        return
    assert resolve(hooked, inputs, address).covered[["first", "last"]].values.tolist() == [[8, 19]]
    edited = dict(inputs)
    edited["input_features"] = inputs["input_features"].clone()
    edited["input_features"][:, :, 8:20] = 0
    with torch.no_grad(), intervene(hooked, inputs, [Patch(address, Zero())]):
        changed = hooked(inputs)
    with torch.no_grad():
        torch.testing.assert_close(changed, hooked(edited), atol=1e-5, rtol=1e-5)
        assert (changed - hooked(inputs)).abs().max() > 1e-4


@every
def test_it_can_be_trained_or_frozen(name: str) -> None:
    made = small.encoder(name)
    features = made.config.extract(GivenClip(clip(name, 0.5)))
    made(features.values[None], torch.tensor([features.frames])).states.square().sum().backward()
    silent = [key for key, weight in made.named_parameters() if weight.grad is None]
    # Fixed; for sound over 10 s, which CLAP gets in windows; for CLIP's pooled CLS token.
    unused = ["positions", "fusion_model", "mel_conv2d"] + ["post_layernorm"] * (
        name == "clip-vision"
    )
    assert not [key for key in silent if not any(part in key for part in unused)], silent


@pytest.mark.parametrize("name", [name for name in SOUND if name not in small.OF_SAMPLES])
def test_bins_are_where_a_tone_is_loudest(name: str) -> None:
    config = small.CONFIGS[name]
    hz = config.bin_hz()
    assert hz is not None and (np.diff(hz) > 0).all()
    rate = config.sample_rate
    for tone in (700.0, 2500.0):
        samples = np.sin(2 * np.pi * tone * np.arange(rate) / rate).astype(np.float32)
        loudest = int(config.features(samples).values[:, 30:60].mean(1).argmax())
        below, above = hz[max(loudest - 1, 0)], hz[min(loudest + 1, len(hz) - 1)]
        assert below < tone < above or abs(hz[loudest] - tone) < 200


@pytest.mark.parametrize("name", ["sslam", "clap", "ast", "hubert"])
def test_the_measures_of_time_hold(name: str) -> None:
    """Leakage and attribution give each token of patches its own seconds."""
    hooked = small.hooked(small.encoder(name))
    waveform = load_audio(sound(0.9, 1), sample_rate=hooked.processor.sample_rate)
    table: Any = leakage(hooked, waveform, 0.3, 0.5)
    assert table["floor_moved_db"].isna().all()
    output = table[table["site"] == "encoder_output"]
    grid = hooked.model.encoder.grid
    assert len(output) == grid.tokens(0.9)
    np.testing.assert_allclose(output["token_start_s"], grid.spans(len(output))[:, 0], atol=1e-6)
    blocks = table[table["site"] == "encoder_block"]
    assert blocks["layer"].max() == len(hooked.model.encoder.blocks) - 1
    assert output["change"].max() > 1e-3


@pytest.mark.parametrize("name", ["sslam", "clap", "ast", "af-whisper", "hubert"])
def test_sound_as_it_comes_is_heard_as_at_once(name: str) -> None:
    model, processor = small.whole(small.encoder(name), Route.plits(tiny.LAYERS))
    rate = processor.sample_rate
    window = model.encoder.window * SECONDS_PER_FEATURE
    samples = load_audio(sound(1.3 * window, 1), sample_rate=rate).samples
    whole = processor([processor.chat("what was it")], samples, sampling_rate=rate)
    stream = AudioStream(model, processor)
    for piece in np.array_split(samples, 7):
        stream.feed(piece)
    with torch.no_grad(), stream.asking("what was it") as inputs:
        told = model(**inputs).logits[0, -1]
        assert stream.layout is not None
        heard = model.layout(whole["input_ids"], feature_lengths=whole["feature_lengths"]).seconds
        torch.testing.assert_close(stream.layout.seconds, heard, equal_nan=True)
        torch.testing.assert_close(told, model(**whole).logits[0, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["sslam", "ast"])
def test_a_later_windows_tokens_are_addressed(name: str) -> None:
    hooked = small.hooked(small.encoder(name))
    encoder = hooked.model.encoder
    inputs = hooked.inputs("what was it", sound(1.6 * encoder.window / 100, 1))
    start = encoder.window * SECONDS_PER_FEATURE
    address = Address("encoder_block", Sound(start + 0.3, start + 0.4), layers=(1,))
    (part,) = resolve(hooked, inputs, address).parts
    with torch.no_grad():
        _, cache = hooked.run_with_cache(inputs, names_filter="audio_pool.hook_in")
        with intervene(hooked, inputs, [Patch(address, Zero())]):
            _, changed = hooked.run_with_cache(inputs, names_filter="audio_pool.hook_in")
    moved = (changed["audio_pool.hook_in"] - cache["audio_pool.hook_in"])[0].norm(dim=-1)
    assert moved.nonzero()[:, 0].tolist() == part.columns.tolist()


@every
@torch.inference_mode()
def test_half_precision(name: str) -> None:
    made = small.encoder(name)
    features = made.config.extract(GivenClip(clip(name, 0.5)))
    given = features.values[None], torch.tensor([features.frames])
    exact = made(*given).states
    half = made.to(torch.bfloat16)(*given).states
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() / exact.norm() < 0.1


def test_a_frame_token_for_each_patch() -> None:
    """The processor counts as the model, and seconds address whole steps of rows."""
    made = small.encoder("sslam")
    hooked = small.hooked(made, frames_per_token=1)
    assert hooked.model.frame_grid == made.grid and made.grid.per_step == 2
    inputs = hooked.inputs("what was it", sound(0.5))
    layout = hooked.layout(inputs)
    frames = layout.table(0).query("stream == 'frames'")
    assert len(frames) == 8 == made.tokens(50)
    ends = [0.16] * 2 + [0.32] * 2 + [0.48] * 2 + [0.5] * 2
    assert frames["end_s"].tolist() == pytest.approx(ends)
    where = resolve(hooked, inputs, Address("audio_state", Sound(0.2, 0.3, "frames"), layers=(0,)))
    assert where.covered[["tokens", "first", "last"]].values.tolist() == [[2, 2, 3]]
