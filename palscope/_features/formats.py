"""Dictionaries in the files of others: SAELens's folders, dictionary_learning's `ae.pt`.

What is saved is SAELens 6's form: `cfg.json` and `sae_weights.safetensors`. BatchTopK becomes
JumpReLU with its threshold, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from palscope._features.dictionary import UNKNOWN, Dictionary, Kind
from palscope._files import make_folder, read_object, whole, write_json
from palscope._finite import all_finite
from palscope._stored import load_tensors, reading
from palscope.errors import CheckpointError, short

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SAELENS = "6.54.12"
"""The version whose form is written; older ones wrote another."""

_READ = {
    "standard": ("jumprelu", False),  # a ReLU is a JumpReLU with its threshold at 0
    "topk": ("topk", False),
    "jumprelu": ("jumprelu", False),
    "transcoder": ("jumprelu", True),
    "skip_transcoder": ("jumprelu", True),
    "jumprelu_transcoder": ("jumprelu", True),
    "jumprelu_skip_transcoder": ("jumprelu", True),
}
"""SAELens's architectures: the activation, and whether it is a transcoder."""


def load_dictionary(path: str | Path, *, hook_point: str | None = None) -> Dictionary:
    """A stored dictionary: SAELens's folder, or dictionary_learning's or AudioSAE's `ae.pt`.

    An `ae.pt` is never unpickled. With `config.json` beside it, as dictionary_learning writes it,
    its class is told; else it follows from the tensors. AudioSAE's holds no threshold, though it
    was trained by BatchTopK: it runs as `topk`, the `k` largest latents of each token by itself,
    which keeps `k` of every token where training kept `k` on average.

    Args:
        path: the folder, or the file.
        hook_point: where it belongs, in palscope's names, if the file does not say so.

    Raises:
        CheckpointError: it is none of these, is damaged, or of a form that is not supported.
    """
    path = Path(path)
    if path.is_dir() and (path / CONFIG).is_file():
        made = _of_saelens(path)
    elif path.is_dir() and (path / "ae.pt").is_file():
        made = _of_dictionary_learning(path / "ae.pt")
    elif path.suffix == ".pt":
        made = _of_dictionary_learning(path)
    else:
        raise CheckpointError(
            f"{path} is no dictionary; expected a folder with {CONFIG} and {WEIGHTS} (SAELens), or "
            "an ae.pt (dictionary_learning, AudioSAE)."
        )
    if hook_point is not None:
        made.about["hook_point"] = hook_point
    return made.eval()


def save_dictionary(dictionary: Dictionary, folder: str | Path) -> None:
    """Write it in SAELens's form, which SAELens 6 reads.

    Raises:
        CheckpointError: SAELens has no such form: a transcoder by TopK, or BatchTopK without a
            threshold.
        PalscopeError: it cannot be written.
    """
    folder = Path(folder)
    config = _config(dictionary)
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]
    names += ["W_skip"] if dictionary.W_skip is not None else []
    names += [] if dictionary.kind == "topk" else ["threshold"]
    tensors = {name: getattr(dictionary, name).detach().cpu().contiguous() for name in names}
    make_folder(folder)
    with whole(folder / WEIGHTS) as part:
        save_file(tensors, part)
    write_json(folder / CONFIG, config)


def _config(dictionary: Dictionary) -> dict[str, Any]:
    if dictionary.kind == "batchtopk" and bool((dictionary.threshold < 0).any()):
        raise CheckpointError("this BatchTopK dictionary has no threshold yet: train it first.")
    name = "topk" if dictionary.kind == "topk" else "jumprelu"
    if not dictionary.centred:
        if name == "topk":
            raise CheckpointError(
                "SAELens has no transcoder by TopK: train it by batchtopk or jumprelu."
            )
        name += "_transcoder" if dictionary.W_skip is None else "_skip_transcoder"
    about = dictionary.about
    config: dict[str, Any] = {
        "architecture": name,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        "dtype": str(dictionary.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.centred,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": SAELENS,
            "model_name": about.get("model"),
            "hook_name": about.get("hook_point"),
            "palscope": about | {"k": dictionary.k},
        },
    }
    if dictionary.kind == "topk":
        config |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    if not dictionary.centred:
        config |= {"d_out": dictionary.d_out}
        config["metadata"]["hook_name_out"] = about.get("hook_point_out")
    return config


# -- SAELens ---------------------------------------------------------------------------------------


def _of_saelens(folder: Path) -> Dictionary:
    file = folder / CONFIG
    config = read_object(file, "a dictionary's settings, as SAELens writes them", CheckpointError)
    name: Any = config.get("architecture", "standard")
    if config.get("activation_fn", config.get("activation_fn_str")) == "topk":  # before SAELens 6
        name, config = "topk", {**config, "k": _k_before_6(config)}
    if name not in _READ:
        raise CheckpointError(
            f"{file}: architecture is {short(name)}; palscope reads {', '.join(_READ)}."
        )
    for key, wanted in (("normalize_activations", ("none", None, False)),):
        if config.get(key) not in wanted:
            raise CheckpointError(
                f"{file}: {key} is {short(config[key])}; fold it into the weights first (SAELens: "
                "fold_activation_norm_scaling_factor)."
            )
    if config.get("finetuning_scaling_factor"):
        raise CheckpointError(f"{file}: a finetuning_scaling_factor is not supported.")
    kind, transcoder = _READ[name]
    tensors = load_tensors([folder / WEIGHTS])
    k = config.get("k")
    told: Any = config.get("metadata", {})
    about: Any = told.get("palscope") or {}
    made = _made(
        tensors,
        folder / WEIGHTS,
        cast(Kind, kind),
        k=k if isinstance(k, int) else about.get("k"),
        transcoder=transcoder,
        subtracts=bool(config.get("apply_b_dec_to_input", True)),
        rescaled=bool(config.get("rescale_acts_by_decoder_norm", False)),
    )
    hook_point = told.get("hook_name", config.get("hook_name"))
    made.about = {name: value for name, value in about.items() if name != "k"}
    # Another library's names of places in other models are no hook points of palscope's.
    made.about.setdefault("hook_name", hook_point)
    return made


def _k_before_6(config: Mapping[str, Any]) -> Any:
    given: Any = config.get("activation_fn_kwargs") or {}
    return given.get("k")


# -- dictionary_learning, AudioSAE -----------------------------------------------------------------

_CLASSES = {
    "AutoEncoder": "jumprelu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "JumpReluAutoEncoder": "jumprelu",
}


def _of_dictionary_learning(file: Path) -> Dictionary:
    with reading(file, "a dictionary's tensors, as torch.save writes them (ae.pt)"):
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    tensors = {
        name: value for name, value in dict(state).items() if isinstance(value, torch.Tensor)
    }
    config = file.with_name("config.json")
    trainer: Any = {}
    if config.is_file():
        told = read_object(config, "dictionary_learning's settings", CheckpointError)
        trainer = told.get("trainer", told)
    threshold = tensors.get("threshold")
    name = trainer.get("dict_class") or _class_of(tensors)
    if name not in _CLASSES:
        raise CheckpointError(
            f"{file}: a {short(name)}; palscope reads {', '.join(_CLASSES)} of dictionary_learning."
        )
    kind = _CLASSES[name]
    if kind == "batchtopk":
        learned = threshold is not None and float(threshold.min()) >= 0
        kind = "jumprelu" if learned else "topk"
    renamed = {
        "W_enc": _turned(tensors, "W_enc", "encoder.weight"),
        "W_dec": _turned(tensors, "W_dec", "decoder.weight"),
        "b_enc": tensors.get("b_enc", tensors.get("encoder.bias")),
        "b_dec": tensors.get("b_dec", tensors.get("bias")),
        "threshold": threshold if kind == "jumprelu" else None,
    }
    k = tensors.get("k")
    made = _made(
        {name: value for name, value in renamed.items() if value is not None},
        file,
        cast(Kind, kind),
        k=trainer.get("k") if k is None else int(k),
        transcoder=False,
        subtracts=name != "JumpReluAutoEncoder",
    )
    made.about = {"dict_class": name, "model": trainer.get("lm_name")}
    return made


def _class_of(tensors: Mapping[str, Tensor]) -> str:
    """What the tensors can be, where no config.json tells."""
    if "gate_bias" in tensors:
        return "GatedAutoEncoder"
    if "W_enc" in tensors:
        return "JumpReluAutoEncoder"
    if "k" in tensors:
        return "BatchTopKSAE"  # without a learned threshold it runs as AutoEncoderTopK does
    return "AutoEncoder"


def _turned(tensors: Mapping[str, Tensor], name: str, linear: str) -> Tensor | None:
    """A weight by its name, or that of a linear map, which stands the other way round."""
    if name in tensors:
        return tensors[name]
    return tensors[linear].T.contiguous() if linear in tensors else None


# -- both ------------------------------------------------------------------------------------------


def _made(
    tensors: Mapping[str, Tensor],
    file: Path,
    kind: Kind,
    *,
    k: Any,
    transcoder: bool,
    subtracts: bool,
    rescaled: bool = False,
) -> Dictionary:
    """A dictionary of these tensors.

    Args:
        tensors: by our names.
        file: names them.
        kind: of activation.
        k: of TopK.
        transcoder: it does not give what it takes.
        subtracts: whether an autoencoder takes `b_dec` away first.
        rescaled: latents are counted in units of their decoder's row (SAELens's
            `rescale_acts_by_decoder_norm`).

    Raises:
        CheckpointError: a tensor is missing, misshapen or not finite, or TopK has no k.
    """
    lacking = [name for name in ("W_enc", "W_dec", "b_dec") if name not in tensors]
    if lacking:
        raise CheckpointError(
            f"{file} has no {', '.join(lacking)}; it holds {', '.join(sorted(tensors)) or 'none'}."
        )
    given = {name: value.float() for name, value in tensors.items()}
    d_in, d_sae = given["W_enc"].shape if given["W_enc"].ndim == 2 else (0, 0)
    given.setdefault("b_enc", torch.zeros(d_sae))
    if kind == "topk" and not (isinstance(k, int) and 1 <= k <= d_sae):
        raise CheckpointError(f"{file}: k is {short(k)}; expected 1 to {d_sae}, its latents.")
    threshold = given.get("threshold", torch.zeros(1))
    given["threshold"] = (
        threshold.flatten().expand(d_sae).clone() if threshold.numel() == 1 else (threshold)
    )
    if kind != "jumprelu":
        del given["threshold"]
    d_out = given["W_dec"].shape[-1]
    skip = given.get("W_skip")
    with torch.device("meta"):
        made = Dictionary(
            max(d_in, 1),
            max(d_sae, 1),
            kind=kind,
            k=k if isinstance(k, int) and 1 <= k <= d_sae else 1,
            d_out=d_out if transcoder else None,
            skip=skip is not None,
        )
    wanted = {name: tuple(value.shape) for name, value in made.named_parameters()}
    for name, shape in wanted.items():
        if name not in given or tuple(given[name].shape) != shape:
            found = tuple(given[name].shape) if name in given else None
            raise CheckpointError(f"{file}: {name} is {found}; expected {shape}.")
        if not all_finite(given[name]):
            raise CheckpointError(f"{file}: {name} holds NaN or infinity.")
    if not transcoder and not subtracts:
        # The same, said our way: x @ W + b is (x - b_dec) @ W + (b + b_dec @ W).
        given["b_enc"] = given["b_enc"] + given["b_dec"] @ given["W_enc"]
    if rescaled:
        norms = given["W_dec"].norm(dim=1).clamp(min=1e-8)
        given |= {
            "W_enc": given["W_enc"] * norms,
            "b_enc": given["b_enc"] * norms,
            "W_dec": given["W_dec"] / norms[:, None],
        }
    made.to_empty(device="cpu")
    made.threshold.data.fill_(UNKNOWN)
    made.load_state_dict({name: given[name] for name in wanted}, strict=False)
    return made
