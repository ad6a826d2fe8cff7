"""Opening a published model: from a folder, the hub, or one that is loaded already."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedModel

from palscope._files import LARGEST_SETTINGS, read_object, read_text
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.base_weights import base_fingerprint
from palscope._models.checkpoints import check_finite_weights, check_loaded
from palscope._models.finding import Checkpoint, CheckpointLike, find_checkpoint
from palscope._models.processor import AudioProcessor
from palscope._published.adapters import check_peft
from palscope._published.family import PublishedFamily
from palscope._published.model import PublishedAudioModel
from palscope._published.processor import PublishedProcessor
from palscope._published.registry import published_class, published_family
from palscope._stored import (
    check_folder,
    check_settings,
    check_weights,
    few_bits,
    reading,
    without_memory,
)
from palscope.encoders._front_end import EncoderFeatureExtractor
from palscope.errors import CheckpointError, short


def wrap_published(
    model: PreTrainedModel, processor: Any
) -> tuple[PublishedAudioModel, PublishedProcessor]:
    """A loaded model, in place, and its processor.

    Args:
        processor: the checkpoint's, or a `PublishedProcessor`.

    Raises:
        CheckpointError: the class is not registered, is a part of one, lacks its adapter, or there
            is no processor that serves it.
    """
    family = published_family(model.config)
    model = family.audio_part(model)
    if family.architecture not in (each.__name__ for each in type(model).__mro__):
        raise CheckpointError(
            f"a {type(model).__name__} is a part of a {family.architecture}, or made of its parts; "
            "give the whole, which writes."
        )
    family.check_adapters(model)
    check_finite_weights(model.name_or_path or type(model).__name__, model)
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


def find_model(
    asked: CheckpointLike,
    revision: str | None = None,
    *,
    check: Callable[[Checkpoint], None] | None = None,
) -> Checkpoint:
    """`find_checkpoint`, of palscope's own or a published model.

    What is fetched is looked at before its weights are: the class, and the processor with its chat
    template.

    Args:
        asked: its name, or what was found before.
        revision: of a hub id.
        check: looks at it, too.

    Raises:
        CheckpointError: it cannot be found or fetched, or could not be opened.
    """

    def look(found: Checkpoint) -> None:
        if not found.whole and not found.is_own:
            _ready(found)
        if check is not None:
            check(found)

    return find_checkpoint(asked, revision, folders=_subfolders, check=look)


def _subfolders(found: Checkpoint) -> Sequence[str]:
    return () if found.is_own else published_class(found.model_type).subfolders


def _ready(found: Checkpoint) -> tuple[PublishedFamily, PublishedProcessor]:
    """All of a published model but its weights, which take minutes."""
    family = _family(found)
    if family.adapted:
        check_peft(found.folder)
    return family, read_processor(found.folder, family)


def fingerprint(found: Checkpoint) -> str:
    """`base_fingerprint` of its folder, its adapters in folders of their own included."""
    return base_fingerprint(found.folder, _subfolders(found))


def open_checkpoint(
    found: Checkpoint, *, dtype: torch.dtype | str | None = None, **kwargs: Any
) -> tuple[AudioLanguageModel, AudioProcessor]:
    """The model, without hooks, and its processor: palscope's own or a published one.

    Args:
        found: from `find_model`.
        dtype: of the weights; by default float32 for palscope's own, for published models that of
            the checkpoint.
        **kwargs: `from_pretrained`'s.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    if not found.is_own:
        return open_published(found, dtype=dtype or "auto", **kwargs)
    kwargs["dtype"] = dtype or torch.float32
    processor = PalscopeProcessor.from_pretrained(found)
    model = PalscopeForConditionalGeneration.from_pretrained(found, **kwargs)
    check_belongs(processor, model, found.folder)
    return model, processor


def check_belongs(
    processor: PalscopeProcessor, model: PalscopeForConditionalGeneration, folder: Path
) -> None:
    """Check that a checkpoint's processor counts and hears as its model does.

    Raises:
        CheckpointError: it has other streams, or in another order, than the model's route; another
            time grid, feature extractor or audio token; or a tokenizer of another vocabulary.
    """
    own = PalscopeProcessor.for_grid(
        model.encoder.feature_extractor(), processor.tokenizer, model.frame_grid, model.streams
    )
    own_extractor, extractor = own.feature_extractor, processor.feature_extractor
    ids: list[int] = list(processor.tokenizer.get_vocab().values())
    table: Any = model.get_input_embeddings()
    rows = int(table.weight.shape[0])
    compared: dict[str, tuple[Any, Any]] = {
        "stream_ratios": (processor.stream_ratios, own.stream_ratios),
        "features_per_frame": (processor.features_per_frame, own.features_per_frame),
        "frames_per_step": (processor.frames_per_step, own.frames_per_step),
        "audio_token_id": (processor.audio_token_id, model.audio_token_id),
        "feature_extractor": (_settings(extractor), _settings(own_extractor)),
    }
    for name, (its, wanted) in compared.items():
        if its != wanted:
            raise CheckpointError(
                f"{folder}: the processor's {name} is {short(its)}, the model's {short(wanted)}; "
                "they are of two checkpoints. Save both together."
            )
    if beyond := [each for each in ids if each >= rows and each != model.audio_token_id]:
        raise CheckpointError(
            f"{folder}: the tokenizer has tokens up to {max(beyond)}, the decoder embeds {rows}; "
            "they are of two checkpoints. Save both together."
        )


def _settings(extractor: Any) -> dict[str, Any]:
    """What decides a feature extractor's features."""
    if isinstance(extractor, EncoderFeatureExtractor):
        return json.loads(json.dumps(extractor.encoder))
    names = ("feature_size", "sampling_rate", "hop_length", "n_fft", "chunk_length", "dither")
    return {name: getattr(extractor, name, None) for name in names}


def open_published(
    found: Checkpoint, *, dtype: torch.dtype | str, **kwargs: Any
) -> tuple[PublishedAudioModel, PublishedProcessor]:
    """A published model and its processor.

    Args:
        found: from `find_model`.
        dtype: of the weights; "auto" for those of the checkpoint.
        **kwargs: `from_pretrained`'s.

    Raises:
        CheckpointError: the class is not registered, tensors are missing, or adapters or the
            processor need a package that is not installed.
    """
    folder = found.folder
    family, processor = _ready(found)
    tensors = check_folder(folder)
    kind: Any = getattr(transformers, family.architecture)
    with family.loading():
        with without_memory(folder):
            # As the class reads them: its settings may be a part of the folder's (Omni's thinkers).
            made = kind(kind.config_class.from_pretrained(folder))
        # By transformers' names, which a published file may not have: shapes are its own to check.
        check_weights(made, tensors, folder, shapes=False, kinds=not few_bits(folder))
        with reading(folder, f"a {family.architecture} that transformers can open"):
            model, info = kind.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **kwargs
            )
    check_loaded(folder, set(info["missing_keys"]), set(), info)
    family.complete(model, folder)
    check_finite_weights(folder, model)
    return PublishedAudioModel(model, published_family(model.config)), processor


def _family(found: Checkpoint) -> PublishedFamily:
    """Of a model, whose class is checked before any of its code is asked for."""
    published_class(found.model_type)
    check_settings(found.folder)
    with reading(found.folder / "config.json", "a published model's settings"):
        config: Any = cast(Any, AutoConfig).from_pretrained(found.folder)
    family = published_family(config)
    _check_has_decoder(found.folder, family)
    return family


def _check_has_decoder(folder: Path, family: PublishedFamily) -> None:
    """Of an encoder–decoder, whose parts are saved under the same settings as the whole."""
    whole = family.architecture
    body = whole.replace("ForConditionalGeneration", "Model")  # all but the unembedding, which is
    named = list(family.config.architectures or [whole])  # tied to the words
    if family.crosses and not {whole, body}.intersection(named):
        raise CheckpointError(
            f"{folder} holds a {named[0]}, a part of the model that writes nothing by itself. Give "
            f"the folder or hub id of a {whole}; an encoder alone serves in palscope's own models."
        )


def read_processor(folder: Path, family: PublishedFamily) -> PublishedProcessor:
    """The processor in `folder`, of its tokenizer and its feature extractor alone.

    The published processor as a whole may need packages for pictures and films.
    """
    check_settings(folder)
    try:
        with reading(folder, f"the processor of {family.architecture}"):
            tokenizer = family.read_tokenizer(folder)
            extractor = AutoFeatureExtractor.from_pretrained(folder)
            return PublishedProcessor(family, tokenizer, extractor, _chat_template(folder))
    except CheckpointError as error:
        if family.package is None or not isinstance(error.__cause__, ImportError):
            raise
        raise CheckpointError(
            f"{error} Install what it needs: pip install {family.package}."
        ) from error.__cause__


def _chat_template(folder: Path) -> str | None:
    """That of the processor, which wins over the tokenizer's; found as its own class finds it."""
    settings = folder / "processor_config.json"
    packed, plain = folder / "chat_template.json", folder / "chat_template.jinja"
    if settings.is_file():
        read = read_object(settings, "a processor's settings", CheckpointError)
        if read.get("chat_template") is not None:
            return _text_in(read, settings)
    if packed.is_file():
        return _text_in(read_object(packed, "a chat template", CheckpointError), packed)
    if plain.is_file():
        return read_text(plain, "a chat template", CheckpointError, largest=LARGEST_SETTINGS)
    return None


def _text_in(read: dict[str, Any], file: Path) -> str:
    if not isinstance(read.get("chat_template"), str):
        raise CheckpointError(f"{file} has no text under chat_template.")
    return read["chat_template"]
