"""Opening a published model: from a folder, the hub, or one that is loaded already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedModel

from palscope.errors import CheckpointError
from palscope.models import PalscopeConfig, PalscopeForConditionalGeneration, PalscopeProcessor
from palscope.models.audio_model import AudioLanguageModel
from palscope.models.checkpoints import check_finite, check_loaded, model_type
from palscope.models.processor import AudioProcessor
from palscope.published.adapters import check_peft
from palscope.published.family import PublishedFamily
from palscope.published.model import PublishedAudioModel
from palscope.published.processor import PublishedProcessor
from palscope.published.registry import published_class, published_family


def wrap_published(
    model: PreTrainedModel, processor: Any
) -> tuple[PublishedAudioModel, PublishedProcessor]:
    """A loaded model, in place, and its processor.

    Args:
        processor: the checkpoint's, or a `PublishedProcessor`.

    Raises:
        CheckpointError: the class is not registered, or there is no processor that serves it.
    """
    family = published_family(model.config)
    model = family.hearing_part(model)
    check_finite(model.name_or_path or type(model).__name__, model)
    if isinstance(processor, PublishedProcessor):
        return PublishedAudioModel(model, family), processor
    if processor is None:
        raise CheckpointError(
            f"a loaded {type(model).__name__} needs its processor beside it: "
            "palscope.load(model, processor=AutoProcessor.from_pretrained(…))."
        )
    extractor = getattr(processor, "feature_extractor", None)
    if extractor is None:  # Granite Speech and Phi-4 name it so
        extractor = processor.audio_processor
    template = getattr(processor, "chat_template", None)
    parts = PublishedProcessor(family, processor.tokenizer, extractor, template)
    return PublishedAudioModel(model, family), parts


def open_checkpoint(
    folder: Path, *, dtype: torch.dtype | str | None = None, **kwargs: Any
) -> tuple[AudioLanguageModel, AudioProcessor]:
    """The model in `folder`, without hooks, and its processor: palscope's own or a published one.

    Args:
        dtype: of the weights; by default float32 for palscope's own, for published models that of
            the checkpoint.
        **kwargs: `from_pretrained`'s.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    if model_type(folder) != PalscopeConfig.model_type:
        return open_published(folder, dtype=dtype or "auto", **kwargs)
    kwargs["dtype"] = dtype or torch.float32
    model = PalscopeForConditionalGeneration.from_pretrained(folder, **kwargs)
    return model, PalscopeProcessor.from_pretrained(folder)


def open_published(
    folder: Path, *, dtype: torch.dtype | str, **kwargs: Any
) -> tuple[PublishedAudioModel, PublishedProcessor]:
    """The model in `folder` and its processor.

    Args:
        dtype: of the weights; "auto" for those of the checkpoint.
        **kwargs: `from_pretrained`'s.

    Raises:
        CheckpointError: the class is not registered, tensors are missing, or adapters or the
            processor need a package that is not installed.
    """
    published_class(model_type(folder))  # the config of a type that is not known may need its code
    config = AutoConfig.from_pretrained(folder)
    family = published_family(config)
    if family.adapted:
        check_peft(folder)
    family.before_loading()
    kind: Any = getattr(transformers, family.architecture)
    try:
        model, info = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **kwargs
        )
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: damaged safetensors ({error}).") from error
    check_loaded(folder, set(info["missing_keys"]), set(), info)
    family.complete(model, folder)
    check_finite(folder, model)
    processor = read_processor(folder, family)
    return PublishedAudioModel(model, published_family(model.config)), processor


def read_processor(folder: Path, family: PublishedFamily) -> PublishedProcessor:
    """The processor in `folder`, of its tokenizer and its feature extractor alone.

    The published processor as a whole may need packages for pictures and films.
    """
    try:
        tokenizer = family.read_tokenizer(folder)
        extractor = AutoFeatureExtractor.from_pretrained(folder)
    except (ImportError, OSError, ValueError) as error:
        missing = family.package is not None and isinstance(error, ImportError)
        raise CheckpointError(
            f"{folder}: the processor of {family.architecture} cannot be read: {error}"
            + (f" Install what it needs: pip install {family.package}." if missing else "")
        ) from error
    return PublishedProcessor(family, tokenizer, extractor, _chat_template(folder))


def _chat_template(folder: Path) -> str | None:
    """That of the processor, which wins over the tokenizer's."""
    plain, packed = folder / "chat_template.jinja", folder / "chat_template.json"
    if plain.is_file():
        return plain.read_text(encoding="utf-8")
    if packed.is_file():
        return json.loads(packed.read_text(encoding="utf-8"))["chat_template"]
    return None
