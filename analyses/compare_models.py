"""Where do several models listen? Mass and knockout of each, over seconds and relative depth.

    python analyses/compare_models.py --config analyses/models/demo.yaml --audio CLIP [CLIP …] \
        --out runs/models
    python analyses/compare_models.py --config analyses/models/published.yaml --audio CLIPS \
        --out runs/published

The config names the models and how each is loaded (analyses/models has one of the demo's and one of
published models, whose weights the hub gives; they are opened one after the other). CLIP is a sound
file or a folder of them; each clip is asked about on its own. Mass is that of the prompt's last
token; knockout cuts all text off from sound, in a window of a fifth of the layers or in a stretch
of time, and gives the KL divergence of the answer's first token (nats).

Writes a folder a model (profile.parquet, run.json), profiles.csv and the figure (HTML, PNG, SVG).
A run that was stopped goes on with --resume.
"""

from __future__ import annotations

import gc
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import BitsAndBytesConfig

from palscope._sweeps import commands, processes
from palscope._sweeps.clips import sound_files
from palscope._sweeps.record import file_hash
from palscope.audio import load_audio
from palscope.errors import PalscopeError, short
from palscope.measures._profile import listening_profile, profile_bands
from palscope.plots import Caption, profiles
from palscope.training._yaml_files import read_yaml

KEYS = ("model", "route", "dtype", "device_map", "bits")
"""What the config may say of a model."""


def main() -> int:
    parser = commands.arguments(__doc__, model=False)
    parser.add_argument("--config", required=True, type=Path, help="YAML: the models")
    parser.add_argument("--audio", required=True, nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--question", default="Which sound is this?")
    parser.add_argument("--step", type=float, default=0.5, help="seconds (default: 0.5)")
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure each model, then draw them on the same axes."""
    clips = [
        file for path in given.audio for file in (sound_files(path) if path.is_dir() else [path])
    ]
    models = read_yaml(given.config, ["models"]).get("models") or {}
    if not isinstance(models, dict) or not models:
        raise PalscopeError(
            f"{given.config}: models is {short(models)}; expected names, each a key."
        )
    bands = [measured(name, settings, given, clips) for name, settings in models.items()]
    table = pd.concat(bands, ignore_index=True)
    if processes.place()[0] == 0:
        caption = Caption(", ".join(models), f"“{given.question}”", len(clips))
        profiles(table, caption=caption).save(given.out / "profiles")
        print(f"{len(models)} model(s), {len(clips)} clip(s); results in {given.out}")


def measured(
    name: str, settings: dict[str, Any], given: Namespace, clips: Sequence[Path]
) -> pd.DataFrame:
    """Means over clips of one model's profile, with intervals."""
    # As if the config's settings stood on the command line: they decide results, too.
    asked = Namespace(**vars(given) | {"route": None} | checked(name, settings))
    asked.out = given.out / name
    model = commands.open_model(asked, **loading(settings))
    results = commands.open_run(asked, model, data=clips)

    def measure(clip: Path) -> pd.DataFrame:
        heard = load_audio(clip)
        inputs = model.inputs(given.question, heard)
        return listening_profile(model, inputs, seconds=heard.seconds, step=given.step)

    stored = results.over(
        clips,
        measure,
        table="profile",
        key=str,
        item="path",
        keys=["measure", "axis", "start", "end"],
        content=lambda clip: file_hash(clip) or "",
    )
    results.finish()
    band = profile_bands([table for _, table in stored]).assign(model=name)
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return band


def checked(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What the config says of a model.

    Raises:
        PalscopeError: it holds a key that is not known, or names no checkpoint.
    """
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", str(name)):
        raise PalscopeError(
            f"{name!r} names a folder of results: letters, digits, -, . and _ only."
        )
    if not isinstance(settings, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PalscopeError(f"{name} is {short(settings)}; expected some of {', '.join(KEYS)}.")
    if unknown := sorted(map(str, settings.keys() - set(KEYS))):
        raise PalscopeError(f"{name}: no such keys: {', '.join(unknown)}; {', '.join(KEYS)}.")
    if "model" not in settings:
        raise PalscopeError(f"{name}: give the checkpoint, `model`: a folder or a hub id.")
    return settings


def loading(settings: dict[str, Any]) -> dict[str, Any]:
    """How a model's weights are loaded, for `palscope.load`."""
    found: dict[str, Any] = {}
    if "dtype" in settings:
        found["dtype"] = getattr(torch, str(settings["dtype"]), None)
        if not isinstance(found["dtype"], torch.dtype):
            raise PalscopeError(
                f"dtype: {settings['dtype']!r}; expected float32, bfloat16 or float16."
            )
    if "device_map" in settings:
        found["device_map"] = settings["device_map"]
    if "bits" in settings:
        found["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=settings["bits"] == 4, load_in_8bit=settings["bits"] == 8
        )
    return found


if __name__ == "__main__":
    raise SystemExit(main())
