from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from palscope._models import backbones
from palscope._models.backbones import BACKBONES, ENCODERS, backbone_config, unloaded
from palscope._routing import Route
from palscope.encoders import WhisperEncoderConfig
from palscope.errors import CheckpointError

# As the models' pages on the hub have them.
PUBLISHED = {
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_has_its_published_number_of_weights(name: str) -> None:
    config = backbone_config(f"{name}-Instruct")
    model = unloaded(config, Route.pal(config.num_hidden_layers))
    weights = list(model.parameters())
    assert {weight.device.type for weight in weights} == {"meta"}
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    assert sum(w.numel() for w in model.language_model.parameters()) == PUBLISHED[name]


def test_whisper_sizes_are_whispers() -> None:
    # openai/whisper's table counts the decoder too; of tiny.en's encoder palscope knows the number.
    assert ENCODERS["openai/whisper-tiny"] == WhisperEncoderConfig()


def test_a_folder_is_read_and_what_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert backbone_config(str(tmp_path)).num_hidden_layers == 3
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON"):
        backbone_config(str(tmp_path))
    monkeypatch.setattr(backbones, "hub_reachable", lambda: False)
    for name in ("nobody/nothing", "nothing", str(tmp_path / "gone")):
        with pytest.raises(CheckpointError, match=r"give a folder with a config\.json, one of m"):
            backbone_config(name)
