"""Finding and naming base weights, on a tiny model and without the network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from palscope._models.base_weights import base_fingerprint, find_base
from palscope.errors import CheckpointError


@pytest.fixture(scope="module")
def tiny() -> LlamaForCausalLM:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, num_hidden_layers=1, **sizes))


def test_a_local_folder_is_taken_as_it_is(tiny: LlamaForCausalLM, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    assert find_base(tmp_path) == tmp_path
    assert find_base(str(tmp_path)) == tmp_path


def test_a_folder_of_pickles_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle.*save_pretrained"):
        find_base(tmp_path)


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "~/none-of-palscope"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        find_base(name)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        find_base(tmp_path)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; returned is the snapshot folder of `org/model` in it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    return snapshot


def test_the_hubs_cache_is_found_offline(hub_cache: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (hub_cache / name).write_text("{}")
    assert find_base("org/model") == hub_cache


def test_a_part_of_a_repository_in_the_hubs_cache_is_not_enough(hub_cache: Path) -> None:
    (hub_cache / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        find_base("org/model")


@pytest.mark.parametrize("name", ["org/unknown", "not an//id"])
def test_an_unknown_base_names_the_ways(name: str) -> None:
    with pytest.raises(CheckpointError, match="local folder"):
        find_base(name)


def test_the_fingerprint_names_the_weights_and_nothing_else(
    tiny: LlamaForCausalLM, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    tiny.save_pretrained(first)
    shutil.copytree(first, second)
    assert base_fingerprint(first) == base_fingerprint(second)

    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}))
    assert base_fingerprint(first) == base_fingerprint(second)

    (second / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}))
    assert base_fingerprint(first) != base_fingerprint(second)

    (second / "config.json").write_text(json.dumps(config))
    weights = bytearray((second / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (second / "model.safetensors").write_bytes(weights)
    assert base_fingerprint(first) != base_fingerprint(second)
