"""Train dictionaries on stored activations, and score them on clips that they were not trained on.

    python analyses/activations.py --model demo/pal --audio clips.csv \\
        --at encoder_block:2 encoder_neurons:2 --out runs/activations
    python analyses/dictionaries.py runs/activations --at audio_blocks.2.hook_out \\
        --neurons audio_blocks.2.mlp_out.hook_in --out runs/features

Trains on the clips of one split, once a seed, and scores on another: `scores.csv` has what each
dictionary leaves unexplained and how many latents it takes, `labels.csv` for each label the single
feature that tells it best, chosen on training clips, beside the best single dimension of the site,
the best neuron where neurons were stored, and the best of a random dictionary. With --audio, the
manifest of the clips, the model is asked about those of the second split, as it is and through each
dictionary: `spliced.csv` has accuracy, loss and what is recovered of it, beside the mean in the
place of the rows. Each dictionary stands in a folder that SAELens reads. The same command goes on
where it was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from palscope._features.dictionary import Dictionary
from palscope._features.scores import (
    Units,
    both_signs,
    dictionary_scores,
    label_scores,
    live_latents,
    matched_cosine,
    random_dictionary,
)
from palscope._features.spliced_scores import AskedAbout, spliced_answers, spliced_scores
from palscope._features.store import Activations, ActivationStore
from palscope._files import make_folder
from palscope._hooks import load
from palscope._routing import Route
from palscope.analyses import Command, option
from palscope.datasets import read_manifest
from palscope.datasets._manifest import Clip
from palscope.errors import PalscopeError
from palscope.evaluation._items import clip_of
from palscope.evaluation._questions import Questions
from palscope.training import train_dictionary

MATCHED = 0.7
"""A latent whose partner of another seed is as near as this in cosine is counted as found again."""


@dataclass(frozen=True, kw_only=True)
class DictionaryOptions:
    """Which rows, and what is trained on them."""

    store: Path = option(..., "folder of activations", positional=True)
    at: str = option(..., "hook point of the rows, as activations.py names it")
    neurons: str | None = option(
        None, "hook point of neurons that features are compared with, in the same store"
    )
    kind: Literal["topk", "batchtopk", "jumprelu"] = option("batchtopk", "of activation")
    k: int = option(32, "a row", unit="latents", least=1)
    wide: int = option(8, "times as many latents as a row has numbers", least=1)
    steps: int = option(4000, "of the optimiser", least=1)
    batch: int = option(2048, "a step", unit="rows", least=1)
    rate: float = option(3e-3, "of learning, at its highest", least=0)
    scale: Literal["all", "dimension"] = option(
        "all", "rows are divided by one number, or each dimension by its own deviation"
    )
    seeds: tuple[int, ...] = option((0, 1), "one dictionary each")
    train: str = option("train", "split of the clips that are trained on")
    test: str = option("validation", "split of the clips that scores are of")
    audio: Path | None = option(
        None, "manifest of the clips: the model is asked about those of --test through dictionaries"
    )
    questions: int | None = option(
        None, "that are asked, spread over labels (default: one a clip)", unit="a domain", least=1
    )
    out: Path = option(..., "folder for dictionaries and scores")


def trained(given: DictionaryOptions) -> None:
    """Train, score, write and print."""
    store = ActivationStore(given.store)
    train, test = (of_split(store, given.at, split) for split in (given.train, given.test))
    make_folder(given.out)
    made = [
        train_dictionary(
            train,
            given.out / f"seed-{seed}",
            d_sae=given.wide * train.width,
            steps=given.steps,
            kind=given.kind,
            k=given.k,
            scale=given.scale,
            batch_size=given.batch,
            learning_rate=given.rate,
            seed=seed,
        )
        for seed in given.seeds
    ]
    scores = pd.DataFrame(dictionary_scores(each, test) for each in made)
    scores.insert(0, "seed", given.seeds)
    scores.to_csv(given.out / "scores.csv", index=False)
    print(scores.round(3).to_string(index=False))
    if len(made) > 1:
        live = [each.W_dec.detach()[live_latents(each, test)] for each in made[:2]]
        found = matched_cosine(*live)
        print(
            f"{(found >= MATCHED).mean():.0%} of {len(found)} live latents have a partner of "
            f"cosine {MATCHED} or more in the second seed's; mean {found.mean():.2f}"
        )
    parts = [
        label_scores(*sides, units, name=name)
        for name, sides, units in compared(given, store, made[0], (train, test))
    ]
    labels = pd.concat(parts, ignore_index=True)
    labels.to_csv(given.out / "labels.csv", index=False)
    told = labels.pivot(index=["domain", "label"], columns="units", values="auroc")
    print(told[[part["units"].iloc[0] for part in parts if len(part)]].round(3).to_string())
    for name, mine in labels.groupby("units", sort=False):
        high = (mine["auroc"] >= 0.95).sum()
        print(f"{name}: {high} of {len(mine)} labels at 0.95, mean {mine['auroc'].mean():.3f}")
    if given.audio is not None:
        heard_through(given, store, made)


def heard_through(
    given: DictionaryOptions, store: ActivationStore, made: Sequence[Dictionary]
) -> None:
    """Ask through each dictionary, write and print."""
    assert given.audio is not None
    asked = asked_about(read_manifest(given.audio), given.test, given.questions)
    record: Any = store.record
    model = load(record["weights"]["checkpoint"]["name"])
    tables: list[pd.DataFrame] = []
    with model.route(Route.from_dict(record["route"])):
        for seed, dictionary in zip(given.seeds, made, strict=True):
            scores = spliced_scores(spliced_answers(model, dictionary, asked))
            scores.insert(0, "seed", seed)
            tables.append(scores)
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(given.out / "spliced.csv", index=False)
    told = ["seed", "domain", "run", "n", "accuracy", "loss", "recovered"]
    print(table[told].round(3).to_string(index=False))


def asked_about(clips: Sequence[Clip], split: str, n: int | None) -> list[AskedAbout]:
    """A question about each clip of a split, or about `n` of each domain.

    Raises `PalscopeError` where the split has no clips.
    """
    chosen = [clip for clip in clips if clip.split == split]
    if not chosen:
        found = sorted({clip.split for clip in clips})
        raise PalscopeError(f"--audio has no clips of split {split!r}; it has {found}.")
    group = {clip.name: clip.group for clip in chosen}
    questions = Questions.about(chosen, n)
    return [
        AskedAbout(
            (clip := clip_of(item.key)),
            group[clip],
            item.domain,
            each.clips[0],
            each.question,
            each.choices,
            item.answer,
        )
        for item, each in zip(questions.items, questions.asked, strict=True)
    ]


def of_split(store: ActivationStore, hook_point: str, split: str) -> Activations:
    """The rows of a split's clips. Raises `PalscopeError` where there are none."""
    table: Any = store.clips
    if split not in set(table["split"]):
        raise PalscopeError(
            f"{store.folder} has no clips of split {split!r}; it has {sorted(set(table['split']))}."
        )
    return store[hook_point].of_clips(table["split"] == split)


def compared(
    given: DictionaryOptions,
    store: ActivationStore,
    dictionary: Dictionary,
    sides: tuple[Activations, Activations],
) -> Iterator[tuple[str, tuple[Activations, Activations], Units]]:
    """The units whose best are set beside each other."""
    yield "features", sides, dictionary.encode
    yield "dimensions", sides, both_signs
    if given.neurons is not None:
        neurons = [of_split(store, given.neurons, split) for split in (given.train, given.test)]
        yield "neurons", (neurons[0], neurons[1]), both_signs
    yield "random", sides, random_dictionary(dictionary).encode


COMMAND = Command("dictionaries", DictionaryOptions, trained)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))
