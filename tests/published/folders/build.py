"""A hub's folder of a published class as it is, with tiny random weights inside.

What is known of each folder stands in `NAME.json` beside this file: file names, where the chat
template is, generation_config, adapters, and under `source` what it was taken from and what is not
known. `NAME.jinja` is the chat template. Ids of tokens are the published ones there, and become the
tiny tokenizer's here. `python -m tests.published.folders.build NAME FOLDER` makes one.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import VoxtralForConditionalGeneration

from palscope._published import published_family
from tests.published.folders import tekken

HERE = Path(__file__).parent
NAMES = sorted(file.stem for file in HERE.glob("*.json"))


@functools.cache
def about(name: str) -> dict[str, Any]:
    """What is known of a class's folder."""
    return json.loads((HERE / f"{name}.json").read_text("utf-8"))


def template(name: str) -> str:
    """A chat template of this folder."""
    return (HERE / f"{name}.jinja").read_text("utf-8")


def tiny(name: str) -> Any:
    """The module of a class's tiny model."""
    return importlib.import_module(f"tests.published.tiny.{name}")


def hub_folder(name: str, folder: Path, seed: int = 0) -> Path:
    """Make the folder of a class; `seed` is of its weights."""
    known = about(name)
    model, processor = tiny(name).model(seed), tiny(name).processor()
    if name == "voxtral":
        torch.manual_seed(seed)
        model = VoxtralForConditionalGeneration(tekken.config())
    size = sum(each.numel() * each.element_size() for each in model.state_dict().values())
    shard = f"{round(size / (known['shards'] - 0.5)) // 1000}KB" if known["shards"] > 1 else "1GB"
    family = published_family(model.config)
    family.save(model, folder, max_shard_size=shard)
    _write_processor(known, processor, folder)
    _write_template(name, known, processor, folder)
    tokens = known["tokens"]
    (folder / "generation_config.json").unlink(missing_ok=True)
    if known["generation_config"] is not None:
        ids = processor.tokenizer.get_vocab()
        made = {k: _tiny_ids(k, v, tokens, ids) for k, v in known["generation_config"].items()}
        _write(folder / "generation_config.json", made)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    _write(folder / "config.json", config | known["config"])
    for subfolder, targets in known.get("target_modules", {}).items():
        file = folder / subfolder / "adapter_config.json"
        _write(file, json.loads(file.read_text("utf-8")) | {"target_modules": targets})
    _write_others(known, processor, folder)
    missing = [each for each in known["files"] if not (folder / each).is_file()]
    assert not missing, f"{name}: the made folder lacks {missing}"
    return folder


def _write_processor(known: dict[str, Any], processor: Any, folder: Path) -> None:
    if "tekken.json" in known["files"]:
        config = (folder / "config.json").read_text("utf-8")
        tekken.write_tekken(folder)
        (folder / "config.json").write_text(config, "utf-8")
        return
    if known.get("whole_processor"):
        processor.save_pretrained(folder)
        assert not (folder / "preprocessor_config.json").exists()
        return
    tokenizer = processor.tokenizer
    kept, tokenizer.chat_template = tokenizer.chat_template, None
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = kept
    extractor = getattr(processor, "feature_extractor", None) or processor.audio_processor
    extractor.save_pretrained(folder)
    if known.get("joint_preprocessor"):
        sound = json.loads(extractor.to_json_string())
        _write(
            folder / "preprocessor_config.json",
            sound | json.loads(processor.image_processor.to_json_string()),
        )
    if "processor_config.json" in known["files"]:
        _write(folder / "processor_config.json", {"processor_class": type(processor).__name__})


def _write_template(name: str, known: dict[str, Any], processor: Any, folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    place = known["chat"]
    if place is None:
        return
    text = template(name) if (HERE / f"{name}.jinja").is_file() else processor.chat_template
    if place.endswith(".jinja"):
        (folder / place).write_text(text, "utf-8")
        return
    file = folder / place
    had = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    _write(file, had | {"chat_template": text})


def _write_others(known: dict[str, Any], processor: Any, folder: Path) -> None:
    """Files that stand there and are not read."""
    vocabulary = json.dumps(processor.tokenizer.get_vocab())
    others = {"vocab.json": vocabulary, "params.json": "{}", "merges.txt": "#version: 0.2\n"}
    for file, content in others.items():
        if file in known["files"]:
            (folder / file).write_text(content, "utf-8")
    if "consolidated.safetensors" in known["files"]:
        save_file({"norm.weight": torch.ones(4)}, folder / "consolidated.safetensors")


def _tiny_ids(key: str, value: Any, tokens: dict[str, str], ids: dict[str, int]) -> Any:
    if not key.endswith(("token_id", "suppress_tokens")):
        return value
    if isinstance(value, list):
        return [ids[tokens[str(each)]] for each in value]
    return ids[tokens[str(value)]]


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    print(hub_folder(sys.argv[1], Path(sys.argv[2])))
