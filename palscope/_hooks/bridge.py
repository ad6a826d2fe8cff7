"""The hooked model: a TransformerLens bridge that hears."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, cast

import torch
from torch import Tensor
from transformer_lens.model_bridge.sources.transformers_driver import TransformersDriver
from transformers import PreTrainedModel

from palscope._hooks.adapter import PATTERN_HOOK, EncoderLayer, make_adapter
from palscope._hooks.attention import AUDIO_HOOKS
from palscope._hooks.calls import CallsBridge
from palscope._models import (
    AudioClips,
    AudioStream,
    PalscopeForConditionalGeneration,
    PalscopeProcessor,
)
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.finding import Checkpoint, CheckpointLike
from palscope._models.memory import check_fits
from palscope._models.parts import AudioTaps
from palscope._models.processor import AudioProcessor
from palscope._models.scoring import generate_answers, prompt_batch
from palscope._published import unread_prefixes
from palscope._published.loading import find_model, open_checkpoint, wrap_published
from palscope._routing import Route
from palscope.errors import CheckpointError, PalscopeError


class HookedAudioModel(CallsBridge):
    """A palscope model under TransformerLens's hooks.

    What of `TransformerBridge` and of its tools works on it, and equals what, or is refused for
    which reason, is a table in docs/hooks.md. `inputs` makes what it is called with; where a tool
    passes tokens alone, call the tool inside `attach_clips`.

    `hook_embed` is what enters the first layer, `[batch, running, d_model]`: words, and the sound
    that runs there.

    Beside the decoder's, hook points are, in each layer with a stream at level `keys`:
    `blocks.L.attn.hook_audio_state` `[batch, audio, d_model]`, `hook_audio_k` and `hook_audio_v`
    `[batch, audio, kv_heads, d_head]`; in the encoder those it names (`Encoder.components`), of
    Whisper `audio_conv1`, `audio_conv2`, `audio_blocks.L.…`, `audio_ln_final`; in the connector
    `audio_pool`, `audio_summary`, `audio_input_STREAM`, `audio_projector_STREAM_LAYER`, each with
    `.hook_in` and `.hook_out`; of a Q-Former or LFST also `audio_attn_I`, with `.hook_pattern`,
    which is computed only when hooked.
    `layout(inputs)` says what stands in the columns of any of them.

    Gemma 3n's state is four streams: `hook_resid_pre`, `hook_resid_post` and `hook_audio_state`
    hold them side by side, `[batch, tokens, 4 * d_model]`. What its sublayers put out does not add
    up to it, so TransformerLens's decompositions of the residual stream do not hold there.
    """

    hook_aliases: dict[str, str | list[str]] = CallsBridge.hook_aliases | {
        "hook_embed": "blocks.0.hook_in"
    }

    def __init__(
        self,
        model: AudioLanguageModel,
        processor: AudioProcessor,
        name: str = "palscope",
        checkpoint: Checkpoint | None = None,
    ) -> None:
        adapter = make_adapter(model, name)
        tokenizer = processor.tokenizer
        super().__init__(
            model, adapter, tokenizer, driver=TransformersDriver(model, adapter, tokenizer)
        )
        self.processor = processor
        self.checkpoint = checkpoint
        self._numbers = itertools.count()
        for layer in self.modules():
            if isinstance(layer, EncoderLayer):
                layer.is_list_item = False  # whoever walks the decoder's layers takes it for one
        for index, taps in enumerate(model.audio_taps):
            taps = cast(AudioTaps, taps)
            attention = getattr(self.blocks[index], self.audio_attention)
            taps.state, taps.k, taps.v = (getattr(attention, name) for name in AUDIO_HOOKS)
        for name, part in model.audio_components().items():
            if part.pattern:
                reading: Any = getattr(self, f"audio_{name}")
                reading.original_component.pattern = getattr(reading, PATTERN_HOOK)
        self._unreached = self._find_unreached(
            self.inputs(processor.any_question, self.model.encoder.blank())
        )

    @property
    def model(self) -> AudioLanguageModel:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The Hugging Face model inside."""
        return cast(AudioLanguageModel, self.original_model)

    # -- input ------------------------------------------------------------------------------------

    def inputs(self, question: str, *clips: Any) -> dict[str, Tensor]:
        """Tensors of one question about `clips` (files, bytes, arrays at the processor's rate).

        Raises `PromptError` or `AudioError` for what cannot be used.
        """
        return prompt_batch(self.processor, [(clips, question)], self.model.device)

    def ask(
        self, question: str, *clips: Any, max_new_tokens: int = 16, own_settings: bool = False
    ) -> str:
        """The greedy answer to a question about `clips`: the likeliest token at each step.

        Args:
            own_settings: answer as the checkpoint's generation_config says instead, with its
                sampling and penalties (`model.model.generation_set_aside`), which measures of
                single tokens know nothing of.
        """
        with self._added_fire():
            (said,) = generate_answers(
                self.model,
                self.processor,
                [(clips, question)],
                max_new_tokens,
                own_settings=own_settings,
            )
            return said

    def audio_stream(self, *, offload: bool = False) -> AudioStream:
        """A clip that goes on: sound comes in chunks, and asked about meanwhile.

        Args:
            offload: keep audio's keys and values in the CPU's memory, layer by layer brought to the
                model's device.

        Raises:
            PalscopeError: the decoder's rotary angles depend on the prompt's length, or the model
                is a published one.
        """
        if not isinstance(self.model, PalscopeForConditionalGeneration) or not isinstance(
            self.processor, PalscopeProcessor
        ):
            raise PalscopeError(
                "a published model takes no stream of sound: its tower hears a clip as a whole."
            )
        return AudioStream(self.model, self.processor, offload=offload)

    def encode_audio(self, inputs: Mapping[str, Any]) -> AudioClips:
        """The clips of `inputs`, to be given to several calls as `audio=`."""
        with torch.no_grad():
            return self.model.encode_audio(inputs["input_features"], inputs["feature_lengths"])

    # -- route ------------------------------------------------------------------------------------

    @property
    def current_route(self) -> Route:
        """The route that calls take."""
        return self.model.route

    def set_route(self, route: Route) -> None:
        """Take `route` from now on. Raises `RouteError` when the weights cannot serve it."""
        self.model.route = route

    @contextmanager
    def route(self, route: Route) -> Generator[Route, None, None]:
        """Take `route` within the block, errors or not; other threads' calls take theirs.

        Raises `RouteError`, and changes nothing, when the weights cannot serve it.
        """
        with self.model.routed(route):
            yield route

    # -- what does not apply ----------------------------------------------------------------------

    def process_weights(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: it folds norms into projections that audio goes through unhooked.

        Raises `PalscopeError`.
        """
        raise PalscopeError(
            "this folds weights into one another (enable_compatibility_mode, process_weights), but "
            "audio states use the layers' own norms and projections. Analyse with unprocessed "
            "weights."
        )

    enable_compatibility_mode = process_weights

    def clear_hook_registry(self) -> NoReturn:
        """Refused: without it no hook would be found. Raises `PalscopeError`."""
        raise PalscopeError("hook points are found once, when the model is loaded: see hook_dict.")

    def prepare_multimodal_inputs(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: it is for pictures. Raises `PalscopeError`."""
        raise PalscopeError("prepare_multimodal_inputs takes pictures; use inputs(question, clip).")

    @classmethod
    def boot_transformers(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: it opens text models. Raises `PalscopeError`."""
        raise PalscopeError("TransformerLens opens no audio model this way; use palscope.load.")

    boot_native = boot_tl_legacy = boot_transformers


def load(
    name_or_path: CheckpointLike | PreTrainedModel,
    *,
    revision: str | None = None,
    processor: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | Literal["auto"] | None = None,
    **kwargs: Any,
) -> HookedAudioModel:
    """Load a palscope checkpoint or a published audio language model as a hooked model.

    Args:
        name_or_path: a folder, a hub id, `demo/plits`, `demo/lal`, `demo/pal`; or a published model
            that is loaded already, whose modules are then hooked in place.
        revision: of a hub id: a branch, a tag, a commit, `refs/pr/70`. `owner/name@revision` says
            the same wherever a checkpoint is named.
        processor: of a model that is loaded already.
        device: a GPU where there is one, by default.
        dtype: of the weights and the computation; by default float32 for palscope's own, for
            published models that of the checkpoint ("auto").
        **kwargs: `from_pretrained`'s, e.g. `attn_implementation`, `device_map`.

    Raises:
        CheckpointError: it cannot be found or loaded, or its weights do not fit into free memory;
            or an argument would do nothing.
    """
    if isinstance(name_or_path, PreTrainedModel):
        given = {"revision": revision, "device": device, "dtype": dtype, **kwargs}
        told = {name for name, value in given.items() if value is not None}
        _refuse_idle(told, "the model is loaded already")
        name = name_or_path.name_or_path or type(name_or_path).__name__
        return HookedAudioModel(*wrap_published(name_or_path, processor), name)
    _refuse_idle(_OF_THE_HUB & set(kwargs), "the hub's client takes HF_HOME and HF_TOKEN")
    if processor is not None:
        _refuse_idle({"processor"}, "that of the checkpoint is taken")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    fits = functools.partial(
        check_fits,
        dtype=dtype if isinstance(dtype, torch.dtype) else None,
        device=device,
        unread=unread_prefixes(),
        **{
            name: kwargs.get(name)
            for name in ("device_map", "offload_folder", "quantization_config")
        },
    )
    found = find_model(name_or_path, revision, check=fits)
    model, processor = open_checkpoint(found, dtype=dtype, **kwargs)
    if "device_map" not in kwargs:
        cast(Any, model).to(device)
    return HookedAudioModel(model.eval(), processor, found.name, found)


_OF_THE_HUB = frozenset(
    {
        *("cache_dir", "code_revision", "force_download", "local_files_only", "proxies"),
        *("subfolder", "token", "trust_remote_code", "use_auth_token", "variant"),
    }
)
"""Arguments of `from_pretrained` that do nothing where it is given a folder, as palscope does."""


def _refuse_idle(names: Collection[str], why: str) -> None:
    if names:
        raise CheckpointError(
            f"load: {', '.join(sorted(names))} would do nothing: {why}. Leave it out."
        )
