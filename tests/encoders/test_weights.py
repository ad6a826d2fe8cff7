from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration

from palscope.encoders import _weights as weights
from palscope.encoders._weights import find_encoder, load_whisper_encoder
from palscope.errors import CheckpointError

TINY = "openai/whisper-tiny.en"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "cached_snapshot", lambda name: None)
    monkeypatch.setattr(weights, "hub_reachable", lambda: False)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, WhisperForConditionalGeneration]:
    """A small whole Whisper, saved by `transformers`."""
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=20,
            d_model=16,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_mel_bins=8,
            max_source_positions=20,
            max_target_positions=10,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
    )
    folder = tmp_path / "whole"
    model.save_pretrained(folder)
    return folder, model


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_the_bundled_weights_are_the_published_ones():
    folder = find_encoder(TINY)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "c170cba0eed10e02f24cd1f61a478b33a4b1f25d3caa78a2b02a90ca3321d51c"
    assert "Copyright (c) 2022 OpenAI" in (folder / "NOTICE").read_text()
    encoder = load_whisper_encoder(TINY)
    assert encoder.width == 384
    assert sum(p.numel() for p in encoder.parameters()) == 8_208_384
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_the_encoder_of_a_whole_model_is_read(whole):
    folder, model = whole
    encoder = load_whisper_encoder(folder, layers=(1, 2))
    for name, tensor in model.model.encoder.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[name], tensor), name
    assert encoder.config.layers == (1, 2)


def test_shards_are_read(whole, tmp_path: Path):
    folder, model = whole
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    expected = load_whisper_encoder(folder).state_dict()
    for name, tensor in load_whisper_encoder(tmp_path / "shards").state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_the_hubs_cache_goes_first(whole, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "cached_snapshot", lambda name: whole[0])
    assert find_encoder(TINY) == whole[0]


def test_half_a_snapshot_in_the_cache_is_passed_over(tmp_path: Path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(weights, "cached_snapshot", lambda name: tmp_path)
    assert "whisper-tiny.en-encoder" in str(find_encoder(TINY))


def test_the_hub_goes_last(whole, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "hub_reachable", lambda: True)
    monkeypatch.setattr(weights, "download_snapshot", lambda name, patterns: whole[0])
    assert find_encoder("openai/whisper-small") == whole[0]
    assert "whisper-tiny.en-encoder" in str(find_encoder(TINY))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("openai/whisper-nowhere", "cannot be reached"),
        ("./nowhere/at-all", "no folder"),
        ("whisper", "no folder"),
    ],
)
def test_names_that_lead_nowhere(name: str, says: str):
    with pytest.raises(CheckpointError, match=says) as caught:
        load_whisper_encoder(name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("model.encoder.conv1.bias"), "conv1.bias is missing"),
        (lambda t: t.update({"model.encoder.extra": torch.zeros(1)}), "extra is foreign"),
        (lambda t: t.update({"model.encoder.conv1.bias": torch.zeros(3)}), r"shape \(3,\)"),
    ],
)
def test_tensors_that_do_not_fit(whole, change, says: str):
    change_tensors(whole[0], change)
    with pytest.raises(CheckpointError, match=says):
        load_whisper_encoder(whole[0])


def test_a_pickle_is_refused_unopened(whole):
    folder = whole[0]
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin may run code"):
        load_whisper_encoder(folder)


def test_a_damaged_file(whole):
    (whole[0] / "model.safetensors").write_bytes(b"\x80\x04 this is no safetensors file")
    with pytest.raises(CheckpointError, match="expected safetensors: it is damaged"):
        load_whisper_encoder(whole[0])


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "no config.json"),
        ("{", "not valid JSON"),
        ("{}", "d_model"),
        ("[]", "a list; expected a model"),
    ],
)
def test_configs_that_are_none(whole, config: str | None, says: str):
    path = whole[0] / "config.json"
    path.unlink() if config is None else path.write_text(config)
    with pytest.raises(CheckpointError, match=says):
        load_whisper_encoder(whole[0])


def test_layers_are_checked_against_the_model(whole):
    assert json.loads((whole[0] / "config.json").read_text())["encoder_layers"] == 2
    with pytest.raises(CheckpointError, match="from 0 to 2"):
        load_whisper_encoder(whole[0], layers=(4,))
