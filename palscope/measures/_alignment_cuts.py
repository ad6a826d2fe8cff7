"""Whether heads that listen to a word carry it: its seconds are cut from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import continued
from palscope.audio._compose import LabelledSpan
from palscope.interventions import Address, Knockout, Sound, run_cells
from palscope.measures._alignment import ForcedWords, Head


def word_cuts(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    spoken: Sequence[LabelledSpan],
    sets: Mapping[str, Sequence[Head]],
) -> pd.DataFrame:
    """What each word's log-probability loses when heads no longer read its seconds, or another's.

    The other word is the next one, of the last the one before.

    Args:
        inputs: of one prompt about one clip; an encoded clip (`audio`) serves as well.
        spoken: two words or more and their seconds, in the order in which they are said.
        sets: heads that are cut together, by name.

    Returns:
        One row a (word, set): `word, text, heads`; `heard`, the log-probability of the word's first
        token, nothing being cut, and `likeliest`, whether it is that of all tokens; `own` and
        `other`, the change in nats when its own seconds, or the other word's, are cut from the
        heads; `own_changes` and `other_changes`, whether the likeliest token then is another.
    """
    forced = ForcedWords.behind(model, inputs, [each.label for each in spoken])
    rows: list[dict[str, Any]] = []
    for number, start in enumerate(forced.starts):
        beside = spoken[number + 1 if number + 1 < len(spoken) else number - 1]
        stretches = [Sound(each.start, each.end) for each in (spoken[number], beside)]
        cells: list[Any] = [[]]
        cells += [cuts_from(heads, where) for heads in sets.values() for where in stretches]
        before = continued(inputs, forced.ids[:start])
        logits = run_cells(model, before, cells)
        found = logits.log_softmax(-1)[:, forced.ids[start]].tolist()
        best = logits.argmax(-1).tolist()
        for place, name in enumerate(sets):
            row: dict[str, Any] = {"word": number, "text": spoken[number].label, "heads": name}
            row |= {"heard": found[0], "likeliest": best[0] == forced.ids[start]}
            for what, cell in (("own", 1 + 2 * place), ("other", 2 + 2 * place)):
                row |= {what: found[cell] - found[0], f"{what}_changes": best[cell] != best[0]}
            rows.append(row)
    return pd.DataFrame(rows)


def cuts_from(heads: Sequence[Head], where: Sound) -> list[Knockout]:
    """Cuts of a stretch from heads, one a layer."""
    layers = sorted({layer for layer, _ in heads})
    return [
        Knockout(
            Address("pattern", where, (layer,), tuple(head for at, head in heads if at == layer))
        )
        for layer in layers
    ]
