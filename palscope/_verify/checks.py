"""What a hooked model gives, held against what the model gives without hooks, and against itself.

Each check is a function of what it compares, and says what it found with the numbers. The contract
suite of the published classes (`tests/published/test_contract.py`) calls the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._models.cache_names import cache_of
from palscope._models.families import family_of
from palscope._models.scoring import UserTurn, continued
from palscope._models.stamps import Stamp
from palscope._routing.layout import TEXT
from palscope._verify.results import Result, compared, judged, unchecked
from palscope._verify.tolerance import apart

Inputs = Mapping[str, Tensor]


def prompt(
    got: Int[Tensor, "*its_rows its_columns"], wanted: Int[Tensor, "*rows columns"], place: int
) -> Result:
    """Whether a prompt's ids are those of the class's own processor.

    Args:
        place: id of an audio token.
    """
    got, wanted = got.cpu(), wanted.cpu()
    sound = int((wanted == place).sum())
    numbers = {"columns": wanted.numel(), "audio_tokens": sound}
    if got.shape != wanted.shape:
        says = (
            f"{list(got.shape)} ids, {int((got == place).sum())} of sound; its own processor makes "
            f"{list(wanted.shape)}, {sound} of sound"
        )
        return judged("prompt", False, says, **numbers)
    if (other := (got != wanted).flatten().nonzero()[:, 0]).numel():
        at = int(other[0])
        says = (
            f"{len(other)} of {wanted.numel()} ids differ from its own processor's, first column "
            f"{at}: {int(got.flatten()[at])}, not {int(wanted.flatten()[at])}"
        )
        return judged("prompt", False, says, **numbers)
    says = f"{wanted.numel()} ids as of its own processor, {sound} of them sound"
    return judged("prompt", True, says, **numbers)


def weights(got: Mapping[str, Stamp], wanted: Mapping[str, Stamp]) -> Result:
    """Whether each weight under hooks is the one that was loaded without: type, shape, bits."""
    other = [name for name in wanted if got.get(name) != wanted[name]]
    kinds = sorted({str(stamp[0]).removeprefix("torch.") for stamp in wanted.values()})
    numbers = sum(torch.Size(stamp[1]).numel() for stamp in wanted.values())
    if other:
        first = other[0]
        its = got[first][:2] if first in got else "missing"
        says = f"{len(other)} of {len(wanted)} tensors differ, first {first}: {its}"
        return judged("weights", False, f"{says}, not {wanted[first][:2]}", tensors=len(wanted))
    says = f"{len(wanted)} tensors equal bit for bit, {numbers:,} numbers in {', '.join(kinds)}"
    return judged("weights", True, says, tensors=len(wanted), numbers=numbers, dtypes=kinds)


def answer(
    got: Sequence[int],
    wanted: Sequence[int],
    logits: Float[Tensor, "tokens vocabulary"],
    limit: float,
) -> Result:
    """Whether a greedy answer is the one without hooks, up to ties that rounding decides.

    Args:
        logits: that the wanted tokens were chosen by.
        limit: how far apart logits may be, as a share of their spread.
    """
    got, wanted = list(got), list(wanted)
    if got == wanted:
        return judged("answer", True, f"{len(wanted)} greedy tokens equal", tokens=wanted)
    pairs = zip(got, wanted, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got), len(wanted)))
    numbers = {"tokens": wanted, "got": got, "parts_at": at}
    if at >= len(got) or at >= len(wanted):
        return judged("answer", False, f"{len(got)} tokens, not {len(wanted)}", **numbers)
    row = logits[at].double()
    gap = float((row[wanted[at]] - row[got[at]]) / (row - row.mean()).square().mean().sqrt())
    # Each of the two logits may be off by the limit.
    says = f"token {at + 1} of {len(wanted)} is {got[at]}, not {wanted[at]}"
    if 0 <= gap <= 2 * limit:
        return judged("answer", True, f"{says}: a tie but for rounding", gap=gap, **numbers)
    return judged("answer", False, f"{says}, by {gap:.2g} of the logits' spread", **numbers)


def told(hooked: HookedAudioModel, inputs: Mapping[str, Tensor]) -> Bool[Tensor, "rows columns"]:
    """The columns for which the class gives logits: of an encoder–decoder those of words."""
    layout = hooked.layout(inputs)
    crosses = family_of(hooked.model.text_config).crossing is not None
    return layout.stream == TEXT if crosses else layout.real


def side_by_side(
    hooked: HookedAudioModel, longer: UserTurn, row: UserTurn, behind: str
) -> dict[str, Tensor]:
    """A batch of two rows, the first with words behind its prompt."""
    processor = hooked.processor
    first, second = (processor.chat(asked, len(clips)) for clips, asked in (longer, row))
    clips: list[Any] = [*longer[0], *row[0]]
    made: Any = processor([first + behind, second], clips, sampling_rate=processor.sample_rate)
    return {name: value.to(hooked.model.device) for name, value in made.items()}


@torch.no_grad()
def batched(
    hooked: HookedAudioModel,
    longer: UserTurn,
    row: UserTurn,
    alone: Float[Tensor, "columns vocabulary"],
    limits: Float[Tensor, "columns"] | float,
    behind: str = "",
) -> Result:
    """Whether a row behind a longer one, and so padded, gives what it gives alone.

    Args:
        longer: clips and question that stand before it.
        alone: the row's logits.
        limits: how far apart logits may be; one, or one a column.
        behind: words behind the longer one, where a prompt has no question.
    """
    together = side_by_side(hooked, longer, row, behind)
    got = hooked(together)[1][told(hooked, together)[1]]
    padding = int((together["attention_mask"][1] == 0).sum())
    if not padding:
        return judged("batch", False, "the row is not padded beside a longer question")
    found = compared("batch", got, alone, limits, "the same prompt alone")
    says = f"padded by {padding}, behind another: {found.says}"
    return Result("batch", found.verdict, says, {**found.numbers, "padding": padding})


@torch.no_grad()
def cached(hooked: HookedAudioModel, inputs: Inputs, tokens: Sequence[int], limit: float) -> Result:
    """Whether words behind a prompt, from its cache on, give what the whole gives anew.

    Args:
        inputs: one row.
        tokens: the words' ids.
        limit: how far apart logits may be, as a share of their spread.
    """
    model = hooked.model
    whole = hooked(continued(inputs, tokens))[0, -len(tokens) - 1 :]
    first = model(**inputs, use_cache=True, logits_to_keep=1)
    ids = torch.tensor([list(tokens)], device=model.device)
    rest = model(input_ids=ids, cache=cache_of(first)).logits
    got = torch.cat([first.logits, rest], 1)[0]
    return compared("cache", got, whole, limit, f"{len(tokens)} words computed anew")


@torch.no_grad()
def devices(
    hooked: HookedAudioModel,
    inputs: Inputs,
    wanted: Float[Tensor, "columns vocabulary"],
    limits: Float[Tensor, "columns"] | float,
) -> Result:
    """Whether the CPU gives what the accelerator gave; the model stays on the CPU."""
    cast(Any, hooked.model).to("cpu")
    inputs = {name: value.cpu() for name, value in inputs.items()}
    got = hooked(inputs)[0, told(hooked, inputs)[0]]
    return compared("CPU = GPU", got, wanted, limits, "the GPU's")


def speed(seconds: float, plain: float, beside: str) -> Result:
    """Seconds of a pass beside those without hooks: told, not judged."""
    says = f"{1000 * seconds:.0f} ms a pass, ×{seconds / plain:.2f} that of {beside}"
    return Result("speed", "told", says, {"seconds": seconds, "plain_seconds": plain})


def memory(most: int | None, plain: int | None, beside: str) -> Result:
    """Bytes of a GPU that a pass takes beside those without hooks: told, not judged."""
    if most is None or plain is None:
        return unchecked("memory", "of a pass is known on a GPU alone")
    says = f"{most / 2**20:.0f} MiB a pass beside the weights, {plain / 2**20:.0f} MiB of {beside}"
    return Result("memory", "told", says, {"peak": most, "plain_peak": plain})


def differs(
    got: Float[Tensor, "columns vocabulary"],
    wanted: Float[Tensor, "columns vocabulary"],
    limits: Float[Tensor, "columns"] | float,
) -> float:
    """How many times what rounding allows two runs are apart, at the column that tells most."""
    return float((apart(got, wanted) / torch.as_tensor(limits).cpu()).max())
