"""Cut text off from sound in a sliding window of layers: which layers does the answer need?

    python analyses/attention_knockout.py --model demo/pal --out runs/knockout
    python analyses/attention_knockout.py --model demo/pal --audio MANIFEST.csv \
        --split validation --n 20 --out runs/knockout
    python analyses/attention_knockout.py --model demo/pal --audio CLIP.wav --question QUESTION \
        --answer seven --other one --seconds 0.68 1.21 --layers 23 --out runs/cut
    python analyses/attention_knockout.py --model demo/pal --audio MANIFEST.csv \
        --split validation --kind first_digit last_digit --n 20 --out runs/segments

By default the package's 20 pairs are asked about (of which the clean clips are heard), with --audio
clips of one's own, and with --kind pairs of such clips, whose stretches of time have names (first
digit, silence, …). Those, or equal ones of --step seconds, are also cut by themselves.

With --seconds START END one stretch is cut instead, in --streams, --layers and --heads, and as
controls every other stretch of its length that shares no token with it.

Edges from all text (--queries text), from the token alone that predicts the answer (last), or from
the answer's own tokens (generated) are cut, to each stream and to all. As controls, text is cut off
from as many random text tokens, and sound from sound where it runs. Log-probability and the like
are those of the answer's deciding token: the first that differs from the other answer (a pair's
other one, else the likeliest wrong choice). Clips that the model gets wrong are left out of the
figures.

Writes knockout.parquet (a row a cut and window), effects.csv, figures (HTML, PNG, SVG, their
numbers as CSV) and run.json. A run that was stopped goes on with --resume.

A window without effect does not mean that the sound is not read there: what text read below the
window it carries on, and what is left of attention sums to 1 again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope.analyses import (
    Analysis,
    AskedClip,
    ClipOptions,
    Results,
    Table,
    Work,
    chosen_clips,
    each,
    main,
    option,
)
from palscope.analyses._options import GIVEN, LEFT_OUT, OptionError
from palscope.analyses._passes import ROW, share_run
from palscope.errors import PalscopeError
from palscope.interventions import Sound
from palscope.interventions._cells import with_encoded
from palscope.measures._choices import choice_logprobs
from palscope.measures._knockout import (
    ALL_AUDIO,
    EFFECTS,
    READERS,
    Edges,
    attention_knockout,
    audio_to_audio,
    cuts_of_text,
    generated_knockout,
    has_other_text,
    knockout_effects,
    sliding_windows,
    text_to_audio,
    text_to_text,
    through_fillers,
)
from palscope.measures._metrics import Answers
from palscope.measures._stretches import stretches_beside
from palscope.plots import _knockout as knockout

WINDOW = ["first_layer", "last_layer"]
DEPTH = ["group", "queries", "pathway", *WINDOW]
COLUMNS = [
    *("run", "queries", "pathway", "segment", "start_s", "end_s", "first_layer", "last_layer"),
    *("layers", "keys", "logit_diff", "logprob", "kl", "rank"),
    *("logit_diff_change", "logprob_change", "flipped"),
]
DRAWN = ("logprob_change", "flipped")
ONE_CUT = {"seconds": GIVEN}
SLIDING = {"seconds": LEFT_OUT}
SELECTED = "selected"
"""Names the stretch of `--seconds` among the others."""


@dataclass(frozen=True, kw_only=True)
class KnockoutOptions(ClipOptions):
    """Who is cut off, and in which layers."""

    pairs_by_default: ClassVar[bool] = True

    queries: tuple[Literal["text", "last", "generated"], ...] = option(
        ("text", "last"), "who is cut off"
    )
    width: int = option(6, "in a window", unit="layers", least=1, only_with=SLIDING)
    stride: int = option(3, "between windows", unit="layers", least=1, only_with=SLIDING)
    step: float | None = option(
        None,
        "also cut equal stretches of so long, where a clip's have no names",
        unit="s",
        only_with=SLIDING,
    )
    seconds: tuple[float, ...] = option(
        (), "cut one stretch, START END, beside others of its length", unit="s", page=False
    )
    streams: tuple[str, ...] = option(
        (), "in which the stretch is cut; by default all", only_with=ONE_CUT, page=False
    )
    layers: tuple[int, ...] = option(
        (), "in which the stretch is cut; by default all", least=0, only_with=ONE_CUT, page=False
    )
    heads: tuple[int, ...] = option(
        (), "in which the stretch is cut; by default all", least=0, only_with=ONE_CUT, page=False
    )
    answer: str | None = option(
        None, "whose lead is measured, in place of the clips' own answers", page=False
    )
    other: str | None = option(
        None, "the answer that it leads over, in place of the likeliest wrong choice", page=False
    )


KnockoutResults = Results[KnockoutOptions, AskedClip]


@each
def cut(work: Work[KnockoutOptions], clip: AskedClip) -> pd.DataFrame:
    """All cuts of one clip."""
    if clip.answer is None:
        raise PalscopeError(f"{clip.name} has no answer; give a manifest with labels, or pairs.")
    model, options = work.model, work.options
    layers = model.current_route.n_layers
    inputs = with_encoded(model, model.inputs(clip.question, clip.clip))
    other = clip.other or runner_up(model, inputs, clip)
    answers = Answers.of(model.processor, clip.answer, other)
    if options.seconds:
        windows: list[Any] = [options.layers or range(layers)]
        edges = one_cut(work, clip, inputs)
    else:
        windows = [*windows_of(work)]
        edges = edges_of(work, clip, inputs, answers)
    table = attention_knockout(model, inputs, edges, windows, answers=answers)
    if "generated" in options.queries:
        made: Any = generated_knockout(model, inputs, windows, answer=clip.answer)
        table = pd.concat([table, made[made["run"] == "cut"]], ignore_index=True)
    # The same columns for every clip, whether its stretches have names or not.
    table = table.reindex(columns=COLUMNS).astype({"segment": "string"})
    solved = table["rank"].iloc[0] == 0
    about = {"group": clip.group, "answer": clip.answer, "other": other, "solved": solved}
    for place, (name, value) in enumerate(about.items()):
        table.insert(place, name, value)
    return table


def passes(work: Work[KnockoutOptions], clip: AskedClip) -> float:
    """Every edge in every window, as far up as its rows run."""
    model, n_layers = work.model, work.route.n_layers
    inputs = model.inputs(clip.question, clip.clip)
    answers = Answers.of(model.processor, str(clip.answer), clip.other)
    windows = windows_of(work)
    edges = edges_of(work, clip, inputs, answers)
    generated = len(windows) * 3 * ("generated" in work.options.queries)
    rows = len(edges) * sum(share_run(window, n_layers) for window in windows)
    return 3 + ROW * rows + generated


def windows_of(work: Work[KnockoutOptions]) -> list[range]:
    """Those that slide up the model, and all layers."""
    layers, options = work.route.n_layers, work.options
    sliding = sliding_windows(layers, min(options.width, layers), options.stride)
    return list(dict.fromkeys([*sliding, range(layers)]))  # of few layers both are the same


def edges_of(
    work: Work[KnockoutOptions], clip: AskedClip, inputs: Any, answers: Answers
) -> list[Edges]:
    """What is cut: sound from text, whole and by stretches, and the controls."""
    model, options = work.model, work.options
    readers: Any = [reader for reader in options.queries if reader != "generated"]
    sound = int((model.layout(inputs).stream[0] >= 0).sum())
    told: dict[str, Any] = {"answers": answers, "seed": options.seed}
    others = readers if has_other_text(model, inputs, answers) else ()
    edges: list[Edges] = [
        *text_to_audio(model.current_route, readers=readers),
        *(text_to_text(model, inputs, sound, reader=reader, **told) for reader in others),
        *audio_to_audio(model, inputs),
        *through_fillers(model, inputs),
    ]
    if clip.segments or options.step is not None:
        places = clip.places(None if clip.segments else options.step)
        edges += text_to_audio(model.current_route, readers=("text",), segments=places)
    return edges


def one_cut(work: Work[KnockoutOptions], clip: AskedClip, inputs: Any) -> list[Edges]:
    """The stretch of `--seconds`, and the others of its length that share no token with it."""
    model, options = work.model, work.options
    start, end = stretch_of(options)
    streams = options.streams or (None,)
    sounds = [Sound(start, end, stream) for stream in streams]
    cuts = cuts_of_text(model.current_route, sounds, layers=options.layers or None)
    others = stretches_beside(model, inputs, cuts, start, end, clip.clip.seconds)
    named = {SELECTED: (start, end)} | {f"{a:.2f}-{b:.2f} s": (a, b) for a, b in others}
    return [
        Edges(
            tuple((READERS[reader], Sound(a, b, stream)) for stream in streams),
            {
                "queries": reader,
                "pathway": " and ".join(options.streams) or ALL_AUDIO,
                "segment": name,
                "start_s": a,
                "end_s": b,
            },
            options.heads or None,
        )
        for reader in options.queries
        if reader != "generated"
        for name, (a, b) in named.items()
    ]


def stretch_of(options: KnockoutOptions) -> tuple[float, float]:
    """Start and end of `--seconds`."""
    if len(options.seconds) != 2 or options.seconds[0] >= options.seconds[1]:
        given = " ".join(f"{each:g}" for each in options.seconds)
        raise OptionError(f"--seconds takes a START and a later END, got {given}.")
    return options.seconds[0], options.seconds[1]


def asked_for(options: KnockoutOptions, clip: AskedClip) -> AskedClip:
    """The clip with the answers that were given for it."""
    if options.seconds:
        stretch_of(options)  # an unusable one is no clip's fault
    return replace(clip, answer=options.answer or clip.answer, other=options.other or clip.other)


def runner_up(model: HookedAudioModel, inputs: Any, clip: AskedClip) -> str | None:
    """The likeliest wrong choice; None where nothing is known to choose from."""
    wrong = [choice for choice in clip.choices if choice != clip.answer]
    if not wrong:
        return None
    return wrong[int(np.argmax(choice_logprobs(model, inputs, wrong)))]


def solved(results: KnockoutResults) -> pd.DataFrame:
    """The rows of clips that are answered right; one clip by itself counts whatever it answers."""
    table: Any = results.rows("knockout")
    return table if len(results.items) == 1 else table[table["solved"]]


def effects_of(results: KnockoutResults) -> dict[str, pd.DataFrame]:
    """Every effect by depth: those that are drawn, and of the others what was measured."""
    table: Any = solved(results)
    whole = table[table["segment"].isna()]
    return {
        effect: knockout_effects(whole, DEPTH, effect=effect)
        for effect in (EFFECTS if (whole["run"] == "cut").any() else ())
        if effect in DRAWN or whole.loc[whole["run"] == "cut", effect].notna().any()
    }


def summaries(results: KnockoutResults) -> dict[str, pd.DataFrame]:
    """Every effect by depth, one below the other."""
    tables = [rows.assign(measure=effect) for effect, rows in results.derived(effects_of).items()]
    return {"effects": pd.concat(tables, ignore_index=True)} if tables else {}


def drawn(results: KnockoutResults) -> dict[str, Any]:
    """Effects by depth, and by stretch and depth."""
    table: Any = solved(results)
    if not len(table):
        return {}
    caption = results.caption(table["clip"].nunique())
    effects = results.derived(effects_of)
    found: dict[str, Any] = {
        f"depth_{effect}": knockout.effect_by_depth(effects[effect], effect, caption=caption)
        for effect in DRAWN
        if effect in effects
    }
    parts = table[table["segment"].notna()]
    pathways = parts["pathway"].nunique()
    for (group, pathway), rows in parts.groupby(["group", "pathway"], sort=False):
        rows = rows.sort_values("start_s", kind="stable")
        name = f"segments_{group}" + (f"_{pathway.replace(' ', '_')}" if pathways > 1 else "")
        found[name] = knockout.segments_by_depth(
            knockout_effects(rows, ["segment", *WINDOW]),
            caption=results.caption(rows["clip"].nunique(), only=str(group)),
        )
    return found


def told(results: KnockoutResults) -> list[str]:
    """How many clips the figures leave out."""
    table: Any = results.rows("knockout")
    clips = table.groupby("clip")["solved"].first()
    right = f"{clips.sum()} of {len(clips)} clip(s) answered right"
    return [f"{right}; of several, the others are left out of the figures"]


ANALYSIS = Analysis(
    name="attention_knockout",
    title="knockout",
    about="Text stops reading the sound in a window of layers that slides up the model; what is "
    "left of attention sums to 1. The effect is the change of the clean answer's log-probability. "
    "Where it is none, the sound was not needed *from there*: text that read it below carries it "
    "on.",
    passes=passes,
    options=KnockoutOptions,
    items=chosen_clips,
    prepare=asked_for,
    tables=[
        Table(
            "knockout", cut, ("run", "queries", "pathway", "segment", "first_layer", "last_layer")
        )
    ],
    summaries=summaries,
    figures=drawn,
    notes=told,
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
