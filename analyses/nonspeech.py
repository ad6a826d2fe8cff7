r"""What does a transcriber write where nobody speaks, and what makes it stop?

    python analyses/nonspeech.py --model openai/whisper-tiny.en --audio MANIFEST.csv \
        --out runs/nonspeech

The manifest's clips of any domain but speech, silence, and white and pink noise are transcribed in
three settings: the likeliest tokens, as published, and as published but that the first token may
end the transcript. Strings of its single words (domain speech, labels are the words) are what must
not be lost. Text is then cut off from all sound: everywhere, in each layer, in all others, in each
head.

Half of the clips find two ways to stop the model before its first word: a direction, the mean of
the residual stream behind a layer over strings of words less that over other clips, at the token
that predicts the first; and a head that reads sound and is turned down there. The layer and the
head are those that stop most other clips and change fewest first words. At every dose the other
half then says how many clips words are written for, and what it does to the words of strings.

Writes transcripts.parquet, first.parquet, states.parquet, search.parquet, steered.parquet,
rates.csv, cuts.csv, doses.csv, figures (HTML, PNG, SVG, CSV) and run.json. A run that was stopped
goes on with --resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from palscope._statistics import mean_row, shown
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
from palscope.audio._compose import SAMPLE_RATE
from palscope.datasets._manifest import Corpus, DecodedOnDemand, read_manifest
from palscope.datasets._strings import spoken_strings
from palscope.evaluation._items import take_of_each
from palscope.interventions import Address, Text, capture
from palscope.interventions._apply import Intervention
from palscope.interventions._cells import with_encoded
from palscope.measures._nonspeech import (
    SETTINGS,
    along,
    cuts_of_sound,
    dropped,
    first_token,
    no_speech_probability,
    spoken_words,
    transcripts,
    without_head,
    word_error,
)
from palscope.plots import _nonspeech as plots

QUESTION = "Which words are spoken?"
SPEECH = "speech"
LEVELS_DB = (-60, -40, -20)
"""Root mean squares of the noises, in decibels below full scale."""
NOISE_S = 5.0
TOKENS = 12
"""Written at most; a string of five words takes eleven."""
DIRECTION, HEAD = "direction", "head"


@dataclass(frozen=True, kw_only=True)
class NonspeechOptions(Options):
    """Which clips are heard, and how much is changed."""

    audio: Path = option(BUNDLED, "manifest: sounds, and single words of domain speech", page=False)
    split: str | None = option(None, "of the manifest, only rows of this split", page=False)
    n: int | None = option(None, "of each other domain (default: all)", unit="clips", least=1)
    strings: int = option(120, "of spoken words, half of them held out", unit="strings", least=2)
    noises: int = option(4, "of each kind and level", unit="clips", least=0)
    doses: tuple[float, ...] = option(
        (0.0, 0.5, 1.0, 2.0, 4.0), "of the direction, and of what the head loses"
    )


@dataclass(frozen=True)
class HeardClip(AskedClip):
    """A clip of one of the two halves; `group` is what sounds, `answer` the words of a string."""

    held_out: bool = False


NonspeechWork = Work[NonspeechOptions]
NonspeechResults = Results[NonspeechOptions, HeardClip]
FoundT = TypeVar("FoundT")


# -- clips ----------------------------------------------------------------------------------------


def clips_of(options: NonspeechOptions) -> list[HeardClip]:
    """Sounds, silence, noises and strings of words; of each kind every other one is held out."""
    clips = read_manifest(options.audio)
    sounds = [c for c in clips if c.domain != SPEECH and options.split in (None, c.split)]
    if options.n is not None:
        sounds = take_of_each(sounds, options.n)
    made = [(clip.domain, clip.name, clip.path, None) for clip in sounds]
    made += [*_silence(), *_noises(options), *_strings(options)]
    seen: dict[str, int] = {}
    found: list[HeardClip] = []
    for kind, name, sound, words in made:
        seen[kind] = seen.get(kind, -1) + 1
        half = bool(seen[kind] % 2)
        found.append(HeardClip(name, kind, QUESTION, sound, words, held_out=half))
    return found


def _silence() -> Iterator[tuple[str, str, Waveform, None]]:
    """One clip: a window of silence is the same however long the clip in it."""
    samples = np.zeros(round(NOISE_S * SAMPLE_RATE), dtype=np.float32)
    yield "silence", "silence", Waveform(samples, SAMPLE_RATE, "silence"), None


def _noises(options: NonspeechOptions) -> Iterator[tuple[str, str, Waveform, None]]:
    rng = np.random.default_rng(options.seed)
    count = round(NOISE_S * SAMPLE_RATE)
    hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    for number in range(options.noises):
        for level in LEVELS_DB:
            for colour, slope in (("white", 0.0), ("pink", 0.5)):
                spectrum: Any = np.fft.rfft(rng.normal(size=count))
                spectrum[0] = 0  # no constant offset
                spectrum[1:] /= hertz[1:] ** slope
                samples = np.fft.irfft(spectrum, count)
                samples *= 10 ** (level / 20) / samples.std()
                name = f"{colour} noise {level} dB {number}"
                sound = Waveform(samples.astype(np.float32), SAMPLE_RATE, name)
                yield f"{colour} noise", name, sound, None


def _strings(options: NonspeechOptions) -> Iterator[tuple[str, str, Waveform, str]]:
    corpus = Corpus(tuple(read_manifest(options.audio)), DecodedOnDemand())
    scenes = spoken_strings(corpus, n=options.strings, seed=options.seed, split=options.split)
    for number, scene in enumerate(scenes):
        name = f"string_{number:03}"
        sound = Waveform(scene.samples, SAMPLE_RATE, name)
        yield SPEECH, name, sound, " ".join(span.label for span in scene.spans)


def encoded(work: NonspeechWork, clip: HeardClip) -> dict[str, Any]:
    """The prompt, with its clip encoded once."""
    return with_encoded(work.model, work.model.inputs(clip.question, clip.clip))


def about(clip: HeardClip) -> dict[str, Any]:
    """Columns that every table has."""
    return {"kind": clip.group, "held_out": clip.held_out}


# -- what is measured -----------------------------------------------------------------------------


def _written(said: str, clip: HeardClip) -> dict[str, Any]:
    words = spoken_words(said)
    error = word_error(words, spoken_words(clip.answer)) if clip.answer else float("nan")
    return {"text": said, "words": len(words), "error": error}


@each
def transcribed(work: NonspeechWork, clip: HeardClip) -> pd.DataFrame:
    """What is written in each of the settings, and whether the published rule drops it."""
    inputs = encoded(work, clip)
    no_speech = no_speech_probability(work.model, inputs)
    rows: list[dict[str, Any]] = []
    for settings in SETTINGS:
        (made,) = transcripts(work.model, inputs, [[]], settings, TOKENS)
        row = {"settings": settings, **about(clip), **_written(made.text, clip)}
        row |= {"logprob": made.logprob, "no_speech": no_speech}
        rows.append(row | {"dropped": dropped(no_speech, made.logprob)})
    return pd.DataFrame(rows)


@each
def first(work: NonspeechWork, clip: HeardClip) -> pd.DataFrame:
    """The first token, with text cut off from sound in every way."""
    labels, cells = cuts_of_sound(work.model)
    table = first_token(work.model, encoded(work, clip), cells)
    return pd.concat([pd.DataFrame(labels), table], axis=1).assign(**about(clip))


@each
def states(work: NonspeechWork, clip: HeardClip) -> pd.DataFrame:
    """The residual stream behind each layer, at the token that predicts the first."""
    got = capture(work.model, encoded(work, clip), Address("resid_post", Text(-1)))
    rows = [
        {"layer": layer, **about(clip), "state": value[0].float().cpu().numpy()}
        for layer, value in enumerate(got.values.values())
    ]
    return pd.DataFrame(rows)


def of_run(find: Callable[[NonspeechWork], FoundT]) -> Callable[[NonspeechWork], FoundT]:
    """What is found over a run's clips, remembered as long as the run lasts."""
    known: WeakKeyDictionary[NonspeechWork, FoundT] = WeakKeyDictionary()

    def remembered(work: NonspeechWork) -> FoundT:
        if work not in known:
            known[work] = find(work)
        return known[work]

    return remembered


def of_first_half(work: NonspeechWork, table: str) -> Any:
    """The rows of those clips by which direction, layer and head are chosen."""
    rows = work.whole(table)
    return rows[~rows["held_out"].astype(bool)]


@of_run
def directions(work: NonspeechWork) -> dict[int, Tensor]:
    """Of each layer: the mean over strings of the first half, less that over its other clips."""
    table = of_first_half(work, "states")
    found: dict[int, Tensor] = {}
    for layer, rows in table.groupby("layer"):
        speech = rows["kind"] == SPEECH
        one, other = (np.stack(rows.loc[each, "state"].tolist()) for each in (speech, ~speech))
        found[int(layer)] = torch.from_numpy(one.mean(0) - other.mean(0))
    return found


SEARCHED = ["layer", "dose", "kind", "held_out", "stops", "same"]


@each
def searched(work: NonspeechWork, clip: HeardClip) -> pd.DataFrame:
    """The first half's first tokens, with every layer's direction at every dose."""
    if clip.held_out:
        return pd.DataFrame(columns=SEARCHED)
    places = [(layer, dose) for layer in directions(work) for dose in work.options.doses if dose]
    cells = [along(directions(work)[layer], layer, dose) for layer, dose in places]
    table = first_token(work.model, encoded(work, clip), cells)
    return pd.DataFrame(places, columns=["layer", "dose"]).assign(
        **about(clip), stops=table["stops"], same=table["same"]
    )


@of_run
def chosen(work: NonspeechWork) -> tuple[int, tuple[int, int]]:
    """The direction's layer, and the head: those that part other clips from strings best."""
    layer, _ = _best(of_first_half(work, "search"), ["layer", "dose"])
    cuts = of_first_half(work, "first")
    return int(layer), _best(cuts[cuts["cut"] == "head"], ["layer", "head"])


def _best(table: Any, by: list[str]) -> Any:
    """The place with the most other clips stopped, less the strings whose first word changes."""
    speech = table["kind"] == SPEECH
    stopped = table[~speech].groupby(by)["stops"].mean()
    changed = 1 - table[speech].groupby(by)["same"].mean()
    return (stopped - changed).idxmax()


STEERED = ["by", "dose", "place", "kind", "text", "words", "error"]


@each
def steered(work: NonspeechWork, clip: HeardClip) -> pd.DataFrame:
    """What is written of the other half at each dose."""
    if not clip.held_out:
        return pd.DataFrame(columns=STEERED)
    layer, head = chosen(work)
    rows: list[dict[str, Any]] = []
    cells: list[list[Intervention]] = []
    for dose in work.options.doses:
        rows.append({"by": DIRECTION, "dose": dose, "place": f"layer {layer}"})
        cells.append(along(directions(work)[layer], layer, dose))
        rows.append({"by": HEAD, "dose": dose, "place": f"head {head[0]}.{head[1]}"})
        cells.append(without_head(work.model, *head, dose))
    made = transcripts(work.model, encoded(work, clip), cells, "may stop", TOKENS)
    told = [
        {**row, "kind": clip.group, **_written(said.text, clip)}
        for row, said in zip(rows, made, strict=True)
    ]
    return pd.DataFrame(told)


# -- over clips -----------------------------------------------------------------------------------


def _share(values: Any, name: str) -> dict[str, Any]:
    return mean_row(values.astype(float), name, limits=(0, 1))


def rates(results: NonspeechResults) -> pd.DataFrame:
    """By what sounds and settings: clips with words, and those that the rule leaves."""
    table: Any = results.rows("transcripts")
    rows: list[dict[str, Any]] = []
    for (kind, settings), mine in table.groupby(["kind", "settings"], sort=False):
        words = mine["words"] > 0
        row = {"kind": kind, "settings": settings, **_share(words, "rate")}
        left = _share(words & ~mine["dropped"], "left")
        row |= {"left": left["left"], "left_low": left["low"], "left_high": left["high"]}
        row |= {name: mine[name].median() for name in ("words", "no_speech", "logprob")}
        rows.append(row | {"error": mine["error"].mean()})
    return pd.DataFrame(rows)


def cuts(results: NonspeechResults) -> pd.DataFrame:
    """By cut, and speech or other: how often it stops, and what the first token loses."""
    table: Any = results.rows("first")
    table["sound"] = np.where(table["kind"] == SPEECH, SPEECH, "other")
    plain = table[table["cut"] == "nothing"].set_index("clip")
    table["loss"] = table["clip"].map(plain["first"]) - table["first"]
    rows: list[dict[str, Any]] = []
    for labels, mine in table.groupby(["sound", "cut", "layer", "head"], sort=False):
        row = dict(zip(("sound", "cut", "layer", "head"), labels, strict=True))
        row |= {"stops": mine["stops"].mean(), "changes": 1 - mine["same"].mean()}
        rows.append(row | mean_row(mine["loss"], "loss"))
    return pd.DataFrame(rows)


def doses(results: NonspeechResults) -> pd.DataFrame:
    """By way and dose: the other half's clips with words, and the word error of its strings."""
    table: Any = results.rows("steered")
    rows: list[dict[str, Any]] = []
    for (by, dose, place), mine in table.groupby(["by", "dose", "place"], sort=False):
        speech = mine["kind"] == SPEECH
        row: dict[str, Any] = {"by": by, "dose": float(dose), "place": place}
        rows.append(row | {"what": "rate"} | _share(mine.loc[~speech, "words"] > 0, "value"))
        rows.append(row | {"what": "error"} | mean_row(mine.loc[speech, "error"], "value"))
        lost = _share(mine.loc[speech, "words"] == 0, "value")
        rows.append(row | {"what": "lost"} | lost)
    return pd.DataFrame(rows)


def summaries(results: NonspeechResults) -> dict[str, pd.DataFrame]:
    """Rates, cuts and doses."""
    return {"rates": rates(results), "cuts": cuts(results), "doses": doses(results)}


def drawn(results: NonspeechResults) -> dict[str, Any]:
    """The rate by what sounds, heads that stop, and dose against rate and damage."""
    found = results.derived(summaries)
    held_out = sum(clip.held_out for clip in results.items)
    return {
        "rate": plots.rate_by_kind(found["rates"], caption=results.caption()),
        "heads": plots.heads_that_stop(found["cuts"], caption=results.caption()),
        "dose": plots.rate_against_dose(found["doses"], caption=results.caption(held_out)),
    }


def told(results: NonspeechResults) -> list[str]:
    """Rates in per cent; what each dose does."""
    found = results.derived(summaries)
    lines: list[str] = []
    for row in found["rates"].to_dict("records"):
        left = {"low": row["left_low"], "high": row["left_high"]}
        lines.append(
            f"{row['kind']:12} {row['settings']:10} words in {100 * row['rate']:5.1f} % "
            f"{shown(row, '.1f', 100)} of {row['n']}, not dropped {100 * row['left']:5.1f} % "
            f"{shown(left, '.1f', 100)}, median {row['words']:.0f}"
        )
    for row in found["doses"].to_dict("records"):
        lines.append(
            f"{row['by']:10} {row['place']:9} dose {row['dose']:g} {row['what']:6} "
            f"{100 * row['value']:5.1f} % {shown(row, '.1f', 100)} of {row['n']}"
        )
    return lines


ANALYSIS = Analysis(
    name="nonspeech",
    title="non-speech",
    about="Words that are written where nobody speaks: how often, in which settings, what of them "
    "the sound decides, and a direction and a head with which the model stops before its first "
    "word, with what that does to speech.",
    options=NonspeechOptions,
    items=clips_of,
    tables=[
        Table("transcripts", transcribed, ("settings", "kind", "held_out")),
        Table("first", first, ("cut", "layer", "head", "kind", "held_out")),
        Table("states", states, ("layer", "kind", "held_out")),
        Table("search", searched, ("layer", "dose", "kind", "held_out")),
        Table("steered", steered, ("by", "dose", "place", "kind")),
    ],
    summaries=summaries,
    figures=drawn,
    notes=told,
    takes=None,
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
