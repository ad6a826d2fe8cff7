"""Stages one after the other, killed and gone on with, on small random bases and tones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

import palscope
from palscope._connectors import LFSTConfig
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope.audio import Waveform
from palscope.datasets._examples import Example
from palscope.encoders import Several, WhisperEncoderConfig, build_encoder
from palscope.encoders._weights import save_encoder
from palscope.errors import DataError, PalscopeError, RecipeError
from palscope.training._curriculum import TrainingPaths, train_recipe
from palscope.training._recipe_files import read_recipe
from palscope.training._trainer import INSTRUCTION, ExampleCollator
from tests.planted import small_processor
from tests.training import small


class Trial:
    """Small bases, questions, and a way to train on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bases = small.write_bases(folder)
        (folder / "data").mkdir()
        self.questions = small.write_questions(folder / "data")
        self.made = 0

    def train(
        self, out: str, *, only: int | None = None, seed: int = 0, **changes: Any
    ) -> list[Path]:
        self.made += 1
        content = small.recipe(changes.pop("bases", self.bases), **changes)
        file = small.write_recipe(self.folder / f"{self.made}.yaml", content)
        paths = TrainingPaths(
            [str(self.questions)], self.folder / out, self.folder / "cache", workers=0
        )
        return train_recipe(read_recipe(str(file)), paths, only=only, seed=seed)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(tmp_path_factory.mktemp("trial"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def losses(folder: Path) -> list[dict[str, Any]]:
    """Everything logged, but for how long it took."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    timed = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
    return [{k: v for k, v in each.items() if k not in timed} for each in history if "loss" in each]


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def whisper_config(width: int) -> WhisperEncoderConfig:
    return WhisperEncoderConfig(
        d_model=width,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=8,
        num_mel_bins=8,
        layers=(1,),
    )


TWO = {
    "first": {},
    "second": {"train": {"llm": "frozen_ffn"}, "learning_rate": 1e-3, "epochs": 2, "steps": None},
}
STILL = {"first": {}, "second": {"learning_rate": 1e-9, "steps": 2}}


def test_each_stage_starts_from_the_one_before(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trial.train("two", stages=TWO)
    assert (first.name, second.name) == ("1-first", "2-second")
    assert [len(losses(first)), len(losses(second))] == [4, 12]  # 24 rows twice, in batches of 4
    assert set(weights(first)) < set(weights(second))  # the decoder with it, once it is trained
    assert not any(name.startswith("language_model") for name in weights(first))
    ffn = [name for name in weights(second) if ".mlp." in name]
    text = PalscopeForConditionalGeneration.from_pretrained(first).state_dict()
    assert ffn and all(torch.equal(weights(second)[name], text[name]) for name in ffn)
    assert losses(second)[-1]["loss"] < losses(first)[0]["loss"]
    assert not list(second.parent.glob("*/checkpoint-*"))
    assert (second / "tensorboard").is_dir() and (second / "skipped_rows.csv").is_file()
    processor: Any = PalscopeProcessor.from_pretrained(second)
    hooked = palscope.load(second)  # from_pretrained, and hooked
    inputs = hooked.inputs("which tone is this", str(trial.questions.parent / "low0.wav"))
    logits, cache = hooked.run_with_cache(inputs)
    assert logits.isfinite().all() and "blocks.0.attn.hook_audio_k" in cache
    assert processor.stream_ratios == [1, 3]

    def again(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished stage was begun again")

    monkeypatch.setattr(Trainer, "train", again)
    assert trial.train("two", stages=TWO) == [first, second]
    with pytest.raises(PalscopeError, match="another recipe, data or seed"):
        trial.train("two", stages=TWO, batch=2)


def test_one_stage_alone(trial: Trial) -> None:
    with pytest.raises(RecipeError, match="stage 2 starts from stage 1, which is not trained"):
        trial.train("alone", stages=TWO, only=2)
    with pytest.raises(RecipeError, match="no stage 3; the recipe has 1 to 2"):
        trial.train("alone", stages=TWO, only=3)
    (first,) = trial.train("alone", stages=STILL, only=1)
    (second,) = trial.train("alone", stages=STILL, only=2)
    assert (first.name, second.name) == ("1-first", "2-second")
    for name, value in weights(first).items():  # from there it hardly moved
        torch.testing.assert_close(weights(second)[name], value, atol=1e-3, rtol=1e-3)


KILLED: dict[str, Any] = {
    "steps": None,
    "epochs": 1.5,
    "batch": 4,
    "per_device": 2,
    "stages": {
        "first": {
            "train": {
                "encoder": True,
                "llm": "lora",
                "lora": {"dropout": 0.3, "modules": ["q_proj", "v_proj"]},
            }
        }
    },
    "data": {"format": "csv"},
    "samples": {"every": 1, "count": 2, "max_new_tokens": 3},
}


def test_a_killed_training_gives_the_losses_of_one_that_was_not(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = trial.train("whole", **KILLED)
    step = Trainer.training_step
    done: list[int] = []

    def killed(*args: Any, **kwargs: Any) -> Any:
        if len(done) == 11:  # in the second micro-batch of the sixth step, two after a checkpoint
            raise KeyboardInterrupt
        done.append(1)
        return step(*args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        trial.train("killed", **KILLED)
    monkeypatch.setattr(Trainer, "training_step", step)
    (resumed,) = trial.train("killed", **KILLED)
    assert len(losses(whole)) == 8  # 22 rows, for two are held out
    assert losses(resumed) == losses(whole)  # loss, norm of the gradient and rate of each step
    assert same(whole, resumed)
    samples = [(folder / "samples.jsonl").read_text() for folder in (whole, resumed)]
    assert samples[0] == samples[1] and len(samples[0].splitlines()) == 2 * 8
    line = json.loads(samples[0].splitlines()[0])
    assert line["step"] == 1 and line["expected"] in small.PITCH and "answer" in line


def test_batches_depend_on_the_seed_and_on_nothing_else(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[list[bytes]] = []
    collate = ExampleCollator.__call__

    def noted(self: Any, examples: Any) -> Any:
        heard[-1] += [each.waveforms[0].tobytes() for each in examples]
        return collate(self, examples)

    monkeypatch.setattr(ExampleCollator, "__call__", noted)
    done: list[Path] = []
    for route, seed, at_once in (
        ("plits", 0, None),
        ("lal", 0, None),
        ("lal", 0, 4),
        ("lal", 1, 4),
    ):
        heard.append([])
        changes: Any = {"steps": None, "epochs": 2, "batch": 12, "per_device": at_once}
        done += trial.train(f"{route}{seed}{at_once}", route=route, seed=seed, **changes)
    plits, lal, shared, other = heard
    assert len(plits) == 48 and plits == lal
    steps, of_shared = ([each[n : n + 12] for n in range(0, 48, 12)] for each in (lal, shared))
    assert [sorted(each) for each in steps] == [sorted(each) for each in of_shared]
    assert [sorted(map(len, each)) for each in steps] == [list(map(len, s)) for s in of_shared]
    assert [list(map(len, each)) for each in steps] != [list(map(len, s)) for s in of_shared]
    assert sorted(lal) == sorted(other) and shared != other
    assert lal[:24] != lal[24:]  # another order in the second pass
    for name, value in weights(done[1]).items():  # the same gradients, up to rounding
        torch.testing.assert_close(weights(done[2])[name], value, atol=1e-3, rtol=1e-2)
    assert not same(*done[2:])


def test_a_connector_learns_to_tell_tones(trial: Trial) -> None:
    changes: Any = {
        "route": "lal",
        "steps": 60,
        "batch": 12,
        "log_every": 20,
        "save_every": 60,
        "data": {"format": "csv", "split": "train"},
        "samples": {"every": 60, "count": 4, "max_new_tokens": 2},
    }
    (out,) = trial.train("learns", **changes)
    logged = losses(out)
    assert logged[-1]["loss"] < 0.5 * logged[0]["loss"]
    answers = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert sum(each["answer"] == each["expected"] for each in answers) >= 3


def test_bf16_and_checkpointing_train_and_frozen_bases_are_not_stored(trial: Trial) -> None:
    (out,) = trial.train("bf16", bf16=True, gradient_checkpointing=True)
    assert all(torch.isfinite(torch.tensor(each["loss"])) for each in losses(out))
    assert not any(name.startswith(("language_model", "encoder")) for name in weights(out))
    plain = trial.train("fp32")[0]
    assert losses(out)[0]["loss"] == pytest.approx(losses(plain)[0]["loss"], rel=0.02)


def test_gradient_checkpointing_changes_no_loss(trial: Trial) -> None:
    (one,) = trial.train("keeps")
    (other,) = trial.train("recomputes", gradient_checkpointing=True)
    for a, b in zip(losses(one), losses(other), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_accumulated_batches_are_the_whole_batch(trial: Trial) -> None:
    (one,) = trial.train("at-once", batch=6)
    (other,) = trial.train("by-twos", batch=6, per_device=2)
    for a, b in zip(losses(one), losses(other), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_training(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.training_step
    monkeypatch.setattr(
        Trainer, "training_step", lambda *a, **k: step(*a, **k) * torch.tensor(float("nan"))
    )
    with pytest.raises(PalscopeError, match="the loss is nan at step 1"):
        trial.train("nan")


def test_the_features_are_standardised_over_training_clips(trial: Trial) -> None:
    (out,) = trial.train("standard")
    model = PalscopeForConditionalGeneration.from_pretrained(out)
    assert model.connector.pool.mean.abs().sum() > 0
    assert (model.connector.pool.deviation > 0).all()
    assert model.connector.pool.deviation.std() > 0


def test_several_encoders_and_a_resampler(trial: Trial) -> None:
    parts = [build_encoder(whisper_config(n)) for n in (8, 12)]
    save_encoder(Several.of(*parts), trial.folder / "several")
    bases = {"text": trial.bases["text"], "encoder": str(trial.folder / "several")}
    lfst = {"kind": "lfst", "width": 16, "heads": 2, "feed_forward": 16, "latents": 1}
    connector = {"inputs": {"hidden": 16}, "layers": {"hidden": 16}, "resampler": lfst}
    (out,) = trial.train("several", bases=bases, connector=connector, steps=2)
    model = PalscopeForConditionalGeneration.from_pretrained(out)
    assert isinstance(model.connector.config.resampler, LFSTConfig)
    standards = [model.connector.pool, *model.connector.others]
    assert [len(each.mean) for each in standards] == [8, 12]
    for each in standards:  # each of its own encoder
        assert each.mean.abs().sum() > 0 and each.deviation.std() > 0


def test_clips_are_heard_at_the_encoders_rate() -> None:
    processor = small_processor(8, [1])
    processor.feature_extractor.sampling_rate = 8_000
    samples = np.sin(np.arange(8_000) / 9).astype(np.float32)
    example = Example([samples], "which sound", "A", "", [], [])
    batch = ExampleCollator(processor)([example])
    expected = processor("<|audio|> which", Waveform(samples, 16_000, "half a second"))
    torch.testing.assert_close(batch["feature_lengths"], expected["feature_lengths"])
    torch.testing.assert_close(batch["input_features"], expected["input_features"])


def test_ltus_prompt_is_its_template(trial: Trial) -> None:
    (out,) = trial.train("prompt", prompt="instruction")
    processor: Any = PalscopeProcessor.from_pretrained(out)
    assert processor.tokenizer.chat_template == INSTRUCTION
    assert processor.chat("What is it?") == (
        "<|audio|>### Instruction:\nWhat is it?\n\n### Input:\n\n\n### Response:\n"
    )
    # A row whose `input` holds something brings the heading itself.
    assert processor.chat("What is it?\n\n### Input:\nI am sad", clips=2) == (
        "<|audio|><|audio|>### Instruction:\nWhat is it?\n\n### Input:\nI am sad\n\n### Response:\n"
    )


def test_data_for_each_stage_or_one_for_all(trial: Trial) -> None:
    recipe = small.write_recipe(trial.folder / "three.yaml", small.recipe(trial.bases))
    paths = TrainingPaths(
        [str(trial.questions)] * 2, trial.folder / "three", trial.folder / "cache"
    )
    with pytest.raises(DataError, match="2 sources of data for 1 stages"):
        train_recipe(read_recipe(str(recipe)), paths)
