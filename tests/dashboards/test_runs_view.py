"""The page of stored runs, on what `analyses/attention_mass.py` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from palscope.audio._bundled import bundled_clips
from tests.dashboards.conftest import figures, quiet
from tests.dashboards.test_clips_view import numbers
from tests.scripts import run_script


def script() -> None:
    import streamlit as st
    from _runs_view import view  # pyright: ignore[reportMissingImports]

    from palscope.errors import PalscopeError

    try:
        view()
    except PalscopeError as error:
        st.error(str(error))


def shown(folder: Path) -> AppTest:
    page = AppTest.from_function(script, default_timeout=600)
    page.query_params["run"] = str(folder)
    return page.run()


@pytest.fixture(scope="module")
def run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    clips = list(bundled_clips()["path"][:2])
    given = ("--model", checkpoint, "--audio", *clips, "--out", out)
    run_script("analyses/attention_mass.py", *given).check_returncode()
    return out


def test_a_stored_run_is_drawn(run: Path) -> None:
    page = shown(run)
    quiet(page)
    assert "analyses/attention_mass.py" in page.code[0].value
    assert page.header[0].value == "Attention mass, 2 clips"
    table: Any = pd.read_csv(run / "mass_by_layer.csv")
    expected = table.loc[table["pathway"] == "frames", "mean"].dropna()
    drawn = next(t for t in figures(page)[0]["data"] if t.get("name") == "frames")
    seen = [y for y in numbers(drawn["y"]) if not (y is None or np.isnan(y))]  # it breaks there
    assert seen == pytest.approx(list(expected), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "figures_of_it", "table"),
    [
        ("pathway_masking", {"accuracy"}, "scores.csv"),
        (
            "injection_depth",
            {"accuracy_by_layers", "accuracy_by_time", "accuracy_by_cache"},
            "accuracy.csv",
        ),
    ],
)
def test_figures_of_masking_and_of_placements_are_shown(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    figures_of_it: set[str],
    table: str,
) -> None:
    clips: Any = bundled_clips().query("domain == 'speech'").iloc[:3]  # the shortest
    manifest = tmp_path / "clips.csv"
    clips.to_csv(manifest, index=False)
    given = ["--model", checkpoint, "--audio", manifest, "--out", tmp_path / "runs" / script]
    if script != "pathway_masking":
        given += ["--seconds", "1", "--repeats", "1"]
    run_script(f"analyses/{script}.py", *given).check_returncode()
    monkeypatch.chdir(tmp_path)
    page = AppTest.from_function(globals()["script"], default_timeout=600).run()  # finds it itself
    quiet(page)
    assert f"analyses/{script}.py" in page.code[0].value
    assert {name for each in page.get("image") for name in each.captions} == figures_of_it
    inside = {each.label: each for each in page.expander}
    assert any("route, weights" in label for label in inside)
    assert len(inside[f"Table {table}"].dataframe[0].value) > 1
    if script == "pathway_masking":  # all clips are of one domain: there is no contrast
        assert inside["Table contrasts.csv"].caption[0].value.startswith("Empty")


def test_a_run_of_several_models_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("depth/pal", "depth/lal", "mass/pal", "alone"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"command": f"made {name}"}))
    picture = Image.new("RGB", (4, 4))
    for name in ("depth", "mass", "mass/pal"):
        picture.save(tmp_path / "runs" / name / "figure.png")
    monkeypatch.chdir(tmp_path)
    page = AppTest.from_function(script, default_timeout=600).run()
    quiet(page)
    assert page.caption[0].value == "Below runs/: runs/alone, runs/depth, runs/mass, runs/mass/pal"
    page = shown(Path("runs/depth"))
    quiet(page)
    assert [code.value for code in page.code] == ["made depth/lal", "made depth/pal"]
    assert len(page.get("image")) == 1
    page = shown(Path("runs/depth/pal"))
    assert page.info[0].value.endswith("are in runs/depth.") and not page.get("image")


def test_damaged_files_of_a_run_are_a_sentence_each(tmp_path: Path) -> None:
    record = {"command": 5, "config": ["no", "settings"]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.png").write_bytes(b"no picture")
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "good.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x01,\x00\n\xff")
    (tmp_path / "ragged.csv").write_text('a,b\n1,2\n1,2,3,4\n"')
    page = shown(tmp_path)
    told = [each.value for each in page.error]
    assert len(told) == 4 and all(" cannot be read as a " in each for each in told)
    assert [Path(each.split(" cannot")[0]).name for each in told] == [
        "a.png",
        "c.png",
        "bytes.csv",
        "ragged.csv",
    ]
    assert len(page.get("image")) == 1 and len(page.dataframe) == 1
    pd.DataFrame({"path": ["a"], "mass": ["much"]}).to_parquet(tmp_path / "attention_mass.parquet")
    assert "as attention_mass.py writes it" in shown(tmp_path).error[0].value


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 240, "no\0where"])
def test_a_folder_that_cannot_be_is_a_sentence(name: str) -> None:
    (error,) = shown(Path(name)).error
    assert "cannot be looked into" in error.value or "holds no run.json" in error.value


def test_what_is_no_run_ends_in_a_sentence(tmp_path: Path, run: Path) -> None:
    assert "holds no run.json" in shown(tmp_path).error[0].value
    (tmp_path / "run.json").write_text("{")
    assert "not valid JSON" in shown(tmp_path).error[0].value
    (tmp_path / "run.json").write_text("[]")
    assert "expected a run's record" in shown(tmp_path).error[0].value
    (tmp_path / "run.json").write_text(json.dumps({"command": "x"}))
    (tmp_path / "attention_mass.parquet").write_bytes(b"nothing")
    assert "cannot be read as attention_mass.py writes it" in shown(tmp_path).error[0].value
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "attention_mass.parquet")
    assert "cannot be read as attention_mass.py writes it" in shown(tmp_path).error[0].value
