from __future__ import annotations

import importlib.util
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from palscope.evaluation import _captions as captions
from palscope.evaluation._benchmarks.audiocaps import AUDIOCAPS
from palscope.evaluation._benchmarks.rules import ScoringRule, Unknown
from palscope.evaluation._captions import METRICS, caption_scores
from palscope.evaluation._rows import score
from tests.evaluation.benchmarks.samples import scored

REFERENCES = [
    ["A dog barks twice", "A dog is barking", "a small dog barks"],
    ["Rain falls on a roof", "Heavy rain is falling", "rain and wind"],
    ["A man speaks while a car passes", "A man is speaking", "a car passes by and a man talks"],
    ["A dog barks at a passing car", "dog barking near a road", "a dog and a car"],
]
SAID = ["a dog barks", "Rain falls on the roof.", "a man talks as a dog barks", "birds"]

library = pytest.mark.skipif(
    importlib.util.find_spec("aac_metrics") is None, reason="aac-metrics is an extra"
)


def grams(caption: str, n: int) -> Counter[tuple[str, ...]]:
    words = caption.split()
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def cider_d(said: list[str], known: list[list[str]]) -> list[float]:
    """CIDEr-D, written down from the paper's section 5 and its appendix on gaming."""
    out: list[float] = []
    for own, refs in zip(said, known, strict=True):
        total = 0.0
        for n in range(1, 5):
            found: Counter[tuple[str, ...]] = Counter()
            for each in known:
                found.update({gram for ref in each for gram in grams(ref, n)})

            def weighted(caption: str, n: int = n, found: Any = found) -> dict[Any, float]:
                return {
                    gram: count * (math.log(len(known)) - math.log(max(1, found[gram])))
                    for gram, count in grams(caption, n).items()
                }

            mine = weighted(own)
            for ref in refs:
                theirs = weighted(ref)
                shared = sum(min(mine[g], theirs.get(g, 0.0)) * theirs.get(g, 0.0) for g in mine)
                norms = math.sqrt(sum(v * v for v in mine.values()))
                norms *= math.sqrt(sum(v * v for v in theirs.values()))
                longer = sum(grams(own, 2).values()) - sum(grams(ref, 2).values())
                penalty = math.exp(-(longer**2) / (2 * 6.0**2))
                total += 10 * penalty * (shared / norms if norms else 0.0) / 4 / len(refs)
        out.append(total)
    return out


@library
def test_cider_agrees_with_a_second_implementation() -> None:
    scores = caption_scores(SAID, REFERENCES)
    if scores.tokens == captions.PLAIN:
        plain = [caption.lower().rstrip(".") for caption in SAID]
        known = [[caption.lower() for caption in each] for each in REFERENCES]
        assert scores.values["cider_d"] == pytest.approx(cider_d(plain, known))
    assert scores.values["cider_d"][3] == 0.0 < scores.values["cider_d"][0]


@library
def test_what_cannot_run_is_unknown_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no Java here")

    for name in ("_spice", "_fense", "_treebank"):
        monkeypatch.setattr(captions, name, broken)
    scores = caption_scores(SAID, REFERENCES)
    assert set(scores.values) == {"cider_d"} and scores.tokens == captions.PLAIN
    assert scores.reasons["spice"] == scores.reasons["fense"] == "no Java here"
    assert scores.reasons["spider"] == "without spice: no Java here"


@library
def test_spider_is_the_mean_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(captions, "_spice", lambda said, known: np.full(len(said), 0.5))
    scores = caption_scores(SAID, REFERENCES)
    assert scores.values["spider"] == pytest.approx((scores.values["cider_d"] + 0.5) / 2)


def test_without_the_library_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    scores = caption_scores(SAID, REFERENCES)
    assert scores.values == {} and set(scores.reasons) == set(METRICS)
    assert "palscope[captions]" in scores.reasons["cider_d"]


def test_clips_captions_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["audiocap_id,youtube_id,start_time,caption"]
    for clip, known in enumerate(REFERENCES):
        rows += [f'{clip}{n},id{clip},30,"{caption}"' for n, caption in enumerate(known)]
    (tmp_path / "q.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    stored = "file_name,caption_predicted\nid0.wav,a dog barks\nid1,\nid2,a man\n"
    (tmp_path / "p.csv").write_text(stored, encoding="utf-8")
    seen: list[Any] = []

    def scores(said: list[str], known: list[list[str]]) -> Any:
        seen.append((said, known))
        import numpy as np

        return captions.CaptionScores(
            {"cider_d": np.array([1.5, 0.0, 3.0])}, dict.fromkeys(METRICS, "cannot run"), "words"
        )

    monkeypatch.setattr("palscope.evaluation._benchmarks.audiocaps.caption_scores", scores)
    rules = scored(AUDIOCAPS, tmp_path / "p.csv", tmp_path / "q.csv")
    assert seen == [(["a dog barks", "", "a man"], REFERENCES[:3])]
    assert isinstance(rules["cider_d"], ScoringRule) and isinstance(rules["fense"], Unknown)
    assert score(rules["cider_d"].table(), "cider_d")["cider_d"] == pytest.approx(1.5)
    strict = score(rules["strict_cider_d"].table(), "cider_d")
    assert (strict["cider_d"], strict["n"]) == (pytest.approx(4.5 / 4), 4)
    assert rules["cider_d"].skipped == ("id3",)
