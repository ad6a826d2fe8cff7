r"""Does the model use what can be read? Erase it, and ask again.

    python analyses/activations.py --model demo/pal --audio clips.csv --at encoder_block:2 \
        --out runs/activations
    python analyses/erasure.py runs/activations --at encoder_block:2 --model demo/pal \
        --audio clips.csv --n 20 --out runs/erasure

For every domain an eraser (LEACE) is fitted on its training clips. First a probe, fitted anew, is
asked of clips of another split: is it at chance? Then the model answers its questions about such
clips with the same erased while it runs, at the same site; and with as many directions erased that
were drawn at random. Answers about other domains say what else is lost.

With --step, labels are erased in every stretch of the clips, for a mean over the clip does not have
what differs in time: that takes (labels - 1) directions a stretch.

Decodable and not used, or no longer decodable by a line and still used, are both findings: the
second says that the model reads it otherwise than the probe does.

Writes erasure.csv (a row an eraser and what was asked), answers.csv (a row a clip) and a figure
(HTML, PNG, SVG, CSV).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from palscope._directions.erasure import NOTHING, Eraser, decodable
from palscope._directions.examples import Examples, clip_examples
from palscope._features.store import ActivationStore
from palscope._files import make_folder
from palscope._hooks import HookedAudioModel
from palscope._statistics import interval_columns, share_interval, shown
from palscope.analyses import (
    AskedClip,
    Command,
    SharedPasses,
    asked_together,
    chosen_clips,
    option,
)
from palscope.analyses._addresses import address_of
from palscope.analyses._command import save_figures
from palscope.analyses._process import open_model
from palscope.errors import PalscopeError
from palscope.interventions import Address, Patch, Sound, resolve
from palscope.measures._choices import prompts_choice_logprobs
from palscope.plots import Caption
from palscope.plots._erasure import decodable_and_used

LABELS, RANDOM = "labels", "random"
DECODABLE, USED, ELSEWHERE = "decodable", "used", "elsewhere"


@dataclass(frozen=True, kw_only=True)
class ErasureOptions(SharedPasses):
    """What is erased, where, and who is asked."""

    store: Path = option(..., "folder of activations", positional=True)
    at: str = option(..., "one site with its layer, as activations.py takes it: encoder_block:2")
    domain: tuple[str, ...] = option((), "domains whose labels are erased (default: all)")
    step: float | None = option(
        None, "erase labels in every stretch of so long (default: of the clip's mean)", unit="s"
    )
    train: str = option("train", "split of the store that erasers are fitted on")
    split: str | None = option("validation", "split that probe and model are asked about")
    out: Path = option(..., "folder for tables and the figure")


def erased(given: ErasureOptions) -> None:
    """Fit, ask the probe, ask the model, write and print."""
    store = ActivationStore(given.store)
    model = open_model(given)
    store.check_model(model)
    clips = chosen_clips(given)
    address = replace(address_of(given.at), tokens=Sound())
    rows = store[_hook_point(model, address, clips[0])]
    examples = clip_examples(rows, step=given.step)
    parts: list[pd.DataFrame] = []
    erasers: dict[str, dict[str, Eraser]] = {}
    for domain in _domains(given, examples, clips):
        train, test = _sides(given, examples, domain)
        eraser = Eraser.fit(train)
        erasers[domain] = {
            LABELS: eraser,
            RANDOM: Eraser.random(train, eraser.rank, given.seed),
        }
        asked = decodable(train, test, erasers[domain])
        parts.append(asked.assign(of=domain, question=DECODABLE))
        told: Any = asked
        for row in told.to_dict("records"):
            print(f"{domain}, {row['erased']} erased: probe {_percent(row)}")
    answers: Any = pd.DataFrame(_answers(model, address, clips, erasers, given.batch))
    parts += [_used(answers, domain) for domain in erasers]
    table: Any = pd.concat(parts, ignore_index=True)
    make_folder(given.out)
    table.to_csv(given.out / "erasure.csv", index=False)
    answers.to_csv(given.out / "answers.csv", index=False)
    for row in table[table["question"] != DECODABLE].to_dict("records"):
        what = "about it" if row["question"] == USED else "about other domains"
        print(f"{row['of']}, {row['erased']} erased: answers {what} {_percent(row)}")
    caption = Caption(given.model, f"{len(set(c.question for c in clips))} questions", len(clips))
    save_figures({"erasure": decodable_and_used(table, caption=caption)}, given.out)


def _hook_point(model: HookedAudioModel, address: Address, clip: AskedClip) -> str:
    """The one hook point of the site. Raises `PalscopeError` where it has several."""
    parts = resolve(model, model.inputs(clip.question, clip.clip), address).parts
    hooks = list(dict.fromkeys(part.hook for part in parts))
    if len(hooks) > 1:
        raise PalscopeError(
            f"--at {address.site} is at several hook points ({', '.join(hooks)}); name one layer."
        )
    return hooks[0]


def _domains(given: ErasureOptions, examples: Examples, clips: list[AskedClip]) -> list[str]:
    """The domains that are stored and asked about."""
    stored = set(examples.clips["domain"])
    known = [each for each in dict.fromkeys(clip.group for clip in clips) if each in stored]
    missing = [each for each in given.domain if each not in known]
    if missing or not known:
        raise PalscopeError(
            f"no clips of domain {missing[0] if missing else '(any)'!r} are both stored and asked "
            f"about; there are {', '.join(known) or 'none'}."
        )
    return list(given.domain or known)


def _sides(given: ErasureOptions, examples: Examples, domain: str) -> tuple[Examples, Examples]:
    """The domain's clips of both splits. Raises `PalscopeError` where there are none."""
    table: Any = examples.clips
    sides: list[Examples] = []
    for split in (given.train, given.split):
        mine = (table["domain"] == domain) & (table["split"] == split) & (table["label"] != "")
        if not mine.any():
            raise PalscopeError(
                f"{given.store} has no labelled clips of {domain} and split {split!r}; it has the "
                f"splits {sorted(set(table['split']))}."
            )
        sides.append(examples.of(mine))
    return sides[0], sides[1]


def _answers(
    model: HookedAudioModel,
    address: Address,
    clips: list[AskedClip],
    erasers: dict[str, dict[str, Eraser]],
    batch: int,
) -> list[dict[str, Any]]:
    """A row a clip and what was erased."""
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, len(clips), batch), desc="erasure", unit="batch", leave=False):
        together = clips[start : start + batch]
        for clip in together:
            clip.require_choices()
        inputs = asked_together(model, together)
        plain = _answered(model, inputs, together, ())
        for domain, mine in erasers.items():
            for erased, eraser in {NOTHING: None, **mine}.items():
                patch = None if eraser is None else Patch(address, eraser)
                asked = plain if patch is None else _answered(model, inputs, together, (patch,))
                rows += [{"of": domain, "erased": erased, **each} for each in asked]
    return rows


def _answered(
    model: HookedAudioModel, inputs: Any, clips: list[AskedClip], patches: tuple[Patch, ...]
) -> list[dict[str, Any]]:
    """Of each clip the best choice, whether it is right, and the right one's nats."""
    found = prompts_choice_logprobs(model, inputs, [clip.choices for clip in clips], patches)
    rows: list[dict[str, Any]] = []
    for clip, logprobs in zip(clips, found, strict=True):
        best = clip.choices[int(logprobs.argmax())]
        row = {"clip": clip.name, "domain": clip.group, "answer": clip.answer, "best": best}
        own = float(logprobs[clip.choices.index(str(clip.answer))])
        rows.append({**row, "right": best == clip.answer, "logprob": own})
    return rows


def _used(answers: Any, domain: str) -> pd.DataFrame:
    """Accuracy of answers about the domain whose labels were erased, and about others."""
    rows: list[dict[str, Any]] = []
    mine = answers[answers["of"] == domain]
    for erased, each in mine.groupby("erased", sort=False):
        for question, which in ((USED, True), (ELSEWHERE, False)):
            right = each.loc[(each["domain"] == domain) == which, "right"].to_numpy(dtype=float)
            if not len(right):
                continue
            sure = share_interval(right, right * 0 + 1)
            row = {"of": domain, "erased": erased, "question": question, "n": len(right)}
            rows.append({**row, "accuracy": right.mean(), **interval_columns(sure, right)})
    return pd.DataFrame(rows)


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f} % {shown(row, '.1f', 100)} of {row['n']}"


COMMAND = Command("erasure", ErasureOptions, erased)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))
