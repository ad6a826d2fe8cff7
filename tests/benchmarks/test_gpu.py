"""The run for a first person with a GPU: its toy, on a pretended one, and how it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_subjects, integrations, long_audio
from tests.devices.pretended import FIRST

KEPT = Path(integrations.__file__).parent / "gpu_toy.json"
RATIOS = {
    "hooks": {"plain", "no listeners", "residuals cached", "everything cached"},
    "mass": {"plain", "pathway", "pathway of all text", "keys", "patterns"},
    "sweep": {"plain", "engine", "loop"},
}


def checked(report: dict[str, Any], subjects: set[str]) -> None:
    """Every part is there, whole, with its ratios, and both sides of each compute the same."""
    parts = report["parts"]
    assert {name: part["ended"] for name, part in parts.items()} == dict.fromkeys(
        gpu.PARTS, "complete"
    )
    for name, ways in RATIOS.items():
        rows = parts[name]["rows"]
        assert set(rows) == subjects
        for row in rows.values():
            assert set(row["ways"]) == ways
            assert all(way["ratio"] > 0 and way["seconds"] > 0 for way in row["ways"].values())
            assert row["ways"]["plain"]["ratio"] == 1
    for row in parts["hooks"]["rows"].values():
        assert max(row["largest_difference"].values()) < 1e-5
    for row in parts["sweep"]["rows"].values():
        assert row["largest_difference"] < 1e-5 * row["largest_logit"]
    (table,) = parts["integrations"]["rows"].values()
    assert {(row["phase"], row["integration"]) for row in table} == {
        (phase, name)
        for phase in ("training", "prefill", "decoding")
        for name in ("PLITS", "LAL", "PAL")
    }
    assert all(row["largest_difference"] < 1e-4 for row in table)
    rows = parts["kernels"]["rows"]
    dense = {name: rows[name]["layers_with_dense_mask"] for name in ("PLITS", "LAL", "PAL")}
    assert dense == {"PLITS": 0, "LAL": 4, "PAL": 1}
    assert all(rows[name]["prefill"] and rows[name]["training"] for name in dense)
    assert rows["attention alone"]["largest_difference"] < 1e-5


def test_the_toy_that_is_kept_ran_on_a_cpu() -> None:
    report = json.loads(KEPT.read_text(encoding="utf-8"))
    assert report["device"] == "cpu" and report["settings"]["shape"] == "toy"
    checked(report, set(gpu.TOY.subjects))


def test_the_toy_runs_on_a_pretended_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One subject; tensors that a GPU would not let meet are an error."""
    one = "llama-3.2-1b LAL"
    made: list[Any] = []

    def once(*given: Any) -> Any:
        if not made:
            made.append(gpu_subjects.TOY.subjects[one](*given))
        return made[0]

    smaller = replace(gpu.TOY, frames=(8,), words=8, minutes=(0.1,), cells=3)
    monkeypatch.setattr(gpu, "TOY", replace(smaller, subjects={one: once}))
    for module in (gpu, long_audio):
        monkeypatch.setattr(module, "default_device", lambda: FIRST)
    with torch.autograd.set_multithreading_enabled(False):
        gpu.main(["--toy", "--out", str(tmp_path / "gpu.json")])
    checked(json.loads((tmp_path / "gpu.json").read_text()), {one})


def parts(monkeypatch: pytest.MonkeyPatch, rows: Any, limit: float = 60) -> None:
    """In place of the real ones: `machine`, which is nothing, and `one`, which gives `rows`."""
    made: dict[str, Any] = {"machine": (lambda run: iter(()), 60), "one": (rows, limit)}
    monkeypatch.setattr(gpu, "PARTS", made)


def run(out: Path) -> Any:
    return gpu.main(["--toy", "--parts", "one", "--out", str(out)])["parts"]["one"]


def test_a_run_that_is_killed_goes_on_with_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, made = tmp_path / "gpu.json", list[str]()

    def rows(run: Any, killed: bool) -> Iterator[tuple[str, Any]]:
        for name in ("a", "b"):
            if name not in run.done:
                if killed and name == "b":
                    raise KeyboardInterrupt
                made.append(name)
                yield name, 1

    parts(monkeypatch, lambda each: rows(each, killed=True))
    with pytest.raises(KeyboardInterrupt):
        run(out)
    assert json.loads(out.read_text())["parts"]["one"] == {"attempts": 1, "rows": {"a": 1}}
    parts(monkeypatch, lambda each: rows(each, killed=False))
    found = run(out)
    assert made == ["a", "b"] and found["rows"] == {"a": 1, "b": 1}
    assert run(out) == found  # all is there


def test_a_part_ends_with_its_time_and_keeps_its_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def rows(_run: Any) -> Iterator[tuple[str, Any]]:
        yield "a", 1
        time.sleep(10)
        yield "b", 2

    parts(monkeypatch, rows, limit=0.1)
    found = run(tmp_path / "gpu.json")
    assert found["rows"] == {"a": 1} and found["ended"] == "stopped after 0.1 s"


def test_a_part_that_fails_is_begun_twice_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def rows(_run: Any) -> Iterator[tuple[str, Any]]:
        raise torch.OutOfMemoryError("none left")

    parts(monkeypatch, rows)
    attempts = [run(tmp_path / "gpu.json")["attempts"] for _ in range(3)]
    assert attempts == [1, 2, 2]
    assert "none left" in run(tmp_path / "gpu.json")["ended"]


def test_the_whole_run_fits_into_twelve_minutes() -> None:
    """With 20 s to start."""
    assert sum(limit for _, limit in gpu.PARTS.values()) <= 12 * 60 - 20


def test_without_a_gpu_the_toy_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "default_device", lambda: "cpu")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--toy" in capsys.readouterr().err
