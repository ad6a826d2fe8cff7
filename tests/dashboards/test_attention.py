"""The attention page, run by Streamlit's AppTest on a tiny checkpoint."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from streamlit.testing.v1 import AppTest

DASHBOARDS = Path(__file__).resolve().parents[2] / "dashboards"


@pytest.fixture(autouse=True)
def as_streamlit_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DASHBOARDS))


@pytest.fixture
def page() -> AppTest:
    return new_page()


def new_page() -> AppTest:
    return AppTest.from_file(str(DASHBOARDS / "attention.py"), default_timeout=600)


@pytest.fixture
def shown(page: AppTest, checkpoint: Path) -> AppTest:
    """The page with the tiny checkpoint open."""
    return opened(page, checkpoint)


def opened(page: AppTest, folder: Path) -> AppTest:
    page.session_state["model"] = "another …"
    page.session_state["folder"] = str(folder)
    return page.run()


def quiet(page: AppTest) -> None:
    assert [e.value for e in page.error] == []
    assert [e.value for e in page.exception] == []


def metrics(page: AppTest) -> dict[str, str]:
    return {m.label: m.value for m in page.metric}


def answers(page: AppTest) -> dict[str, str]:
    """The answers shown, by the caption above each."""
    captions = [c.value for c in page.caption if c.value.startswith("Answer")]
    shown = [m.value[5:] for m in page.markdown if m.value.startswith("#### ")]
    return {c: re.sub(r"\\(.)", r"\1", s) for c, s in zip(captions, shown, strict=True)}


def figures(page: AppTest) -> list[Any]:
    """The page's plotly figures, from top to bottom."""
    return [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]


def test_a_question_is_answered_with_its_attention(shown: AppTest):
    quiet(shown)
    shares = metrics(shown)
    assert list(answers(shown)) == ["Answer"]
    assert set(shares) == {"text", "frames", "summary"}
    assert sum(float(v.split()[0]) for v in shares.values()) == pytest.approx(100, abs=0.2)
    assert len(figures(shown)) == 5  # spectrogram, tokens, by layer, map, over time
    assert len(shown.get("audio")) == 1


def test_every_axis_is_labelled(shown: AppTest):
    for figure in figures(shown):
        axes = [v for k, v in figure["layout"].items() if k.startswith(("xaxis", "yaxis"))]
        assert any("title" in axis for axis in axes)


def test_a_stream_switched_off_changes_the_numbers_beside_the_original(shown: AppTest):
    before, answer = metrics(shown), answers(shown)["Answer"]
    toggle = next(t for t in shown.toggle if t.label.startswith("summary"))
    toggle.set_value(False).run()
    quiet(shown)
    after = metrics(shown)
    assert answers(shown)["Answer, original"] == answer
    assert after["summary"] == "0.0 %"
    assert after["frames"] != before["frames"]
    assert len(figures(shown)) == 8  # by layer, map and over time stand there twice
    deltas = {m.label: m.delta for m in shown.metric}
    assert deltas["summary"] == f"-{before['summary'].split()[0]} points"
    toggle = next(t for t in shown.toggle if t.label.startswith("summary"))
    toggle.set_value(True).run()
    assert metrics(shown) == before


def test_a_layer_switched_off_is_silent_in_the_figure(shown: AppTest):
    pills = shown.pills[0]
    assert pills.value == [0]  # a third of four layers
    before = metrics(shown)
    pills.set_value([]).run()
    quiet(shown)
    assert before["frames"] != "0.0 %"
    assert metrics(shown)["frames"] == "0.0 %"


def test_everything_switched_off_still_answers(shown: AppTest):
    for toggle in shown.toggle:
        toggle.set_value(False)
    shown.run()
    quiet(shown)
    assert metrics(shown)["text"] == "100.0 %"


def test_the_answer_is_the_models_own(shown: AppTest, checkpoint: Path):
    from palscope import load, load_audio
    from palscope.audio.bundled import bundled_clips

    path = bundled_clips()["path"][4]
    shown.text_input(key="question").input("What is that?").run()
    expected = load(checkpoint).ask("What is that?", load_audio(path), max_new_tokens=12)
    assert answers(shown)["Answer"] == (expected or "(nothing)")


def test_an_example_question_is_taken(shown: AppTest):
    shown.selectbox(key="example").select("Which instrument plays?").run()
    quiet(shown)
    assert shown.text_input(key="question").value == "Which instrument plays?"


def test_an_upload_is_heard(shown: AppTest, tmp_path: Path):
    file = tmp_path / "tone.flac"
    soundfile.write(file, 0.1 * np.sin(np.arange(22050) / 8), 22050)
    before = metrics(shown)
    shown.selectbox(key="clip").select("another …").run()
    shown.file_uploader(key="upload").upload("tone.flac", file.read_bytes(), "audio/flac").run()
    quiet(shown)
    assert metrics(shown) != before


def wav(samples: np.ndarray, subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("broken.wav", b"RIFF and nothing", "broken.wav cannot be read as sound"),
        ("empty.ogg", b"", "empty.ogg cannot be read as sound"),
        ("none.wav", wav(np.zeros(0)), "none.wav holds no sound"),
        ("nan.wav", wav(np.full(800, np.nan)), "nan.wav holds NaN"),
        ("long.wav", wav(np.zeros(31 * 8000), "PCM_U8"), "at most 30 s"),
        ("large.wav", bytes(21_000_000), "large.wav has 21 MB"),
    ],
)
def test_a_bad_upload_ends_in_a_sentence(shown: AppTest, name: str, data: bytes, says: str):
    shown.selectbox(key="clip").select("another …").run()
    shown.file_uploader(key="upload").upload(name, data, "audio/wav").run()
    assert says in shown.error[0].value
    assert not shown.exception and not shown.metric


def test_silence_is_heard(shown: AppTest):
    shown.selectbox(key="clip").select("another …").run()
    shown.file_uploader(key="upload").upload("silence.wav", wav(np.zeros(8000)), "audio/wav").run()
    quiet(shown)
    assert metrics(shown)


def test_an_empty_question_ends_in_a_sentence(shown: AppTest):
    shown.text_input(key="question").input("  ").run()
    assert "question is empty" in shown.error[0].value


def test_a_folder_without_a_model_ends_in_a_sentence(page: AppTest, tmp_path: Path):
    opened(page, tmp_path)
    assert "has no config.json" in page.error[0].value
    opened(page, tmp_path / "nowhere")
    assert "no checkpoint" in page.error[0].value


def test_a_foreign_config_ends_in_a_sentence(page: AppTest, checkpoint: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text("{not json")
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    opened(page, tmp_path)
    assert page.error[0].value and not page.exception


def test_a_model_without_lal_has_streams_to_switch_and_no_layers(
    page: AppTest, plits_checkpoint: Path
):
    opened(page, plits_checkpoint)
    quiet(page)
    assert not page.pills
    assert set(metrics(page)) == {"text", "frames"}
    page.toggle[0].set_value(False).run()
    quiet(page)
    assert metrics(page) == {"text": "100.0 %", "frames": "0.0 %"}


def test_the_model_is_loaded_once_for_all_visitors(
    shown: AppTest, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    import _parts  # pyright: ignore[reportMissingImports]

    def load(name: str) -> None:
        raise AssertionError(f"{name} is loaded again")

    monkeypatch.setattr(_parts, "load", load)
    another = opened(new_page(), checkpoint)
    quiet(another)
    assert answers(another) == answers(shown)


def test_the_model_keeps_its_own_route(shown: AppTest, checkpoint: Path):
    import _parts  # pyright: ignore[reportMissingImports]

    shown.toggle[0].set_value(False).run()
    kept = _parts.open_model(str(checkpoint), _parts.version_of(str(checkpoint)))
    assert kept.model.current_route == kept.route


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo/pal", "demo/lal", "demo/plits"])
def test_the_demo_hears_a_rooster(page: AppTest, name: str):
    if not (DASHBOARDS.parent / name).is_dir():
        pytest.skip(f"this clone has no {name}")
    page.session_state["model"] = name
    page.session_state["clip"] = "rooster"
    page.run()
    quiet(page)
    assert f"How **{name}** takes in the sound" in page.markdown[0].value
    assert answers(page)["Answer"] == "rooster"
    assert len(figures(page)) == 5
