"""The same numbers as the published models, on the same sound: transformers, or stored values."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    CLIPImageProcessorPil,
    SiglipImageProcessorPil,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from palscope.audio._bundled import bundled_clips
from palscope.audio._waveform import load_audio
from palscope.encoders import SSLAMConfig, build_encoder
from palscope.encoders._base import filled
from palscope.encoders._config import GivenClip
from palscope.encoders._convert import convert_encoder
from palscope.errors import PalscopeError
from tests.encoders import small

CLIPS = [bundled_clips().path[row] for row in (0, 7, 20)]


def samples_of(path: str, rate: int, seconds: float | None = None) -> np.ndarray:
    samples = load_audio(path, sample_rate=rate).samples
    return samples if seconds is None else samples[: round(seconds * rate)]


def alone(made: Any, samples: np.ndarray) -> torch.Tensor:
    features = made.config.features(samples)
    return made(features.values[None], torch.tensor([features.frames])).states[0]


@pytest.mark.parametrize("name", ["clap", "clap-fused"])
@pytest.mark.parametrize("clip", CLIPS)
@torch.inference_mode()
def test_clap_is_transformers_clap(name: str, clip: str) -> None:
    made = small.encoder(name)
    # The fused extractor marks a clip of each batch as longer, at random; none is.
    truncation = "fusion" if made.config.enable_fusion else "rand_trunc"
    extractor = ClapFeatureExtractor(feature_size=16, frequency_min=50, truncation=truncation)
    samples = samples_of(clip, 48_000)
    features = extractor(samples, sampling_rate=48_000, return_tensors="pt")["input_features"]
    ours = made.config.features(samples).values
    torch.testing.assert_close(ours, features[0, 0].T.float(), atol=1e-5, rtol=1e-6)
    is_longer = torch.zeros(1, 1, dtype=torch.bool)
    expected = made.model(input_features=features.float(), is_longer=is_longer).last_hidden_state
    states = alone(made, samples)
    for token in range(len(states)):  # [1, width, frequency, time]
        wanted = expected[0, :, token % 2, token // 2]
        torch.testing.assert_close(states[token], wanted, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_claps_last_layer_stands_in_the_order_that_is_said() -> None:
    made = small.encoder("clap")
    left: dict[str, torch.Tensor] = {}
    stage = made.model.audio_encoder.layers[1]
    stage.blocks[1].register_forward_hook(lambda _, __, out: left.update(last=out[0]))
    states = alone(made, samples_of(CLIPS[0], 48_000))
    placed = made.model.audio_encoder.norm(left["last"])[0, made.blocks[-1].order]
    torch.testing.assert_close(placed[: len(states)], states)


@torch.inference_mode()
def test_a_patch_of_each_of_claps_layers_hears_its_own_seconds_and_band() -> None:
    made = small.encoder("clap")
    silence = torch.full((1, 16, 1001), -20.0)
    patches: list[torch.Tensor] = []
    made.model.audio_encoder.patch_embed.register_forward_hook(
        lambda _, __, out: patches.append(out[0])
    )
    first = made.blocks[0]  # on the grid of the patches
    rows = first.grid.per_step
    for column, bin_, row in ((10, 1, 0), (517, 9, 2), (995, 15, 3)):
        patches.clear()
        click = silence.clone()
        click[0, bin_, column] = 20
        for features in (silence, click):
            made(features, torch.tensor([1000]))
        moved = (patches[1] - patches[0]).norm(dim=-1)[first.order]
        loudest = int(moved.argmax())
        start, end = first.grid.span(loudest)
        assert start - 0.03 <= column / 100 <= end + 0.03  # the spectrogram is stretched a little
        assert loudest % rows == row


@pytest.mark.parametrize("name", ["unfused", "fused"])
@torch.inference_mode()
def test_laions_file_gives_what_laions_code_gave(name: str, tmp_path: Path) -> None:
    """`laion_clap_reference.npz`: `HTSAT_Swin_Transformer` of github.com/LAION-AI/CLAP.

    Commit 1fd4c37, embed_dim 8, depths 1, 2, 1, 1 and heads 1, 2, 2, 4, fusion_type aff_2d where
    fused, on the first bundled clip, repeated and filled up to 10 s: through its own front end
    (torchlibrosa 0.1.0), or fused through torchaudio 2.11 as its `get_mel` does. Weights as below,
    in the order of their sorted names. Stored: names and shapes, and what leaves its `norm`.
    """
    stored = np.load(Path(__file__).with_name("laion_clap_reference.npz"))
    generator = np.random.default_rng(20220212)
    state: dict[str, Any] = {"module.text_branch.embeddings.weight": torch.zeros(2, 2)}
    for key, shape in zip(stored[f"{name}_names"], stored[f"{name}_shapes"], strict=True):
        sizes = tuple(map(int, shape.split()))
        if str(key).endswith(("attn_mask", "tracked")):
            drawn = np.zeros(sizes, np.int64 if str(key).endswith("tracked") else np.float32)
        elif str(key).endswith("position_index"):
            drawn = position_index()
        else:
            drawn = (0.3 * generator.standard_normal(sizes)).astype(np.float32)
            drawn = 1 + abs(drawn) if str(key).endswith("running_var") else drawn
        state[f"module.audio_branch.{key}"] = torch.from_numpy(np.asarray(drawn))
    checkpoint = {"epoch": 3, "best": np.float64(0.5), "state_dict": state}
    torch.save(checkpoint, tmp_path / "630k-best.pt")

    made: Any = convert_encoder("clap", tmp_path / "630k-best.pt", unpickle=True)
    assert made.config.depths == (1, 2, 1, 1) and made.config.enable_fusion == (name == "fused")
    found: list[torch.Tensor] = []
    made.model.audio_encoder.norm.register_forward_hook(lambda *at: found.append(at[-1]))
    alone(made, samples_of(bundled_clips().path[0], 48_000))
    np.testing.assert_allclose(found[0][0], stored[f"{name}_states"], atol=5e-5)


def position_index(side: int = 8) -> np.ndarray:
    """Which row of the table of biases two places of a window of Swin share."""
    at = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij")).reshape(2, -1)
    apart = at[:, :, None] - at[:, None, :] + side - 1
    return apart[0] * (2 * side - 1) + apart[1]


@pytest.mark.parametrize("clip", CLIPS)
@torch.inference_mode()
def test_ast_is_transformers_ast(clip: str) -> None:
    made = small.encoder("ast")
    config = made.config
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=256)
    samples = samples_of(clip, 16_000, 2.2)
    features = extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_values"]
    found = made.model(features, output_hidden_states=True)
    states = alone(made, samples)
    for depth, layer in enumerate((found.hidden_states[1], found.last_hidden_state)):
        patches = layer[0, 2:].view(config.rows, config.columns, 16)
        for token in range(len(states)):
            wanted = patches[token % config.rows, token // config.rows]
            ours = states[token, 16 * depth : 16 * depth + 16]
            torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("seconds", [0.83, 1.99])
@torch.inference_mode()
def test_af_whisper_is_transformers_audio_flamingo(clip: str, seconds: float) -> None:
    made = small.encoder("af-whisper")
    extractor: Any = WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    samples = samples_of(clip, 16_000, seconds)
    features = extractor(
        samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
    )
    expected = made.model(
        features["input_features"], input_features_mask=features["attention_mask"]
    ).last_hidden_state[0]
    states = alone(made, samples)
    conv = -(-len(samples) // 320)
    whole = conv // 2  # the published model drops a last token of which there is but half
    assert len(states) == -(-conv // 2)
    torch.testing.assert_close(states[:whole], expected[:whole], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
@pytest.mark.parametrize("name", small.OF_SAMPLES)
@torch.inference_mode()
def test_encoders_of_samples_are_transformers(name: str, large: bool) -> None:
    norms: Any = {"feat_extract_norm": "layer" if large else "group", "do_stable_layer_norm": large}
    config: Any = dataclasses.replace(small.CONFIGS[name], **norms)
    made = small.randomised(build_encoder(config))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=config.normalize)
    clips = [samples_of(CLIPS[0], 16_000)[:n] for n in (401, 16_000, 19_519, 19_520, 31_999)]
    for samples in clips:
        values = extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_values"]
        found = made.model(values, output_hidden_states=True)
        states = alone(made, samples)
        whole = (len(samples) - 80) // 320
        assert found.last_hidden_state.shape[1] == whole
        assert len(states) == -(-len(samples) // 320) > whole
        for place, layer in enumerate(config.layers):
            wanted = found.hidden_states[layer] if layer < 2 else found.last_hidden_state
            own = states[:whole, 16 * place : 16 * place + 16]
            torch.testing.assert_close(own, wanted[0], atol=2e-5, rtol=1e-5)
    # In a batch of the class's own a norm over time hears what pads a clip.
    mask = torch.arange(31_999) < torch.tensor([[16_000], [31_999]])
    batch = torch.zeros(2, 31_999)
    for row, samples in zip(batch, (clips[1], clips[4]), strict=True):
        row[: len(samples)] = torch.from_numpy(config._normalized(samples))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of WavLM's two masks
        padded = made.model(batch, attention_mask=mask.long()).last_hidden_state[0, :49]
    last = alone(made, clips[1])[:49, -16:]
    assert ((padded - last).abs().max() > 1e-3) == (config.feat_extract_norm == "group")


@torch.inference_mode()
def test_a_token_of_samples_is_made_of_those_that_are_said() -> None:
    made = small.encoder("wav2vec2")
    assert (made.config.step, made.config.reach) == (320, 400)
    found: list[torch.Tensor] = []
    made.model.feature_extractor.register_forward_hook(lambda *at: found.append(at[-1][0].T))
    samples = 0.1 * np.random.default_rng(0).normal(size=8000).astype(np.float32)
    first, token = round(made.grid.span(7)[0] * 16_000), 7
    config = dataclasses.replace(made.config, normalize=False)
    for at in (None, first - 1, first, first + 399, first + 400):
        edited = samples.copy()
        if at is not None:
            edited[at] += 1
        made(config.features(edited).values[None], torch.tensor([50]))
    moved = [not torch.equal(each[token], found[0][token]) for each in found[1:]]
    assert moved == [False, True, True, False]


@torch.inference_mode()
def test_half_precision_counts_the_same_samples() -> None:
    made = small.encoder("wav2vec2").to(torch.bfloat16)
    found: list[int] = []
    made.model.feature_extractor.register_forward_pre_hook(
        lambda _, at: found.append(at[0].numel())
    )
    alone(made, samples_of(CLIPS[0], 16_000, 1.5)[:23_777])
    assert found == [23_777]


@torch.inference_mode()
def test_sslam_gives_what_the_published_code_gave() -> None:
    """`eat_reference.npz`: the models of github.com/ta012/SSLAM, commit 0a3c0ff.

    `Data2VecMultiModel.extract_features` of its SSLAM_Ft_SPASS folder (the same for EAT, commit
    06c1c34 of cwx-worst-one/EAT), at width 16 with 2 layers and 2 heads, on the first bundled clip
    through the front end of its `feature_extract.py` (torchaudio 2.11's kaldi.fbank, target_length
    1024). Weights as below, in the order of their sorted names. The classes of fairseq and timm
    that it needs (LayerNorm, Mlp, DropPath) were stood in for. Stored: every 16th frame and 8th bin
    of the features, every fourth token from the first patch on, the CLS token, every 97th position.
    """
    stored = np.load(Path(__file__).with_name("eat_reference.npz"))
    config = SSLAMConfig(embed_dim=16, depth=2, num_heads=2, layers=(2,))
    made: Any = build_encoder(config).eval()
    weights = made.model.state_dict()
    assert sorted(weights) == stored["names"].tolist()
    generator = np.random.default_rng(20250610)
    for name in sorted(weights):
        if "positions" not in name:
            drawn = 0.3 * generator.standard_normal(tuple(weights[name].shape))
            weights[name].copy_(torch.from_numpy(drawn.astype(np.float32)))
    positions = weights["modality_encoders.IMAGE.fixed_positional_encoder.positions"][0, ::97]
    np.testing.assert_allclose(positions, stored["positions"], atol=1e-5)

    features = config.features(samples_of(bundled_clips().path[0], 16_000))
    window = filled(features.values[None], torch.tensor([features.frames]), 1024, config.fill)
    # A decoder of Ogg Vorbis may round otherwise.
    np.testing.assert_allclose(window[0].T[::16, ::8], stored["fbank"], atol=1e-3)
    everything = made.model(window.transpose(1, 2)[:, None], 2)[-1][0]
    np.testing.assert_allclose(everything[1::4], stored["states"], atol=1e-3)
    np.testing.assert_allclose(everything[0], stored["cls"], atol=1e-3)
    states = made(features.values[None], torch.tensor([features.frames])).states[0]
    np.testing.assert_allclose(states[::4], stored["states"][: len(states) // 4], atol=1e-3)


IMAGES = [
    np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
    for seed, shape in enumerate([(40, 61, 3), (90, 33, 3), (36, 36, 3)])
]


@pytest.mark.parametrize("name", ["clip-vision", "siglip-vision"])
@pytest.mark.parametrize("image", IMAGES, ids=lambda image: str(image.shape))
@torch.inference_mode()
def test_vision_encoders_are_transformers(name: str, image: np.ndarray) -> None:
    made = small.encoder(name)
    config, side, size = made.config, made.config.side, made.config.image_size
    if name == "clip-vision":
        processor: Any = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=size)
    else:
        processor = SiglipImageProcessorPil(size={"height": size, "width": size})
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    found = made.model(pixels, output_hidden_states=True)
    features = config.extract(GivenClip(image))
    ours = features.values.unflatten(0, (3, size))
    torch.testing.assert_close(ours, pixels[0], atol=1e-5, rtol=1e-5)
    states = made(features.values[None], torch.tensor([features.frames])).states[0]
    for place, layer in enumerate(config.layers):
        last = name == "siglip-vision" and layer == config.num_hidden_layers
        wanted = found.last_hidden_state if last else found.hidden_states[layer]
        patches = wanted[0, -side * side :].view(side, side, 16)
        for token in range(side * side):  # column by column
            own = states[token, 16 * place : 16 * place + 16]
            torch.testing.assert_close(own, patches[token % side, token // side])


@torch.inference_mode()
def test_the_patches_of_an_image_stand_where_they_are_said_to() -> None:
    made = small.encoder("siglip-vision")
    dark = np.zeros((32, 32, 3), np.uint8)
    spot = dark.copy()
    spot[17:22, 26:30] = 255  # third row of patches, fourth column
    features = [made.config.extract(GivenClip(image)) for image in (dark, spot)]
    states = [made(each.values[None], torch.tensor([32])).states[0] for each in features]
    moved = (states[1] - states[0])[:, :16].norm(dim=-1)  # what enters the first layer
    token = int(moved.argmax())
    assert made.grid.span(token) == pytest.approx((0.24, 0.32)) and token % 4 == 2


def test_what_is_no_image(tmp_path: Path) -> None:
    config = small.CONFIGS["clip-vision"]
    file = tmp_path / "image.png"
    file.write_bytes(b"nothing")
    for given in (np.zeros(1600, np.float32), np.zeros((4, 4, 4), np.uint8), b"nothing", file, 3):
        with pytest.raises(PalscopeError, match="no image"):
            config.extract(GivenClip(given))
    Image.fromarray(IMAGES[0]).save(file)
    assert torch.equal(
        config.extract(GivenClip(file)).values, config.extract(GivenClip(IMAGES[0])).values
    )
    assert torch.equal(
        config.extract(GivenClip(file.read_bytes())).values,
        config.extract(GivenClip(IMAGES[0])).values,
    )
