"""Generation: Hugging Face's `generate`, told how clips and the layout go through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList

from palscope._models.cache import AudioCache
from palscope._models.cache_names import INSTALLED, cache_in, naming_cache
from palscope._models.clips import AudioClips
from palscope._routing.layout import TEXT
from palscope.errors import PalscopeError, PromptError

if TYPE_CHECKING:
    from palscope._models.audio_model import AudioLanguageModel


_MEANINGS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Of a checkpoint's settings of generation, those that choose nothing."""


class AudioGeneration(GenerationMixin):
    """Generation of a model that hears. Clips are encoded once, also for several beams."""

    _checkpoint_generation: GenerationConfig | None = None

    def take_generation(self, settings: GenerationConfig | None) -> None:
        """Keep a checkpoint's settings of generation, and take of them what tokens mean.

        Penalties, sampling and such like would choose other words than the likeliest, which is
        what is measured.
        """
        self._checkpoint_generation = settings
        if settings is not None:
            meanings = {name: getattr(settings, name) for name in _MEANINGS}
            self.generation_config = GenerationConfig(**meanings)

    @property
    def checkpoint_generation(self) -> GenerationConfig:
        """The checkpoint's own settings of generation, which are not applied unless asked for."""
        return self._checkpoint_generation or cast(Any, self).generation_config

    @property
    def generation_set_aside(self) -> dict[str, Any]:
        """What of them `generate` does not apply, by name."""
        own: dict[str, Any] = self.checkpoint_generation.to_diff_dict()
        taken: dict[str, Any] = cast(Any, self).generation_config.to_diff_dict()
        return {
            name: value
            for name, value in own.items()
            if name != "transformers_version" and not name.startswith("_") and name not in taken
        }

    @property
    def _model(self) -> AudioLanguageModel:
        return cast("AudioLanguageModel", self)

    def generate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inputs: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Hugging Face's `generate`; clips are encoded once, also for several beams.

        Raises:
            PromptError: clips and places do not fit together, or a row does not end in text.
        """
        kwargs = naming_cache(kwargs)
        features, lengths = kwargs.pop("input_features", None), kwargs.pop("feature_lengths", None)
        ids = kwargs.get("input_ids") if inputs is None else inputs
        if ids is not None:
            cache, mask = kwargs.get(INSTALLED), kwargs.get("attention_mask")
            past = 0 if cache is None else cache.get_seq_length()
            # As Hugging Face has it: the ids go on from a cache when the mask is longer than they.
            whole = mask is None or mask.shape[1] == ids.shape[1]
            with torch.no_grad():
                layout, _, audio = self._model.read_prompt(
                    ids[:, past:] if whole else ids,
                    mask,
                    features,
                    lengths,
                    kwargs.pop("audio", None),
                    cache,
                )
            if cache is not None:
                self._model.check_cache(cache)
            if audio is not None:
                kwargs["audio"] = audio
            if bool((layout.stream[:, -1] != TEXT).any()):
                raise PromptError(
                    "a row ends in a clip or in padding, but generation goes on from the last "
                    "column. Pad on the left, and put text behind the clip."
                )
        with self._model.checked_once():
            return cast(Any, super()).generate(inputs, **kwargs)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What `forward` takes at one decoding step: the clips at the first only."""
        kwargs = naming_cache(kwargs)
        kwargs.pop("position_ids", None)
        first = kwargs.get("is_first_iteration", False)  # clips may go on from a cached prompt
        prepared = cast(Any, super()).prepare_inputs_for_generation(input_ids, **kwargs)
        prepared.pop("position_ids", None)
        cache = prepared.get(INSTALLED)
        if cache is not None and cache.get_seq_length() > 0 and not first:
            prepared.pop("audio", None)
        return prepared

    def _prepare_cache_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        if generation_config.cache_implementation is not None:
            raise PalscopeError(
                f"cache_implementation={generation_config.cache_implementation!r} is not "
                "supported: palscope decodes with its AudioCache. Leave it out."
            )
        if generation_config.use_cache is not False:
            model_kwargs.setdefault(INSTALLED, AudioCache())

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        made: Any = cast(Any, super())._get_logits_processor(*args, **kwargs)
        return _OfText(made, self._model.audio_token_id)

    def _assisted_decoding(self, *args: Any, **kwargs: Any) -> Any:
        raise PalscopeError(
            "assisted decoding (assistant_model, prompt_lookup_num_tokens) is not supported: the "
            "layout of audio and text does not go back. Leave it out."
        )

    def _expand_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, expand_size: int = 1, input_ids: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Repeat each row, and with it the clips that it holds."""
        audio: AudioClips | None = kwargs.get("audio")
        cache: AudioCache | None = cache_in(kwargs)
        if expand_size > 1 and cache is not None and cache.get_seq_length() > 0:
            raise PalscopeError(
                "a cached prompt has the rows it has: beams and several answers of each row need "
                "a prompt without a cache."
            )
        if expand_size > 1 and audio is not None and input_ids is not None:
            rows = self._model.layout(input_ids, kwargs.get("attention_mask"), audio).clip_row
            order = [
                clip
                for row in range(input_ids.shape[0])
                for _ in range(expand_size)
                for clip in range(len(rows))
                if rows[clip] == row
            ]
            kwargs["audio"] = audio.picked(order)
        return super()._expand_inputs_for_generation(  # pyright: ignore
            expand_size=expand_size,
            is_encoder_decoder=False,
            input_ids=input_ids,
            **{k: v for k, v in kwargs.items() if k != "is_encoder_decoder"},
        )


class _OfText(LogitsProcessorList):
    """Logits processors that do not see audio places, whose id may lie outside the vocabulary.

    A repetition penalty would look its logit up. At its place they see the row's first text id.
    """

    def __init__(self, processors: LogitsProcessorList, audio_token_id: int) -> None:
        super().__init__(processors)
        self._audio = audio_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        audio = (input_ids == self._audio) | (input_ids >= scores.shape[-1])  # fillers' may, too
        first = input_ids.gather(1, (~audio).int().argmax(1, keepdim=True))
        ids = cast(Any, torch.where(audio, first, input_ids))
        return super().__call__(ids, cast(Any, scores), **kwargs)
