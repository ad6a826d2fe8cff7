"""The page of stored runs, on what `analyses/attention_mass.py` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from palscope.audio.bundled import bundled_clips
from tests.dashboards.conftest import DASHBOARDS, figures, quiet
from tests.dashboards.test_clips_view import numbers


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
    script = DASHBOARDS.parent / "analyses" / "attention_mass.py"
    command = [sys.executable, str(script), "--model", str(checkpoint), "--audio", *clips]
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    return out


def test_a_stored_run_is_drawn(run: Path) -> None:
    page = shown(run)
    quiet(page)
    assert "analyses/attention_mass.py" in page.code[0].value
    assert page.subheader[0].value == "Attention mass, 2 clips"
    table: Any = pd.read_csv(run / "mass_by_layer.csv")
    expected = table.loc[table["pathway"] == "frames", "mean"]
    drawn = next(t for t in figures(page)[0]["data"] if t.get("name") == "frames")
    assert numbers(drawn["y"]) == pytest.approx(list(expected), abs=1e-6)


def test_what_is_no_run_ends_in_a_sentence(tmp_path: Path, run: Path) -> None:
    assert "holds no run.json" in shown(tmp_path).error[0].value
    (tmp_path / "run.json").write_text("{")
    assert "cannot be read" in shown(tmp_path).error[0].value
    (tmp_path / "run.json").write_text("[]")
    assert "no record of a run" in shown(tmp_path).error[0].value
    (tmp_path / "run.json").write_text(json.dumps({"command": "x"}))
    (tmp_path / "attention_mass.parquet").write_bytes(b"nothing")
    assert "cannot be read as attention_mass.py writes it" in shown(tmp_path).error[0].value
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "attention_mass.parquet")
    assert "cannot be read as attention_mass.py writes it" in shown(tmp_path).error[0].value
