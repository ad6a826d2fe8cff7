"""How good a dictionary is: what it leaves, how sparse it is, and what its latents tell apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from palscope._features.dictionary import Dictionary
from palscope._features.store import Activations
from palscope._statistics import auroc, auroc_interval, aurocs
from palscope.errors import PalscopeError

_ROWS = 4096
"""Read at once."""

Units = Callable[[Float[Tensor, "rows width"]], Float[Tensor, "rows units"]]


@torch.no_grad()
def dictionary_scores(
    dictionary: Dictionary, rows: Activations, targets: Activations | None = None
) -> dict[str, float]:
    """What a dictionary leaves unexplained of held-out rows, and how many latents it takes.

    Args:
        dictionary: trained.
        rows: what it takes, of clips that it was not trained on.
        targets: of a transcoder, what it should give.

    Returns:
        `rows`, how many there are; `fvu`, the fraction of variance unexplained about their mean;
        `fvu_standardised`, its mean over dimensions, each about its own mean and by its own
        variance; `l0`, latents that fire a row; `dead`, the share of latents that fire on none.

    Raises:
        PalscopeError: rows are of another site, width or model.
    """
    dictionary.check_rows(rows)
    targets = rows if targets is None else targets
    if targets.width != dictionary.d_out or len(targets) != len(rows):
        raise PalscopeError(
            f"{targets.hook_point} has {len(targets)} rows of {targets.width}; expected "
            f"{len(rows)} of {dictionary.d_out}."
        )
    total, square, left = (torch.zeros(targets.width, dtype=torch.float64) for _ in range(3))
    fired = torch.zeros(dictionary.d_sae, dtype=torch.long)
    for x, y in zip(rows.batches(_ROWS), targets.batches(_ROWS), strict=True):
        latents = dictionary.encode(x.float())
        y = y.double()
        left += (y - dictionary.decode(latents, x.float())).square().sum(0)
        total += y.sum(0)
        square += y.square().sum(0)
        fired += (latents > 0).sum(0)
    variance = square - total.square() / len(rows)
    varies = variance > 1e-12 * square.clamp(min=1e-30)
    return {
        "rows": float(len(rows)),
        "fvu": float(left.sum() / variance.sum()),
        "fvu_standardised": float((left / variance)[varies].mean()),
        "l0": float(fired.sum()) / len(rows),
        "dead": float((fired == 0).double().mean()),
    }


@torch.no_grad()
def live_latents(dictionary: Dictionary, rows: Activations) -> np.ndarray:
    """Which latents fire on any of the rows, a truth value each."""
    fired = torch.zeros(dictionary.d_sae, dtype=torch.bool)
    for x in rows.batches(_ROWS):
        fired |= (dictionary.encode(x.float()) > 0).any(0)
    return fired.numpy()


@torch.no_grad()
def matched_cosine(
    one: Float[Tensor, "latents width"], other: Float[Tensor, "others width"]
) -> Float[np.ndarray, " pairs"]:
    """The cosine of each of the fewer directions with its own partner among the others.

    Partners are chosen so that the cosines' sum is the largest (the Hungarian algorithm): no
    direction is the partner of two.

    Args:
        one: directions, such as the decoder's rows of the latents that fire.
        other: those to compare with, of another seed.
    """
    units = [torch.nn.functional.normalize(each.float(), dim=1) for each in (one, other)]
    cosines = (units[0] @ units[1].T).numpy()
    first, second = cast(Any, linear_sum_assignment)(cosines, maximize=True)
    return cosines[first, second]


@torch.no_grad()
def clip_maxima(
    rows: Activations, units: Units
) -> tuple[np.ndarray, Float[np.ndarray, "clips units"]]:
    """The largest that every unit is in each clip.

    Args:
        rows: of some clips.
        units: what the units of rows are: `Dictionary.encode`; the rows themselves.

    Returns:
        The clips, as rows of the store's `clips`, and the maxima.
    """
    table: Any = rows.rows
    clip: np.ndarray = table["clip"].to_numpy()
    clips, at = np.unique(clip, return_inverse=True)
    places = torch.from_numpy(at)
    found: Tensor | None = None
    for start in range(0, len(rows), _ROWS):
        values = units(rows[start : start + _ROWS].float())
        if found is None:
            found = values.new_full((len(clips), values.shape[1]), -torch.inf)
        index = places[start : start + _ROWS, None].expand_as(values)
        found.scatter_reduce_(0, index, values, "amax")
    if found is None:
        raise PalscopeError(f"there are no rows at {rows.hook_point}.")
    return clips, found.numpy()


def random_dictionary(dictionary: Dictionary, seed: int = 0) -> Dictionary:
    """One of the same sizes, bias and sparsity (`topk`) whose directions are drawn at random."""
    # Not by torch: its generator gives a training of the same seed the very same first directions.
    drawn = np.random.default_rng(seed)
    made = Dictionary(
        dictionary.d_in,
        dictionary.d_sae,
        kind="topk",
        k=dictionary.k,
        d_out=None if dictionary.centred else dictionary.d_out,
    )
    rows = drawn.standard_normal((dictionary.d_sae, dictionary.d_in), dtype=np.float32)
    across = torch.nn.functional.normalize(torch.from_numpy(rows), dim=1)
    made.W_enc.data.copy_(across.T)
    if not made.centred:
        written = drawn.standard_normal((dictionary.d_sae, dictionary.d_out), dtype=np.float32)
        across = torch.nn.functional.normalize(torch.from_numpy(written), dim=1)
    made.W_dec.data.copy_(across)
    made.b_dec.data.copy_(dictionary.b_dec.data)
    made.about = {"hook_point": dictionary.about.get("hook_point")}
    return made.eval()


def both_signs(x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows both"]:
    """Single dimensions as units: a label may lie at either of their ends."""
    return torch.cat([x, -x], 1)


def label_scores(
    train: Activations, test: Activations, units: Units, *, name: str = "features"
) -> pd.DataFrame:
    """For each label the single unit that tells it best on training clips, and its AUROC on others.

    A clip is a unit's largest value over it. A label is told from clips of its own domain alone:
    recording chains tell domains apart.

    Args:
        train: rows of the clips on which units are chosen.
        test: of clips, speakers and recordings that are not among those.
        units: what the units of rows are.
        name: of these units, in the table.

    Returns:
        `units, domain, label, unit, auroc_train, auroc, low, high, positives, n`: `auroc` of the
        held-out clips with its 95 % interval over their recordings (`group`; NaN where the label,
        or the rest of its domain, has fewer than five), how many of the clips have the label, and
        how many there are in the domain.

    Raises:
        PalscopeError: a group (speaker, recording) stands on both sides. A domain of which all
            clips are one group has none.
    """
    sides = [clip_maxima(rows, units) for rows in (train, test)]
    about: list[Any] = [
        rows.store.clips.iloc[clips] for rows, (clips, _) in zip((train, test), sides, strict=True)
    ]
    check_groups(*about)
    found: list[dict[str, Any]] = []
    for domain in dict.fromkeys(about[0]["domain"]):
        here: list[Any] = [each["domain"].to_numpy() == domain for each in about]
        labels: list[Any] = [
            each["label"].to_numpy()[mine] for each, mine in zip(about, here, strict=True)
        ]
        groups: list[str] = about[1]["group"].to_numpy()[here[1]].tolist()
        values = [maxima[mine] for (_, maxima), mine in zip(sides, here, strict=True)]
        for label in sorted(set(labels[0]) & set(labels[1])):
            chosen = aurocs(values[0], labels[0] == label)
            if np.isnan(chosen).all():
                continue
            unit = int(np.nanargmax(chosen))
            right = labels[1] == label
            of_unit = values[1][:, unit]
            interval = auroc_interval(of_unit, right, groups)
            found.append(
                {
                    "units": name,
                    "domain": domain,
                    "label": label,
                    "unit": unit,
                    "auroc_train": float(chosen[unit]),
                    "auroc": auroc(of_unit, right),
                    "low": interval.low,
                    "high": interval.high,
                    "positives": int(right.sum()),
                    "n": len(right),
                }
            )
    return pd.DataFrame(found)


def check_groups(train: Any, test: Any) -> None:
    """Raise `PalscopeError` where a group of a domain that has several is on both sides."""
    for domain in dict.fromkeys(train["domain"]):
        sides: list[set[str]] = [
            set(each.loc[each["domain"] == domain, "group"]) - {""} for each in (train, test)
        ]
        shared = sorted(sides[0] & sides[1])
        if shared and len(sides[0] | sides[1]) > 1:
            raise PalscopeError(
                f"{len(shared)} groups of {domain}, {shared[0]!r} for one, have training and test "
                "clips; split by group, so that no speaker or recording is on both sides."
            )
