"""The hooked model: a TransformerLens bridge that hears."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.sources._bridge_builder import configure_tokenizer
from transformer_lens.model_bridge.sources.transformers_driver import TransformersDriver
from transformers import PreTrainedModel

from palscope.errors import HookError, PalscopeError
from palscope.hooks.adapter import PATTERN_HOOK, make_adapter
from palscope.hooks.attention import AUDIO_HOOKS
from palscope.hooks.listening import noting
from palscope.hooks.turns import BridgeInTurns
from palscope.models import (
    AudioClips,
    AudioStream,
    PalscopeForConditionalGeneration,
    PalscopeProcessor,
)
from palscope.models.audio_model import AudioLanguageModel
from palscope.models.cache_names import OLD, cache_in, naming_cache
from palscope.models.checkpoints import find_checkpoint
from palscope.models.decoder import AudioTaps
from palscope.models.families import key_layer
from palscope.models.memory import check_fits
from palscope.models.processor import AudioProcessor
from palscope.models.scoring import answer, prompt_batch
from palscope.published import unread_prefixes
from palscope.published.loading import open_checkpoint, wrap_published
from palscope.routing import Level, Route, TokenLayout

ENCODER_HOOKS = ("audio_",)
"""Prefix of the hook points of the encoder and the connector."""


class HookedAudioModel(BridgeInTurns):
    """A palscope model under TransformerLens's hooks.

    All of `TransformerBridge` works on it (`run_with_cache`, `run_with_hooks`, `cache[...]`, logit
    lens, attribution, patching). `inputs` makes what it is called with; where a tool passes tokens
    alone, call the tool inside `hearing`.

    Beside the decoder's, hook points are, in each layer with a stream at level `keys`:
    `blocks.L.attn.hook_audio_state` `[batch, audio, d_model]`, `hook_audio_k` and `hook_audio_v`
    `[batch, audio, kv_heads, d_head]`; in the encoder those it names (`Encoder.components`), of
    Whisper `audio_conv1`, `audio_conv2`, `audio_blocks.L.…`, `audio_ln_final`; in the connector
    `audio_pool`, `audio_summary`, `audio_input_STREAM`, `audio_projector_STREAM_LAYER`, each with
    `.hook_in` and `.hook_out`; of a Q-Former or LFST also `audio_attn_I`, with `.hook_pattern`,
    which is computed only when someone listens.
    `layout(inputs)` says what stands in the columns of any of them.

    Gemma 3n's state is four streams: `hook_resid_pre`, `hook_resid_post` and `hook_audio_state`
    hold them side by side, `[batch, tokens, 4 * d_model]`. What its sublayers put out does not add
    up to it, so TransformerLens's decompositions of the residual stream do not hold there.
    """

    def __init__(
        self,
        model: AudioLanguageModel,
        processor: AudioProcessor,
        name: str = "palscope",
    ) -> None:
        adapter = make_adapter(model, name)
        tokenizer = configure_tokenizer(processor.tokenizer, adapter.cfg)
        super().__init__(
            model, adapter, tokenizer, driver=TransformersDriver(model, adapter, tokenizer)
        )
        processor.tokenizer.padding_side = "left"
        self.processor = processor
        for index, taps in enumerate(model.audio_taps):
            taps = cast(AudioTaps, taps)
            attention: Any = self.blocks[index].attn
            taps.state, taps.k, taps.v = (getattr(attention, name) for name in AUDIO_HOOKS)
        for name, part in model.audio_components().items():
            if part.pattern:
                reading: Any = getattr(self, f"audio_{name}")
                reading.original_component.pattern = getattr(reading, PATTERN_HOOK)
        self._silent = self._find_silent()

    @property
    def model(self) -> AudioLanguageModel:
        """The Hugging Face model inside."""
        return cast(AudioLanguageModel, self.original_model)

    # -- input ------------------------------------------------------------------------------------

    def inputs(self, question: str, *clips: Any) -> dict[str, Tensor]:
        """Tensors of one question about `clips` (files, bytes, arrays at the processor's rate).

        Raises `PromptError` or `AudioError` for what cannot be used.
        """
        return prompt_batch(self.processor, [(clips, question)], self.model.device)

    def ask(self, question: str, *clips: Any, max_new_tokens: int = 16) -> str:
        """The greedy answer to a question about `clips`."""
        return answer(self.model, self.processor, [(clips, question)], max_new_tokens)[0]

    def listen(self, *, offload: bool = False) -> AudioStream:
        """A clip that goes on: sound is heard in chunks, and asked about meanwhile.

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
                "a published model cannot listen to a stream: its tower hears a clip as a whole."
            )
        return AudioStream(self.model, self.processor, offload=offload)

    def layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        """What stands in each column of `inputs`; its `layer_columns` give those of a layer."""
        return self.model.layout(
            inputs["input_ids"],
            inputs.get("attention_mask"),
            inputs.get("audio"),
            inputs.get("feature_lengths"),
            cache_in(inputs),
        )

    @contextmanager
    def hearing(self, inputs: Mapping[str, Any]) -> Generator[None, None, None]:
        """Within, calls with tokens alone hear `inputs`' clips: for tools that know only tokens."""
        names = ("input_features", "feature_lengths", "audio", "attention_mask")
        heard = {name: inputs[name] for name in names if name in inputs}
        with self.turns.block("hearing", heard):
            yield

    def forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """TransformerLens's forward; `input` may also be what `inputs` gave.

        Raises:
            HookError: encoder or connector hooks are set, but clips come encoded already.
        """
        if isinstance(input, Mapping):
            given = dict(cast(Mapping[str, Any], input))
            input = given.pop("input_ids")
            kwargs = given | kwargs
        kwargs = naming_cache(kwargs, OLD)  # as TransformerLens calls it
        if kwargs.get("start_at_layer") is not None:
            raise PalscopeError(
                "start_at_layer is not supported: the layers' audio comes from input_ids. Patch "
                "hook_resid_pre of that layer instead."
            )
        heard = self.turns.values("hearing")
        if (
            heard
            and isinstance(input, Tensor)
            and not input.is_floating_point()
            and kwargs.get("input_features") is None
            and kwargs.get("audio") is None
            and bool((input == self.model.audio_token_id).any())
        ):
            clips = dict(heard[-1])
            mask = clips.pop("attention_mask", None)
            if kwargs.get("attention_mask") is None and mask is not None:
                clips["attention_mask"] = mask
            kwargs = kwargs | clips
        if kwargs.get("audio") is not None:
            self._refuse_encoder_hooks()
        return super().forward(input, *args, **kwargs)

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
        """Take `route` within the block, errors or not; other threads' calls wait for its end.

        Raises `RouteError`, and changes nothing, when the weights cannot serve it; `HookError` when
        another thread or task has a block open, and does not leave it.
        """
        with self.model.routed(route):
            yield route

    # -- hooks ------------------------------------------------------------------------------------

    def run_with_hooks(self, input: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """TransformerLens's `run_with_hooks`, in which every named hook must fire.

        Raises:
            HookError: a name does not exist, cannot fire under this route, or did not fire.
        """
        fired: set[str] = set()
        named = list(args[0]) if args else list(kwargs.pop("fwd_hooks", []))
        watched = [
            (name, noting(name, hook, fired) if isinstance(name, str) else hook)
            for name, hook in named
        ]
        out = super().run_with_hooks(input, watched, *args[1:], **kwargs)
        if kwargs.get("stop_at_layer") is None:
            self._require_fired({name for name, _ in named if isinstance(name, str)} - fired)
        return out

    def run_with_cache(self, input: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """TransformerLens's `run_with_cache`, in which every named activation must arrive.

        Raises:
            HookError: a name does not exist, cannot fire under this route, or did not fire.
        """
        wanted = kwargs.get("names_filter")
        names: list[str] = []
        if isinstance(wanted, str):
            names = [wanted]
        elif isinstance(wanted, Sequence):
            names = [str(name) for name in cast(Sequence[Any], wanted)]
        for name in names:
            self._check_name(name)
        out = super().run_with_cache(input, *args, **kwargs)
        if names and kwargs.get("stop_at_layer") is None:
            cache = out[1]
            self._require_fired({name for name in names if name not in cache})
        return out

    def _resolve_hook_point(self, name: str, aliases: Any, hook_dict: Any) -> Any:
        self._check_name(name)
        return super()._resolve_hook_point(name, aliases, hook_dict)

    def can_fire(self, name: str) -> bool:
        """Whether the hook point `name` fires under the current route."""
        point = self.hook_dict.get(name)
        if point is None or point.name in self._silent:
            return False
        return self._why_silent(point.name or name) is None

    def hook_point(self, name: str) -> HookPoint:
        """The hook point `name`, or that of which it is an alias.

        Raises `HookError` when it does not exist, or cannot fire under the current route.
        """
        return self.find_hook_points([name])[name]

    def find_hook_points(self, names: Collection[str]) -> dict[str, HookPoint]:
        """The hook points of these names. Raises `HookError` as `hook_point`."""
        known = self.hook_dict  # TransformerLens makes it anew each time it is asked
        for name in names:
            self._check_name(name, known)
        return {name: known[name] for name in names}

    def _check_name(self, name: str, known: Mapping[str, HookPoint] | None = None) -> None:
        known = self.hook_dict if known is None else known
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.4)
            raise HookError(f"no hook point {name!r}; nearest: {', '.join(near) or 'none'}.")
        point = known[name]
        reason = self._why_silent(point.name or name)
        if point.name in self._silent:
            reason = "this architecture's forward never passes it"
        if reason is not None:
            near = [
                n for n in difflib.get_close_matches(name, list(known), n=12) if self.can_fire(n)
            ]
            raise HookError(
                f"hook point {name!r} cannot fire: {reason}. Nearest that can: "
                f"{', '.join(near[:4]) or 'none'}."
            )

    def _why_silent(self, name: str) -> str | None:
        """Why the current route leaves `name` silent; None when it does not."""
        parts = name.split(".")
        route = self.current_route
        if parts[-1] in AUDIO_HOOKS:
            layer = int(parts[1])
            source = key_layer(self.model.text_config, layer)
            if source != layer:
                return f"layer {layer} has no keys of its own; it reads those of layer {source}"
            if route.streams_at(layer, Level.KEYS):
                return None
            having = [
                i
                for i in range(route.n_layers)
                if route.streams_at(i, Level.KEYS) and key_layer(self.model.text_config, i) == i
            ]
            return (
                f"layer {layer} reads no audio as keys under this route; layers that do: {having}"
            )
        if parts[0].startswith("audio_projector_"):
            stream, layer = parts[0].removeprefix("audio_projector_").rsplit("_", 1)
            if route.cell(stream, int(layer)).symbol != "P":
                return f"the route does not use the projector of stream {stream} at layer {layer}"
        if parts[0].startswith("audio_input_"):
            stream = parts[0].removeprefix("audio_input_")
            if not any(cell.symbol in "kaF" for cell in route.cells(stream)):
                return f"the route carries stream {stream} in no layer"
        return None

    def _require_fired(self, missing: set[str]) -> None:
        if missing:
            raise HookError(
                f"these hooks did not fire in this call: {', '.join(sorted(missing))}. Encoder and "
                "connector hooks fire only when a call encodes clips itself, audio hooks only when "
                "there is a clip."
            )

    def _refuse_encoder_hooks(self) -> None:
        for name, point in self._encoder_points.items():
            if point.has_hooks(dir="both"):
                raise HookError(
                    f"{name} has a hook, but the clips were given encoded (audio=), so it cannot "
                    "fire. Give input_features instead."
                )

    @functools.cached_property
    def _encoder_points(self) -> dict[str, HookPoint]:
        # Asked on every call; TransformerLens makes hook_dict anew each time.
        points = self.hook_dict.items()
        return {name: point for name, point in points if name.startswith(ENCODER_HOOKS)}

    def _find_silent(self) -> frozenset[str]:
        """Names of hook points that a forward pass never reaches, found by one.

        What a route switches is left out; `_why_silent` knows that.
        """
        fired: set[str] = set()

        def note(tensor: Any, hook: Any) -> None:
            fired.add(hook.name)

        def open_to_all(name: str) -> bool:
            return self._gated_hook_reason(self.hook_dict[name].name or name) is None

        silence = self.model.encoder.blank()
        with torch.no_grad(), self.hooks(fwd_hooks=[(open_to_all, note)]):
            self(self.inputs("?", silence), return_type=None)
        points = {point.name or name: point for name, point in self.hook_dict.items()}
        return frozenset(
            name
            for name in points
            if name not in fired
            and self._gated_hook_reason(name) is None
            and not name.endswith(AUDIO_HOOKS)
            and not name.startswith(("audio_projector_", "audio_input_"))
        )

    # -- what does not apply ----------------------------------------------------------------------

    def enable_compatibility_mode(self, *args: Any, **kwargs: Any) -> None:
        """Refused: it folds norms into projections that audio goes through unhooked.

        Raises `PalscopeError`.
        """
        raise PalscopeError(
            "enable_compatibility_mode folds weights into one another, but audio states use the "
            "layers' own norms and projections. Analyse with unprocessed weights."
        )


def load(
    name_or_path: str | os.PathLike[str] | PreTrainedModel,
    *,
    processor: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | Literal["auto"] | None = None,
    **kwargs: Any,
) -> HookedAudioModel:
    """Load a palscope checkpoint or a published audio language model as a hooked model.

    Args:
        name_or_path: a folder, a hub id, `demo/plits`, `demo/lal`, `demo/pal`; or a published model
            that is loaded already, whose modules are then hooked in place.
        processor: of a model that is loaded already.
        device: a GPU where there is one, by default.
        dtype: of the weights and the computation; by default float32 for palscope's own, for
            published models that of the checkpoint ("auto").
        **kwargs: `from_pretrained`'s, e.g. `attn_implementation`, `device_map`.

    Raises:
        CheckpointError: it cannot be found or loaded, or its weights do not fit into free memory.
    """
    if isinstance(name_or_path, PreTrainedModel):
        name = name_or_path.name_or_path or type(name_or_path).__name__
        return HookedAudioModel(*wrap_published(name_or_path, processor), name)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    check_fits(
        name_or_path,
        dtype=dtype if isinstance(dtype, torch.dtype) else None,
        device=device,
        unread=unread_prefixes(),
        **{
            name: kwargs.get(name)
            for name in ("device_map", "offload_folder", "quantization_config")
        },
    )
    model, processor = open_checkpoint(find_checkpoint(name_or_path), dtype=dtype, **kwargs)
    if "device_map" not in kwargs:
        cast(Any, model).to(device)
    return HookedAudioModel(model.eval(), processor, os.fspath(name_or_path))
