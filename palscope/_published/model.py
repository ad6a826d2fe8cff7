"""A published model whose audio takes routes: its own tower, projector and decoder, in place."""

from __future__ import annotations

import os
from typing import Any

import transformers
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from palscope._models.audio_model import AudioLanguageModel
from palscope._models.clips import AudioClips
from palscope._models.devices import device_of
from palscope._models.families import raw
from palscope._published.adapters import has_adapters
from palscope._published.connectors import connector_of
from palscope._published.family import PublishedFamily
from palscope._published.tower import PublishedTower
from palscope._routing import FRAMES, TokenLayout
from palscope.audio._timegrid import TimeGrid
from palscope.encoders import Component
from palscope.encoders._tower import Passing
from palscope.errors import AudioError, CheckpointError


def unhooked_state(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """A model's weights by the names that they had before TransformerLens wrapped its modules."""
    plain: Any = raw(module)
    state: dict[str, Tensor] = {}
    for name, value in [*plain._parameters.items(), *plain._buffers.items()]:
        if value is not None and name not in plain._non_persistent_buffers_set:
            state[prefix + name] = value.detach()
    for name, child in plain._modules.items():
        if child is not None:
            state |= unhooked_state(child, f"{prefix}{name}.")
    return state


def _outside(module: nn.Module, apart: set[nn.Module]) -> list[nn.Module]:
    """The largest parts of a module that hold none of those apart."""
    found: list[nn.Module] = []
    for child in module.children():
        plain: Any = raw(child)
        if plain in apart:
            continue
        if apart.isdisjoint(map(raw, plain.modules())):
            found.append(plain)
        else:
            found += _outside(plain, apart)
    return found


class PublishedAudioModel(AudioLanguageModel):
    """A published audio language model, run by palscope on its own modules.

    By default sound takes the published way: full tokens in all layers, or what all layers cross.

    Args:
        model: a Hugging Face model; its modules are used in place, not copied.
        family: what is particular to its class.

    Raises:
        CheckpointError: the installed transformers lays the class out otherwise.

    Attributes:
        published: the Hugging Face model.
        features: what each clip's features pass on their way in, `[1, bins, columns]`.
    """

    def __init__(self, model: PreTrainedModel, family: PublishedFamily) -> None:
        super().__init__(family.decoder_config)
        try:
            model.get_submodule(family.decoder_path)
        except AttributeError as error:
            raise CheckpointError(
                f"{family.architecture} of transformers {transformers.__version__} has no "
                f"{family.decoder_path}: palscope opens it as transformers 5.23 has it. Upgrade."
            ) from error
        self.published: Any = model
        self._named = frozenset(model.state_dict())
        self.family = family
        self.decoder_path = f"published.{family.decoder_path}"
        self.head_path = f"published.{family.head_path}"
        self.connector = connector_of(family)
        self.encoder = PublishedTower(family)
        self.features = nn.Identity()
        self.seconds_per_frame = family.seconds_per_frame
        self._begin(self.connector.published_route(len(self.decoder.layers)))
        self.take_generation(model.generation_config)
        self.eval()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the published model has its weights."""

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        """How experts run: as in the published model, which has checked it, and shares its config.

        transformers asks each model's own code whether it has experts, and this one has none.
        """
        return requested_experts or "eager"

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, save_directory: str | os.PathLike[str], **kwargs: Any
    ) -> None:
        """Save the published model as its own class does, adapters included.

        Raises:
            CheckpointError: it has adapters and is hooked: save it before it is.
        """
        if any(raw(module) is not module for module in self.published.modules()):
            if has_adapters(self.published):
                raise CheckpointError(
                    "a hooked model with adapters cannot be saved: hooks rename the modules that "
                    "peft saves. Save it before palscope.load takes it."
                )
            # TransformerLens adds what it misses (a head's bias of zeros).
            state = unhooked_state(self.published)
            kwargs.setdefault("state_dict", {k: v for k, v in state.items() if k in self._named})
        with self.turns.passing():  # adapters are switched while they are saved
            self.family.save(self.published, save_directory, **kwargs)

    # -- what a model consists of -----------------------------------------------------------------

    @property
    def text_config(self) -> Any:
        """The decoder's config."""
        return self.config if self.family.crosses else self.decoder.config

    def embed(self, input_ids: Int[Tensor, "batch columns"]) -> Float[Tensor, "batch columns d"]:
        """Embeddings of words, as they enter the decoder."""
        return self.family.embed(self.published, input_ids)

    def check_asked(self, question: str) -> None:
        """Raise `PromptError` where the route mutes all sound, and the question is of sound."""
        if not any(self.route.layers(each.name) for each in self.route.streams):
            self.family.check_heard(question)

    @property
    def audio_token_id(self) -> int:
        """Id that the published class replaces by audio."""
        return self.family.audio_token_id

    @property
    def filler_id(self) -> int | None:
        """Of the word that fills a clip's places behind its sound (Gemma 3n)."""
        return self.family.filler_id

    @property
    def frame_grid(self) -> TimeGrid:
        """Which seconds of the clip each audio token stands for."""
        return self.family.grid

    @property
    def logits_divisor(self) -> float:
        """What the class divides the unembedding's output by."""
        return super().logits_divisor if self.family.divides_logits else 1.0

    def audio_components(self) -> dict[str, Component]:
        """The tower's, the projector's, and what passes before and behind them.

        A clip's features pass `features`, all clips' tokens `input_frames`.
        """
        parts = {name: each.within("published") for name, each in self.family.components().items()}
        return {
            **parts,
            "features": Component("features"),
            f"input_{FRAMES.name}": Component(f"connector.input_projectors.{FRAMES.name}"),
        }

    @property
    def encoder_entries(self) -> list[str]:
        """The projector, or what stands in its place."""
        return [f"input_{FRAMES.name}" if self.family.crosses else self.family.projector]

    def frame_tokens(self, feature_frames: int) -> int:
        """How many audio tokens come of a clip of so many feature frames."""
        return self.family.tokens(feature_frames)

    def filler_tokens(self, frame_tokens: int) -> int:
        """How many tokens of its own follow those of a clip, in classes that hear whole windows."""
        return self.family.fillers(frame_tokens)

    def seconds_covered(self, feature_frames: int) -> float:
        """Seconds of such a clip, with the padding that the class gives tokens to."""
        return self.family.seconds(feature_frames)

    def seconds_encoded(self, feature_frames: int) -> float:
        """Seconds of such a clip for which there are features and tokens of the tower's own."""
        given = self.family.columns(feature_frames) * self.seconds_per_frame
        return min(self.seconds_covered(feature_frames), given)

    def _encode(
        self,
        input_features: Float[Tensor, "clips bins columns"],
        feature_lengths: Int[Tensor, "clips"],
    ) -> AudioClips:
        """Each clip is encoded by itself, whatever stands beside it.

        Raises `AudioError` when the class
        makes another number of tokens of a clip than its family says.
        """
        device = device_of(self.published.get_submodule(self.family.tower_path))
        lengths = [int(length) for length in feature_lengths]
        made: list[Tensor] = []
        try:
            for number, length in enumerate(lengths):
                self.encoder.passing = Passing((number,), 0.0, tuple(lengths))
                given = input_features[number : number + 1, :, : self.family.columns(length)]
                features = self.features(given.to(device, self.dtype))[0]
                made.append(self.family.encode(self.published, features, length))
        finally:
            self.encoder.passing = None
        counts = tuple(self.frame_tokens(length) for length in lengths)
        for length, count, tokens in zip(lengths, counts, made, strict=True):
            if len(tokens) != count + self.filler_tokens(count):
                raise AudioError(
                    f"{self.family.architecture} made {len(tokens)} tokens of a clip of {length} "
                    f"feature frames; its family counts {count + self.filler_tokens(count)}."
                )
        seconds = tuple(self.seconds_covered(length) for length in lengths)
        streams = {FRAMES.name: pad_sequence(made, batch_first=True)}
        return AudioClips(streams, counts, seconds, tuple(range(len(counts))))

    def _encoding_parts(self) -> list[nn.Module]:
        apart = {raw(self.decoder), raw(self.unembedding)}
        return _outside(raw(self.published), apart)

    def _before_decoder(self, layout: TokenLayout) -> None:
        self.family.prepare(self.published, audio=bool(layout.clip_row))
