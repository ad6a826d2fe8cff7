"""Scripts and page open the folder of a published model, as they open palscope's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from streamlit.testing.v1 import AppTest

from palscope.pairs import bundled_pairs
from tests.analyses.conftest import call, open_script
from tests.dashboards.conftest import DASHBOARDS, OTHER, figures, metrics, new_page, quiet
from tests.published.contract import save_parts
from tests.published.folders.build import hub_folder
from tests.published.tiny import qwen2_audio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("published")
    qwen2_audio.model().save_pretrained(made, max_shard_size="60KB")
    save_parts(qwen2_audio.processor(), made)
    return made


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("dog", "rain"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.normal(size=9600), 16_000)
    table = tmp_path / "clips.csv"
    table.write_text("path,domain,label\ndog.wav,sound,dog\nrain.wav,sound,rain\n", "utf-8")
    return table


@pytest.mark.slow
def test_scripts_measure_a_published_model(
    folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masses, leaks = tmp_path / "masses", tmp_path / "leaks"
    given: Any = ("--model", folder, "--out")
    mass = open_script("attention_mass")
    assert call(mass, monkeypatch, *given, masses, "--audio", manifest) == 0
    table = pd.read_parquet(masses / "mass_by_pathway.parquet")
    sums = table.groupby(["path", "layer", "head"])["mass"].sum()
    assert len(sums) == 2 * 3 * 4
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    leakage = open_script("leakage")
    clips = ("--audio", manifest, "--n", 1, "--windows", 1)
    assert call(leakage, monkeypatch, *given, leaks, *clips) == 0
    moved = pd.read_parquet(leaks / "leakage.parquet")
    assert {"mel", "encoder_block", "resid_post"} <= set(moved["site"])
    assert (moved["change"] > 0).any()


@pytest.mark.slow
def test_scripts_measure_an_encoder_decoder(
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody is asked: a prompt is one mark, and there is no other text to cut as a control."""
    folder = hub_folder("moonshine", tmp_path / "moonshine")

    def table(script: str, name: str, *more: Any) -> Any:
        out = tmp_path / script
        given: Any = ("--model", folder, "--out", out, *more)
        assert call(open_script(script), monkeypatch, *given) == 0
        return pd.read_parquet(out / f"{name}.parquet")

    mass = table("attention_mass", "mass_by_pathway", "--audio", manifest)
    assert set(mass["pathway"]) == {"frames"}
    np.testing.assert_allclose(mass["mass"], 1, atol=1e-5)
    pair = ("--kind", "digit", "--n", 1)
    cut = table("attention_knockout", "knockout", "--queries", "text", *pair)
    changes = cut[cut["run"] == "cut"]
    assert set(changes["pathway"]) == {"frames"} and (changes["kl"] > 0).all()
    given: Any = ("--model", folder, "--out", tmp_path / "queries", "--audio", manifest)
    assert call(open_script("audio_queries"), monkeypatch, *given) == 2
    assert "never stands among the words: there are no audio queries" in capsys.readouterr().err


@pytest.mark.slow
def test_models_are_compared_on_axes_that_they_share(
    folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = f"{{model: {folder}, route: 'frames:F1k2', dtype: bfloat16}}"
    config, out = tmp_path / "models.yaml", tmp_path / "out"
    config.write_text(f"models:\n  whole: {{model: {folder}}}\n  frozen: {half}\n", "utf-8")
    script = open_script("compare_models")
    given: Any = ("--config", config, "--audio", manifest.parent / "dog.wav", "--step", 0.2)
    assert call(script, monkeypatch, *given, "--out", out) == 0
    table = pd.read_csv(out / "profiles.csv")
    assert set(table["model"]) == {"whole", "frozen"}
    assert len(table.groupby(["model", "measure", "axis"])) == 8
    assert table["mean"].notna().all() and (out / "profiles.png").stat().st_size > 10_000
    seconds = table[table["axis"] == "seconds"]
    assert set(seconds["end"].round(6)) == {0.2, 0.4, 0.6}
    deep = table[(table["measure"] == "knockout") & (table["axis"] == "depth")]
    assert deep["end"].max() == 1 and (deep["mean"] > 0).any()
    config.write_text("models:\n  whole: {model: x, precision: 4}\n", "utf-8")
    assert call(script, monkeypatch, *given, "--out", tmp_path / "other") == 2


def interventions() -> None:
    from _interventions_view import view  # pyright: ignore[reportMissingImports]

    view()


def opened(page: AppTest, folder: Path, **address: str) -> AppTest:
    for name, value in ({"model": OTHER, "model-folder": str(folder)} | address).items():
        page.query_params[name] = value
    return page.run()


@pytest.mark.slow
def test_the_page_answers_and_patches_with_a_published_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DASHBOARDS))
    monkeypatch.setattr("sys.argv", ["attention.py"])
    page = opened(new_page(), folder, seconds="none")
    quiet(page)
    shares = metrics(page)
    assert set(shares) == {"text", "frames"}
    assert sum(float(share.split()[0]) for share in shares.values()) == pytest.approx(100, abs=0.2)
    pair = next(pair.name for pair in bundled_pairs() if pair.kind == "first_digit")
    page = AppTest.from_function(interventions, default_timeout=600)
    page = opened(page, folder, pair=pair, experiment="attribution")
    quiet(page)
    page = next(b for b in page.button if b.label.startswith("Run")).click().run()
    quiet(page)
    assert len(figures(page)) > 0
