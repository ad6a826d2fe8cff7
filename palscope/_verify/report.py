"""A report of checks: text for people, plain data for files."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from palscope._hooks import HookedAudioModel
from palscope._sweeps.record import command_record
from palscope._verify.results import Result
from palscope.audio._waveform import Waveform


class Report:
    """What was found of one model.

    Attributes:
        results: of the checks, in order.
        passes: forward passes that they took.
    """

    def __init__(self, name: str, clip: Waveform) -> None:
        self.name = name
        self.results: list[Result] = []
        self.passes = 0
        self._clip = clip
        self._ran: dict[str, Any] = {}

    def describe(self, hooked: HookedAudioModel) -> None:
        """Keep what the model ran as."""
        model = hooked.model
        device = model.device
        cpu = torch.backends.cpu.get_cpu_capability()
        named = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
        self._ran = {
            "class": type(getattr(model, "published", model)).__name__,
            "device": f"{device} ({named})",
            "dtype": str(model.dtype).removeprefix("torch."),
            "route": hooked.current_route.to_dict(),
        }

    @property
    def failed(self) -> list[Result]:
        """The checks that failed."""
        return [each for each in self.results if each.verdict == "FAILED"]

    @property
    def unchecked(self) -> list[Result]:
        """What was not checked, and why."""
        return [each for each in self.results if each.verdict == "not checked"]

    @property
    def exit_code(self) -> int:
        """0 where no check failed."""
        return 1 if self.failed else 0

    def ending(self) -> str:
        """The last lines of the text: how many checks held, and what was not checked."""
        verdicts = [each.verdict for each in self.results]
        counts = ", ".join(
            f"{verdicts.count(verdict)} {verdict}" for verdict in ("ok", "FAILED", "not checked")
        )
        ran = {k: v for k, v in self._ran.items() if k != "route"}
        lines = [
            f"{counts}; {self.passes} forward passes",
            *map(line, self.unchecked),
            ", ".join(
                [*ran.values(), f"{self._clip.seconds:.2f} s of {Path(self._clip.source).name}"]
            ),
            ", ".join(f"{name} {version}" for name, version in _versions().items()),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "model": self.name,
            **self._ran,
            "clip": {"source": self._clip.source, "seconds": self._clip.seconds},
            "passes": self.passes,
            "failed": [each.name for each in self.failed],
            "not_checked": {each.name: each.says for each in self.unchecked},
            "checks": [
                {"name": r.name, "verdict": r.verdict, "says": r.says, "numbers": dict(r.numbers)}
                for r in self.results
            ],
            "versions": _versions(),
            "platform": platform.platform(),
        }


def line(result: Result) -> str:
    """One line of the text."""
    return f"{result.verdict:<11}  {result.name:<9}  {result.says}"


def _versions() -> dict[str, Any]:
    return command_record({})["versions"]
