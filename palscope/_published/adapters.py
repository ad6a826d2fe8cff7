"""Low-rank adapters of published models: opened, switched by what is heard, saved with the weights.

peft puts them in. Models without them pass through here unchanged.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils.import_utils import is_peft_available
from transformers.utils.peft_utils import check_peft_version

from palscope._models.checkpoints import check_loaded
from palscope._stored import reading
from palscope.errors import CheckpointError


def has_adapters(model: Any) -> bool:
    """Whether a Hugging Face model has adapters."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def check_peft(folder: Path) -> None:
    """Check that adapters can be read.

    Raises:
        CheckpointError: peft is missing, or older than the installed transformers takes.
    """
    needs = f"{folder}: the model hears with low-rank adapters, for which peft"
    if not is_peft_available():
        raise CheckpointError(
            f"{needs} is needed, which is not installed: pip install 'palscope[training]'."
        )
    try:
        check_peft_version(MIN_PEFT_VERSION)
    except ValueError as error:
        raise CheckpointError(
            f"{needs} >= {MIN_PEFT_VERSION} is needed by transformers {transformers.__version__}; "
            f"{version('peft')} is installed. Upgrade it or, where there is no such peft yet, take "
            "an older transformers: constraints/pinned.txt names versions that go together."
        ) from error


def open_adapter(model: Any, folder: Path, subfolder: str, name: str, inside: str) -> None:
    """Put the adapter in `subfolder` of a checkpoint into its model, under `name`.

    Args:
        inside: path of the decoder in the model. Which of its modules the adapter changes may be
            told by a regular expression over their paths from there.

    Raises:
        CheckpointError: it is not there, changes other modules, or lacks tensors.
    """
    place = folder / subfolder
    lacks = [
        file
        for file in ("adapter_config.json", "adapter_model.safetensors")
        if not (place / file).is_file()
    ]
    if lacks:
        raise CheckpointError(
            f"{folder} has no {subfolder}/{lacks[0]}, without which the model does not hear as it "
            "was trained to. Put it there."
        )
    with reading(place, "a low-rank adapter that peft can open"):
        from peft import PeftConfig

        config: Any = PeftConfig.from_pretrained(str(place))
        config.target_modules = _from_the_model(config.target_modules, model, inside)
        found = model.load_adapter(
            str(place), adapter_name=name, peft_config=config, use_safetensors=True
        )
    # Modules of the model itself may bear the adapter's name; they are no tensors of it.
    missing = {key for key in found.missing_keys if ".lora_" in key}
    check_loaded(place, missing, set(found.unexpected_keys), {})


def _from_the_model(targets: Any, model: Any, inside: str) -> Any:
    """`target_modules` whose regular expression begins where peft's do: at the model."""
    if not isinstance(targets, str):
        return targets
    if any(re.fullmatch(targets, path) for path, _ in model.named_modules()):
        return targets
    return rf"{re.escape(inside)}\.(?:{targets})"


def switch_adapters(model: Any, *, on: bool, name: str | None = None) -> None:
    """Switch a model's adapters, and leave them so.

    peft marks the weights of adapters that it switches on as trainable.

    Args:
        name: the one to use, where there is one of that name; None for those in use now.
    """
    if not has_adapters(model) or (name is not None and name not in model.peft_config):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if on and name is not None and module.active_adapters != [name]:
            module.set_adapter(name)
        if module.disable_adapters is on:
            module.enable_adapters(on)


def save_with_adapters(
    model: Any, folder: str | os.PathLike[str], subfolders: Mapping[str, str], **kwargs: Any
) -> None:
    """Save a model's weights as if it had no adapters, and each of these into its subfolder.

    `save_pretrained` of a model with adapters saves one of them alone.

    Args:
        subfolders: by the adapters' names.
        **kwargs: `save_pretrained`'s, for the weights.
    """
    state = model.state_dict()
    weights = {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
    active = model.active_adapters()
    try:
        for name, subfolder in subfolders.items():
            model.set_adapter(name)
            with warnings.catch_warnings():  # peft would like to look at the base's config
                warnings.filterwarnings("ignore", "Could not find a config file")
                PreTrainedModel.save_pretrained(model, Path(folder, subfolder))
        model._hf_peft_config_loaded = False
        PreTrainedModel.save_pretrained(model, folder, state_dict=weights, **kwargs)
    finally:
        model._hf_peft_config_loaded = True
        model.set_adapter(active)
