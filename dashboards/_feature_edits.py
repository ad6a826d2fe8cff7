"""Changes of a dictionary's features that a visitor makes: what each is, in words and address."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import unquote

from palscope.interventions import Address, Change, Patch, Resample, Scale, Sound, Zero

FeatureChange = Literal["zero", "like", "times"]

ERROR = "error"
"""Stands among features for what the dictionary leaves unexplained."""

_TIME = r"\d{1,5}(?:\.\d{1,6})?"
_WRITTEN = re.compile(
    rf"(zero|like|times)~(?:({_TIME})-({_TIME}))?~((?:\d{{1,7}}|error)(?:\.(?:\d{{1,7}}|error))*)"
    r"~([^~]+)~([^~]*)~(-?\d{1,4}(?:\.\d{1,4})?)?"
)


@dataclass(frozen=True)
class FeatureEdit:
    """What is done to features, and to the error, in some seconds.

    Attributes:
        kind: `zero`: they are set to 0; `like`: to what they are in other sound, encoded apart;
            `times`: multiplied.
        seconds: where; None for everywhere.
        features: their numbers.
        error: whether the error is changed too.
        dictionary: of which they are (`_dictionaries`).
        source: of `like`: `silence`, or another clip's name.
        factor: of `times`.
    """

    kind: FeatureChange
    seconds: tuple[float, float] | None
    features: tuple[int, ...]
    error: bool
    dictionary: str
    source: str = ""
    factor: float = 1.0

    @property
    def tokens(self) -> Sound | None:
        """The seconds, as an address has them."""
        return None if self.seconds is None else Sound(*self.seconds)

    @property
    def where(self) -> str:
        """The seconds, in words."""
        if self.seconds is None:
            return "everywhere"
        return f"in {self.seconds[0]:.2f}–{self.seconds[1]:.2f} s"

    @property
    def makes(self) -> str:
        """What becomes of them, in words."""
        return {
            "zero": "set to 0",
            "like": f"as in {self.source}, encoded apart",
            "times": f"times {self.factor:g}",
        }[self.kind]

    def __str__(self) -> str:
        parts = [", ".join(map(str, self.features))] if self.features else []
        parts = [f"feature{'s' * (len(self.features) > 1)} {each}" for each in parts]
        parts += ["error"] if self.error else []
        return f"{' and '.join(parts)} of {self.dictionary} {self.where}: {self.makes}"

    # -- in the address ---------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """As it stands in the address."""
        return "~".join(
            (
                self.kind,
                "" if self.seconds is None else "-".join(f"{each:g}" for each in self.seconds),
                ".".join([*map(str, self.features), *[ERROR] * self.error]),
                re.sub(r"[%~|]", lambda found: f"%{ord(found[0]):02X}", self.dictionary),
                self.source,
                f"{self.factor:g}" if self.kind == "times" else "",
            )
        )

    @classmethod
    def from_text(cls, text: str) -> FeatureEdit | None:
        """That of `text`; None where it is none."""
        match = _WRITTEN.fullmatch(text)
        if match is None:
            return None
        kind, start, end, named, dictionary, source, factor = match.groups()
        seconds = None if start is None else (float(start), float(end))
        if seconds is not None and not seconds[0] < seconds[1]:
            return None
        if (factor is None) == (kind == "times") or bool(source) != (kind == "like"):
            return None
        names = named.split(".")
        features = sorted({int(name) for name in names if name != ERROR})
        return cls(
            cast(FeatureChange, kind),
            seconds,
            tuple(features),
            ERROR in names,
            unquote(dictionary),
            source,
            float(factor or 1),
        )

    # -- in force ---------------------------------------------------------------------------------

    def change(self, inputs_about: Callable[[str], Mapping[str, Any]]) -> Change:
        """What happens to the values; `inputs_about` gives those of the question about a source."""
        if self.kind == "like":
            return Resample(inputs_about(self.source))
        return Zero() if self.kind == "zero" else Scale(self.factor)

    def patches(
        self, hook_point: str | None, inputs_about: Callable[[str], Mapping[str, Any]]
    ) -> list[Patch]:
        """Within the model, while the dictionary is spliced in at its hook point."""
        change = self.change(inputs_about)
        places = [
            *(
                [Address("feature", self.tokens, features=self.features, at=hook_point)]
                if self.features
                else []
            ),
            *([Address("feature_error", self.tokens, at=hook_point)] if self.error else []),
        ]
        return [Patch(place, change) for place in places]
