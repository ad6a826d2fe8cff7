"""Caption metrics by the library `aac-metrics`: CIDEr-D, SPICE, SPIDEr and FENSE.

SPICE and the tokeniser that captions are usually cut by (Penn Treebank) are Java programs, FENSE
needs two models from the hub. What cannot be run has a reason in place of numbers.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from palscope.errors import BenchmarkError
from palscope.evaluation._nearest import require_hub_model

METRICS = {
    "cider_d": "CIDEr-D (Vedantam et al. 2015)",
    "spice": "SPICE (Anderson et al. 2016)",
    "spider": "SPIDEr (Liu et al. 2017), the mean of CIDEr-D and SPICE",
    "fense": "FENSE (Zhou et al. 2022)",
}
"""The metrics, the one that is reported first at the top."""

PTB = "words as the Penn Treebank tokeniser cuts them"
PLAIN = "words lower-cased and cut at anything else (ours: the Penn Treebank tokeniser cannot run)"

_SBERT = "sentence-transformers/paraphrase-TinyBERT-L6-v2"


@dataclass(frozen=True)
class CaptionScores:
    """Scores of captions: a number each, by metric; of the others, why there are none.

    `tokens` says how CIDEr-D and SPICE saw words.
    """

    values: dict[str, Float[ndarray, " captions"]]
    reasons: dict[str, str]
    tokens: str


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Score captions against references.

    CIDEr-D weighs words by how rare they are among the references of all clips here: the score of a
    clip depends on which others are scored with it.

    Args:
        candidates: a caption a clip.
        references: each clip's captions by people, one or several.
    """
    if importlib.util.find_spec("aac_metrics") is None:
        reason = "the library aac-metrics is not installed: pip install 'palscope[captions]'"
        return CaptionScores({}, dict.fromkeys(METRICS, reason), PLAIN)
    # The library logs each failure at length; here it becomes a reason.
    logging.getLogger("aac_metrics").setLevel(logging.CRITICAL)
    said = [" ".join(caption.split()) for caption in candidates]
    known = [[" ".join(caption.split()) for caption in each] for each in references]
    try:
        cut_said, cut_known = _treebank(said, known)
        tokens = PTB
    except Exception:  # whatever Java or the library raise, there is no such tokeniser
        cut_said, cut_known = [_plain(each) for each in said], [list(map(_plain, k)) for k in known]
        tokens = PLAIN
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name, compute, captions in (
        ("cider_d", _cider_d, (cut_said, cut_known)),
        ("spice", _spice, (cut_said, cut_known)),
        ("fense", _fense, (said, known)),
    ):
        try:
            values[name] = compute(*captions)
        except Exception as error:  # as above: a metric that cannot run is unknown, no number
            reasons[name] = " ".join(str(error).split()) or type(error).__name__
    if "cider_d" in values and "spice" in values:
        values["spider"] = (values["cider_d"] + values["spice"]) / 2
    else:
        lacking = "spice" if "spice" in reasons else "cider_d"
        reasons["spider"] = f"without {lacking}: {reasons[lacking]}"
    return CaptionScores(values, reasons, tokens)


def _treebank(said: list[str], known: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    from aac_metrics.utils.tokenization import (
        preprocess_mono_sents,
        preprocess_mult_sents,
    )

    mono: Any = preprocess_mono_sents
    mult: Any = preprocess_mult_sents
    return mono(said), mult(known)


def _plain(caption: str) -> str:
    return " ".join(re.findall(r"\w+(?:'\w+)?", caption.lower()))


def _cider_d(said: list[str], known: list[list[str]]) -> Any:
    from aac_metrics.functional.cider_d import (
        cider_d,
    )

    compute: Any = cider_d
    return compute(said, known)[1]["cider_d"].numpy()


def _spice(said: list[str], known: list[list[str]]) -> Any:
    from aac_metrics.functional.spice import (
        spice,
    )

    compute: Any = spice
    return compute(said, known)[1]["spice"].numpy()


def _fense(said: list[str], known: list[list[str]]) -> Any:
    from aac_metrics.functional.fense import (
        fense,
    )

    if not said:
        raise BenchmarkError("there is no caption to score")
    require_hub_model(_SBERT)
    compute: Any = fense
    return compute(said, known, sbert_model=_SBERT)[1]["fense"].cpu().numpy()
