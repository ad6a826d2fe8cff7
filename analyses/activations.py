"""Store activations of a data set: what stands at a site while the model hears each clip.

    python analyses/activations.py --model demo/pal --audio clips.csv --at encoder_block:2 \\
        --out runs/activations

Several sites are read in one pass, which ends behind the last of them. Every row of the store has
its clip, its seconds and its stream; only tokens inside a clip have rows. A run that was stopped or
killed goes on with --resume. Read it with palscope.features.ActivationStore.

It is no Analysis: those measure tables, one item after the other, and draw them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from palscope._features.clips import LabelledClip
from palscope._features.collect import collect_activations
from palscope._features.estimate import in_words
from palscope._features.heads import of_answer
from palscope._sweeps import processes
from palscope.analyses import ClipOptions, Command, chosen_clips, option
from palscope.analyses._addresses import address_of
from palscope.analyses._items import BUNDLED
from palscope.analyses._process import open_model
from palscope.datasets import read_manifest


@dataclass(frozen=True, kw_only=True)
class ActivationOptions(ClipOptions):
    """Which clips are heard, and what is kept of them."""

    at: tuple[str, ...] = option(
        ...,
        "sites of palscope.interventions.Address, with layers where there are some: "
        "encoder_block:2, encoder_output, connector_output, audio_state:0,3, resid_post:5, "
        "head_output:5, mlp_out:5; pattern: what each head gives to sound before the answer",
    )
    batch: int = option(8, "heard at once", unit="clips", least=1)
    shard: int = option(64, "in a file, of which a kill loses one at most", unit="clips", least=1)
    out: Path = option(..., "folder for the store", decides=False)
    resume: bool = option(False, "go on with the store that --out holds", decides=False)


def stored(given: ActivationOptions) -> None:
    """Collect what was asked for, and say what there is."""
    addresses = [of_answer(address_of(text)) for text in given.at]
    clips = labelled_clips(given)
    store = collect_activations(
        open_model(given),
        clips,
        addresses,
        given.out,
        batch_size=given.batch,
        shard_clips=given.shard,
        resume=given.resume,
    )
    if processes.rank() > 0:
        return
    for hook_point, width in store.hook_points.items():
        print(f"{hook_point}: {len(store[hook_point]):,} rows of {width}")
    left = f", {len(store.left_out)} left out" if store.left_out else ""
    size = sum(file.stat().st_size for file in (given.out / "shards").iterdir())
    print(f"{len(store.clips)} clip(s){left}; {in_words(size)} in {given.out}")


def labelled_clips(given: ActivationOptions) -> list[LabelledClip]:
    """The chosen clips, with what manifests say of them."""
    audio = given.audio or (BUNDLED,)
    manifests = [path for path in audio if path.suffix.lower() == ".csv"]
    rows = {clip.name: clip for path in manifests for clip in read_manifest(path)}
    found: list[LabelledClip] = []
    for clip in chosen_clips(given):
        row = rows.get(clip.name)
        found.append(
            LabelledClip(
                clip.name,
                clip.sound,
                label=clip.answer or "",
                domain=clip.group,
                split="" if row is None else row.split,
                group="" if row is None else row.group,
                question=clip.question,
                seconds=None if row is None else row.duration_s,
            )
        )
    return found


COMMAND = Command("activations", ActivationOptions, stored)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))
