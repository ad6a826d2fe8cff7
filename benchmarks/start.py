"""Start-up and interaction: import, load, first answer, next clip, next question on the same clip.

    python -m benchmarks.start --model demo/lal --out runs/start.json

Imports and the session of questions run in fresh processes, in turns; the median of each step is
reported, in seconds. Beside them stand importing plain transformers with its causal models, and
loading the demo's decoder with it and answering a text: what every tool on that stack pays. A
second question on the same clip is asked twice, with the clip encoded again and with its keys and
values reused (`audio=`); both answers must be the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WORDS = 8
"""Length of each answer in tokens: no answer ends earlier, so that all do the same work."""

IMPORTS = {
    "import palscope": "import palscope",
    "palscope.Route": "import palscope; palscope.Route",
    "palscope.load": "import palscope; palscope.load",
    "torch": "import torch",
    "transformers": "from transformers import AutoModelForCausalLM, AutoTokenizer, Cache",
    "transformer_lens": "from transformer_lens.model_bridge import TransformerBridge",
}


class Steps:
    """Seconds of steps that follow one another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, step: str) -> None:
        """The step that began with the last one's end."""
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now


def session(name: str) -> dict[str, Any]:
    """A visit: import, load, and questions about two clips."""
    steps = Steps()
    import palscope
    from palscope.audio._bundled import bundled_clips

    load: Any = palscope.load  # imported on first use
    steps.done("import")
    model: Any = load(name)
    steps.done("load")
    clips = bundled_clips().path[:2]
    length = {"max_new_tokens": WORDS, "min_new_tokens": WORDS, "do_sample": False}

    def answer(inputs: dict[str, Any]) -> list[int]:
        said = model.model.generate(**inputs, **length, pad_token_id=0)
        return said[0, inputs["input_ids"].shape[1] :].tolist()

    answer(model.inputs("What sound is this?", clips[0]))
    steps.done("first answer")
    inputs = model.inputs("What sound is this?", clips[1])
    inputs["audio"] = model.encode_audio(inputs)
    features = ("input_features", "feature_lengths")
    for each in features:
        del inputs[each]
    answer(inputs)
    steps.done("next clip")
    again = model.inputs("Is this music?", clips[1])
    encoded = answer(again)
    steps.done("next question, encoded again")
    again = model.inputs("Is this music?", clips[1])
    reused = answer(
        {k: v for k, v in again.items() if k not in features} | {"audio": inputs["audio"]}
    )
    steps.done("next question, audio reused")
    assert encoded == reused, "answers differ when the clip's keys and values are reused"
    return steps.seconds


def transformers_session() -> dict[str, Any]:
    """The same without palscope: transformers alone, the demo's decoder, a text."""
    steps = Steps()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    steps.done("import")
    from palscope._models.base_weights import find_base

    folder = find_base("HuggingFaceTB/SmolLM2-135M-Instruct")
    steps.done("(palscope's, to find the weights)")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    steps.done("load")
    for step in ("first answer", "next answer"):
        inputs = tokenizer("What sound does a dog make?", return_tensors="pt")
        length = {"max_new_tokens": WORDS, "min_new_tokens": WORDS, "do_sample": False}
        model.generate(**inputs, **length, pad_token_id=0)
        steps.done(step)
    return steps.seconds


def fresh(*command: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Medians of all steps, the processes taking turns."""
    imports: dict[str, list[float]] = {key: [] for key in ["python", *IMPORTS]}
    sessions: dict[str, list[dict[str, float]]] = {name: [], "transformers": []}
    for turn in range(repeats + 1):
        for key, line in {"python": "pass", **IMPORTS}.items():
            start = time.perf_counter()
            fresh("-c", line)
            if turn:  # the first fills the file cache
                imports[key].append(time.perf_counter() - start)
        for key, found in sessions.items():
            printed = fresh("-m", "benchmarks.start", "--session", key)
            if turn:
                found.append(json.loads(printed.splitlines()[-1]))
    return {
        "imports": {key: statistics.median(values) for key, values in imports.items()},
        "sessions": {
            key: {step: statistics.median(each[step] for each in found) for step in found[0]}
            for key, found in sessions.items()
        },
    }


def main() -> None:
    """Measure, print and write; or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo/lal")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/start.json"))
    parser.add_argument("--session", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.session is not None:
        plain = args.session == "transformers"
        print(json.dumps(transformers_session() if plain else session(args.session)))
        return
    from benchmarks.core import header, write  # not above: it imports torch, which is timed

    report = header("cpu") | {"model": args.model} | measure(args.model, args.repeats)
    for key, seconds in report["imports"].items():
        print(f"{key:>20}: {seconds:6.2f} s")
    for key, steps in report["sessions"].items():
        print(f"\n{key}")
        for step, seconds in steps.items():
            print(f"{step:>36}: {seconds:6.2f} s")
    write(report, args.out)


if __name__ == "__main__":
    main()
