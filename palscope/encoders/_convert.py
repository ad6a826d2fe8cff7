"""Convert a published checkpoint to an encoder's folder: `config.json` and safetensors.

    palscope convert KIND SOURCE OUT [--unpickle]

| KIND | SOURCE |
|---|---|
| `whisper`, `af-whisper`, `clap`, `ast`, `wav2vec2`, `hubert`, `wavlm`, `clip-vision`, | a folder |
| `siglip-vision` | saved by `transformers`, of the whole model or of this part of it |
| `eat`, `sslam`, `clap` | the published `.pt` file (fairseq's, LAION's), or a safetensors file of |
| | the same names |

OUT then serves as `load_encoder(OUT)` and as a checkpoint's `encoder_base`. Tensors that are
missing or that belong to no known part are errors. Pickles are refused: with `--unpickle` they are
read by torch's `weights_only`, which builds nothing but tensors and plain values; do it in a
sandbox.

A Whisper in CTranslate2's format: `python -m palscope.encoders._convert_whisper`.
"""

from __future__ import annotations

import argparse
import copy
import math
import pickle
import re
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    ASTModel,
    AudioFlamingo3Encoder,
    AutoConfig,
    ClapAudioModel,
    CLIPVisionModel,
    HubertModel,
    SiglipVisionModel,
    Wav2Vec2Model,
    WavLMModel,
)
from transformers.utils import logging

from palscope._files import read_object
from palscope._stored import (
    check_folder,
    check_weights,
    load_tensors,
    reading,
    without_memory,
)
from palscope.encoders import _af_whisper as af_whisper
from palscope.encoders import _ast as ast
from palscope.encoders import _clap as clap
from palscope.encoders import _vision as vision
from palscope.encoders import _wav2vec2 as wav2vec2
from palscope.encoders._base import Encoder, build_encoder
from palscope.encoders._config import EncoderConfig
from palscope.encoders._eat import PATCH, EATConfig, SSLAMConfig
from palscope.encoders._weights import load_strictly, load_whisper_encoder, save_encoder
from palscope.errors import CheckpointError, PalscopeError

_EAT_KINDS: dict[str, type[EATConfig]] = {"eat": EATConfig, "sslam": SSLAMConfig}

_LAION_NAMES = {
    r"^bn0\.": "batch_norm.",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.attn\.proj\.": ".attention.output.dense.",
    r"\.attn\.": ".attention.self.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}
"""Patterns of names in LAION's HTSAT, and what transformers calls them."""
_LAION_OTHERS = ("spectrogram_extractor.", "logmel_extractor.", "tscam_conv.", "head.")

_NUMBERS: list[Any] = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
]
"""Numbers of NumPy, which training scripts leave beside the tensors: plain values, too."""


@dataclass(frozen=True)
class _Published:
    """A model of `transformers` that holds the encoder.

    Attributes:
        model: the class of the encoder's part.
        config: the settings that `sizes` of its config make.
        part: of the whole model's config, the encoder's.
        renames: patterns of names in the whole model, and what they become.
        others: beginnings of the names of the whole model's other parts.
        changes: fields of the part's config to set.
    """

    model: Any
    config: type[EncoderConfig]
    sizes: tuple[str, ...]
    part: str | None
    others: tuple[str, ...]
    renames: dict[str, str] = field(default_factory=dict[str, str])
    changes: dict[str, Any] = field(default_factory=dict[str, Any])


_TEXT = ("text_model.", "text_projection.", "logit_")
_TRAINING = (
    *("quantizer.", "project_hid.", "project_q."),
    *("lm_head.", "projector.", "classifier.", "layer_weights"),
    *(f"{whole}masked_spec_embed" for whole in ("", "hubert.", "wav2vec2.", "wavlm.")),
)
_UNMASKED: dict[str, Any] = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
_PUBLISHED = {
    "af-whisper": _Published(
        AudioFlamingo3Encoder,
        af_whisper.AFWhisperConfig,
        af_whisper.SIZES,
        "audio_config",
        ("language_model.", "multi_modal_projector.", "model.", "lm_head."),
        {r"^(model\.)?audio_tower\.": ""},
    ),
    "ast": _Published(ASTModel, ast.ASTConfig, ast.SIZES, None, ("classifier.",)),
    "clap": _Published(
        ClapAudioModel,
        clap.ClapConfig,
        clap.SIZES,
        "audio_config",
        (*_TEXT, "audio_projection."),
        {r"^audio_model\.": ""},
    ),
    "clip-vision": _Published(
        CLIPVisionModel,
        vision.ClipVisionConfig,
        vision.SIZES,
        "vision_config",
        (*_TEXT, "visual_projection."),
    ),
    "hubert": _Published(
        HubertModel,
        wav2vec2.HubertConfig,
        wav2vec2.HUBERT_SIZES,
        None,
        _TRAINING,
        changes=_UNMASKED,
    ),
    "siglip-vision": _Published(
        SiglipVisionModel,
        vision.SiglipVisionConfig,
        vision.SIZES,
        "vision_config",
        (*_TEXT, "head.", "vision_model.head."),
        changes={"vision_use_head": False},
    ),
    "wav2vec2": _Published(
        Wav2Vec2Model,
        wav2vec2.Wav2Vec2Config,
        wav2vec2.SIZES,
        None,
        _TRAINING,
        changes=_UNMASKED,
    ),
    "wavlm": _Published(
        WavLMModel,
        wav2vec2.WavLMConfig,
        wav2vec2.WAVLM_SIZES,
        None,
        _TRAINING,
        changes=_UNMASKED,
    ),
}


def convert_encoder(kind: str, source: Path, *, unpickle: bool = False) -> Encoder:
    """The encoder of a published checkpoint.

    Raises:
        CheckpointError: there is no such kind or source, it is a pickle and `unpickle` is not set,
            or its tensors are not those of the encoder.
    """
    if not source.exists():
        raise CheckpointError(f"{source} does not exist.")
    if kind in _EAT_KINDS:
        return _from_fairseq(_EAT_KINDS[kind], source, unpickle)
    if kind == "clap" and source.is_file():
        return _from_laion(source, unpickle)
    if kind == "whisper":
        return load_whisper_encoder(source)
    if kind not in _PUBLISHED:
        known = ", ".join(sorted((*_PUBLISHED, *_EAT_KINDS, "whisper")))
        raise CheckpointError(f"no conversion for the kind {kind!r}; there are: {known}.")
    return _from_transformers(_PUBLISHED[kind], source, unpickle)


def _from_transformers(known: _Published, folder: Path, unpickle: bool) -> Encoder:
    if not unpickle and not list(folder.glob("*.safetensors")):
        found = ", ".join(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt")))
        raise CheckpointError(
            f"{folder} holds no safetensors. "
            + (f"{found} may run code when read: pass --unpickle, in a sandbox." if found else "")
        )
    tensors = check_folder(folder)
    with reading(folder / "config.json", "the published model's settings"):
        whole = cast(Any, AutoConfig).from_pretrained(folder)
    config: Any = whole
    if known.part is not None and hasattr(whole, known.part):
        config = getattr(whole, known.part)
    for name, value in known.changes.items():
        setattr(config, name, value)
    renames = {"key_mapping": known.renames} if known.renames else {}
    with without_memory(folder):
        planned = known.model(copy.deepcopy(config))
    if not unpickle:
        check_weights(planned, tensors, folder, shapes=False)
    with _quietly(), reading(folder, f"a {known.model.__name__}"):
        model, info = known.model.from_pretrained(
            folder,
            config=config,
            use_safetensors=not unpickle,
            weights_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            **renames,
        )
    foreign = [name for name in info["unexpected_keys"] if not name.startswith(known.others)]
    problems = {
        "missing": sorted(info["missing_keys"]),
        "foreign": sorted(foreign),
        "misshapen": sorted(str(each) for each in info["mismatched_keys"]),
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(n)}" for what, n in problems.items() if n)
        raise CheckpointError(f"{folder} does not hold this encoder; tensors {listed}.")
    settings = {name: getattr(config, name) for name in known.sizes}
    if issubclass(known.config, ast.ASTConfig | vision.VisionConfig | wav2vec2.SampleEncoderConfig):
        settings["layers"] = (config.num_hidden_layers,)
    made: Any = build_encoder(known.config(**settings, **_front_end(known.config, folder)))
    load_strictly(made.model, model.state_dict(), folder)
    return made.eval()


def _front_end(kind: type[EncoderConfig], folder: Path) -> dict[str, Any]:
    """What the published front end's settings say, where they lie beside."""
    file = folder / "preprocessor_config.json"
    read = read_object(file, "a front end's settings", CheckpointError) if file.is_file() else {}
    names: dict[str, str] = {}
    if issubclass(kind, clap.ClapConfig):
        names = {"frequency_min": "frequency_min", "frequency_max": "frequency_max"}
    elif issubclass(kind, ast.ASTConfig):
        names = {"mean": "mean", "std": "std"}
    elif issubclass(kind, vision.VisionConfig):
        names = {"mean": "image_mean", "std": "image_std"}
    elif issubclass(kind, wav2vec2.SampleEncoderConfig):
        names = {"normalize": "do_normalize"}
    return {ours: read[theirs] for ours, theirs in names.items() if theirs in read}


def _from_fairseq(kind: type[EATConfig], source: Path, unpickle: bool) -> Encoder:
    """EAT or SSLAM, pre-trained or fine-tuned, less what only training and classifying need."""
    state = _read_state(source, unpickle)
    prefix = "model." if any(name.startswith("model.blocks.") for name in state) else ""
    image = "modality_encoders.IMAGE."
    others = ("_ema", "shared_decoder.", "recon_proj.", "cls_proj.", "center", "head.", "fc_norm.")
    kept: dict[str, Tensor] = {}
    for name, tensor in state.items():
        inside = name.removeprefix(prefix)
        if not inside.startswith((*others, f"{image}decoder.", f"{image}encoder_mask")):
            kept[inside] = tensor
    try:
        projection = kept[f"{image}local_encoder.proj.weight"]
        positions = kept[f"{image}fixed_positional_encoder.positions"]
        hidden = kept["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise CheckpointError(
            f"{source} holds no {error}: it is no EAT or SSLAM checkpoint of fairseq. It begins: "
            f"{', '.join(list(state)[:5])}."
        ) from error
    width = projection.shape[0]
    depth = len({name.split(".")[1] for name in kept if name.startswith("blocks.")})
    config = kind(
        embed_dim=width,
        depth=depth,
        num_heads=max(1, width // 64),  # of 64 channels in the base and the large model
        mlp_ratio=hidden / width,
        max_length=positions.shape[1] // (EATConfig.num_mel_bins // PATCH),
        layers=(depth,),
    )
    made: Any = build_encoder(config)
    load_strictly(made.model, {n: t.float() for n, t in kept.items()}, source)
    return made.eval()


def _from_laion(source: Path, unpickle: bool) -> Encoder:
    """CLAP's HTSAT from LAION's own file: the same model as transformers', under other names.

    Source: github.com/LAION-AI/CLAP, `clap_module/htsat.py`.
    """
    tower = re.compile(r"^(module\.)?audio_branch\.")
    state = _read_state(source, unpickle)
    state = {tower.sub("", name): each for name, each in state.items() if tower.match(name)}
    try:
        patches = state["patch_embed.proj.weight"]
        hidden = state["layers.0.blocks.0.mlp.fc1.weight"].shape[0]
        bins = len(state["bn0.weight"])
        stages = range(sum(name.endswith("blocks.0.norm1.weight") for name in state))
        first = [f"layers.{stage}.blocks.0.attn.relative_position_bias_table" for stage in stages]
        offsets, heads = zip(*(state[name].shape for name in first), strict=True)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{source} holds no audio tower of LAION's CLAP: {error}.") from error
    config = clap.ClapConfig(
        window_size=(math.isqrt(offsets[0]) + 1) // 2,
        num_mel_bins=bins,
        patch_size=patches.shape[-1],
        depths=tuple(
            sum(bool(re.match(rf"layers\.{stage}\.blocks\.\d+\.norm1\.weight$", n)) for n in state)
            for stage in stages
        ),
        num_attention_heads=heads,
        enable_fusion="patch_embed.mel_conv2d.weight" in state,
        patch_embeds_hidden_size=patches.shape[0],
        mlp_ratio=hidden / patches.shape[0],
    )
    kept: dict[str, Tensor] = {}
    for name, tensor in state.items():
        # The front end, the classifier, and masks that are computed.
        if name.startswith(_LAION_OTHERS) or name.endswith("attn_mask"):
            continue
        for theirs, ours in _LAION_NAMES.items():
            name = re.sub(theirs, ours, name)
        if ".qkv." in name:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                kept[f"audio_encoder.{name.replace('qkv', part)}"] = rows.float()
        else:
            is_float = tensor.is_floating_point()  # indices and counts of batches are not
            kept[f"audio_encoder.{name}"] = tensor.float() if is_float else tensor
    made: Any = build_encoder(config)
    load_strictly(made.model, kept, source)
    return made.eval()


def _read_state(source: Path, unpickle: bool) -> dict[str, Tensor]:
    """The tensors of a file: safetensors, or what a pickled checkpoint holds as its model."""
    if source.suffix == ".safetensors":
        return load_tensors([source])
    if not unpickle:
        raise CheckpointError(
            f"{source} may run code when read; it is a pickle. Pass --unpickle, in a sandbox."
        )
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            read: Any = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{source} cannot be read as tensors and plain values alone: {error}. In a sandbox, "
            "save its tensors as safetensors under their names."
        ) from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{source} holds a {type(read).__name__}; expected named tensors.")
    held = cast("dict[str, Any]", read)
    model = cast("dict[str, Any]", held.get("model", held.get("state_dict", held)))
    return {name: value for name, value in model.items() if isinstance(value, Tensor)}


_LOUDNESS = threading.Lock()
_quiet: list[int] = []
"""The verbosity before, and an entry for each that is quiet now."""


@contextmanager
def _quietly() -> Generator[None, None, None]:
    """Without transformers' report of the whole model's other parts, which are expected.

    The last of several threads to leave sets back what the first one found.
    """
    with _LOUDNESS:
        if not _quiet:
            _quiet.append(logging.get_verbosity())
            logging.set_verbosity_error()
        _quiet.append(0)
    try:
        yield
    finally:
        with _LOUDNESS:
            _quiet.pop()
            if len(_quiet) == 1:
                logging.set_verbosity(_quiet.pop())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="palscope convert", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("kind", choices=sorted((*_PUBLISHED, *_EAT_KINDS, "whisper")))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--unpickle", action="store_true", help="read pickles, by weights_only")
    given = parser.parse_args(arguments)
    try:
        made = convert_encoder(given.kind, given.source, unpickle=given.unpickle)
        save_encoder(made, given.out)
    except PalscopeError as error:
        print(f"palscope: {error}", file=sys.stderr)
        return 1
    count = sum(weight.numel() for weight in made.parameters())
    print(f"{given.out}: {given.kind}, {count / 1e6:.1f} M parameters, width {made.width}")
    return 0
