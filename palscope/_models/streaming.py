"""Sound as it comes: a clip that is still going on, about which questions are asked meanwhile.

The encoder reads sound in windows, each on its own, so a window's tokens are final once it is full:
their keys and values, or their run through the decoder, are added to the cache of the prompt and
never computed again. What was heard since the last full window is computed for each question
anew, and taken off the cache after the answer.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from palscope._models.clips import AudioClips
from palscope._models.modeling import PalscopeForConditionalGeneration
from palscope._models.processor import PalscopeProcessor
from palscope._models.scoring import greedy_tokens
from palscope._models.stream_cache import StreamCache
from palscope._routing import TokenLayout
from palscope.audio import Waveform, load_audio
from palscope.audio._timegrid import SECONDS_PER_FEATURE
from palscope.encoders import EncoderOutput
from palscope.encoders._config import GivenClip
from palscope.encoders._front_end import extract
from palscope.errors import AudioError, PalscopeError, PromptError


class AudioStream:
    """One clip that goes on, in the processor's chat format, under the model's current route.

    The same sound gives the same logits in chunks of any size as at once. Memory grows with the
    keys and values of audio; of the sound itself only the window being heard is kept. Whatever
    hooks and interventions are set while a piece of sound runs stays in the cache.

    Args:
        model: any palscope model; that of a hooked model fires its hooks.
        processor: the model's.
        offload: keep keys and values in the CPU's memory, and bring a layer's to the model's device
            while that layer runs.

    Raises:
        PalscopeError: the decoder's rotary angles depend on the prompt's length, so that what was
            heard would have to be computed again as it goes on; or frame tokens read more than
            their own stretch of sound.
    """

    def __init__(
        self,
        model: PalscopeForConditionalGeneration,
        processor: PalscopeProcessor,
        *,
        offload: bool = False,
    ) -> None:
        _check_rotary(model.config.text_config)
        self._model, self._processor = model, processor
        pool, streams = model.connector.pool, model.connector.streams
        if pool.group is None or not pool.local:
            raise PalscopeError(
                "sound can be heard as it comes where each frame token reads its own stretch of "
                "one encoder's tokens alone; this model's read the whole clip, regions that reach "
                "further, or several encoders. Give it the clip at once."
            )
        self._rate = processor.sample_rate
        self._hop = round(self._rate * SECONDS_PER_FEATURE)
        # Whole windows of the feature extractor's and of the encoder's, which are the same for
        # most; and of the tokens they give, whole groups of every stream.
        own = int(getattr(processor.feature_extractor, "n_samples", self._hop))
        self._window = math.lcm(own, model.encoder.window * self._hop)
        frames = math.lcm(pool.per_step, *(stream.ratio for stream in streams))
        self._group = pool.group * frames // pool.per_step
        self._sound = np.empty(self._window, dtype=np.float32)
        self._filled = 0
        self._windows = 0
        self._left: Float[Tensor, "1 tokens width"] | None = None
        self._latest: AudioClips | None = None
        self._asking = False
        self._begun = False  # whether the cache holds a piece of the clip
        self._cache: StreamCache | None = StreamCache(torch.device("cpu") if offload else None)
        self._before = self._around("?")[0]
        if len(self._before):
            with torch.no_grad():
                self._run(self._before, None)

    # -- feeding ----------------------------------------------------------------------------------

    def feed(
        self,
        samples: Shaped[np.ndarray, "samples *channels"] | Waveform,
        sampling_rate: int | None = None,
    ) -> None:
        """Take in what comes next, a chunk of any length.

        An error leaves all that was heard before as it was; of a chunk that fills several windows,
        those before the error are kept, and `seconds` counts them.

        Args:
            samples: mono, or `[samples, channels]`, which are averaged.
            sampling_rate: Hz of an array; by default the model's, and no other is taken: resample
                a stream as a whole (`soxr.ResampleStream`), for its chunks have edges.

        Raises:
            AudioError: the samples are empty, not finite, or at another rate.
            PromptError: the decoder has no positions for so much sound.
            PalscopeError: the stream is closed, or called within the block of a question.
            RouteError: the model's route is not the one under which the stream began.
        """
        with self._model.turns.passing():  # another thread may be asking
            cache = self._open()
            new = self._checked(samples, sampling_rate)
            self._check_room(len(new))
            while len(new):
                taken = new[: self._window - self._filled]
                self._sound[self._filled : self._filled + len(taken)] = taken
                if self._filled + len(taken) == self._window:
                    mark = cache.mark()
                    try:
                        self._add_window()
                    except BaseException:
                        cache.back_to(mark)
                        raise
                    self._filled, self._windows = 0, self._windows + 1
                else:
                    self._filled += len(taken)
                self._latest = None
                new = new[len(taken) :]

    @property
    def seconds(self) -> float:
        """Seconds of sound heard so far."""
        return (self._windows * self._window + self._filled) / self._rate

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values held, those of the text before the sound included."""
        return 0 if self._cache is None else self._cache.nbytes

    @property
    def layout(self) -> TokenLayout | None:
        """What stands in the columns that are held; None when there are none yet."""
        return None if self._cache is None else self._cache.layout

    # -- asking -----------------------------------------------------------------------------------

    def ask(self, question: str, max_new_tokens: int = 16) -> str:
        """The greedy answer to a question about all that was heard; the stream goes on after it.

        Raises:
            PromptError: nothing was heard yet, the question is empty, or there are no positions
                for it.
            PalscopeError: the stream is closed, or another question is being asked.
            RouteError: the model's route is not the one under which the stream began.
        """
        with self.asking(question) as inputs:
            held = int(inputs["attention_mask"].shape[1]) - int(inputs["input_ids"].shape[1])
            # Generation counts in columns of the whole prompt; what is held is not looked at again.
            past = torch.full((1, held), self._model.config.audio_token_id)
            past[0, : len(self._before)] = self._before
            ids = torch.cat([past.to(self._model.device), inputs["input_ids"]], 1)
            new = greedy_tokens(
                self._model, self._processor, {**inputs, "input_ids": ids}, max_new_tokens
            )
        tokenizer: Any = self._processor.tokenizer
        return str(tokenizer.decode(new[0], skip_special_tokens=True)).strip()

    @contextmanager
    def asking(self, question: str) -> Generator[dict[str, Any], None, None]:
        """Within, inputs for the model: the latest sound and the question, behind what is held.

        They serve one call: `model(**inputs)`, or a hooked model's `run_with_cache(inputs)`. What
        that adds to the cache is taken off at the end of the block. Within, there are no gradients.

        Yields:
            `input_ids` of the new columns alone, `attention_mask` of all, `cache`, and
            `audio` where there is sound that is not in the cache.

        Raises:
            PromptError: nothing was heard yet, or the question is empty.
            PalscopeError: the stream is closed, or another question is being asked.
        """
        with self._model.turns.block("a question to a stream"):
            cache = self._open()
            before, after = self._around(question)
            if not torch.equal(before, self._before):
                raise PromptError(
                    "the chat format puts other text before the sound for this question than for "
                    "others, but that text has been run already; use a format that does not."
                )
            if self.seconds == 0:
                raise PromptError("nothing was fed yet; feed() some sound, then ask.")
            mark, self._asking = cache.mark(), True
            try:
                # No gradients: they would keep what was asked, and copy what is held.
                with torch.no_grad():
                    latest = self._latest_sound()
                    ids = torch.cat([self._places(latest), after])[None].to(self._model.device)
                    columns = cache.get_seq_length() + ids.shape[1]
                    yield {
                        "input_ids": ids,
                        "attention_mask": ids.new_ones(1, columns),
                        "cache": cache,
                        **({} if latest is None else {"audio": latest}),
                    }
            finally:
                self._asking = False
                cache.back_to(mark)

    def close(self) -> None:
        """Let go of the keys and values. Hearing and asking are errors afterwards."""
        self._cache = self._left = self._latest = None

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- pieces -----------------------------------------------------------------------------------

    @torch.no_grad()
    def _add_window(self) -> None:
        """Run the full window's tokens, all but those of an incomplete group at its end."""
        states, _ = self._encoded(self._sound)
        whole = states.shape[1] // self._group * self._group
        if whole:
            piece = self._piece(states[:, :whole], self._seconds_of(whole))
            self._run(self._places(piece), piece)
            self._begun = True
        self._left = states[:, whole:] if whole < states.shape[1] else None

    def _latest_sound(self) -> AudioClips | None:
        """The tokens of what the cache does not hold; None when it holds all."""
        if self._latest is None and (self._filled or self._left is not None):
            if self._filled:
                states, seconds = self._encoded(self._sound[: self._filled])
            else:
                assert self._left is not None
                states, seconds = self._left, self._seconds_of(self._left.shape[1])
            self._latest = self._piece(states, seconds)
            self._latest.made_of = self._model.encoding_stamp()
        return self._latest

    def _seconds_of(self, tokens: int) -> float:
        """Seconds of so many encoder tokens, in whole steps."""
        grid = self._model.encoder.grid
        return tokens // grid.per_step * grid.equal_step

    def _encoded(
        self, samples: Float[np.ndarray, " samples"]
    ) -> tuple[Float[Tensor, "1 tokens width"], float]:
        """The encoder's states of what was left over and of `samples`, and their seconds."""
        values, frames = extract(
            self._processor.feature_extractor,
            GivenClip(Waveform(samples, self._rate, "the stream")),
        )
        features = values[None].to(self._model.device)
        lengths = torch.tensor([frames], device=features.device)
        states, _ = self._model.encoder(features, lengths)
        seconds = frames * self._hop / self._rate
        if self._left is None:
            return states, seconds
        return (
            torch.cat([self._left, states], 1),
            self._seconds_of(self._left.shape[1]) + seconds,
        )

    def _piece(self, states: Float[Tensor, "1 tokens width"], seconds: float) -> AudioClips:
        connector = self._model.connector
        tokens = states.shape[1]
        lengths = torch.tensor([tokens], device=states.device)
        streams = connector([EncoderOutput(states, lengths)])
        frames = connector.pool.tokens(tokens)
        piece = AudioClips(streams, (frames,), (seconds,), (0,), goes_on=self._begun)
        self._model.check_clips(piece, states)
        return piece

    def _places(self, piece: AudioClips | None) -> Int[Tensor, " columns"]:
        """The ids of a piece's columns."""
        columns = 0 if piece is None else self._columns(piece.frames[0])
        return torch.full((columns,), int(self._model.config.audio_token_id))

    def _columns(self, frames: int) -> int:
        return sum(stream.tokens(frames) for stream in self._model.connector.streams)

    def _run(self, ids: Int[Tensor, " columns"], piece: AudioClips | None) -> None:
        self._model(
            input_ids=ids[None].to(self._model.device),
            audio=piece,
            cache=self._cache,
            logits_to_keep=1,
        )

    # -- checks -----------------------------------------------------------------------------------

    def _around(self, question: str) -> tuple[Int[Tensor, " before"], Int[Tensor, " after"]]:
        """The ids of the prompt before and after the clip's place."""
        ids = self._processor.tokenise([self._processor.chat(question)])["input_ids"][0]
        (place,) = (ids == self._processor.audio_token_id).nonzero()[:, 0].tolist()
        return ids[:place], ids[place + 1 :]

    def _open(self) -> StreamCache:
        if self._cache is None:
            raise PalscopeError("the stream is closed; start another with audio_stream().")
        if self._asking:
            raise PalscopeError(
                "a question is being asked; leave its block before you feed or ask more."
            )
        return self._cache

    def _checked(
        self, samples: np.ndarray | Waveform, sampling_rate: int | None
    ) -> Float[np.ndarray, " samples"]:
        rate = samples.sample_rate if isinstance(samples, Waveform) else sampling_rate or self._rate
        if rate != self._rate:
            raise AudioError(
                f"the stream is given sound at {rate} Hz, but hears {self._rate} Hz. Resample the "
                "whole of it, with a resampler that knows of chunks (soxr.ResampleStream)."
            )
        native = None if isinstance(samples, Waveform) else rate
        return load_audio(samples, sample_rate=self._rate, native_rate=native).samples

    def _check_room(self, samples: int) -> None:
        longest = getattr(self._model.config.text_config, "max_position_embeddings", None)
        if longest is None:
            return
        total = self._windows * self._window + self._filled + samples
        frames = self._model.frame_tokens(-(-total // self._hop))
        columns = len(self._before) + self._columns(frames)
        if columns > longest:
            raise PromptError(
                f"{total / self._rate:.1f} s of sound would take {columns} columns, but the "
                f"decoder was made for {longest} positions; {self.seconds:.1f} s were heard so "
                "far. Start another stream, or, for positions that it was not trained on, raise "
                "model.config.text_config.max_position_embeddings."
            )


def _check_rotary(config: Any) -> None:
    """Refuse angles that a longer prompt changes for the tokens before."""
    given = cast("dict[str, Any]", getattr(config, "rope_parameters", None) or {})
    kinds = {given.get("rope_type")}
    kinds |= {each.get("rope_type") for each in given.values() if isinstance(each, dict)}
    moving = kinds & {"dynamic", "longrope"}
    if moving:
        raise PalscopeError(
            f"the decoder's rotary embedding is of type {moving.pop()!r}: its angles depend on the "
            "length of the whole prompt, so a stream cannot equal it. Give the clip at once."
        )
