"""Make an index of units that can be heard: what each latent or neuron responds to, in a data set.

    python analyses/activations.py --model demo/pal --audio clips.csv \\
        --at encoder_block:2 encoder_neurons:2 --out runs/activations
    python analyses/hear.py runs/activations --audio clips.csv --at audio_blocks.2.hook_out \\
        --dictionary runs/features/seed-0 --neurons audio_blocks.2.mlp_out.hook_in --out runs/heard

Heads are units by what they give to sound: of activations that were stored --at pattern,

    python analyses/hear.py runs/pattern --audio clips.csv --heads pattern.summary --out runs/heads

Goes once through the stored rows. Of each unit the index keeps its strongest clips and some of
every strength, a histogram, how well it tells each label on held-out clips, its neighbours, and
beside each feature its partners among neurons and the latents of a random dictionary. The page
"Features" plays them, and palscope.features.UnitIndex reads them. Sounds stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from palscope._features.estimate import in_words
from palscope._features.heard.build import index_units
from palscope._features.heard.source import UnitSource
from palscope._features.store import ActivationStore
from palscope._hooks import load
from palscope.analyses import Command, option
from palscope.analyses._items import clips_in
from palscope.analyses._options import OptionError


@dataclass(frozen=True, kw_only=True)
class HearOptions:
    """Which units, and of which rows."""

    store: Path = option(..., "folder of activations", positional=True)
    audio: tuple[Path, ...] = option(
        (), "the clips that were stored: files, folders, manifests (default: the package's)"
    )
    at: str | None = option(
        None, "hook point of the dictionary's rows, or whose dimensions are units where it is alone"
    )
    dictionary: Path | None = option(
        None, "folder of a dictionary, whose latents are units, and a random one's beside them"
    )
    neurons: str | None = option(None, "hook point whose numbers are units: neurons")
    heads: str | None = option(
        None,
        "rows of attention whose heads are units, such as pattern.frames, and beside them the same "
        "heads spread evenly over each clip; without other units",
    )
    model: str | None = option(
        None, "of the store: units in the decoder's residual stream then have the words they write"
    )
    train: str = option("train", "split of the clips on which names are chosen")
    test: str = option("validation", "split of the clips on which they are scored")
    seed: int = option(0, "of the draws of samples")
    out: Path = option(..., "folder for the index")


def indexed(given: HearOptions) -> None:
    """Make the index, and say what there is."""
    store = ActivationStore(given.store)
    index = index_units(
        sources_of(given, store),
        given.out,
        sounds={clip.name: clip.path for clip in clips_in(given.audio)},
        model=None if given.model is None else load(given.model),
        train=given.train,
        test=given.test,
        seed=given.seed,
    )
    for name, units in index.items():
        named = (units.table["name"] != "").sum()
        silent = (units.table["clips"] == 0).sum()
        print(f"{name}: {len(units):,} of {units.hook_point}; {named} named, {silent} silent")
    size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file())
    print(f"{len(index.clips):,} clips; {in_words(size)} in {given.out}")
    without = (index.clips["sound"] == "").sum()
    if without:
        print(f"{without} clips have no sound among --audio: they will not play")


def sources_of(given: HearOptions, store: ActivationStore) -> list[UnitSource]:
    """The units that the options name, those that are asked about first."""
    if given.dictionary is not None and given.at is None:
        raise OptionError("--dictionary needs --at, the hook point of its rows.")
    if given.heads is not None:
        if given.at is not None or given.neurons is not None:
            raise OptionError(
                "--heads are units of an index of their own: leave out --at, --neurons."
            )
        rows = store[given.heads]
        return [UnitSource.of_heads(rows), UnitSource.of_even_heads(rows)]
    sources: list[UnitSource] = []
    if given.at is not None and given.dictionary is None:
        sources.append(UnitSource.of_dimensions(store[given.at]))
    elif given.at is not None and given.dictionary is not None:
        sources.append(UnitSource.of_dictionary(given.dictionary, store[given.at]))
    if given.neurons is not None:
        sources.append(UnitSource.of_rows(store[given.neurons]))
    if given.at is not None and given.dictionary is not None:
        sources.append(UnitSource.of_random(given.dictionary, store[given.at]))
    if not sources:
        raise OptionError("no units: give --at, with --dictionary, --neurons or --heads.")
    return sources


COMMAND = Command("hear", HearOptions, indexed)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))
