"""All checks of one model, in order, with one model in memory at a time."""

from __future__ import annotations

import datetime
import functools
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from palscope._hooks import HookedAudioModel, load
from palscope._models.finding import Checkpoint, CheckpointLike
from palscope._models.memory import check_fits
from palscope._models.scoring import UserTurn
from palscope._published import unread_prefixes
from palscope._published.loading import find_model
from palscope._sweeps.record import weights_hashes
from palscope._verify import checks
from palscope._verify.clicks import SHARES, clicks, in_time
from palscope._verify.hooks import HookedRun, edits_of_nothing, hooked_run, hooks_fire
from palscope._verify.plain import (
    Passes,
    Plain,
    Recorded,
    greedy,
    open_plain,
    record,
    timed,
    weights_of,
)
from palscope._verify.reading import cut_by_hand, knockout, masses
from palscope._verify.report import Report
from palscope._verify.results import Result, attempted, compared, unchecked
from palscope.audio import load_audio
from palscope.audio._bundled import bundled_clips
from palscope.audio._waveform import Waveform
from palscope.errors import AudioError

SECONDS, LEAST_SECONDS = 3.0, 0.5
"""Of the clip that passes are made with: a longer one is cut, a shorter one refused."""
QUESTION = "What do you hear?"
LONG_QUESTION = f"Say again and again: {QUESTION}"
"""Of a row that others are padded to."""

Tell = Callable[[Result], None]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Sides:
    """How the two sides of a comparison are opened, one after the other.

    Attributes:
        name: of the model.
        plain: the model without hooks, and a row as it takes it.
        hooked: the model as `palscope.load` opens it.
        found: the checkpoint; None where the model came from memory.
    """

    name: str
    plain: Callable[[UserTurn], Plain]
    hooked: Callable[[], HookedAudioModel]
    found: Checkpoint | None = None


def sides_of(
    name_or_path: CheckpointLike, device: torch.device, dtype: torch.dtype | None
) -> Sides:
    """Both sides of a checkpoint.

    Raises:
        CheckpointError: it cannot be found, or does not fit into free memory.
    """
    fits = functools.partial(check_fits, dtype=dtype, device=device, unread=unread_prefixes())
    found = find_model(name_or_path, check=fits)
    return Sides(
        found.name,
        lambda row: open_plain(found, dtype, device, row),
        lambda: load(found, device=device, dtype=dtype),
        found,
    )


def probe_clip(path: str | os.PathLike[str] | None = None) -> Waveform:
    """The clip that passes are made with: the file's first three seconds, or a bundled one's.

    Raises:
        AudioError: it cannot be read, or is too short for all classes to hear.
    """
    if path is None:
        table: Any = bundled_clips()
        path = Path(table["path"][0])
    whole = load_audio(path)
    if whole.seconds < LEAST_SECONDS:
        raise AudioError(
            f"{path} lasts {whole.seconds:.2f} s; give a clip of at least {LEAST_SECONDS} s."
        )
    samples = whole.samples[: round(SECONDS * whole.sample_rate)]
    return Waveform(samples, whole.sample_rate, whole.source)


def verify(sides: Sides, clip: Waveform, tell: Tell = lambda _: None) -> Report:
    """Check a model, line by line.

    Args:
        clip: of at most three seconds.
        tell: called with each result as it is found.
    """
    report, passes = Report(sides.name, clip), Passes()

    def found(result: Result) -> None:
        report.results.append(result)
        tell(result)

    def plain_side() -> Recorded:
        plain = sides.plain(((clip,), QUESTION))
        with passes.counting(plain.model):
            return record(plain)

    wanted = _or_failed("plain", plain_side, found)
    if wanted is None:
        return report
    _free()
    hooked = _or_failed("open", sides.hooked, found)
    if hooked is None:
        return report
    report.describe(hooked)
    with passes.counting(hooked.model), torch.no_grad():
        for name, check in CheckList(sides, hooked, wanted, clip).checks().items():
            found(attempted(name, check))
    report.passes = passes.count + len(SHARES) + 1  # of these the tower alone
    return report


def _or_failed(name: str, make: Callable[[], Made], found: Tell) -> Made | None:
    """What `make` makes; where it fails, that is found."""
    made: list[Made] = []

    def keep() -> Result:
        made.append(make())
        return Result(name, "ok", "")

    failed = attempted(name, keep)
    if not made:
        found(failed)
        return None
    return made[0]


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(eq=False)
class CheckList:
    """Every check of one model, each to be made by itself.

    Attributes:
        sides: what is compared.
        hooked: the model under hooks.
        wanted: what the model without hooks gave.
        clip: that it heard.
    """

    sides: Sides
    hooked: HookedAudioModel
    wanted: Recorded
    clip: Waveform

    def checks(self) -> dict[str, Callable[[], Result]]:
        """The checks by name, in the order of a report; to be called without gradients."""
        hooked, wanted = self.hooked, self.wanted
        return {
            "files": self._files,
            "prompt": self._prompt,
            "weights": self._weights,
            "logits": lambda: compared(
                "logits", self._logits, wanted.logits, wanted.limits, wanted.label
            ),
            "answer": self._answer,
            "click": lambda: in_time(clicks(hooked, SECONDS, self._question)),
            "hooks": self._hooks,
            "edits": lambda: edits_of_nothing(hooked, self._inputs, self._hooked_run, self._fused),
            "masses": lambda: masses(
                hooked, self._inputs, wanted.attention, wanted.attention_limit
            ),
            "knockout": self._knockout,
            "batch": self._batch,
            "cache": lambda: checks.cached(hooked, self._inputs, wanted.answer, self._loosest),
            "speed": lambda: checks.speed(self._timed[0], wanted.seconds, wanted.label),
            "memory": lambda: checks.memory(self._timed[1], wanted.peak, wanted.label),
            "CPU = GPU": self._devices,
        }

    # -- what several of them need ----------------------------------------------------------------

    @functools.cached_property
    def _inputs(self) -> dict[str, Tensor]:
        if self.wanted.ids is not None:  # a class's own template asks the clock
            self.hooked.processor.date = datetime.date.today().isoformat()
        return self.hooked.inputs(self._question, self.clip)

    @property
    def _question(self) -> str:
        """What is asked; of a class that is asked nothing, how its prompts begin."""
        processor = self.hooked.processor
        return QUESTION if processor.takes_questions else processor.any_question

    @functools.cached_property
    def _fused(self) -> Tensor:
        return self.hooked(self._inputs)

    @functools.cached_property
    def _told(self) -> Bool[Tensor, "columns"]:
        """The prompt's columns for which the other side gives logits."""
        return checks.told(self.hooked, self._inputs)[0]

    @property
    def _logits(self) -> Tensor:
        return self._fused[0, self._told].cpu()

    @functools.cached_property
    def _hooked_run(self) -> HookedRun:
        return hooked_run(self.hooked, self._inputs)

    @functools.cached_property
    def _timed(self) -> tuple[float, int | None]:
        return timed(self.hooked.model.device, lambda: self.hooked.model(**self._inputs))

    @property
    def _loosest(self) -> float:
        """How far apart logits may be in other columns than those that were shaken."""
        return float(self.wanted.limits.max())

    # -- checks -----------------------------------------------------------------------------------

    def _files(self) -> Result:
        """Which files were opened, and of which revision: told, not judged."""
        found = self.sides.found
        if found is None:
            return unchecked("files", "the model came from memory")
        folder, revision = found.folder, found.commit
        sizes = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        hashes = weights_hashes(self.hooked)
        says = (
            f"{len(sizes)} files, {sum(sizes.values()) / 1e6:,.1f} MB, "
            f"{'a folder' if revision is None else f'revision {revision}'}, "
            f"sha256 {hashes['checkpoint']['sha256'][:12]}…"
        )
        numbers = {"folder": str(folder), "revision": revision, "files": sizes, "weights": hashes}
        return Result("files", "told", says, numbers)

    def _prompt(self) -> Result:
        if self.wanted.ids is None:
            return unchecked("prompt", self.wanted.no_ids)
        got = self._inputs["input_ids"][0, self._told]
        return checks.prompt(got, self.wanted.ids, self.wanted.place)

    def _weights(self) -> Result:
        model: Any = self.hooked.model
        part = model.published if self.wanted.published else model
        return checks.weights(weights_of(part), self.wanted.weights)

    def _answer(self) -> Result:
        wanted, limit = self.wanted, float(self.wanted.limits[-1])
        (got,), _ = greedy(self.hooked.model, self._inputs, wanted.end, wanted.place)
        result = checks.answer(
            [int(token) for token in got], wanted.answer, wanted.answer_logits, limit
        )
        text = self.hooked.processor.tokenizer.decode(got, skip_special_tokens=True)
        says = f"{result.says}: {text!r}"
        return Result(result.name, result.verdict, says, {**result.numbers, "text": text})

    def _hooks(self) -> Result:
        run, told = self._hooked_run, self._told
        run = run._replace(logits=run.logits[:, told])
        return hooks_fire(run, self._fused[:, told], self.wanted.limits)

    def _knockout(self) -> Result:
        hooked, inputs, label = self.hooked, self._inputs, f"a mask for {self.wanted.label}"
        if self.wanted.deaf is not None:
            cut, text = self.wanted.deaf
        else:
            text = self._told & (hooked.layout(inputs).stream[0] < 0)
            cut, label = cut_by_hand(hooked, inputs), "scores set by hand"
        return knockout(hooked, inputs, self._fused[0], cut, text, self._loosest, label)

    def _batch(self) -> Result:
        # Both with sound: adapters are on for all of a batch, or for none.
        other = Waveform(self.clip.samples[::-1], self.clip.sample_rate, self.clip.source)
        longer, behind = LONG_QUESTION, ""
        if not self.hooked.processor.takes_questions:
            longer, behind = self._question, QUESTION
        rows = ((other,), longer), ((self.clip,), self._question)
        return checks.batched(self.hooked, *rows, self._logits, self.wanted.limits, behind)

    def _devices(self) -> Result:
        if self.hooked.model.device.type == "cpu":
            return unchecked("CPU = GPU", "it ran on the CPU: --device cuda where there is a GPU")
        return checks.devices(self.hooked, self._inputs, self._logits, self.wanted.limits)
