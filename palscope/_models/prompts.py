"""What a call's prompt holds: its columns, those of a cached prefix before it, and its clips."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palscope._models.cache import AudioCache
from palscope._models.clips import AudioClips
from palscope._models.encoding import Encoding
from palscope._models.families import family_of, rotary_switch
from palscope._models.rerouting import Rerouting
from palscope._routing import Stream, TokenLayout
from palscope._routing.layout import TEXT
from palscope.audio._timegrid import TimeGrid
from palscope.errors import PromptError

_NO_ID = -1
"""Of no token."""

Mask = Int[Tensor, "batch all_columns"] | Bool[Tensor, "batch all_columns"]
"""1 or True for real tokens, 0 or False for padding."""


class Prompts(Rerouting, Encoding):
    """Mixed into a model: which tokens clips are in its prompts, and how it reads them."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams whose tokens own positions in every prompt, under any route."""
        return self.connector.streams

    @property
    @abstractmethod
    def audio_token_id(self) -> int:
        """Id that marks an audio token's place in `input_ids`."""

    @property
    def filler_id(self) -> int | None:
        """Id of a word that fills a clip's places behind its sound; None where there is none."""
        return None

    def check_asked(self, question: str) -> None:
        """Raise `PromptError` where the question cannot be asked under the route."""
        del question

    @property
    @abstractmethod
    def frame_grid(self) -> TimeGrid:
        """Which seconds of the clip each frame token stands for."""

    @abstractmethod
    def frame_tokens(self, feature_frames: int) -> int:
        """How many frame tokens come of a clip of so many feature frames."""

    def filler_tokens(self, frame_tokens: int) -> int:
        """How many tokens of its own follow the frame tokens of a clip: none, nearly always."""
        del frame_tokens
        return 0

    @abstractmethod
    def seconds_covered(self, feature_frames: int) -> float:
        """Seconds of a clip of so many feature frames, as far as frame tokens stand for them."""

    def seconds_encoded(self, feature_frames: int) -> float:
        """Seconds of such a clip for which there are features and tokens of the encoder's own."""
        return self.seconds_covered(feature_frames)

    # -- a call's prompt ---------------------------------------------------------------------------

    def layout(
        self,
        input_ids: Int[Tensor, "batch columns"],
        attention_mask: Mask | None = None,
        audio: AudioClips | None = None,
        feature_lengths: Int[Tensor, "clips"] | None = None,
        cache: AudioCache | None = None,
    ) -> TokenLayout:
        """What stands in every column of a batch with these clips, or clips of these lengths.

        Args:
            cache: a cached prefix, whose columns come first.

        Raises:
            PromptError: prompt and clips do not fit together.
        """
        return self._layouts(input_ids, attention_mask, audio, feature_lengths, cache)[0]

    def read_prompt(
        self,
        input_ids: Int[Tensor, "batch columns"],
        attention_mask: Mask | None,
        input_features: Float[Tensor, "clips bins frames"] | None,
        feature_lengths: Int[Tensor, "clips"] | None,
        audio: AudioClips | None,
        cache: AudioCache | None,
    ) -> tuple[TokenLayout, TokenLayout, AudioClips | None]:
        """The layout of all columns, that of `input_ids` alone, and their clips, encoded.

        Takes what `forward` takes. Raises `PromptError` when prompt and clips do not fit together.
        """
        if input_features is None:
            if audio is not None:
                self.check_encoded(audio)
            layouts = self._layouts(input_ids, attention_mask, audio, None, cache)
            self._check_expected(layouts[0])
            return *layouts, audio
        if audio is not None:
            raise PromptError("give either input_features or audio, not both.")
        if feature_lengths is None or len(feature_lengths) != len(input_features):
            raise PromptError(
                f"{len(input_features)} clip(s) of input_features need as many feature_lengths, in "
                f"feature frames; got {feature_lengths}."
            )
        # The layout first: a clip that has no room in the prompt is not worth encoding.
        layouts = self._layouts(input_ids, attention_mask, None, feature_lengths, cache)
        self._check_expected(layouts[0])
        audio = self._encoded(input_features, feature_lengths)
        audio.reused = False  # nobody else gets them; decoding reads the cache's copy
        return *layouts, audio

    def _layouts(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        audio: AudioClips | None,
        feature_lengths: Tensor | None,
        cache: AudioCache | None,
    ) -> tuple[TokenLayout, TokenLayout]:
        """The layout of all columns, and that of `input_ids` alone."""
        before = None if cache is None else cache.layout
        if audio is not None:
            frames = [audio.frames[i] for i in audio.order]
            seconds = [audio.seconds[i] for i in audio.order]
        else:
            lengths: list[int] = []
            if feature_lengths is not None:
                lengths = cast(Any, feature_lengths).tolist()
            frames = [self.frame_tokens(length) for length in lengths]
            seconds = [self.seconds_covered(length) for length in lengths]
        # A column alone behind a prefix was written by the model, which may write a clip's mark
        # where that is one of its words.
        a_word = self.audio_token_id < self.text_config.vocab_size
        written = a_word and before is not None and not frames and input_ids.shape[1] == 1
        new = TokenLayout.build(
            input_ids,
            attention_mask if before is None else None,
            audio_token_id=_NO_ID if written else self.audio_token_id,
            streams=self.streams,
            frames=frames,
            grid=self.frame_grid,
            durations=seconds,
            filler_id=self.filler_id,
            fillers=[self.filler_tokens(count) for count in frames],
        )
        goes_on = audio is not None and audio.goes_on
        if before is None:
            if goes_on:
                raise PromptError(
                    "these clips go on from a clip that was heard before; give the cache that "
                    "holds its beginning."
                )
            layout = new
        else:
            layout = before.followed_by(new, self.frame_grid, goes_on=goes_on)
            if attention_mask is not None and not torch.equal(attention_mask != 0, layout.real):
                raise PromptError(
                    "after a cached prefix, attention_mask must hold the prefix's own values and "
                    "then ones: what continues a cached prompt cannot be padded. Leave it out."
                )
        self._check_context(layout)
        self._check_rotary(layout, before)
        return layout, new

    def _check_context(self, layout: TokenLayout) -> None:
        longest = getattr(self.text_config, "max_position_embeddings", None)
        here = layout.on_host
        if family_of(self.text_config).crossing is not None:
            words, most = (
                int((here.stream == TEXT).sum(1).max()),
                self.text_config.max_target_positions,
            )
            if words > most:
                raise PromptError(
                    f"the prompt has {words} words, but the decoder has positions for {most}."
                )
            return
        columns = int(here.real.sum(1).max())
        if longest is not None and columns > longest:
            sound = int((here.stream >= 0).sum(1).max())
            raise PromptError(
                f"the prompt has {columns} columns, {sound} of them audio, but the decoder "
                f"has positions for {longest}. Frame tokens: {self.frame_grid.cycle} for each "
                f"{self.frame_grid.seconds_per_cycle:g} s. Use shorter clips, or, for "
                "positions that it was not trained on, raise "
                "model.config.text_config.max_position_embeddings."
            )

    def _check_rotary(self, layout: TokenLayout, before: TokenLayout | None) -> None:
        """Refuse rows, and a cached prefix, that are turned by other angles than the rest."""
        switch = rotary_switch(self.text_config)
        if switch is None:
            return
        beyond = layout.on_host.real.sum(1) > switch
        if bool(beyond.any() & ~beyond.all()):
            raise PromptError(
                f"some prompts of the batch are longer than {switch} columns and some are not, but "
                "this decoder turns all positions otherwise in longer ones (longrope), for the "
                "whole batch. Ask in two batches."
            )
        if before is not None and bool((beyond != (before.on_host.real.sum(1) > switch)).any()):
            raise PromptError(
                f"the prompt grows past {switch} columns, where this decoder turns all positions "
                "otherwise (longrope), but the cache holds keys turned for a shorter one. Ask "
                "without a cache: use_cache=False."
            )
