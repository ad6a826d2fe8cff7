from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palscope._sweeps import store
from palscope.datasets._manifest import ManifestError
from palscope.datasets._questions import LABELS
from palscope.errors import PalscopeError
from palscope.evaluation import _evaluate as evaluate
from palscope.evaluation._evaluate import evaluate_manifest

ROWS = [("sound", "dog"), ("sound", "rain"), ("music", "harp"), ("music", "Theremin")]


def test_scores_of_a_manifest_are_written_in_the_stated_form(
    make_manifest: Any, hearing: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scores = evaluate_manifest(hearing, make_manifest(ROWS), out, model="fake", progress=False)
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == scores
    assert (scores["accuracy"], scores["n"], scores["exact_match"]) == (1.0, 4, 1.0)
    assert {d: (s["accuracy"], s["n"]) for d, s in scores["by_domain"].items()} == {
        "sound": (1.0, 2),
        "music": (1.0, 2),
    }
    assert scores["by_domain"]["music"]["labels"] == [*LABELS["music"], "theremin"]
    assert (scores["missing"], scores["unreadable"]) == ([], [])
    assert scores["settings"]["model"] == "fake"


def test_swapped_audio_is_followed_and_the_own_label_missed(
    make_manifest: Any, hearing: Any, tmp_path: Path
) -> None:
    scores = evaluate_manifest(
        hearing, make_manifest(ROWS), tmp_path / "out", audio="swapped", progress=False
    )
    assert (scores["accuracy"], scores["follows_audio"], scores["n"]) == (0.0, 1.0, 4)


def test_missing_and_broken_audio_are_listed_and_left_out(
    make_manifest: Any, hearing: Any, tmp_path: Path
) -> None:
    manifest = make_manifest(ROWS)
    (tmp_path / "0.wav").unlink()
    (tmp_path / "3.wav").write_bytes(b"no sound")
    scores = evaluate_manifest(hearing, manifest, tmp_path / "out", progress=False)
    assert scores["missing"] == ["0.wav"]
    assert [each["path"] for each in scores["unreadable"]] == ["3.wav"]
    assert "3.wav" in scores["unreadable"][0]["error"]
    assert (scores["n"], scores["accuracy"]) == (2, 1.0)
    # the label of a row that cannot be heard is still a candidate of its domain
    assert "theremin" in scores["by_domain"]["music"]["labels"]


def test_no_audio_at_all_is_an_error_that_lists_it(hearing: Any, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,domain,label\ngone.wav,sound,dog\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"gone\.wav"):
        evaluate_manifest(hearing, manifest, tmp_path / "out", progress=False)


def test_split_and_limit_choose_rows(make_manifest: Any, hearing: Any, tmp_path: Path) -> None:
    manifest = make_manifest(ROWS, splits=["train", "validation", "validation", "train"])
    scores = evaluate_manifest(
        hearing, manifest, tmp_path / "out", split="validation", progress=False
    )
    assert (scores["n"], list(scores["by_domain"])) == (2, ["sound", "music"])
    scores = evaluate_manifest(hearing, manifest, tmp_path / "few", n=1, progress=False)
    assert [each["n"] for each in scores["by_domain"].values()] == [1, 1]
    with pytest.raises(ManifestError, match=r"no row has split 'test'.*train, validation"):
        evaluate_manifest(hearing, manifest, tmp_path / "no", split="test", progress=False)


def test_a_resumed_call_asks_nothing_again(
    make_manifest: Any, hearing: Any, tmp_path: Path
) -> None:
    manifest, out = make_manifest(ROWS), tmp_path / "out"
    first = evaluate_manifest(hearing, manifest, out, progress=False)
    asked = len(hearing.asked)
    assert evaluate_manifest(hearing, manifest, out, resume=True, progress=False) == first
    assert len(hearing.asked) == asked
    with pytest.raises(PalscopeError, match="holds a run already"):
        evaluate_manifest(hearing, manifest, out, progress=False)
    with pytest.raises(PalscopeError, match=r"config\.wordings: 'train', now 'heldout'"):
        evaluate_manifest(hearing, manifest, out, wordings="heldout", resume=True, progress=False)
    assert len(hearing.asked) == asked
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == first


def test_one_process_at_a_time(
    make_manifest: Any, hearing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Path] = []

    def hold(folder: Path) -> Any:
        held.append(folder)
        return store.hold(folder)

    monkeypatch.setattr(evaluate, "hold", hold)
    evaluate_manifest(hearing, make_manifest(ROWS), tmp_path / "out", progress=False)
    assert held == [tmp_path / "out"]
    assert not store.hold(tmp_path / "out").lock_counter > 1  # it was released


def test_time_questions_are_scored_by_kind(
    make_manifest: Any, hearing: Any, tmp_path: Path
) -> None:
    manifest = make_manifest([(d, label) for d, labels in LABELS.items() for label in labels])
    scores = evaluate_manifest(
        hearing, manifest, tmp_path / "out", temporal=True, n=30, progress=False
    )
    temporal = scores["temporal"]
    assert {"digit_first", "digit_last", "digit_count", "sound_first"} <= set(temporal)
    assert temporal["sound_first"]["chance"] == 0.5
    assert temporal["sound_first"]["present"] == 1.0
    assert sum(score["n"] for score in temporal.values()) == 3 * 30
    assert scores["n"] == sum(map(len, LABELS.values()))
    assert (tmp_path / "out" / "temporal" / "predictions.jsonl").is_file()
