"""What a store of activations costs beside bare passes over the same clips.

    python -m benchmarks.activations --audio clips.csv --out benchmarks/activations.json

Side by side in one run, in the same batches: sound read and made into inputs, and the plain model
called on them, of which nothing is kept; and `collect_activations`, which besides finds every
token's seconds, and writes the shards. Of one site in the encoder, where both run the encoder and
the connector alone; and of every eighth clip, which takes long enough, at sites all over the model,
the last layer's among them, where both run the whole of it. Timings are medians of interleaved
repeats, and count what a store does once: it hashes weights, and tries a clip of silence.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.core import header, medians, write
from palscope import load
from palscope._features.clips import LabelledClip, labelled
from palscope._hooks import HookedAudioModel
from palscope._models.scoring import prompt_batch
from palscope.analyses._items import BUNDLED
from palscope.audio import load_audio
from palscope.datasets import read_manifest
from palscope.features import collect_activations
from palscope.interventions import Address

BATCH, SHARD = 8, 64


def main() -> int:
    """Time both, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo/pal")
    parser.add_argument("--audio", type=Path, default=BUNDLED)
    parser.add_argument("--every", type=int, default=1, help="of the manifest's clips, this one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = load(given.model)
    clips = list(labelled(read_manifest(given.audio)))[:: given.every]
    last = model.current_route.n_layers - 1
    sites: Any = {
        "encoder": [Address("encoder_block", layers=(2,))],
        "everywhere": [
            Address("encoder_block", layers=(2,)),
            Address("encoder_output"),
            Address("connector_output"),
            Address("audio_state", layers=(0, 5)),
            Address("mlp_out", layers=(last // 2,)),
            Address("resid_post", layers=(last // 2, last)),
        ],
    }
    report = header("cpu") | {"model": given.model, "audio": given.audio.name}
    for name, addresses in sites.items():
        encoder = name == "encoder"
        some = clips if encoder else clips[::8]
        report[name] = timed(model, some, addresses, encoder, given.repeats)
        print(name, report[name])
    if given.out is not None:
        write(report, given.out)
    return 0


def timed(
    model: HookedAudioModel,
    clips: Sequence[LabelledClip],
    addresses: Sequence[Address],
    encoder_alone: bool,
    repeats: int,
) -> dict[str, Any]:
    """Seconds of both, and the share of the bare rate that the store has."""
    sizes: list[int] = []

    def collected() -> None:
        folder = Path(tempfile.mkdtemp())
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            collect_activations(
                model, clips, addresses, folder / "run", batch_size=BATCH, shard_clips=SHARD
            )
        sizes.append(sum(file.stat().st_size for file in (folder / "run/shards").iterdir()))
        shutil.rmtree(folder)

    times = medians(
        {"bare": lambda: bare(model, clips, encoder_alone), "store": collected}, repeats
    )
    return times | {
        "share_of_bare_rate": times["bare"] / times["store"],
        "clips": len(clips),
        "sound_s": sum(load_audio(clip.sound).seconds for clip in clips),
        "bytes": sizes[-1],
    }


@torch.no_grad()
def bare(model: HookedAudioModel, clips: Sequence[LabelledClip], encoder_alone: bool) -> None:
    """The plain model on the same batches; nothing is kept."""
    plain: Any = model.model
    for start in range(0, len(clips), SHARD):
        sounds = [load_audio(clip.sound) for clip in clips[start : start + SHARD]]
        sounds.sort(key=lambda sound: sound.seconds)
        for at in range(0, len(sounds), BATCH):
            asked = [((sound,), model.processor.any_question) for sound in sounds[at : at + BATCH]]
            inputs = prompt_batch(model.processor, asked, plain.device)
            if encoder_alone:
                plain.encode_audio(inputs["input_features"], inputs["feature_lengths"])
            else:
                plain(**inputs, logits_to_keep=1)


if __name__ == "__main__":
    raise SystemExit(main())
