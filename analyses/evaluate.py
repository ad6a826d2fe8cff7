"""Score a model on a manifest of labelled clips: answers ranked among each domain's labels.

    python analyses/evaluate.py --model demo/pal --manifest clips.csv --out runs/pal

The manifest is a CSV with columns path, domain, label (paths relative to it). Writes scores.json
and, as they come, predictions.jsonl. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from palscope.errors import PalscopeError
from palscope.evaluation.evaluate import evaluate_manifest
from palscope.evaluation.ranking import ModelAnswerer
from palscope.models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope.models.base_weights import base_fingerprint
from palscope.models.checkpoints import find_checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="checkpoint folder or hub id")
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--audio",
        choices=["own", "swapped"],
        default="own",
        help="swapped: each question hears another clip of its domain with a different label",
    )
    parser.add_argument("--split", help="only rows with this value in the column split")
    parser.add_argument(
        "--wordings",
        choices=["train", "heldout"],
        default="train",
        help="heldout: wordings that the demo was never trained on",
    )
    parser.add_argument("--limit", type=rows, help="only so many rows, spread over the labels")
    parser.add_argument(
        "--temporal", action="store_true", help="also ask about clips joined from the manifest's"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that --out holds")
    arguments = parser.parse_args()
    try:
        folder = find_checkpoint(arguments.model)
        model: Any = PalscopeForConditionalGeneration.from_pretrained(folder).eval()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        scores = evaluate_manifest(
            ModelAnswerer(model, PalscopeProcessor.from_pretrained(folder)),
            arguments.manifest,
            arguments.out,
            model=f"{arguments.model} {base_fingerprint(folder)}",
            audio=arguments.audio,
            split=arguments.split,
            wordings=arguments.wordings,
            limit=arguments.limit,
            temporal=arguments.temporal,
            resume=arguments.resume,
        )
    except PalscopeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = {"all": scores, **scores["by_domain"], **scores.get("temporal", {})}
    for name, score in table.items():
        print(line(name, score))
    for kind in ("missing", "unreadable"):
        if scores[kind]:
            print(f"{len(scores[kind])} audio files {kind}: see {arguments.out / 'scores.json'}")
    return 0


def rows(text: str) -> int:
    """A number of rows, at least one."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} rows; give at least 1")
    return int(text)


def line(name: str, score: dict[str, Any]) -> str:
    """One row of the printed table, in percent."""
    if not score["n"]:
        return f"{name:18} no rows answered"
    low, high = score["interval"]
    text = f"{name:18} {percent(score['accuracy'])} [{percent(low)}, {percent(high)}] "
    text += f"of {score['n']}, greedy answer exact {percent(score['exact_match'])}"
    if "follows_audio" in score:
        text += f", follows the audio {percent(score['follows_audio'])}"
    return text


def percent(fraction: float) -> str:
    return f"{100 * fraction:5.1f} %"


if __name__ == "__main__":
    raise SystemExit(main())
