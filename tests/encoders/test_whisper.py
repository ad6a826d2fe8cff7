from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as HFWhisperEncoder

from palscope.audio import log_mel
from palscope.encoders import WhisperEncoder, WhisperEncoderConfig, build_encoder, encoder_config
from palscope.encoders._weights import find_encoder, load_whisper_encoder
from palscope.errors import AudioError, CheckpointError

TINY = "openai/whisper-tiny.en"


def small_config(**changes) -> WhisperEncoderConfig:
    """Two layers of width 16, windows of 40 mel frames."""
    sizes: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "num_mel_bins": 8,
        "max_source_positions": 20,
        "layers": (1, 2),
    }
    return WhisperEncoderConfig(**{**sizes, **changes})


def small_encoder(**changes) -> WhisperEncoder:
    torch.manual_seed(0)
    return WhisperEncoder(small_config(**changes)).eval()


def features(*lengths: int, bins: int = 8, fill: float = float("nan")) -> tuple[Tensor, Tensor]:
    """Random clips of these lengths in one batch, padded by `fill`."""
    generator = torch.Generator().manual_seed(1)
    batch = torch.full((len(lengths), bins, max(lengths)), fill)
    for row, length in zip(batch, lengths, strict=True):
        row[:, :length] = torch.randn(bins, length, generator=generator)
    return batch, torch.tensor(lengths)


@pytest.fixture(scope="module")
def tiny() -> WhisperEncoder:
    return load_whisper_encoder(TINY, layers=(0, 2, 4))


# --- the same numbers as Whisper ----------------------------------------------------------------


@torch.inference_mode()
def test_a_full_window_gives_transformers_hidden_states():
    encoder = small_encoder(layers=(0, 1, 2))
    plain = HFWhisperEncoder(encoder.config.transformers_config()).eval()
    plain.load_state_dict(encoder.model.state_dict())
    batch, lengths = features(40, 40)
    expected = plain(batch, output_hidden_states=True).hidden_states
    states, tokens = encoder(batch, lengths)
    assert tokens.tolist() == [20, 20]
    torch.testing.assert_close(states, torch.cat(expected, dim=-1), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_the_bundled_weights_run_as_in_transformers(tiny: WhisperEncoder):
    plain = HFWhisperEncoder.from_pretrained(find_encoder(TINY), dtype=torch.float32).eval()
    batch, lengths = features(3000, bins=80)
    expected = plain(batch, output_hidden_states=True).hidden_states
    states = tiny(batch, lengths).states
    chosen = torch.cat([expected[i] for i in (0, 2, 4)], dim=-1)
    torch.testing.assert_close(states, chosen, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_bundled_weights_give_what_another_engine_gives(tiny: WhisperEncoder):
    # CTranslate2 4.8.5 on the model the weights were taken from (float32, 30 s of this chirp).
    expected = [
        [-0.5838, -0.5887, 0.2678, -0.7325],
        [-0.1262, -1.6028, 0.0612, 0.6811],
        [0.1441, 0.2508, 2.0128, 0.0825],
        [1.5414, -0.54, 0.982, -0.002],
        [-0.0861, 0.1636, 0.654, 0.1386],
    ]
    t = np.arange(480_000) / 16_000
    chirp = np.sin(2 * np.pi * (100 * t + 50 * t * t)) * (0.55 + 0.45 * np.sin(4 * np.pi * t))
    mel = log_mel((0.3 * chirp).astype(np.float32), tiny.feature_extractor())
    last = tiny(mel[None], torch.tensor([3000])).states[0, :, 2 * 384 :]
    found = last[[0, 10, 333, 1000, 1499]][:, [0, 100, 200, 383]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-3, rtol=0)


@torch.inference_mode()
def test_padding_to_the_window_gives_transformers_padded_states(tiny: WhisperEncoder):
    encoder = load_whisper_encoder(TINY, layers=(0, 2, 4), pad_to_window=True)
    rng = np.random.default_rng(0)
    clips = [rng.normal(0, 0.1, n).astype(np.float32) for n in (16_000, 40_100)]
    for clip in clips:
        clip[-800:] = 0  # so that no frame after the end hears the clip
    extractor = encoder.feature_extractor()
    mels = [log_mel(clip, extractor) for clip in clips]
    batch = torch.full((2, 80, mels[1].shape[1]), float("nan"))
    for row, mel in zip(batch, mels, strict=True):
        row[:, : mel.shape[1]] = mel
    states, tokens = encoder(batch, torch.tensor([mel.shape[1] for mel in mels]))
    padded = extractor(clips, sampling_rate=16_000, return_tensors="pt")["input_features"]
    expected = encoder.model(padded).last_hidden_state
    assert tokens.tolist() == [50, 126]
    for row, length, wanted in zip(states, tokens.tolist(), expected, strict=True):
        torch.testing.assert_close(row[:length, 2 * 384 :], wanted[:length], atol=1e-4, rtol=1e-4)


# --- a clip is alone ----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 95), min_size=1, max_size=5), st.booleans())
@torch.inference_mode()
def test_a_batch_gives_each_clip_what_it_gets_alone(lengths: list[int], padded: bool):
    # Lengths past 40 frames take up to three windows; what pads the batch is NaN.
    encoder = small_encoder(pad_to_window=padded)
    batch, frames = features(*lengths)
    states, tokens = encoder(batch, frames)
    assert states.shape == (len(lengths), (max(lengths) + 1) // 2, encoder.width)
    for i, length in enumerate(lengths):
        alone = encoder(batch[i : i + 1, :, :length], frames[i : i + 1]).states[0]
        assert tokens[i] == len(alone) == encoder.tokens(length)
        torch.testing.assert_close(states[i, : len(alone)], alone, atol=1e-5, rtol=0)
        assert not states[i, len(alone) :].any()


@torch.inference_mode()
def test_real_weights_batch_as_they_run_alone(tiny: WhisperEncoder):
    batch, frames = features(31, 300, 97, bins=80)
    states, tokens = tiny(batch, frames)
    for i, (length, n) in enumerate(zip(frames.tolist(), tokens.tolist(), strict=True)):
        alone = tiny(batch[i : i + 1, :, :length], frames[i : i + 1]).states[0]
        torch.testing.assert_close(states[i, :n], alone, atol=5e-5, rtol=1e-5)


@torch.inference_mode()
def test_windows_are_encoded_one_by_one():
    encoder = small_encoder()
    batch, frames = features(97)
    whole = encoder(batch, frames).states
    parts = [
        encoder(batch[:, :, a:b], torch.tensor([b - a])).states
        for a, b in ((0, 40), (40, 80), (80, 97))
    ]
    torch.testing.assert_close(whole, torch.cat(parts, dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.inference_mode()
def test_attention_implementations_agree(attention: str):
    encoder = small_encoder()
    batch, frames = features(40, 11, 3)
    expected = encoder(batch, frames).states
    encoder.model.set_attn_implementation(attention)
    torch.testing.assert_close(encoder(batch, frames).states, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision(tiny: WhisperEncoder, dtype: torch.dtype):
    half = load_whisper_encoder(TINY, layers=(0, 2, 4), dtype=dtype)
    batch, frames = features(200, 60, bins=80)
    states = half(batch, frames).states
    expected = tiny(batch, frames).states
    assert states.dtype == dtype
    error = (states.float() - expected).norm() / expected.norm()
    assert error < (0.03 if dtype == torch.bfloat16 else 0.004)


# --- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [0.5, 0.73, 1.234, 2.0, 3.3])
@torch.inference_mode()
def test_a_click_moves_the_tokens_of_its_second(tiny: WhisperEncoder, second: float):
    # Noise loud enough that the click, which sets the dynamic range, changes nothing elsewhere.
    quiet = np.random.default_rng(0).normal(0, 0.01, 64_000).astype(np.float32)
    click = quiet.copy()
    click[int(second * 16_000) :][:16] += 0.3
    extractor = tiny.feature_extractor()
    batch = torch.stack([log_mel(sound, extractor) for sound in (quiet, click)])
    states = tiny(batch, torch.tensor([400, 400])).states
    moved = (states[1] - states[0]).view(200, 3, 384).norm(dim=-1)
    at = second / tiny.grid.seconds_per_token
    # Before attention nothing but the receptive field moves; after two layers most of all it.
    assert abs(int(moved[:, 0].argmax()) - at) <= 1
    far = (torch.arange(200) - at).abs() > 3
    assert moved[far, 0].max() == 0
    assert abs(int(moved[:, 1].argmax()) - at) <= 2


def test_the_grid_counts_tokens_of_20_ms(tiny: WhisperEncoder):
    assert tiny.grid.span(50) == pytest.approx((1.0, 1.02))
    assert [tiny.tokens(n) for n in (1, 2, 3, 3000, 3001)] == [1, 1, 2, 1500, 1501]


# --- settings -----------------------------------------------------------------------------------


def test_layers_above_the_highest_are_not_run():
    encoder = small_encoder(layers=(1,))
    ran: list[int] = []
    for number, layer in enumerate(encoder.model.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    encoder(*features(10))
    assert ran == [1]
    assert encoder.width == 16


def test_settings_survive_json():
    config = small_config(pad_to_window=True)
    read = encoder_config(json.loads(json.dumps(config.to_dict())))
    assert read == config
    assert isinstance(build_encoder(read), WhisperEncoder)


@pytest.mark.parametrize("layers", [(), (3,), (-1,), (1, 1)])
def test_layers_that_do_not_exist(layers: tuple[int, ...]):
    with pytest.raises(CheckpointError, match="from 0 to 2"):
        small_config(layers=layers)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [({"kind": "sonar"}, "no encoder of kind 'sonar'"), ({"kind": "whisper", "width": 3}, "width")],
)
def test_foreign_settings(settings_: dict[str, object], says: str):
    with pytest.raises(CheckpointError, match=says):
        encoder_config(settings_)


@pytest.mark.parametrize(
    ("shape", "lengths", "says"),
    [
        ((1, 9, 10), [10], "8 mel bins"),
        ((8, 10), [10], "8 mel bins"),
        ((2, 8, 10), [10], "expected"),
        ((2, 8, 10), [10, 0], "Lengths"),
        ((2, 8, 10), [10, 11], "Lengths"),
    ],
)
def test_features_that_do_not_fit(shape: tuple[int, ...], lengths: list[int], says: str):
    with pytest.raises(AudioError, match=says):
        small_encoder()(torch.zeros(shape), torch.tensor(lengths))
