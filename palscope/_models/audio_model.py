"""An audio language model: a Hugging Face decoder, an encoder, a connector, and a route between.

What holds whatever the encoder and the connector are: palscope's own checkpoints
(`PalscopeForConditionalGeneration`) and published models (`PublishedAudioModel`) share it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel

from palscope._finite import all_finite, cause
from palscope._models.cache import AudioCache
from palscope._models.cache_names import INSTALLED, AudioOutput, only_cache
from palscope._models.clips import AudioClips
from palscope._models.decoder import DecoderRun, check_crosses
from palscope._models.families import family_of
from palscope._models.gathering import spread
from palscope._models.generation import AudioGeneration
from palscope._models.parts import AudioTaps
from palscope._models.prompts import Mask, Prompts
from palscope._models.stamps import stamp_identity
from palscope._models.turns import Turns, in_turn
from palscope._routing import Level, Route, TokenLayout
from palscope._routing.layout import TEXT
from palscope.audio._timegrid import SECONDS_PER_FEATURE
from palscope.encoders import Component
from palscope.encoders._tower import Tower
from palscope.errors import PalscopeError, PromptError, RouteError


# GenerationMixin by its own name: transformers looks for it among the bases.
class AudioLanguageModel(  # pyright: ignore[reportIncompatibleMethodOverride]
    PreTrainedModel, Prompts, AudioGeneration, GenerationMixin
):
    """A model whose audio takes the `route` through the decoder."""

    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_flex_attn = True

    decoder_path: str
    """Of the bare decoder (`embed_tokens`, `layers`, `norm`) among this model's modules."""
    head_path: str
    """Of the linear map to logits."""
    connector: Any
    """A `StreamProjectors`, which the decoder's run names."""
    encoder: Tower
    seconds_per_frame: float = SECONDS_PER_FEATURE
    """Of the features that clips are given as."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.turns = Turns()
        self.current_run: DecoderRun | None = None
        self.gradient_checkpointing = False

    def _begin(self, route: Route) -> None:
        """Take the first route. To be called once, when decoder and connector are there.

        Raises:
            RouteError: the weights cannot serve it.
        """
        self.audio_taps = nn.ModuleList(AudioTaps() for _ in range(route.n_layers))
        check_crosses(self.text_config, route)
        self.connector.check_serves(route)
        self._route = route

    # -- what a model consists of -----------------------------------------------------------------

    @property
    def decoder(self) -> Any:
        """The Hugging Face decoder: embeddings, layers, final norm."""
        return self.get_submodule(self.decoder_path)

    @property
    def unembedding(self) -> Any:
        """The linear map of the last layer's normed states to logits."""
        return self.get_submodule(self.head_path)

    def embed(self, input_ids: Int[Tensor, "batch columns"]) -> Float[Tensor, "batch columns d"]:
        """Embeddings of words, as they enter the decoder."""
        return self.decoder.embed_tokens(input_ids)

    @property
    def text_config(self) -> Any:
        """The decoder's config."""
        return cast(Any, self.config).get_text_config()

    @abstractmethod
    def audio_components(self) -> dict[str, Component]:
        """Parts of encoder and connector that can be hooked, by name; paths from this model.

        A part stands before what holds it: wrapping a module hides the way to those inside.
        """

    @property
    @abstractmethod
    def encoder_entries(self) -> list[str]:
        """The component that each encoder's output enters, by its name."""

    # -- forward ----------------------------------------------------------------------------------

    @in_turn
    def forward(
        self,
        input_ids: Int[Tensor, "batch columns"] | None = None,
        attention_mask: Mask | None = None,
        input_features: Float[Tensor, "clips bins frames"] | None = None,
        feature_lengths: Int[Tensor, "clips"] | None = None,
        audio: AudioClips | None = None,
        position_ids: Tensor | None = None,
        past_key_values: AudioCache | None = None,
        use_cache: bool | None = None,
        labels: Int[Tensor, "batch columns"] | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: AudioCache | None = None,
    ) -> AudioOutput:
        """Logits for every column of `input_ids`; zeros where no token runs in the last layer.

        Args:
            input_ids: the processor's, with a column for each audio token. After a cached prefix,
                the new columns only; clips among them are given as in a first call.
            attention_mask: over all columns, a cached prefix's included.
            input_features: log-mel features of the clips, in reading order.
            feature_lengths: frames of each clip's features.
            audio: in place of these two, clips that `encode_audio` made.
            position_ids: follow from `attention_mask`; others are refused.
            labels: targets, -100 where none. The loss is over text alone: targets at audio places
                and padding do not count, nor does a word that no token predicts (right behind a
                clip whose tokens do not run in the last layer). In training mode no logits are
                returned: they are computed only where there are targets.
            logits_to_keep: number of last columns to compute logits for; 0 for all.
            output_hidden_states: also return the input of each layer and the final norm's output,
                each with the columns that run there (`TokenLayout.layer_columns`); of Gemma 3n's
                layers all four streams, side by side.
            cache: from a call with `use_cache=True` under the same route. `past_key_values` is its
                name in transformers before 5.24; with any version, palscope takes either.

        Raises:
            PromptError: clips and places do not fit together.
            RouteError: the cache was made under another route.
        """
        if not isinstance(input_ids, Tensor) or inputs_embeds is not None:
            held = "" if input_ids is None else f", not a {type(input_ids).__name__}"
            raise PalscopeError(
                f"give input_ids, a tensor{held}: the layout of audio and text is read from them. "
                "What a processor made is given by name: model(**inputs), trace(**inputs)."
            )
        cache = self._usable_cache(only_cache(cache, past_key_values), use_cache)
        new = input_ids.shape[1]
        layout, piece, audio = self.read_prompt(
            input_ids, attention_mask, input_features, feature_lengths, audio, cache
        )
        self._check_positions(layout, position_ids, new)
        run = DecoderRun(
            model=cast(Any, self),
            route=self.route,
            layout=layout,
            new=new,
            piece=piece,
            clips=audio,
            cache=cache,
            checkpointing=self._checkpoints(),
            inputs=[] if output_hidden_states else None,
            cuts=self.current_cuts,
            recordings=self.turns.values("recorded attention"),
        )
        with self.running(run):
            hidden, columns = run(input_ids)
        hidden_states: Any = None
        if run.inputs is not None:
            residual = run.family.residual
            entered = (residual(self.text_config, state) for state, _ in run.inputs)
            hidden_states = (*entered, hidden)
        at = columns - (layout.width - new)
        loss = logits = None
        if labels is not None:
            states = _at_columns(hidden, at, new)
            loss = self._loss(states, labels, layout, num_items_in_batch)
        if labels is None or not self.training:
            # Of the tokens that run alone: the vocabulary is wide, and audio's columns are many.
            kept = min(logits_to_keep, new) or new
            logits = self.unembed(hidden[:, -kept:])
            logits = _at_columns(logits, at[:, -kept:] - (new - kept), kept)
        return AudioOutput(
            loss=loss,
            logits=cast(Any, logits),
            hidden_states=hidden_states,
            **cast(Any, {INSTALLED: cache}),
        )

    @contextmanager
    def running(self, run: DecoderRun) -> Generator[None, None, None]:
        """Within, hooks find `run` where they ask which tokens stand in what they get."""
        with self.turns.passing():
            self._before_decoder(run.layout)
            if run.cache is not None:
                self.check_cache(run.cache)
            around, self.current_run = self.current_run, run  # a hook may call the model
            try:
                yield
            finally:
                self.current_run = around
            if run.cache is not None and run.cache.made_of is None:
                run.cache.made_of = stamp_identity([self])

    def _checkpoints(self) -> bool:
        """Whether layers are run again in the backward pass, when a block's hooks may be gone."""
        return self.gradient_checkpointing and self.training and not self.turns.values("hooks")

    def _before_decoder(self, layout: TokenLayout) -> None:
        """Set what a class switches by whether there is sound in the call."""

    def _usable_cache(self, cache: AudioCache | None, use_cache: bool | None) -> AudioCache | None:
        if cache is None:
            wanted = use_cache if use_cache is not None else False
            return AudioCache() if wanted and not self.training else None
        if not isinstance(cache, AudioCache):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PalscopeError(
                f"the cache given is a {type(cache).__name__}; palscope needs its AudioCache, "
                "which knows where the audio stands. Pass what a call with use_cache=True returned."
            )
        if cache.route is not None and cache.route != self.route:
            raise RouteError(
                "the cache was made under another route; its keys do not fit this one. Start again "
                "without it."
            )
        return cache

    @staticmethod
    def _check_positions(layout: TokenLayout, given: Tensor | None, new: int) -> None:
        if given is None:
            return
        own, real = layout.position[:, -new:], layout.real[:, -new:]
        if given.shape[-1] != new or bool(((given != own) & real).any()):
            raise PromptError(
                "position_ids differ from those that follow from attention_mask; leave them out."
            )

    def unembed(
        self, hidden: Float[Tensor, "*columns d_model"]
    ) -> Float[Tensor, "*columns vocabulary"]:
        """Logits of normed states of the last layer, divided or capped as the class does.

        Raises `PalscopeError` where they hold NaN or infinity, but for training, whose loss tells.
        """
        logits = self.finish_logits(self.unembedding(hidden))
        if not (self.training or all_finite(logits)):
            raise PalscopeError(f"the logits hold NaN or infinity. {cause(self)}")
        return logits

    @property
    def logits_divisor(self) -> float:
        """What the unembedding's output is divided by."""
        return family_of(self.text_config).divisor(self.text_config)

    def finish_logits(
        self, made: Float[Tensor, "*columns vocabulary"]
    ) -> Float[Tensor, "*columns vocabulary"]:
        """Logits of the unembedding's output."""
        divided = made if self.logits_divisor == 1 else made / self.logits_divisor
        return family_of(self.text_config).logits(self.text_config, divided)

    def targets(
        self, labels: Int[Tensor, "batch columns"], layout: TokenLayout
    ) -> Bool[Tensor, "batch next"]:
        """Which columns' next labels count in the loss: text that a token predicts.

        Targets at audio places and padding do not count, nor does a word that no token predicts:
        right behind a clip whose tokens do not run in the last layer.
        """
        stream, runs = (
            each[:, -labels.shape[1] :].to(labels.device) for each in (layout.stream, layout.words)
        )
        last = self.route.n_layers - 1
        for name in self.route.streams_at(last, Level.ATTEND, Level.FULL):
            runs = runs | (stream == layout.stream_index(name))
        return (labels[:, 1:] != -100) & (stream[:, 1:] == TEXT) & runs[:, :-1]

    def _loss(
        self,
        hidden: Tensor,
        labels: Tensor,
        layout: TokenLayout,
        num_items_in_batch: int | Tensor | None,
    ) -> Tensor:
        """Cross-entropy of the next token, over targets only: the vocabulary is wide."""
        targets = labels[:, 1:].to(hidden.device)
        wanted = self.targets(labels, layout).to(hidden.device)
        if not bool(wanted.any()):
            raise PromptError(
                "labels hold no target: all are -100, or at places that hold no text. Was the "
                "answer cut off?"
            )
        logits = self.unembed(hidden[:, :-1][wanted]).float()
        targets = targets.to(logits.device)
        wanted = wanted.to(logits.device)
        if num_items_in_batch is None:
            return functional.cross_entropy(logits, targets[wanted])
        total = functional.cross_entropy(logits, targets[wanted], reduction="sum")
        return total / num_items_in_batch

    # -- training ---------------------------------------------------------------------------------

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        # Set here alone: palscope checkpoints whole layers with their audio; a layer's own
        # checkpointing would drop the cache through which its audio comes.
        self.gradient_checkpointing = enable

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Recompute layers in the backward pass instead of keeping their activations.

        Raises:
            PalscopeError: `use_reentrant=True` is asked for, under which the connector would get
                no gradient from layers whose input needs none.
        """
        if (gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            raise PalscopeError(
                "use_reentrant=True drops the connector's gradients; leave it out or set it False."
            )
        self.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self.gradient_checkpointing = False

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embeddings."""
        return self.decoder.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The decoder's unembedding."""
        return self.unembedding


def _at_columns(
    hidden: Float[Tensor, "batch running d_model"],
    columns: Int[Tensor, "batch running"],
    width: int,
) -> Float[Tensor, "batch columns d_model"]:
    """`hidden` spread over `width` columns, zeros where none of it stands."""
    if columns.shape[1] == width and bool((columns >= 0).all()):
        return hidden
    return spread(hidden, columns, width)
