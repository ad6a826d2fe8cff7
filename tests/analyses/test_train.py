"""The training command: a recipe of one's own, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from palscope._models import PalscopeForConditionalGeneration
from tests.analyses.conftest import call, open_script
from tests.training import small


def test_it_trains_by_a_recipe_and_tells_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = open_script("train")
    (tmp_path / "data").mkdir()
    data = small.write_questions(tmp_path / "data", each=2)
    content = small.recipe(small.write_bases(tmp_path), steps=2, log_every=2)
    recipe = small.write_recipe(tmp_path / "mine.yaml", content)
    places = ["--data", data, "--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    assert call(script, monkeypatch, recipe, *places, "--workers", 0, "--threads", 1) == 0
    told = capsys.readouterr().out
    assert "1-first: 0.0" in told and f"trained: {tmp_path / 'out' / '1-first'}" in told
    assert PalscopeForConditionalGeneration.from_pretrained(tmp_path / "out" / "1-first")

    (tmp_path / "bad.yaml").write_text("stages: {first: {stps: 3}}")
    assert call(script, monkeypatch, f"{recipe}+bad", *places) == 2
    assert "bad.yaml, stages.first.stps" in capsys.readouterr().err
    assert call(script, monkeypatch, "paper/stages+nothing", *places) == 2
    assert "nothing.yaml" in capsys.readouterr().err
