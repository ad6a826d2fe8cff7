"""The short contract that every supported set of versions is held to (`make test-versions`).

Load, ask, hooks, nnsight, a sweep, a training step, a published class, the page: each through the
libraries whose versions may differ. All of it is tested elsewhere in more depth, with the pinned
versions; here with the oldest and the newest, and with other Pythons. Warnings are errors.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
import torch
from nnsight import NNsight
from streamlit.testing.v1 import AppTest

import palscope
from palscope._models.finding import find_checkpoint
from palscope._routing import Route
from palscope._verify import Sides, verify
from palscope._verify.plain import open_plain
from palscope.audio._bundled import bundled_scenes
from palscope.audio._waveform import Waveform
from tests import tiny
from tests.analyses.conftest import call, open_script
from tests.dashboards.conftest import DASHBOARDS, new_page, quiet, saved
from tests.hooks.conftest import make_hooked, noise
from tests.training.test_curriculum import Trial
from tests.verify.conftest import CLIP, sides_of_tiny

QUESTION = "Which digit is spoken second?"


@pytest.fixture(autouse=True)
def told(caplog: Any) -> Any:
    """Nothing is logged as a warning either: transformers logs what others warn of."""
    logger: Any = logging.getLogger("transformers")
    type(logger).warning_once.cache_clear()
    logger.propagate = True
    with caplog.at_level(logging.WARNING):
        yield caplog
    logger.propagate = False
    told = [each for each in caplog.records if each.name.startswith(("transformers", "palscope"))]
    assert not told, told


@pytest.fixture(scope="module")
def demo() -> Any:
    return palscope.load("demo/pal")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Route.pal(tiny.LAYERS), tmp_path_factory.mktemp("pal"))


def test_the_demo_answers(demo: Any) -> None:
    [scene] = [scene for scene in bundled_scenes() if scene.name == "three, seven, one"]
    samples = scene.waveform.samples
    assert demo.ask(QUESTION, samples) == "seven"
    beams = demo.model.generate(**demo.inputs(QUESTION, samples), num_beams=2, max_new_tokens=3)
    assert "seven" in demo.tokenizer.decode(beams[0])


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_hooks_see_and_change_what_the_plain_model_computes(demo: Any, family: str) -> None:
    route = Route.pal(tiny.LAYERS, [0, 2])
    hooked = make_hooked(demo.tokenizer, route, family)
    plain = tiny.model(route, family, vocab_size=49152)
    plain.config.audio_token_id = hooked.model.config.audio_token_id
    inputs = hooked.inputs(QUESTION, noise(0.4))
    wanted = plain(**inputs).logits
    slow, cache = hooked.run_with_cache(inputs)
    for got in (hooked(inputs), slow):
        torch.testing.assert_close(got, wanted, atol=5e-5, rtol=0)
    pattern = cache["blocks.2.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))

    def turn(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        del hook
        return -2 * tensor

    by_bridge = hooked.run_with_hooks(inputs, fwd_hooks=[("blocks.2.attn.hook_audio_k", turn)])
    view = NNsight(plain)
    with view.trace(**inputs):
        keys = view.audio_taps[2].k.output
        view.audio_taps[2].k.output = -2 * keys
        traced = view.output.logits.save()
    torch.testing.assert_close(traced, by_bridge, atol=2e-5, rtol=0)
    assert (traced - wanted).abs().max() > 1e-2

    # Decoding goes on from a cache, fused and slow alike.
    whole = hooked.model.generate(**inputs, max_new_tokens=3, do_sample=False, eos_token_id=None)
    steps = inputs
    with hooked.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda tensor, hook: tensor)]):
        said = hooked.model.generate(**steps, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert torch.equal(said, whole)


def test_a_sweep_is_measured_and_gone_on_with(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "one.wav", noise(0.5), 16_000)
    arguments = ("--model", checkpoint, "--audio", tmp_path, "--out", tmp_path / "out")
    script = open_script("attention_mass")
    assert call(script, monkeypatch, *arguments) == 0
    table = pd.read_parquet(tmp_path / "out" / "attention_mass.parquet")
    sums: Any = table.groupby(["layer", "head"])["mass"].sum()
    assert len(sums) == tiny.LAYERS * 4 and ((sums - 1).abs() < 1e-5).all()
    assert call(script, monkeypatch, *arguments, "--resume") == 0


def test_training_lowers_the_loss_with_adapters_and_opens_again(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    trial = Trial(tmp_path)
    [folder] = trial.train("out", train={"llm": "lora", "lora": {"rank": 2}}, steps=8)
    again = palscope.load(folder)
    assert again.ask("which tone is this", noise(0.3)) is not None


def test_the_demo_passes_what_palscope_verify_checks(demo: Any) -> None:
    def plain(row: Any) -> Any:
        return open_plain(find_checkpoint("demo/pal"), None, torch.device("cpu"), row)

    report = verify(Sides("demo/pal", plain, lambda: demo), Waveform(noise(0.6), 16_000, "noise"))
    assert len(report.results) == 15 and not report.failed
    assert {each.name for each in report.unchecked} == {"files", "prompt", "memory", "CPU = GPU"}


def test_a_published_class_passes_what_palscope_verify_checks() -> None:
    report = verify(sides_of_tiny("qwen2_audio"), CLIP)
    assert not report.failed
    assert {each.name for each in report.unchecked} == {"files", "memory", "CPU = GPU"}


def test_the_page_shows_an_answer(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DASHBOARDS))
    page: AppTest = new_page()
    page.query_params["model"] = "another …"
    page.query_params["model-folder"] = str(checkpoint)
    quiet(page.run())
    assert [m.value for m in page.markdown if m.value.startswith("## ")]
