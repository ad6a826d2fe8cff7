"""What routes cost: time and memory of prefill and of training, side by side in one run.

Prefill is what generation does first: the whole prompt, audio encoded before, logits of the last
position alone, keys and values kept. A machine's own speed drops out of the ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from palscope._models.audio_model import AudioLanguageModel
from palscope._models.processor import AudioProcessor
from palscope._models.scoring import prompt_batch
from palscope._routing import Route
from palscope.audio import Waveform
from palscope.audio._compose import SAMPLE_RATE

TIMED_QUESTION = "What sound is this?"
"""Of a class that is asked nothing, its own prompt."""

Prefill = Callable[[], Any]
"""Runs a prefill and gives the model's output, with its `cache`."""


def timed_prompt(
    processor: AudioProcessor, seconds: float, device: torch.device | str, rows: int = 1
) -> dict[str, Any]:
    """Inputs of `rows` prompts alike, each with noise of that length: what is timed."""
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.normal(size=round(seconds * SAMPLE_RATE))).astype(np.float32)
    clip = Waveform(noise, SAMPLE_RATE, "noise")
    asked = TIMED_QUESTION if processor.takes_questions else processor.any_question
    return prompt_batch(processor, [([clip], asked)] * rows, device)


def prefill(model: AudioLanguageModel, inputs: Mapping[str, Any], route: Route) -> Prefill:
    """The prefill of a prompt on `route`, to be called for timing.

    The encoder has run before, once; the projectors run at each call, as for a new clip about which
    nothing more will be asked.
    """
    with torch.no_grad():
        audio = model.encode_audio(inputs["input_features"], inputs["feature_lengths"])
    audio.reused = False

    def run() -> Any:
        with torch.no_grad(), model.routed(route):
            return model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                audio=audio,
                use_cache=True,
                logits_to_keep=1,
            )

    return run


def prefill_costs(
    prefills: Mapping[str, Prefill], baseline: str, *, repeats: int = 5
) -> pd.DataFrame:
    """Time and memory of each prefill, as ratios to one of them.

    All take turns, and a ratio is between two of the same turn, so that a busy machine slows both.
    A first turn warms up and is not counted.

    Args:
        prefills: by name.
        baseline: the name of the one that the ratios are to.
        repeats: turns that count.

    Returns:
        One row a prefill: `placement` (its name), `prefill_s` (median seconds), `prefill_ratio`
        (median over turns) with quartiles `prefill_ratio_low` and `prefill_ratio_high`,
        `cache_bytes` (keys and values of text and audio), `cache_ratio`, `peak_bytes` (the most
        that tensors hold at once beyond what was there before), `peak_ratio`.

    Raises:
        ValueError: `repeats` is below 1, or no prefill is called `baseline`.
    """
    table = _side_by_side(prefills, baseline, repeats, "prefill")
    caches = [int(call().cache.nbytes) for call in prefills.values()]
    table.insert(5, "cache_bytes", caches)
    table.insert(6, "cache_ratio", np.divide(caches, caches[list(prefills).index(baseline)]))
    return table


def training_step(model: AudioLanguageModel, batch: Mapping[str, Any]) -> Callable[[], Any]:
    """Forward and backward pass of a training step; the gradients are dropped.

    Args:
        model: what is to be trained requires gradients.
        batch: with clips (`input_features`, which the encoder runs on) and `labels`.
    """

    def run() -> None:
        with model.turns.block("training step"):
            before = model.training
            model.train()
            try:
                model(**batch).loss.backward()
            finally:
                model.zero_grad(set_to_none=True)
                model.train(before)

    return run


def training_step_costs(
    steps: Mapping[str, Callable[[], Any]], baseline: str, *, repeats: int = 5
) -> pd.DataFrame:
    """Time and memory of each training step, as ratios to one of them, measured in turns.

    Args:
        steps: by name, from `training_step`.
        baseline: the name of the one that the ratios are to.
        repeats: turns that count.

    Returns:
        One row a step: `placement` (its name), `step_s`, `step_ratio`, `step_ratio_low`,
        `step_ratio_high`, `step_peak_bytes`, `step_peak_ratio`, as in `prefill_costs`.

    Raises:
        ValueError: `repeats` is below 1, or no step is called `baseline`.
    """
    table: Any = _side_by_side(steps, baseline, repeats, "step")
    return table.rename(columns={name: f"step_{name}" for name in ("peak_bytes", "peak_ratio")})


def _side_by_side(
    calls: Mapping[str, Callable[[], Any]], baseline: str, repeats: int, what: str
) -> pd.DataFrame:
    """Seconds and peak bytes of each call, and their ratios; seconds are named after `what`."""
    if repeats < 1 or baseline not in calls:
        raise ValueError(
            f"repeats is {repeats} and the baseline {baseline!r}; expected at least one turn and "
            f"one of {', '.join(calls)}."
        )
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            took = _seconds(call)
            if turn:
                seconds[name].append(took)
    peaks = {name: peak_bytes(call) for name, call in calls.items()}
    rows: list[dict[str, Any]] = []
    for name in calls:
        ratios = np.divide(seconds[name], seconds[baseline])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        rows.append(
            {
                "placement": name,
                f"{what}_s": float(np.median(seconds[name])),
                f"{what}_ratio": float(middle),
                f"{what}_ratio_low": float(low),
                f"{what}_ratio_high": float(high),
                "peak_bytes": peaks[name],
                "peak_ratio": peaks[name] / peaks[baseline],
            }
        )
    return pd.DataFrame(rows)


def _seconds(call: Callable[[], Any]) -> float:
    """How long a call takes, its work on a GPU included."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most bytes that a call's tensors hold at once beyond what was there before."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        call()
    results: Any = profile.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
