"""What every published class must do under palscope: the cases, and the plain class beside them.

A case is data. It names a tiny model (`tests/published/tiny/NAME.py`) and what its class refuses:
its own processor, or a batch, in which clips change each other.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import palscope
from palscope._models.scoring import UserTurn, prompt_batch
from palscope._verify.own import own_inputs, same_places
from tests.double import as_default, doubled

RATE = 16_000
WORDS = ("what do you hear ?", "say again and what do you hear in this sound ?", "say what ?")
"""Of the one clip, of two, of none. Tokenizers of words know these."""

Around = Callable[[Tensor], AbstractContextManager[None]]


def _as_it_is(_ids: Tensor) -> AbstractContextManager[None]:
    return nullcontext()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=round(seconds * RATE))
    return (0.1 * samples).astype(np.float32)


def _fading(seconds: float) -> np.ndarray:
    """Noise that is nearly silent from 30 s on: features have a floor below their loudest bin."""
    clip = noise(seconds, 3)
    clip[30 * RATE :] *= 1e-4
    return clip


def save_parts(processor: Any, folder: Path) -> None:
    """Tokenizer, feature extractor and chat template, as a hub folder has them."""
    processor.tokenizer.save_pretrained(folder)
    extractor = getattr(processor, "feature_extractor", None) or processor.audio_processor
    extractor.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")


def _as_they_are(_plain: Any) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """A class under test.

    Attributes:
        name: of the tiny model's module.
        seconds: of the clips: that of the first row, and the two of the second.
        long: seconds of a clip in several windows, where the class hears in windows.
        longest: seconds of the longest clip that the class hears; None where that is not stated.
        own_batches: numbers of clips in the rows of batches that its own processor takes.
        together: whether a batch of the plain class gives each row what it gives it alone; else
            the plain class runs row by row.
        counted: seconds of clips whose tokens are counted, beside those of a sweep.
        too_short: seconds of a clip that has no token.
        hits: how many of five bursts change the token that stands for their second the most; in a
            random tower a neighbour, or a token that attends there, may change more.
        phase: where in that token's seconds the middle of a burst is; random convolutions may hear
            some parts of them better than others.
        atol: of logits, in float32.
        save: puts the processor into a folder; None where it cannot be read from one.
        takes_ours: lets the plain class take palscope's `input_ids`, where they are not its own.
    """

    name: str
    seconds: tuple[float, float, float] = (4.1, 2.3, 1.3)
    long: float | None = None
    longest: float | None = None
    own_batches: tuple[tuple[int, ...], ...] = ((1, 2, 0), (0,))
    together: bool = True
    counted: tuple[float, ...] = ()
    too_short: float | None = None
    hits: int = 5
    phase: float = 0.5
    atol: float = 5e-5
    save: Callable[[Any, Path], None] | None = save_parts
    takes_ours: Callable[[Any], None] = _as_they_are


def save_voxtral(processor: Any, folder: Path) -> None:
    """Without a chat template: mistral-common lays conversations out."""
    processor.tokenizer.save_pretrained(folder)
    processor.feature_extractor.save_pretrained(folder)


GEMMA3N_PLACE, GEMMA3N_FILLING = 269, 271
"""Ids of the tiny model."""


def gemma3n_takes_ours(plain: Any) -> None:
    """The class wants all of its places, and fills those past a clip's end itself."""

    def before(_module: Any, args: Any, kwargs: Any) -> Any:
        ids = kwargs["input_ids"]
        if kwargs.get("input_features") is not None:
            kwargs = {**kwargs, "input_ids": ids.masked_fill(ids == GEMMA3N_FILLING, GEMMA3N_PLACE)}
        return args, kwargs

    plain.model.register_forward_pre_hook(before, with_kwargs=True)


def save_whole(processor: Any, folder: Path) -> None:
    processor.save_pretrained(folder)


ONE_EACH = ((1, 1), (1,), (0,))

CASES = [
    Case(
        "audio_flamingo3",
        long=32.7,
        longest=600,
        own_batches=ONE_EACH,
        counted=(0.03, 30.02),
        too_short=0.02,
        hits=4,
    ),
    # Clips of one length in a row, alone: its projector hears what pads a shorter one.
    Case(
        "fun_asr_nano",
        seconds=(4.1, 2.3, 2.3),
        longest=122.88,
        own_batches=ONE_EACH,
        together=False,
        counted=(0.025, 0.084, 0.085, 0.095),
        too_short=0.024,
        hits=4,
    ),
    # Clips of one length in a row: a longer one beside it changes a clip's last token.
    Case(
        "gemma3n",
        seconds=(4.1, 2.3, 2.3),
        longest=30,
        own_batches=((1,), (0,)),
        together=False,
        counted=(0.033, 1.3, 29.99, 30.0),
        too_short=0.032,
        atol=1e-3,
        save=save_whole,
        takes_ours=gemma3n_takes_ours,
        phase=0.4,  # a token hears the first 92 ms of its 160
    ),
    Case(
        "glm_asr",
        long=32.7,
        longest=630,
        own_batches=ONE_EACH,
        counted=(0.07, 30.05),
        too_short=0.06,
    ),
    Case(
        "moss_transcribe_diarize",
        long=32.7,
        counted=(0.01, 0.09, 1.99, 2.0, 29.99, 30.01),
        hits=4,
    ),
    # Its own processor and class fail on a clip that ends up to 20 ms behind a window.
    Case(
        "music_flamingo",
        long=32.7,
        longest=1200,
        own_batches=ONE_EACH,
        counted=(0.03, 30.03),
        too_short=0.02,
        hits=4,
    ),
    Case("qwen2_audio", longest=30, counted=(0.03, 29.99, 30.0), too_short=0.02),
    Case(
        "voxtral",
        long=32.7,
        counted=(0.01, 30.01),
        hits=4,
        phase=0.4,
        save=save_voxtral,
    ),
    # In a batch of theirs clips of one length alone are heard as they are alone.
    Case(
        "granite_speech",
        seconds=(3.7,) * 3,
        counted=(0.29, 0.3, 0.31),
        too_short=0.016,
        atol=2e-4,  # the conformer rounds otherwise for three clips than for one
    ),
    Case(
        "granite_speech_plus",
        seconds=(3.7,) * 3,
        counted=(0.29, 0.3, 0.31),
        too_short=0.016,
        atol=2e-4,
    ),
    Case(
        "phi4_multimodal",
        seconds=(3.7,) * 3,
        counted=(0.105, 40.0, 40.1),
        too_short=0.02,
        hits=4,
        atol=2e-4,  # logits of 3, give or take, where others' are of 1
    ),
    Case("qwen2_5_omni", longest=300, counted=(0.03, 0.055, 29.99, 60.01), too_short=0.02),
    # Half a second at least. In a batch of theirs a shorter clip ends in another sample's zeros.
    Case("qwen3_asr", own_batches=ONE_EACH, counted=(0.01, 0.5, 0.509, 0.995, 60.01)),
    Case("qwen3_omni", counted=(0.015, 0.08, 0.085, 0.995, 60.01), too_short=0.012),
]


class Opened:
    """A tiny model opened by palscope, and the plain class with the same weights.

    `rows`: one clip, two clips, none, and, where the case has one, a long clip; `batch`: the first
    three as palscope takes them, padded on the left.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.tiny: Any = importlib.import_module(f"tests.published.tiny.{case.name}")
        self.plain: Any = doubled(self.tiny.model)
        case.takes_ours(self.plain)
        self.own_processor: Any = self.tiny.processor()
        self.hooked: Any = palscope.load(doubled(self.tiny.model), processor=self.tiny.processor())
        self.family: Any = self.hooked.model.family
        first, *others = (noise(s, seed) for seed, s in enumerate(case.seconds))
        lasting = [] if case.long is None else [_fading(case.long)]
        self.rows: list[UserTurn] = [([first], WORDS[0]), (others, WORDS[1]), ([], WORDS[2])]
        self.rows += [([clip], WORDS[0]) for clip in lasting]
        self.batch = self.asked()

    @functools.cache  # noqa: B019 (lives as long as a module's tests)
    def asked(self, *rows: int) -> dict[str, Tensor]:
        """Rows by number, by default the first three, as palscope takes them."""
        asked = [self.rows[row] for row in rows or (0, 1, 2)]
        return prompt_batch(self.hooked.processor, asked)

    def own(self, rows: Sequence[UserTurn]) -> dict[str, Tensor]:
        """Rows through the class's own processor; places without sound as words."""
        made = own_inputs(self.own_processor, self.family, rows)
        clips = sum(len(heard) for heard, _ in rows)
        return {**made, "input_ids": same_places(made["input_ids"], made, self.family, clips)}

    @functools.cached_property
    @torch.no_grad()
    def logits(self) -> Tensor:
        """The hooked model's, of `batch`, with nobody listening."""
        return self.hooked(self.batch)

    @functools.cached_property
    def wanted(self) -> Tensor:
        """The plain class's, of the same columns."""
        return self.plain_logits()

    @property
    def layers(self) -> Any:
        """The plain class's decoder layers."""
        return self.plain.get_submodule(self.family.decoder_path).layers

    def is_text_of(self, batch: dict[str, Tensor]) -> Tensor:
        """`[batch, columns]`; neither padding nor sound."""
        is_sound = batch["input_ids"] == self.family.audio_token_id
        return batch["attention_mask"].bool() & ~is_sound

    def clips(self, samples: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """The features of clips by the class's own processor, each clip alone in a prompt."""
        each = [self._features(clip.tobytes()) for clip in samples]
        return {name: _joined([one[name] for one in each]) for name in (each[0] if each else ())}

    @functools.cache  # noqa: B019 (lives as long as a module's tests)
    def _features(self, samples: bytes) -> dict[str, Tensor]:
        clip = np.frombuffer(samples, dtype=np.float32).copy()
        made = self.own([([clip], WORDS[0])])
        text = ("input_ids", "attention_mask", "token_type_ids")
        return as_default({name: value for name, value in made.items() if name not in text})

    def given(self, *rows: int) -> Generator[tuple[slice, dict[str, Tensor]], None, None]:
        """What the plain class is called with for rows: which of them, and their tensors."""
        batch = self.asked(*rows)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        asked = [self.rows[row] for row in rows or (0, 1, 2)]
        at_once = len(asked) if self.case.together else 1
        for part in (slice(i, i + at_once) for i in range(0, len(asked), at_once)):
            heard = self.clips([clip for clips, _ in asked[part] for clip in clips])
            first = int(mask[part].argmax(1).min())  # a row alone has no padding
            words = {"input_ids": ids[part, first:], "attention_mask": mask[part, first:]}
            count = words["attention_mask"].cumsum(1)
            words["position_ids"] = (count - 1).clamp(min=0)
            yield part, {**words, **heard}

    @torch.no_grad()
    def plain_logits(self, *rows: int, around: Around = _as_it_is, deaf: bool = False) -> Tensor:
        """The plain class's logits of rows, in the columns of `asked`.

        Args:
            around: makes of the class's `input_ids` what it runs within.
            deaf: whether nothing may read the audio's tokens.
        """
        found: list[Tensor] = []
        for _, given in self.given(*rows):
            sound = given["input_ids"] == self.family.audio_token_id
            if deaf:
                given["attention_mask"] = given["attention_mask"] * ~sound
            with around(given["input_ids"]):
                found.append(self.plain(**given).logits)
        width = self.asked(*rows)["input_ids"].shape[1]
        padded = [torch.nn.functional.pad(x, (0, 0, width - x.shape[1], 0)) for x in found]
        return torch.cat(padded)

    @contextmanager
    def frozen(self, layer: int, ids: Tensor) -> Generator[None, None, None]:
        """Within, the plain class's audio tokens leave `layer` and those above as they came."""
        sound = ids == self.family.audio_token_id
        kept: list[Tensor] = []

        def keep(_module: Any, args: Any, kwargs: Any) -> None:
            kept.append((args[0] if args else kwargs["hidden_states"]).clone())

        def restore(_module: Any, _args: Any, out: Any) -> Any:
            states = (out[0] if isinstance(out, tuple) else out).clone()
            states[..., sound, :] = kept[0][..., sound, :]
            return (states, *out[1:]) if isinstance(out, tuple) else states

        handles = [self.layers[layer].register_forward_pre_hook(keep, with_kwargs=True)]
        handles += [each.register_forward_hook(restore) for each in self.layers[layer:]]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def entering(self, layer: int, edit: Callable[[Tensor], Tensor]) -> Any:
        """Within, what enters the plain class's `layer` is edited."""

        def before(_module: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        handle = self.layers[layer].register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """One behind the other, zeros behind those that are shorter in another dimension."""
    size = [max(part.shape[i] for part in parts) for i in range(1, parts[0].ndim)]
    out = parts[0].new_zeros(sum(len(part) for part in parts), *size)
    row = 0
    for part in parts:
        out[(slice(row, row + len(part)), *(slice(n) for n in part.shape[1:]))] = part
        row += len(part)
    return out
