"""`palscope verify` on folders as the hub has them, and on the demo."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import transformers

from palscope.__main__ import main
from palscope._verify import own
from palscope._verify.run import CheckList
from tests.fake_hub import serving
from tests.published.contract import noise
from tests.published.folders.build import about, hub_folder


@pytest.fixture(autouse=True)
def told_as_before() -> Any:
    level = transformers.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(level)
    transformers.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a class with adapters, today's date in prompts, and a clip that is text."""
    return hub_folder("granite_speech", tmp_path_factory.mktemp("hub") / "granite")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Longer than what is used of it."""
    soundfile.write(tmp_path / "clip.wav", noise(4.0), 16_000)
    return tmp_path / "clip.wav"


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What was printed of each check, by its name."""
    found: dict[str, str] = {}
    for line in capsys.readouterr().out.splitlines():
        for verdict in ("ok", "FAILED", "told", "not checked"):
            if line.startswith(f"{verdict:<11}  "):
                name, _, says = line[13:].partition("  ")
                found[name.strip()] = f"{verdict}: {says.strip()}"
    return found


def test_a_class_by_its_hub_name(
    tmp_path: Path,
    folder: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = about("granite_speech")["repository"]
    with serving(tmp_path / "cache", monkeypatch, {name: {"main": folder}}) as hub:
        out = tmp_path / "report.json"
        assert main(["verify", name, "--clip", str(clip), "--json", str(out)]) == 0
        commit, _ = hub.commit(name, "main") or ("", None)
    said, report = lines(capsys), json.loads(out.read_text())
    assert f"revision {commit}" in said["files"]
    assert "as of its own processor" in said["prompt"], said
    assert said["CPU = GPU"].startswith("not checked: it ran on the CPU")
    assert report["failed"] == [] and set(report["not_checked"]) == {"memory", "CPU = GPU"}
    assert report["class"] == "GraniteSpeechForConditionalGeneration"
    assert report["clip"] == {"source": str(clip), "seconds": 3.0}
    assert 30 < report["passes"] <= 60
    files = report["checks"][0]["numbers"]
    assert files["revision"] == commit and files["files"]["adapter_model.safetensors"] > 1000
    assert {each["name"]: each["verdict"] for each in report["checks"]}["knockout"] == "ok"
    assert report["versions"]["transformers"] == transformers.__version__


def test_half_precision_where_the_own_processor_does_not_open(
    folder: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def needs(*_: Any) -> Any:
        raise ImportError("the processor requires another package")

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", needs)
    wanted = ["verify", str(folder), "--clip", str(clip), "--dtype", "bfloat16"]
    assert main(wanted) == 0
    said = lines(capsys)
    assert said["prompt"].startswith("not checked: the class's own processor does not open")
    assert "the unhooked model" in said["logits"] and "bfloat16" in said["weights"]
    assert "too little to tell" in said["knockout"]


def test_a_failure_is_the_exit_code(
    folder: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = own.own_inputs

    def other(*arguments: Any) -> Any:
        made = given(*arguments)
        made["input_ids"][0, 1] += 1
        return made

    monkeypatch.setattr(own, "own_inputs", other)
    assert main(["verify", str(folder), "--clip", str(clip)]) == 1
    said = lines(capsys)
    assert said["prompt"].startswith("FAILED: 1 of")
    assert said["logits"].startswith("FAILED") and said["edits"].startswith("ok")


def test_what_cannot_be_opened_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "short.wav", noise(0.4), 16_000)
    for wanted in (
        ["nowhere"],
        ["demo/pal", "--clip", str(tmp_path / "no.wav")],
        ["demo/pal", "--clip", str(tmp_path / "short.wav")],
        ["demo/pal", "--device", "meta:a"],
        ["demo/pal", "--json", str(tmp_path / "no" / "report.json")],
    ):
        assert main(["verify", *wanted]) == 2
        out, error = capsys.readouterr()
        assert not out and error.startswith("palscope: ") and error.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main([])
    with pytest.raises(SystemExit, match="0"):
        main(["verify", "--help"])
    assert "--clip" in capsys.readouterr().out


def test_it_runs_as_a_module() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "palscope", "--help"], capture_output=True, text=True, check=True
    )
    assert "verify" in asked.stdout


def test_the_page_explains_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/real-weights.md").read_text("utf-8")
    rows = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    made: Any = None
    assert rows == list(CheckList(made, made, made, made).checks())
