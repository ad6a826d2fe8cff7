"""The token layout: what stands in every column of a batch, and which columns meet in each layer.

The columns are those of `input_ids`, in which the processor has given every audio token a column
of its own, whether or not a route lets it run. Two rules follow from that, and from nothing else:

- **Positions.** A token's position id is the number of real tokens before it. Text after a clip
  continues behind the clip's tokens, so PLITS and LAL give text the same ids, and muting audio
  never moves text.
- **Visibility.** A query sees a key when the key's position is not larger than its own, both stand
  in the same row, and the key is no padding. This covers text before and after the audio, several
  clips, batches of clips of different length, and cached decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from palscope._queued import queued
from palscope._routing.columns import LayerColumns
from palscope._routing.on_host import OnHost, on_both
from palscope._routing.route import FRAMES, Level, Route, Stream
from palscope._whole import whole_number
from palscope.audio._timegrid import TimeGrid, rounded
from palscope.errors import PromptError

FILLER = -3
PADDING = -2
TEXT = -1
"""Values of `TokenLayout.stream` that are no index of a stream.

A filler fills the places of a clip behind its sound, in classes that give each clip as many, and is
neither text nor sound. Gemma 3n's are words: they run and are read as text is. Whisper's are the
encoder's tokens of silence, which belong to the clip: they take part as its frames do.
"""

_UNSTREAMED = {PADDING: "padding", TEXT: "text", FILLER: "filler"}
"""What tables call them."""


@dataclass(frozen=True)
class TokenLayout(OnHost):
    """What stands in every column of a batch.

    Attributes:
        ids: the column's id in `input_ids`.
        stream: PADDING, TEXT, FILLER, or the index in `streams`.
        clip: index of the clip among the batch's clips, -1 for text.
        token: index of the token in its stream of its clip, -1 for text; a clip's own fillers go on
            where its frames end.
        position: position id; 0 for padding.
        seconds: start and end of the sound a token stands for, from the clip's start; NaN for text.
            In double precision, and so on the CPU: not every device has that.
        clip_row: the row that each clip belongs to.
        streams: the checkpoint's streams.
    """

    ids: Int[Tensor, "batch columns"]
    stream: Int[Tensor, "batch columns"]
    clip: Int[Tensor, "batch columns"]
    token: Int[Tensor, "batch columns"]
    position: Int[Tensor, "batch columns"]
    seconds: Float64[Tensor, "batch columns 2"]
    clip_row: tuple[int, ...]
    streams: tuple[Stream, ...]

    @classmethod
    def build(
        cls,
        input_ids: Int[Tensor, "batch columns"],
        attention_mask: Int[Tensor, "batch columns"] | Bool[Tensor, "batch columns"] | None,
        *,
        audio_token_id: int,
        streams: Sequence[Stream],
        frames: Sequence[int],
        grid: TimeGrid,
        durations: Sequence[float] | None = None,
        filler_id: int | None = None,
        fillers: Sequence[int] | None = None,
    ) -> TokenLayout:
        """The layout of a batch whose clips, in reading order, have `frames` frame tokens each.

        Args:
            input_ids: with one `audio_token_id` for each audio token of every stream.
            attention_mask: 1 for real tokens, 0 for padding; all real when None.
            frames: number of frame tokens of each clip.
            grid: of the frame tokens.
            durations: seconds of each clip, where its last tokens end; needed for a grid of tokens
                of the whole clip.
            filler_id: of the word that fills a clip's places behind its sound.
            fillers: how many of those behind each clip are tokens of its own; none by default.

        Raises:
            PromptError: the number of audio places and the clips do not fit together.
        """
        streams = tuple(streams)
        shape, device, ids = input_ids.shape, input_ids.device, input_ids.cpu()
        real = (
            torch.ones(shape, dtype=torch.bool)
            if attention_mask is None
            else (attention_mask.cpu() != 0)
        )
        is_audio = (ids == audio_token_id) & real
        stream = torch.where(real, TEXT, PADDING)
        if filler_id is not None:
            stream[(ids == filler_id) & real] = FILLER
        clip = torch.full(shape, -1)
        token = torch.full(shape, -1)
        seconds = torch.full((*shape, 2), float("nan"), dtype=torch.float64)
        clip_row: list[int] = []
        for row in range(shape[0]):
            places = is_audio[row].nonzero()[:, 0]
            used = 0
            while used < len(places):
                if len(clip_row) == len(frames):
                    raise PromptError(
                        f"row {row} has {len(places)} audio tokens, but only {used} of them belong "
                        f"to a clip: the batch has {len(frames)} clip(s). Give one clip for each "
                        "audio place; the processor does this."
                    )
                which = len(clip_row)
                kinds, tokens = _clip_order(frames[which], streams)
                span = places[used : used + len(tokens)]
                if len(span) < len(tokens):
                    raise PromptError(
                        f"clip {which} needs {len(tokens)} audio tokens, but row {row} has "
                        f"{len(span)} left. Was the prompt cut, or made for another checkpoint?"
                    )
                ratio = torch.tensor([s.ratio for s in streams])[kinds]
                stream[row, span] = kinds
                clip[row, span] = which
                token[row, span] = tokens
                first = tokens * ratio // grid.per_step
                last = ((tokens + 1) * ratio - 1) // grid.per_step
                edges = grid.edges(frames[which], None if durations is None else durations[which])
                steps = torch.stack([first, last + 1], dim=1).clamp(max=len(edges) - 1)
                seconds[row, span] = torch.from_numpy(edges)[steps]
                own = 0 if fillers is None else fillers[which]
                behind = slice(int(span[-1]) + 1, int(span[-1]) + 1 + own)
                if int((stream[row, behind] == FILLER).sum()) < own:
                    raise PromptError(
                        f"clip {which} needs {own} places behind its sound, which row {row} has "
                        "not. Was the prompt cut, or made for another checkpoint?"
                    )
                clip[row, behind] = which
                token[row, behind] = frames[which] + torch.arange(own)
                clip_row.append(row)
                used += len(tokens)
        if len(clip_row) < len(frames):
            raise PromptError(
                f"{len(frames)} clip(s) were given, but the prompt has places for "
                f"{len(clip_row)}. Put one audio place in the prompt for each clip."
            )
        position = (real.long().cumsum(1) - 1).clamp(min=0)
        here = cls(ids, stream, clip, token, position, seconds, tuple(clip_row), streams)
        if device == ids.device:
            return here
        there = here._moved(lambda tensor: queued(tensor, device))
        return replace(there, ids=input_ids).known_as(here)

    @property
    def device(self) -> torch.device:
        """Where it is, but for `seconds`."""
        return self.stream.device

    def _moved(self, move: Callable[[Tensor], Tensor]) -> TokenLayout:
        """This layout with its tensors elsewhere, but for `seconds`."""
        names = ("ids", "stream", "clip", "token", "position")
        return replace(self, **{name: move(getattr(self, name)) for name in names})

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.stream.shape[1]

    @property
    def real(self) -> Bool[Tensor, "batch columns"]:
        """True where a token stands, False for padding."""
        return self.stream != PADDING

    @property
    def words(self) -> Bool[Tensor, "batch columns"]:
        """Where text stands, or a filler that runs as text does."""
        return (self.stream == TEXT) | ((self.stream == FILLER) & (self.clip < 0))

    @property
    def fillers_hear(self) -> bool:
        """Whether there are fillers that run, through which text hears a clip (Gemma 3n)."""
        here = self.on_host
        return bool(((here.stream == FILLER) & (here.clip < 0)).any())

    @property
    def word(self) -> Int[Tensor, "batch columns"]:
        """How many of a row's words stand before a column: a word's number among them."""
        words = self.stream == TEXT
        return words.long().cumsum(1) - words.long()

    @property
    def pathways(self) -> dict[str, int]:
        """What tokens are, by name: "text", "filler" where there are any, and the streams.

        Values are those of `stream`; only padding has none.
        """
        fillers = {_UNSTREAMED[FILLER]: FILLER} if bool((self.stream == FILLER).any()) else {}
        streams = {stream.name: index for index, stream in enumerate(self.streams)}
        return {_UNSTREAMED[TEXT]: TEXT, **fillers, **streams}

    def followed_by(
        self, more: TokenLayout, grid: TimeGrid, *, goes_on: bool = False
    ) -> TokenLayout:
        """This layout with the columns of `more` behind it, as decoding and streaming add them.

        Args:
            more: their own layout, without padding.
            grid: of the frame tokens.
            goes_on: the first clip of `more` is the next piece of this layout's last clip.

        Raises:
            PromptError: there is no clip to go on, or its last token is not complete.
        """
        return on_both(partial(TokenLayout._continued, grid=grid, goes_on=goes_on), self, more)

    def _continued(self, more: TokenLayout, grid: TimeGrid, goes_on: bool) -> TokenLayout:
        clip, added, token, seconds = self.clip, more.clip, more.token, more.seconds
        rows = [*self.clip_row, *more.clip_row]
        if goes_on:
            before = self._frames_before(grid)
            del rows[len(self.clip_row)]
            ratio = torch.tensor([s.ratio for s in self.streams], device=token.device)
            first = more.clip == 0
            token = torch.where(first, token + before // ratio[more.stream.clamp(min=0)], token)
            begins = grid.span(before - 1)[1]
            later = torch.from_numpy(rounded(seconds.numpy() + begins))
            seconds = torch.where(first[..., None].cpu(), later, seconds)
        base = len(rows) - len(more.clip_row)
        added = torch.where(added < 0, -1, added + base)
        if rows != sorted(rows):
            # Clips are counted row by row, so what joins a row moves the clips of the rows below.
            number = torch.tensor(rows, device=clip.device).argsort(stable=True).argsort()
            clip, added = (torch.where(c < 0, -1, number[c.clamp(min=0)]) for c in (clip, added))
        position = self.real.sum(1, keepdim=True) + more.position
        return replace(
            self,
            ids=torch.cat([self.ids, more.ids], 1),
            stream=torch.cat([self.stream, more.stream], 1),
            clip=torch.cat([clip, added], 1),
            token=torch.cat([self.token, token], 1),
            position=torch.cat([self.position, position], 1),
            seconds=torch.cat([self.seconds, seconds], 1),
            clip_row=tuple(sorted(rows)),
        )

    def _frames_before(self, grid: TimeGrid) -> int:
        """Frame tokens of the last clip of the only row, if it can go on behind them."""
        if self.stream.shape[0] != 1 or not self.clip_row:
            raise PromptError(
                f"a clip can go on in a prompt of one row that holds one; this one has "
                f"{self.stream.shape[0]} row(s) and {len(self.clip_row)} clip(s)."
            )
        here = self.on_host
        last = here.clip[0] == len(here.clip_row) - 1
        ends = {
            int(here.token[0][last & (here.stream[0] == index)].max()) * stream.ratio + stream.ratio
            for index, stream in enumerate(here.streams)
        }
        # A token over less sound than its share would have been another one, had it waited.
        short = grid.span(max(ends) - 1)[1] - float(here.seconds[0][last].max())
        if len(ends) > 1 or short > 0.05 * grid.seconds_per_step or max(ends) % grid.cycle:
            raise PromptError(
                "the clip ends within a token, which more sound would change, so it cannot go on. "
                "Add whole tokens only (AudioStream does), or start again without the cache."
            )
        return ends.pop()

    def differs_from(
        self, prompts: TokenLayout, *, interleaved: bool = False
    ) -> tuple[int, str] | None:
        """How rows differ from copies of `prompts`, one behind the other, with text behind or not.

        Rows may hold no more than the prompts' beginnings. Padding's ids do not count.

        Args:
            interleaved: all copies of the first prompt stand first, then those of the second.

        Returns:
            The first such row and what differs, as the end of a sentence; None where none does.
        """
        width = min(self.width, prompts.width)
        count, each = self.stream.shape[0], prompts.stream.shape[0]
        row = torch.arange(count)
        row = row // (count // each) if interleaved else row % each
        mine, theirs = self.on_host, prompts.on_host
        seconds = [each.nan_to_num(-1.0) for each in (mine.seconds, theirs.seconds[row])]
        stream, ids = (each[row, :width] for each in (theirs.stream, theirs.ids))
        placed = (mine.stream[:, :width] != stream).any(1)
        length = (seconds[0][:, :width] != seconds[1][:, :width]).flatten(1).any(1)
        text = ((mine.ids[:, :width] != ids) & (stream != PADDING)).any(1)
        behind = (mine.stream[:, prompts.width :] >= 0).any(1)
        for differs, what in (
            (placed, "clips or padding stand elsewhere, or clips are longer or shorter"),
            (length, "clips are longer or shorter"),
            (text, "the text is another"),
            (behind, "another clip follows"),
        ):
            if bool(differs.any()):
                return int(differs.nonzero()[0, 0]), what
        return None

    def repeated(self, times: int) -> TokenLayout:
        """This layout with every row, and the clips in it, repeated `times`."""
        return on_both(partial(TokenLayout._repeated, times=times), self)

    def _repeated(self, times: int) -> TokenLayout:
        each = {
            name: getattr(self, name).repeat_interleave(times, 0)
            for name in ("ids", "stream", "clip", "token", "position", "seconds")
        }
        # The copies of a row's clips are clips of their own, numbered in reading order.
        count = self.stream.shape[0] * times
        owned = [sum(owner == row // times for owner in self.clip_row) for row in range(count)]
        first_old = [sum(owner < row // times for owner in self.clip_row) for row in range(count)]
        shift = torch.tensor([sum(owned[:row]) - first_old[row] for row in range(count)])
        shift = queued(shift, self.clip.device)[:, None]
        each["clip"] = torch.where(each["clip"] >= 0, each["clip"] + shift, -1)
        clips = tuple(row for row in range(count) for _ in range(owned[row]))
        return replace(self, **each, clip_row=clips)

    def layer_columns(self, route: Route, layer: int) -> LayerColumns:
        """The columns that meet in `layer` under `route`."""
        here = self.on_host
        text = here.words
        keys, attending, full = (
            here._of(route.streams_at(layer, level))
            for level in (Level.KEYS, Level.ATTEND, Level.FULL)
        )
        fed = _packed(text | full)
        running = _packed(text | full | attending) if bool(attending.any()) else fed
        none, read = running[:, :0], _packed(keys)
        memory, crossed = (none, read) if route.crosses(layer) else (read, none)
        return LayerColumns(memory, running, fed, crossed).to(self.stream.device)

    def seen_in(
        self, columns: Int[Tensor, "batch n"], route: Route, layer: int
    ) -> Int[Tensor, "batch n"]:
        """`columns`, with -1 in place of those whose stream is absent in `layer`."""
        absent = self._of(route.streams_at(layer, Level.ABSENT))
        return torch.where(self._at(absent, columns), -1, columns)

    def _of(self, streams: Sequence[str]) -> Bool[Tensor, "batch columns"]:
        """Where tokens of these streams stand."""
        found = torch.zeros_like(self.stream, dtype=torch.bool)
        for name in streams:
            found |= self.stream == self.stream_index(name)
        if FRAMES.name in streams:
            found |= (self.stream == FILLER) & (self.clip >= 0)
        return found

    def stream_index(self, name: str) -> int:
        """Index in `streams` of the stream called `name`."""
        return [stream.name for stream in self.streams].index(name)

    def visible(
        self,
        queries: Int[Tensor, "batch queries"],
        keys: Int[Tensor, "batch keys"],
        *,
        window: int | None = None,
        frame_readers: str = "all",
    ) -> Bool[Tensor, "batch queries keys"]:
        """Which of `keys` each of `queries` may read; both are columns of this layout.

        Args:
            window: a sliding-window layer's width in positions.
            frame_readers: `Route.frame_readers`.

        A place without a token reads everything, so that no softmax runs over nothing; what it
        computes is never read, because no token may see it.
        """
        q_pos = self._at(self.position, queries)[:, :, None]
        k_pos = self._at(self.position, keys)[:, None, :]
        k_real = (keys >= 0) & self._at(self.real, keys)
        q_real = (queries >= 0) & self._at(self.real, queries)
        # Compared, not subtracted: differences would take eight bytes an edge, and masks are long.
        seen = (k_pos <= q_pos) & k_real[:, None, :]
        if window is not None:
            seen &= k_pos > q_pos - window
        if frame_readers == "text":
            frames = [i for i, s in enumerate(self.streams) if s.name == "frames"]
            q_stream, k_stream = self._at(self.stream, queries), self._at(self.stream, keys)
            for index in frames:
                own = (q_stream < 0) | (q_stream == index)
                seen &= own[:, :, None] | (k_stream != index)[:, None, :]
        return seen | ~q_real[:, :, None]

    def table(self, row: int, columns: Int[Tensor, "columns"] | None = None) -> pd.DataFrame:
        """One row a column: stream, clip (in its row), token, position, start and end in seconds.

        Args:
            row: row of the batch.
            columns: columns of this layout (all by default), e.g. a layer's keys; -1 is padding.

        Raises:
            PromptError: there is no such row.
        """
        row = whole_number(row, "row", least=0, error=PromptError)
        if row >= self.stream.shape[0]:
            raise PromptError(f"row {row} does not exist: the batch has {self.stream.shape[0]}.")
        chosen = torch.arange(self.width) if columns is None else columns.cpu()
        at = chosen.clamp(min=0)
        names = _UNSTREAMED | {i: s.name for i, s in enumerate(self.streams)}
        here = self.on_host
        stream = here.stream[row][at]
        stream = torch.where(chosen < 0, PADDING, stream)
        first = self.clip_row.index(row) if row in self.clip_row else 0
        clip = here.clip[row][at]
        return pd.DataFrame(
            {
                "column": chosen.numpy(),
                "stream": [names[s] for s in stream.tolist()],
                "clip": torch.where(clip >= 0, clip - first, -1).numpy(),
                "token": here.token[row][at].numpy(),
                "position": here.position[row][at].numpy(),
                "start_s": self.seconds[row, :, 0][at].numpy(),
                "end_s": self.seconds[row, :, 1][at].numpy(),
            }
        )

    def _repr_html_(self) -> str:
        from palscope._routing.display import layout_html

        return layout_html(self)

    @staticmethod
    def _at(values: Tensor, columns: Int[Tensor, "batch n"]) -> Tensor:
        return values.gather(1, columns.clamp(min=0))


def _clip_order(
    frames: int, streams: Sequence[Stream]
) -> tuple[Int[Tensor, "tokens"], Int[Tensor, "tokens"]]:
    """Stream and token of one clip's tokens in order of position (paper, Eq. 5).

    A token that pools several frames stands right behind the last of them.
    """
    tokens = [torch.arange(stream.tokens(frames)) for stream in streams]
    ends = [(t + 1).mul(s.ratio).clamp(max=frames) for t, s in zip(tokens, streams, strict=True)]
    order = torch.cat(ends).argsort(stable=True)  # of one end, in the order of the streams
    index = torch.cat([torch.full_like(t, i) for i, t in enumerate(tokens)])
    return index[order], torch.cat(tokens)[order]


def _packed(chosen: Bool[Tensor, "batch columns"]) -> Int[Tensor, "batch packed"]:
    """Column numbers of the chosen places, in order and aligned to the right; -1 fills."""
    numbers = torch.arange(chosen.shape[1], device=chosen.device).expand_as(chosen)
    ordered = torch.where(chosen, numbers, -1).sort(dim=1).values
    widest = int(chosen.sum(1).max()) if chosen.numel() else 0
    return ordered[:, chosen.shape[1] - widest :]
