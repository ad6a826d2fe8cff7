"""Activations of a data set, written shard by shard."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

import palscope
from palscope._features.clips import ABOUT, LabelledClip, labelled
from palscope._features.estimate import Size, check_room, in_words
from palscope._features.rows import Asked, RowReader, Rows, stream_names
from palscope._features.shards import About, Shard, read_shard, write_shard
from palscope._features.store import ActivationStore
from palscope._files import make_folder
from palscope._hooks import HookedAudioModel
from palscope._sweeps import processes
from palscope._sweeps.record import encoder_hash, run_record, weights_hashes
from palscope._sweeps.store import Run, decisive
from palscope._whole import whole_number
from palscope.audio import load_audio
from palscope.datasets._manifest import Clip
from palscope.errors import PalscopeError
from palscope.interventions._address import Address

T = TypeVar("T")


def collect_activations(
    model: HookedAudioModel,
    clips: Iterable[LabelledClip | Clip],
    addresses: Sequence[Address],
    folder: str | Path,
    *,
    batch_size: int = 8,
    shard_clips: int = 64,
    resume: bool = False,
) -> ActivationStore:
    """Store what stands at `addresses` while a model hears each clip.

    All sites are read in one pass of the model, which ends behind the last of them: where all lie
    in the encoder, the decoder does not run. Only tokens inside a clip have rows. A run that was
    stopped or killed goes on with `resume=True`; at most the shard at work is lost. What the store
    will take on the disk is printed first. A clip that cannot be read or encoded, or of which the
    model makes NaN, is left out and named.

    Args:
        model: of a checkpoint, on the route that is asked about.
        clips: a manifest's (`palscope.datasets.read_manifest`), or any others; they are gone
            through once, so that they may come from a stream.
        addresses: where; without tokens those of the sound. `Address("pattern", queries=Text(-1))`
            stores what each head that reads a stream gives to its tokens, as "pattern.STREAM".
        folder: of the store.
        batch_size: clips that are heard at once. A row is what the clip alone gives, to rounding.
        shard_clips: in a file; their rows are held in memory.
        resume: go on with the store in `folder`, if there is one.

    Raises:
        PalscopeError: an address is not in the model, no clip can be used, the store does not fit
            on the disk or cannot be written; or `folder` holds another one (other weights, route,
            addresses, clips or version), which is left as it is.
    """
    folder = Path(folder)
    whole_number(batch_size, "batch_size", least=1)
    whole_number(shard_clips, "shard_clips", least=1)
    reader = RowReader(model, addresses)
    config = {
        "addresses": [repr(address) for address in reader.addresses],
        "batch_size": batch_size,
        "shard_clips": shard_clips,
        "palscope": palscope.__version__,
    }
    record = run_record(model, config=config, weights=weights_hashes(model), seed=0)
    record["encoder"] = encoder_hash(model)
    decides = json.dumps(decisive(record), sort_keys=True)
    work = _Collector(reader, folder / "shards", batch_size, decides)
    given = [*labelled(clips)] if isinstance(clips, Sized) else labelled(clips)
    if isinstance(given, list):
        work.check(given, shard_clips)
    size = Size.of(reader, work.question(next(iter(given))) if isinstance(given, list) else None)
    if processes.rank() == 0:
        print(_told(folder, size, given))
    run = Run.open(folder, record, resume=resume)
    make_folder(work.folder)
    names = [path.name for path in work.over(given, shard_clips)]
    processes.wait()
    if run.main:
        run.finish(**_facts(reader, size, names, work.folder))
    processes.wait()
    return ActivationStore(folder)


def _told(folder: Path, size: Size, clips: Iterable[LabelledClip]) -> str:
    """What the store will take, for its maker."""
    sites = ", ".join(f"{hook} ({width})" for hook, width in size.width.items())
    if isinstance(clips, Sequence):
        return f"{len(clips)} clips at {sites}: {check_room(folder, size.total(clips))}"
    a_minute = in_words(60 * size.per_second)
    return f"clips of a stream at {sites}: about {a_minute} a minute of sound"


class _Collector:
    """Goes through clips and writes their shards."""

    def __init__(self, reader: RowReader, folder: Path, batch_size: int, decides: str) -> None:
        self.reader = reader
        self.folder = folder
        self.batch_size = batch_size
        self.decides = decides

    def check(self, clips: Sequence[LabelledClip], size: int) -> None:
        """Raise `PalscopeError` where the folder's shards are of other clips, or there is none."""
        number = -1
        for number, some in enumerate(_in_turn(clips, size)):
            for path in self._numbered(number):
                self._check_same_clips(path, [clip.name for clip in some])
        self._check_end(number + 1)

    def over(self, clips: Iterable[LabelledClip], size: int) -> Iterator[Path]:
        """The files of all shards; those that other processes write, too.

        Raises `PalscopeError` where another store's shards stand in their places.
        """
        rank, world = processes.rank(), processes.world_size()
        total = len(clips) if isinstance(clips, Sequence) else None
        names: set[str] = set()
        number = -1
        with tqdm(total=total, desc="activations", unit=" clip", disable=rank > 0) as bar:
            for number, some in enumerate(_in_turn(clips, size)):
                twice = [clip.name for clip in some if clip.name in names]
                if twice or len({clip.name for clip in some}) < len(some):
                    name = (twice or [clip.name for clip in some])[0]
                    raise PalscopeError(f"two clips are called {name!r}; give each its own name.")
                names |= {clip.name for clip in some}
                path = self.folder / f"{number:05d}-{self._digest(some)}.safetensors"
                if number % world == rank:
                    self._make(path, number, some)
                bar.update(len(some))
                yield path
        self._check_end(number + 1)

    def _digest(self, clips: Sequence[LabelledClip]) -> str:
        digest = hashlib.sha256(self.decides.encode())
        for clip in clips:
            digest.update(clip.digest.encode())
        return digest.hexdigest()[:16]

    def _make(self, path: Path, number: int, clips: Sequence[LabelledClip]) -> None:
        """Write a shard where it is not there yet; one of these clips as they were goes."""
        if _is_stored(path):
            return
        old = [each for each in self._numbered(number) if each.name != path.name]
        for each in old:
            self._check_same_clips(each, [clip.name for clip in clips])
        about, rows = self._rows(clips)
        write_shard(path, about, rows)
        for each in old:
            each.unlink(missing_ok=True)

    def _numbered(self, number: int) -> list[Path]:
        return sorted(self.folder.glob(f"{number:05d}-*.safetensors"))

    def _check_same_clips(self, path: Path, names: Sequence[str]) -> None:
        try:
            stored = [clip["name"] for clip in read_shard(path).clips]
        except PalscopeError:
            return  # a torn one
        if stored != list(names):
            raise PalscopeError(
                f"{path.parent.parent} holds activations of other clips ({stored[0]} to "
                f"{stored[-1]}, where {names[0]} to {names[-1]} are asked for): go on with its own "
                "manifest, or give another folder."
            )

    def _check_end(self, count: int) -> None:
        if not count:
            raise PalscopeError("there is no clip: give at least one.")
        if more := self._numbered(count):
            raise PalscopeError(
                f"{self.folder.parent} holds activations of more clips than are asked for (shard "
                f"{more[0].name}): go on with its own manifest, or give another folder."
            )

    def _rows(
        self, clips: Sequence[LabelledClip]
    ) -> tuple[list[About], list[dict[str, Rows] | None]]:
        """What is kept of each clip, and its rows; None of one that is left out."""
        about: list[About] = [{name: getattr(clip, name) for name in ABOUT} for clip in clips]
        rows: list[dict[str, Rows] | None] = [None] * len(clips)
        asked: dict[int, Asked] = {}
        processor = self.reader.model.processor
        for number, clip in enumerate(clips):
            question = (
                clip.question if processor.takes_questions else ""
            ) or processor.any_question
            try:
                asked[number] = load_audio(clip.sound), question
                about[number]["seconds"] = asked[number][0].seconds
            except PalscopeError as error:
                _leave_out(about[number], error)
        # Clips of about one length together: less of a batch is padding.
        order = sorted(asked, key=lambda number: asked[number][0].seconds)
        for batch in _in_turn(order, self.batch_size):
            self._read(batch, asked, about, rows)
        return about, rows

    def question(self, clip: LabelledClip) -> str:
        """What is asked with a clip."""
        processor = self.reader.model.processor
        return (processor.takes_questions and clip.question) or processor.any_question

    def _read(
        self,
        batch: Sequence[int],
        asked: dict[int, Asked],
        about: list[About],
        rows: list[dict[str, Rows] | None],
    ) -> None:
        """A batch; where something is wrong with it, each clip by itself."""
        try:
            for number, found in zip(batch, self.reader([asked[n] for n in batch]), strict=True):
                rows[number] = found
        except PalscopeError as error:
            if len(batch) == 1:
                _leave_out(about[batch[0]], error)
                return
            for number in batch:
                self._read([number], asked, about, rows)


def _leave_out(about: About, error: PalscopeError) -> None:
    told = str(error) if about["name"] in str(error) else f"{about['name']}: {error}"
    about["left_out"] = told
    tqdm.write(f"left out: {told}", file=sys.stderr)


def _is_stored(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        read_shard(path)
    except PalscopeError:
        return False
    return True


def _in_turn(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many of the items at a time."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def _facts(reader: RowReader, size: Size, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """What a finished store says of itself.

    Raises `PalscopeError`, with the first reason, where every clip was left out.
    """
    shards: list[Shard] = [read_shard(folder / name) for name in names]
    clips = [clip for shard in shards for clip in shard.clips]
    left_out = {clip["name"]: clip["left_out"] for clip in clips if "left_out" in clip}
    if len(left_out) == len(clips):
        raise PalscopeError(
            f"none of {len(clips)} clips could be used; the first: {next(iter(left_out.values()))}"
        )
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)  # of processes that were killed
    return {
        "shards": list(names),
        "hook_points": size.width,
        "heads": reader.heads,
        "streams": {str(number): name for number, name in stream_names(reader.model).items()},
        "clips": len(clips),
        "left_out": left_out,
    }
