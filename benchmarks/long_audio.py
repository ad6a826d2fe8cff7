"""Long sound as a stream, against the same sound at once: time, memory, answers, and how they grow.

    python -m benchmarks.long_audio --model demo/lal --out runs/long_audio.json
    python -m benchmarks.long_audio --model demo/lal --minutes 36 72 108 144 180 --offline-minutes 0
    python -m benchmarks.long_audio --shape llama-3.2-1b --integration LAL --offload

Real clips, the bundled ones over and over, are heard in chunks of `--chunk` seconds, and asked
about whenever a length is reached (7.3 s behind it, so that a window is always unfinished). Up to
`--offline-minutes` the same sound is given at once, and logits and answers are compared. Each pass
runs in a process of its own. Times of hearing are counted from the stream's beginning, those of
asking are medians of three. All are fitted as a + b N + c N² of the minutes N; `share` is what c N²
makes of the fit at the longest, with its standard error.

The decoder is given more positions than it was trained on: what it answers is no measure of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import WhisperFeatureExtractor
from transformers.utils.logging import disable_progress_bar

from benchmarks.core import default_device, header, synchronise, write
from benchmarks.integrations import SHAPES, build
from palscope._models import AudioStream, PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._models.finding import find_checkpoint
from palscope._models.scoring import greedy_tokens, prompt_batch
from palscope.audio import load_audio
from palscope.audio._bundled import bundled_clips

RATE = 16_000
QUESTION = "What sound is this?"
WORDS = 8
BEHIND = 7.3
"""Seconds heard behind each length."""


def load(given: argparse.Namespace) -> tuple[Any, PalscopeProcessor]:
    """The checkpoint, or random weights of a shape; with positions for any length."""
    disable_progress_bar()
    device, dtype = default_device(), getattr(torch, given.dtype)
    if given.shape is None:
        found = find_checkpoint(given.model)
        model: Any = PalscopeForConditionalGeneration.from_pretrained(found, dtype=dtype)
        processor = PalscopeProcessor.from_pretrained(found)
    else:
        tokenizer: Any = PalscopeProcessor.from_pretrained(find_checkpoint("demo/lal")).tokenizer
        shape = SHAPES[given.shape]
        shape = replace(shape, vocabulary=max(shape.vocabulary, len(tokenizer) + 1))
        model = build(shape, device, dtype, frames_per_token=5)[given.integration]
        ratios = [stream.ratio for stream in model.route.streams]
        processor = PalscopeProcessor(WhisperFeatureExtractor(), tokenizer, 10, ratios)
        model.config.audio_token_id = processor.audio_token_id
    model.config.text_config.max_position_embeddings = 10**7
    return model.to(device).eval(), processor


class Sound:
    """The bundled clips one behind the other, over and over."""

    def __init__(self) -> None:
        self._round = np.concatenate([load_audio(path).samples for path in bundled_clips()["path"]])

    def between(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop`."""
        return self._round[np.arange(start, stop) % len(self._round)]


class Clock:
    """Seconds spent in modules, by name, those inside of one another counted in both."""

    def __init__(self, **modules: torch.nn.Module) -> None:
        self.seconds = dict.fromkeys(modules, 0.0)
        for name, module in modules.items():
            started: list[float] = []

            def start(*_: Any, started: list[float] = started) -> None:
                synchronise()
                started.append(time.perf_counter())

            def stop(*_: Any, name: str = name, started: list[float] = started) -> None:
                synchronise()
                self.seconds[name] += time.perf_counter() - started.pop()

            module.register_forward_pre_hook(start)
            module.register_forward_hook(stop)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds."""
    synchronise()
    start = time.perf_counter()
    out = call()
    synchronise()
    return out, time.perf_counter() - start


@contextmanager
def peak() -> Generator[dict[str, int], None, None]:
    """Within, `bytes` of the yielded dict is the most memory held so far beyond the beginning's.

    Of a GPU, of tensors there; else of the process, which Linux tells. Read it by `look`.
    """
    found: dict[str, int] = {"bytes": 0}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
    found["before"] = _most_held()
    yield found


def look(found: dict[str, int]) -> int:
    """The most bytes held since `peak` began, beyond what was held then."""
    return _most_held() - found["before"]


def _most_held() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kib) * 1024


@torch.no_grad()
def streamed(given: argparse.Namespace) -> list[dict[str, Any]]:
    """One stream over all lengths: a row for each, times of hearing counted from the beginning."""
    model, processor = load(given)
    sound, rows = Sound(), list[dict[str, Any]]()
    step, heard, hearing = round(given.chunk * RATE), 0, 0.0
    with peak() as most, AudioStream(model, processor, offload=given.offload) as stream:
        clock = Clock(encoder=model.encoder, append=model)
        for minutes in tqdm(given.minutes, desc="streaming"):
            upto = round((60 * minutes + BEHIND) * RATE)
            while heard < upto:
                chunk = sound.between(heard, min(heard + step, upto))
                hearing += timed(lambda chunk=chunk: stream.feed(chunk))[1]
                heard += len(chunk)
            spent = dict(clock.seconds)
            asked = [ask(model, stream) for _ in range(3)]
            first, word = (statistics.median(times) for times in list(zip(*asked, strict=True))[1:])
            answer = stream.ask(QUESTION, WORDS)
            clock.seconds.update(spent)  # a question's are not the stream's
            assert stream.layout is not None
            rows.append(
                {
                    "minutes": minutes,
                    "columns": stream.layout.width,
                    "encoder_s": spent["encoder"],
                    "append_s": spent["append"],
                    "features_s": hearing - sum(spent.values()),
                    "first_word_s": first,
                    "next_word_s": word,
                    "cache_bytes": stream.nbytes,
                    "peak_bytes": look(most),
                    "logits": asked[0][0],
                    "answer": answer,
                }
            )
    return rows


def ask(model: Any, stream: AudioStream) -> tuple[np.ndarray, float, float]:
    """Logits of an answer's first word, its seconds, and those of each further word."""
    start = time.perf_counter()
    with stream.asking(QUESTION) as inputs:
        logits, cache = model(**inputs, logits_to_keep=1).logits[0, -1], inputs["cache"]
        synchronise()
        first = time.perf_counter() - start
        word = torch.full((1, 1), 5, device=model.device)

        def say() -> None:
            for _ in range(WORDS):
                model(input_ids=word, cache=cache)

        _, seconds = timed(say)
    return logits.float().cpu().numpy(), first, seconds / WORDS


@torch.no_grad()
def at_once(given: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """The same sound given as a whole."""
    model, processor = load(given)
    samples = Sound().between(0, round((60 * minutes + BEHIND) * RATE))
    with peak() as most:
        clock = Clock(encoder=model.encoder)
        inputs, features = timed(
            lambda: prompt_batch(processor, [([samples], QUESTION)], model.device)
        )
        audio = model.encode_audio(inputs.pop("input_features"), inputs.pop("feature_lengths"))
        audio.reused = False
        out, prefill = timed(lambda: model(**inputs, audio=audio, logits_to_keep=1))
        new = greedy_tokens(model, processor, {**inputs, "audio": audio}, WORDS)
        answer = processor.tokenizer.decode(new[0], skip_special_tokens=True).strip()
        return {
            "features_s": features,
            "encoder_s": clock.seconds["encoder"],
            "prefill_s": prefill,
            "peak_bytes": look(most),
            "logits": out.logits[0, -1].float().cpu().numpy(),
            "answer": answer,
        }


def alone(call: Callable[..., Any], *args: Any) -> Any:
    """What a call gives in a process of its own, whose peak of memory nothing else raises."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *args).result()


def fit(minutes: list[float], values: list[float]) -> dict[str, float]:
    """a + b N + c N², and what share of it c N² is at the longest."""
    longest = max(minutes)
    share = np.array(minutes) / longest  # so that coefficients are of one size
    (c, b, a), covariance = np.polyfit(share, values, 2, cov=True)
    whole = a + b + c
    return {
        "a": float(a),
        "b": float(b / longest),
        "c": float(c / longest**2),
        "share": float(c / whole),
        "share_error": float(np.sqrt(covariance[0, 0]) / abs(whole)),
    }


def show(row: dict[str, Any]) -> None:
    """One length in two lines."""
    print(
        f"{row['minutes']:g} min, {row['columns']} columns: features {row['features_s']:.1f} s, "
        f"encoder {row['encoder_s']:.1f} s, append {row['append_s']:.1f} s; first word "
        f"{row['first_word_s']:.2f} s, each further {row['next_word_s']:.3f} s; cache "
        f"{row['cache_bytes'] / 2**20:.0f} MiB, peak {row['peak_bytes'] / 2**20:.0f} MiB"
    )
    if whole := row.get("offline"):
        print(
            f"    at once: features {whole['features_s']:.1f} s, encoder {whole['encoder_s']:.1f} "
            f"s, prefill {whole['prefill_s']:.2f} s, peak {whole['peak_bytes'] / 2**20:.0f} MiB; "
            f"same answer: {whole['same_answer']}, logits differ by "
            f"{whole['largest_difference']:.1e} of {whole['largest_logit']:.1f}",
            flush=True,
        )


def main() -> None:
    """Stream, compare, fit, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo/lal", help="a checkpoint")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of a shape instead")
    parser.add_argument("--integration", choices=["LAL", "PAL", "PLITS"], default="LAL")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20, 30, 45, 60])
    parser.add_argument("--offline-minutes", type=float, default=20, help="longest compared")
    parser.add_argument("--chunk", type=float, default=10.0, help="seconds heard at a time")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--offload", action="store_true", help="keys and values in CPU memory")
    parser.add_argument("--out", type=Path, default=Path("runs/long_audio.json"))
    given = parser.parse_args()
    given.minutes.sort()
    if len(given.minutes) < 5:
        parser.error("a fit of three numbers needs five lengths or more: give more --minutes.")

    rows = alone(streamed, given)
    for row in rows:
        logits, answer = row.pop("logits"), row["answer"]
        if row["minutes"] <= given.offline_minutes:
            whole = alone(at_once, given, row["minutes"])
            difference = np.abs(whole.pop("logits") - logits).max()
            row["offline"] = whole | {
                "largest_difference": float(difference),
                "largest_logit": float(np.abs(logits).max()),
                "same_answer": whole["answer"] == answer,
            }
        show(row)
    fitted = ["encoder_s", "append_s", "features_s", "first_word_s", "next_word_s"]
    fitted += ["cache_bytes", "peak_bytes"]
    report = header(default_device()) | {
        "arguments": {name: str(value) for name, value in vars(given).items()},
        "rows": rows,
        "fits": {name: fit(given.minutes, [row[name] for row in rows]) for name in fitted},
    }
    for name, found in report["fits"].items():
        print(
            f"{name:>13}: {found['a']:.3g} + {found['b']:.3g} N + {found['c']:.3g} N²; "
            f"N² is {found['share']:+.1%} ± {found['share_error']:.1%} at the longest"
        )
    write(report, given.out)


if __name__ == "__main__":
    main()
