r"""Which heads listen in time: attention to the seconds of each word while it is written.

    python analyses/alignment_heads.py --model openai/whisper-tiny.en --audio MANIFEST.csv \
        --out runs/heads

Strings of spoken words with known onsets are put together of a manifest's clips of single words
(domain speech, labels are the words); the model is made to write each in one form, "three, seven,
one.". A head's score is the share of what it gives to the clip, by the query that predicts a word,
that falls on the word's seconds. Half of the strings find the heads; on the other half the scores
are held against the checkpoint's own list of alignment heads, words' onsets are read from the best
heads and by openai-whisper's rule from the listed ones, and words' seconds are cut from the heads
that the two lists disagree about. `heard` and `written` are each word's log-probability, with sound
and cut off from all of it. Writes tokens.parquet and words.parquet (a row a head of each token and
word), cuts.parquet, heads.csv, measures.csv, onsets.csv, word_times.csv, cut_heads.csv, figures
(HTML, PNG, SVG, CSV) and run.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palscope._statistics import auroc, mean_row, resampled, shown
from palscope.analyses import (
    Analysis,
    AskedClip,
    Options,
    Results,
    Table,
    Work,
    each,
    main,
    option,
)
from palscope.analyses._items import BUNDLED
from palscope.audio import Waveform
from palscope.audio._compose import SAMPLE_RATE, LabelledSpan
from palscope.datasets._manifest import Corpus, DecodedOnDemand, read_manifest
from palscope.datasets._strings import spoken_strings
from palscope.errors import PalscopeError
from palscope.interventions import Sound
from palscope.interventions._cells import with_encoded
from palscope.measures import mean_band, published_heads, spoken_attention
from palscope.measures._alignment import Head, word_scores
from palscope.measures._alignment_cuts import word_cuts
from palscope.measures._word_times import risen_onsets, warped_onsets
from palscope.plots import _alignment as plots

QUESTION = "Which words are spoken?"
FIT, HELD_OUT = "finds heads", "held out"
NEAR_S = 0.1
"""An onset that is found within so many seconds is right."""
MEASURES: dict[str, tuple[Any, int]] = {
    "share": (np.mean, 1),
    "mass": (np.mean, 1),
    "distance_s": (np.median, -1),
}
"""How words' numbers become a head's score; the first is the one that is used."""
FOUND, LISTED = "rise in the best heads", "warping in the listed heads"


@dataclass(frozen=True, kw_only=True)
class AlignmentOptions(Options):
    """Which strings are made, and how many heads are listened to."""

    audio: Path = option(
        BUNDLED, "manifest of single words (CSV with columns path, domain, label, group)"
    )
    split: str | None = option(None, "of the manifest, only rows of this split")
    n: int = option(100, "half of which find the heads", unit="strings", least=2)
    heads: int = option(3, "the best, from which words' onsets are read", least=1)
    cut: int = option(20, "of those held out, whose words are cut", unit="strings", least=1)


AlignmentWork = Work[AlignmentOptions]
AlignmentResults = Results[AlignmentOptions, AskedClip]


def strings(options: AlignmentOptions) -> list[AskedClip]:
    """Strings of words; every other one is held out."""
    corpus = Corpus(tuple(read_manifest(options.audio)), DecodedOnDemand())
    scenes = spoken_strings(corpus, n=options.n, seed=options.seed, split=options.split)
    found: list[AskedClip] = []
    for number, scene in enumerate(scenes):
        words = [span.label for span in scene.spans]
        name = f"string_{number:03}_{'_'.join(words)}"
        found.append(
            AskedClip(
                name=name,
                group=HELD_OUT if number % 2 else FIT,
                question=QUESTION,
                sound=Waveform(scene.samples, SAMPLE_RATE, name),
                answer=", ".join(words) + ".",
                segments={span.label: Sound(span.start, span.end) for span in scene.spans},
            )
        )
    return found


def spoken(clip: AskedClip) -> list[LabelledSpan]:
    """Its words, in the order in which they are said."""
    return [
        LabelledSpan(word, each.start, each.end or clip.clip.seconds)
        for word, each in clip.segments.items()
    ]


@each
def attended(work: AlignmentWork, clip: AskedClip) -> pd.DataFrame:
    """Every head's attention to the clip before each token."""
    inputs = with_encoded(work.model, work.model.inputs(clip.question, clip.clip))
    return spoken_attention(work.model, inputs, spoken(clip))


@each
def scored(work: AlignmentWork, clip: AskedClip) -> pd.DataFrame:
    """Every head's score of each word."""
    table = word_scores(work.rows("tokens", clip.name))
    listed = set(published_heads(work.model))
    heads = zip(table["layer"], table["head"], strict=True)
    return table.assign(half=clip.group, listed=[each in listed for each in heads])


def cut(work: AlignmentWork, clips: Sequence[AskedClip]) -> Iterator[pd.DataFrame]:
    """What words of held-out strings lose when their seconds are cut from heads."""
    fit = [work.rows("words", clip.name) for clip in clips if clip.group == FIT]
    seen = best_heads(fit)
    listed = [each for each in published_heads(work.model) if each in seen]
    best = seen[: len(listed) or work.options.heads]
    sets = {"best": best, "listed": sorted(listed), "either": sorted({*best, *listed})}
    sets |= {f"{layer},{head}": [(layer, head)] for layer, head in sorted({*best} ^ {*listed})}
    layers = sorted({layer for layer, _ in seen})
    sets |= {f"layer {each}": [head for head in seen if head[0] == each] for each in layers}
    sets["every layer"] = seen
    parts: list[pd.DataFrame] = []
    for clip in [clip for clip in clips if clip.group == HELD_OUT][: work.options.cut]:
        inputs = with_encoded(work.model, work.model.inputs(clip.question, clip.clip))
        chosen = {name: heads for name, heads in sets.items() if heads}
        parts.append(word_cuts(work.model, inputs, spoken(clip), chosen).assign(clip=clip.name))
    yield pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# -- which heads ----------------------------------------------------------------------------------


def best_heads(tables: Sequence[pd.DataFrame]) -> list[Head]:
    """All heads that see sound, the one first that listens best to these strings' words."""
    if not tables:
        raise PalscopeError("no string that finds heads could be measured; ask for more strings.")
    means: Any = pd.concat(tables).groupby(["layer", "head"])["share"].mean()
    return [(int(at[0]), int(at[1])) for at in means.sort_values(ascending=False).index]


def halves(results: AlignmentResults) -> dict[str, list[pd.DataFrame]]:
    """The words of each half's strings."""
    found: dict[str, list[pd.DataFrame]] = {FIT: [], HELD_OUT: []}
    for clip in results.items:
        found[clip.group].append(results.of_item("words", clip.name))
    if empty := [half for half, tables in found.items() if not tables]:
        raise PalscopeError(f"no string of the half “{empty[0]}” could be measured.")
    return found


def heads(results: AlignmentResults) -> pd.DataFrame:
    """Every head's mean over strings on both halves, and whether the checkpoint lists it."""
    parts = [
        mean_band(tables, ["layer", "head"], value="share").assign(half=half)
        for half, tables in results.derived(halves).items()
    ]
    about: Any = results.rows("words").groupby(["layer", "head"])
    about = about.agg(
        listed=("listed", "first"), heard=("heard", "mean"), written=("written", "mean")
    )
    return pd.concat(parts, ignore_index=True).merge(about.reset_index(), on=["layer", "head"])


def measures(results: AlignmentResults) -> pd.DataFrame:
    """How well each measure tells listed heads from others: AUROC on both halves."""
    rows: list[dict[str, Any]] = []
    for half, tables in results.derived(halves).items():
        for name in MEASURES:
            words = [by_head(table, name) for table in tables]
            listed: Any = by_head(tables[0], "listed")[0].astype(bool)
            agrees = partial(_agreement, words, listed, name)
            interval = resampled(agrees, len(words), seed=results.options.seed)
            about = {"half": half, "measure": name, "auroc": agrees(np.arange(len(words)))}
            counts = {"strings": len(words), "words": sum(map(len, words))}
            rows.append({**about, "low": interval.low, "high": interval.high, **counts})
    return pd.DataFrame(rows)


def by_head(table: Any, name: str) -> Any:
    """A column of one string's words as `[words, heads]`, layer by layer."""
    return (
        table.pivot(index="word", columns=["layer", "head"], values=name)
        .sort_index(axis=1)
        .to_numpy()
    )


def _agreement(words: Sequence[Any], listed: Any, name: str, chosen: Any) -> float:
    middle, sign = MEASURES[name]
    return auroc(sign * middle(np.concatenate([words[number] for number in chosen]), 0), listed)


# -- when words begin -----------------------------------------------------------------------------


def onsets(results: AlignmentResults) -> pd.DataFrame:
    """The onset of every word that is held out, by each rule."""
    every = results.derived(halves)
    best = best_heads(every[FIT])[: results.options.heads]
    parts: list[pd.DataFrame] = []
    for clip in results.items:
        if clip.group != HELD_OUT:
            continue
        words: Any = results.of_item("words", clip.name)
        listed = sorted({(row.layer, row.head) for row in words[words["listed"]].itertuples()})
        table = results.of_item("tokens", clip.name)
        told = words.drop_duplicates("word")[["word", "text", "start_s", "heard", "written"]]
        for rule, read, chosen in ((FOUND, risen_onsets, best), (LISTED, warped_onsets, listed)):
            if chosen:
                found = read(*patterns_of(table, chosen))
                error = found - told["start_s"].to_numpy()
                new = {"clip": clip.name, "rule": rule, "found_s": found, "error_s": error}
                parts.append(told.assign(**new))
    return pd.concat(parts, ignore_index=True)


def patterns_of(table: Any, heads: Sequence[Head]) -> tuple[np.ndarray, list[int], float]:
    """Patterns of some heads, the places at which words begin, and a token of sound in seconds."""
    rows = table.set_index(["layer", "head"]).sort_index()
    patterns = np.stack([np.stack(list(rows.loc[[head]]["pattern"])) for head in heads])
    said = table[table["word"] >= 0].groupby("word")["token"].min()
    return patterns, said.tolist(), float(table["step_s"].iloc[0])


def word_times(results: AlignmentResults) -> pd.DataFrame:
    """Each rule's median error and share of right onsets; and the difference, on the same words."""
    table: Any = results.derived(onsets)
    wide = table.pivot(index=["clip", "word"], columns="rule", values="error_s").abs()
    strings = [rows.to_numpy() for _, rows in wide.groupby("clip")]
    rules = list(wide.columns)
    weights: dict[str, Any] = {rule: np.eye(len(rules))[at] for at, rule in enumerate(rules)}
    if len(rules) > 1:
        weights["difference"] = weights[FOUND] - weights[LISTED]
    rows: list[dict[str, Any]] = []
    for name, weight in weights.items():
        row: dict[str, Any] = {"rule": name, "strings": len(strings), "words": len(wide)}
        for what, of in (("median_s", median_error), ("within", share_near)):
            found = partial(_of_strings, strings, of, weight)
            interval = resampled(found, len(strings), seed=results.options.seed)
            row |= {what: found(np.arange(len(strings)))}
            row |= {f"{what}_low": interval.low, f"{what}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)


def median_error(errors: Any) -> Any:
    """In seconds, of each rule."""
    return np.median(errors, 0)


def share_near(errors: Any) -> Any:
    """Of onsets that are found within 0.1 s."""
    return (errors <= NEAR_S).mean(0)


def _of_strings(strings: Sequence[Any], of: Any, weight: Any, chosen: Any) -> float:
    return float(weight @ of(np.concatenate([strings[number] for number in chosen])))


def shares_within(results: AlignmentResults) -> pd.DataFrame:
    """The share of words whose onset is found within some seconds, mean over strings."""
    table: Any = results.derived(onsets)
    steps = np.arange(0, 0.42, 0.02).round(2)
    strings = [
        pd.concat(
            rows.assign(within_s=step, right=(rows["error_s"].abs() <= step).astype(float))
            for step in steps
        )
        for _, rows in table.groupby("clip")
    ]
    return mean_band(strings, ["rule", "within_s"], value="right")


# -- what a cut does ------------------------------------------------------------------------------


def cut_heads(results: AlignmentResults) -> pd.DataFrame:
    """What words lose by each cut, of their own seconds and of another word's; how many change.

    Means of strings. Only a word that is the likeliest token where nothing is cut can change.
    """
    rows: list[dict[str, Any]] = []
    table: Any = results.of_item("cuts", "all")
    for name, of_set in table.groupby("heads", sort=False):
        row: dict[str, Any] = {"heads": name, "words": len(of_set)}
        for what in ("own", "other", "own_changes", "other_changes"):
            values, limits = of_set[what].astype(float), (None, None)
            if what.endswith("changes"):  # of words that are the likeliest where nothing is cut
                values, limits = values.where(of_set["likeliest"]), (0, 1)
            told = mean_row(values.groupby(of_set["clip"]).mean(), what, limits=limits)
            row |= {what: told.pop(what)} | {f"{what}_{key}": each for key, each in told.items()}
        rows.append(
            {**row, "heard": of_set["heard"].mean(), "likeliest": of_set["likeliest"].sum()}
        )
    return pd.DataFrame(rows)


def summaries(results: AlignmentResults) -> dict[str, pd.DataFrame]:
    """Small tables beside the figures."""
    found = {
        "heads": results.derived(heads),
        "measures": results.derived(measures),
        "onsets": results.derived(onsets),
        "word_times": results.derived(word_times),
    }
    return found | ({"cut_heads": results.derived(cut_heads)} if "cuts" in results.stored else {})


def notes(results: AlignmentResults) -> list[str]:
    """What is printed."""
    agreement: Any = results.derived(measures)
    times: Any = results.derived(word_times)
    lines = [
        f"{row['half']}, {row['measure']}: AUROC {row['auroc']:.3f} {shown(row, '.3f')} over "
        f"{row['words']} words"
        for _, row in agreement.iterrows()
        if row["auroc"] == row["auroc"]
    ]
    for _, row in times.iterrows():
        median = f"{1000 * row['median_s']:.0f} ms {_ends(row, 'median_s', '.0f', 1000)}"
        near = f"{100 * row['within']:.0f} % {_ends(row, 'within', '.0f', 100)}"
        lines.append(f"{row['rule']}: median error {median}, within {NEAR_S:g} s {near}".rstrip())
    if "cuts" in results.stored:
        lines += [
            f"cut from {row['heads']}: own {row['own']:+.2f} nats {_ends(row, 'own', '+.2f')}, "
            f"another word's {row['other']:+.2f} {_ends(row, 'other', '+.2f')}".rstrip()
            for _, row in results.derived(cut_heads).iterrows()
        ]
    return lines


def _ends(row: Any, name: str, spec: str, scale: float = 1) -> str:
    return shown({end: row[f"{name}_{end}"] for end in ("low", "high")}, spec, scale)


def drawn(results: AlignmentResults) -> dict[str, Any]:
    """The map of heads over the strings held out, and the errors of onsets."""
    table: Any = results.derived(heads)
    n = sum(clip.group == HELD_OUT for clip in results.items)
    caption = results.caption(n)
    found: Any = results.derived(measures)
    row = found[(found["half"] == HELD_OUT) & (found["measure"] == "share")].iloc[0]
    told = "no list of its own to compare with"
    if row["auroc"] == row["auroc"]:
        told = f"dot: on the checkpoint's list; AUROC {row['auroc']:.2f} {shown(row, '.2f')}"
    held = table[table["half"] == HELD_OUT].drop(columns="half").reset_index(drop=True)
    return {
        "alignment": plots.alignment_map(held, told.strip(), caption=caption),
        "onset_errors": plots.onset_errors(results.derived(shares_within), caption=caption),
    }


ANALYSIS = Analysis(
    name="alignment_heads",
    title="alignment heads",
    about="Which heads give the seconds of a spoken word their attention while it is written.",
    options=AlignmentOptions,
    items=strings,
    tables=[
        Table("tokens", attended, ("token", "word", "layer", "head")),
        Table("words", scored, ("word", "layer", "head")),
    ],
    once=Table("cuts", cut, ("clip", "word", "heads")),
    summaries=summaries,
    figures=drawn,
    notes=notes,
    takes=None,
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
