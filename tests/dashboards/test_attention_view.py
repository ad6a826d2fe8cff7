"""The main page, run by Streamlit's AppTest on a tiny checkpoint."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from streamlit.testing.v1 import AppTest

from tests.dashboards.conftest import OTHER, captions, figures, metrics, new_page, quiet
from tests.scripts import ROOT, run_script

Opener = Callable[..., AppTest]


def answers(page: AppTest) -> dict[str, str]:
    """The answers shown, by the caption above each."""
    above = [c.split(" of **")[0] for c in captions(page) if c.startswith("Answer")]
    shown = [m.value[3:] for m in page.markdown if m.value.startswith("## ")]
    return {c: re.sub(r"\\(.)", r"\1", s) for c, s in zip(above, shown, strict=True)}


@pytest.fixture
def shown(open_page: Opener) -> AppTest:
    return open_page()


def test_a_question_is_answered_with_its_attention(open_page: Opener) -> None:
    shown = open_page(seconds="none")
    quiet(shown)
    shares = metrics(shown)
    assert list(answers(shown)) == ["Answer"]
    assert set(shares) == {"text", "frames", "summary"}
    assert sum(float(v.split()[0]) for v in shares.values()) == pytest.approx(100, abs=0.2)
    assert len(figures(shown)) == 4  # effects, candidates, by layer, map
    assert len([c for c in captions(shown) if re.match(r"prefill \d+ ms", c)]) == 1


def test_every_axis_is_labelled(shown: AppTest) -> None:
    for figure in figures(shown):
        axes = [v for k, v in figure["layout"].items() if k.startswith(("xaxis", "yaxis"))]
        assert any("title" in axis for axis in axes)


def test_the_answer_is_the_models_own(open_page: Opener, checkpoint: Path) -> None:
    from palscope import load, load_audio
    from palscope.audio._bundled import bundled_clips

    page = open_page(question="What is that?", clip="rooster")
    quiet(page)
    clips = bundled_clips()
    path = clips.loc[clips["label"] == "rooster", "path"].iloc[0]
    expected = load(checkpoint).ask("What is that?", load_audio(path), max_new_tokens=16)
    assert answers(page)["Answer"] == (expected or "(nothing)")


def test_a_route_in_the_address_stands_beside_the_trained_one(open_page: Opener) -> None:
    before = open_page()
    page = open_page(route="frames:P.3,summary/3:.4")
    quiet(page)
    assert list(answers(page)) == ["Answer, as trained", "Answer, changed route"]
    assert answers(page)["Answer, as trained"] == answers(before)["Answer"]
    assert metrics(page) == metrics(before)
    other = {m.label: m.delta for m in page.metric}
    assert other["summary"] == "changed route: 0.0 %"
    assert other["frames"] != f"changed route: {metrics(before)['frames']}"


def test_no_sound_at_all_still_answers(open_page: Opener) -> None:
    page = open_page(route="frames:.4,summary/3:.4", seconds="0.50-1.00")
    quiet(page)
    assert {m.label: m.delta for m in page.metric}["text"] == "changed route: 100.0 %"
    assert any("no sound is seen" in c for c in captions(page))


@pytest.mark.parametrize("route", ["other/2:F4", "frames:P30,summary/3:F30", "what"])
def test_a_route_that_does_not_fit_is_said_and_left(open_page: Opener, route: str) -> None:
    page = open_page(route=route)
    quiet(page)
    assert "does not fit" in page.warning[0].value
    assert list(answers(page)) == ["Answer"]


def test_a_known_route_goes_into_the_address(shown: AppTest) -> None:
    shown.selectbox(key="preset").select("summary muted").run()
    quiet(shown)
    assert shown.query_params["route"] == "frames:P.3,summary/3:.4"
    assert "Answer, changed route" in answers(shown)
    back = next(b for b in shown.button if b.label == "Back to the trained route")
    back.click().run()
    assert "route" not in shown.query_params
    assert list(answers(shown)) == ["Answer"]


def test_selected_seconds_are_counted_and_said(open_page: Opener) -> None:
    page = open_page(seconds="1.00-1.25", stream="selected seconds")
    quiet(page)
    assert set(metrics(page)) == {"text", "frames", "summary", "1.00–1.25 s"}
    said = next(c for c in captions(page) if "tokens that overlap" in c)
    assert "3 of frames (1.00 to 1.30 s)" in said
    assert figures(page)[-1]["data"][0]["type"] == "heatmap"


def test_seconds_tile_into_the_streams(open_page: Opener) -> None:
    page = open_page(seconds="0.00-30.00")
    shares = {k: float(v.split()[0]) for k, v in metrics(page).items()}
    whole = shares["0.00–30.00 s"]
    assert whole == pytest.approx(shares["frames"] + shares["summary"], abs=0.21)


def test_a_token_of_the_answer_can_be_asked(open_page: Opener) -> None:
    first, second = open_page(), open_page(token="1")
    quiet(second)
    assert second.button_group(key="token").value == 1
    assert metrics(second) != metrics(first)


def test_layer_and_head_come_from_the_address(open_page: Opener) -> None:
    page = open_page(layer="2", head="mean of all")
    quiet(page)
    assert (page.selectbox(key="layer").value, page.selectbox(key="head").value) == (
        "2",
        "mean of all",
    )
    assert any("layer 2, all heads" in c for c in captions(page))


def test_a_click_on_a_head_reads_no_sound_again(
    open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curves find their player by the digest that the sound has already: no hash is taken."""
    page = open_page(layer="0", head="0", seconds="none")
    hashed: list[int] = []
    sha256 = hashlib.sha256

    def counted(data: bytes = b"", **more: Any) -> Any:
        hashed.append(len(data))
        return sha256(data, **more)

    monkeypatch.setattr(hashlib, "sha256", counted)
    page.selectbox(key="head").select("1").run()
    quiet(page)
    assert max(hashed, default=0) < 5_000, "bytes; a second of sound has 64,000"
    parts = [each.proto.json for each in page.get("bidi_component")]
    shown = [json.loads(each) for each in parts if each]
    (player,) = (each for each in shown if "wav" in each)
    (curves,) = (each for each in shown if "curves" in each)
    assert curves["id"] == player["id"] and "layer 0, head 1" in curves["curvesTitle"]


def test_candidates_are_ranked(open_page: Opener) -> None:
    page = open_page(candidates="dog, rain,, dog ,rooster")
    quiet(page)
    chart = figures(page)[1]
    assert set(chart["layout"]["yaxis"]["ticktext"]) == {"dog", "rain", "rooster"}
    shares = chart["data"][0]["x"]
    assert len(page.get("plotly_chart")) == 4 and shares is not None


def test_a_link_has_every_stretch_cut(open_page: Opener) -> None:
    page = open_page(**{"cut seconds": "true"})
    quiet(page)
    assert page.toggle(key="cut seconds").value is True


def test_two_models_stand_side_by_side(open_page: Opener, plits_checkpoint: Path) -> None:
    address = {"against": "another model", "model2": OTHER, "model2-folder": str(plits_checkpoint)}
    page = open_page(**address)
    quiet(page)
    assert len([c for c in captions(page) if c.startswith("Answer of ")]) == 2
    assert len(figures(page)) == 7  # effects, first tokens, candidates, two by layer, two maps


def test_a_stream_that_only_one_model_has(open_page: Opener, plits_checkpoint: Path) -> None:
    address = {"against": "another model", "model2": OTHER, "model2-folder": str(plits_checkpoint)}
    page = open_page(**address, stream="summary")
    quiet(page)
    assert any("has no stream summary" in i.value for i in page.info)
    assert "–" in {m.label: m.delta for m in page.metric}["summary"]


def test_two_sounds_stand_side_by_side(open_page: Opener) -> None:
    page = open_page(against="another sound", clip="rooster", clip2="rain", seconds="0.20-0.40")
    quiet(page)
    assert list(answers(page)) == ["Answer, rooster", "Answer, rain"]
    assert len([c for c in captions(page) if "tokens that overlap" in c]) == 2


def test_an_example_question_is_taken(shown: AppTest) -> None:
    shown.selectbox(key="example").select("Which instrument plays?").run()
    quiet(shown)
    assert shown.text_input(key="question").value == "Which instrument plays?"


def wav(samples: np.ndarray, subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV", subtype=subtype)
    return file.getvalue()


SINE = np.sin(np.arange(8000) / 8)


def uploaded(page: AppTest, name: str, data: bytes) -> AppTest:
    page.selectbox(key="clip").select("upload …").run()
    return page.file_uploader(key="clip-upload").upload(name, data, "audio/wav").run()


def test_an_upload_is_heard(shown: AppTest) -> None:
    before = metrics(shown)
    uploaded(shown, "tone.wav", wav(0.1 * np.sin(np.arange(8000) / 8)))
    quiet(shown)
    assert metrics(shown) != before


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("broken.wav", b"RIFF and nothing", "broken.wav cannot be read as sound"),
        ("empty.ogg", b"", "empty.ogg cannot be read as sound"),
        ("../../etc/none.wav", wav(np.zeros(0)), "none.wav holds no sound"),
        ("nan.wav", wav(np.full(800, np.nan)), "nan.wav holds NaN"),
        ("long.wav", wav(np.zeros(31 * 8000), "PCM_U8"), "at most 30 s"),
        ("large.wav", bytes(21_000_000), "large.wav has 21 MB"),
        ("scaled.wav", wav(2**14 * SINE), "look like integers held as floats"),
        ("opposite.wav", wav(np.stack([SINE, -SINE], 1)), "opposite phase and cancel"),
    ],
    # The data would name the cases, and a WAV of floats holds the second in which it was written.
    ids=["broken", "empty", "none", "nan", "long", "large", "scaled", "opposite"],
)
def test_a_bad_upload_ends_in_a_sentence(shown: AppTest, name: str, data: bytes, says: str) -> None:
    uploaded(shown, name, data)
    assert says in shown.error[0].value
    assert not shown.exception and not shown.metric


def test_silence_is_heard_and_told(shown: AppTest) -> None:
    uploaded(shown, "silence.wav", wav(np.zeros(8000)))
    quiet(shown)
    assert metrics(shown)
    assert shown.warning[0].value == r"silence\.wav is silent\: all of its samples are 0\."


def test_what_is_odd_about_a_sound_is_told_whenever_it_is_shown(shown: AppTest) -> None:
    turned = np.where(np.arange(8000) < 4000, 1, -1)
    loud = np.clip(2 * SINE, -1, 1)
    uploaded(shown, "odd.wav", wav(np.stack([loud, loud * turned], 1), "PCM_16"))
    for _ in range(2):  # the second time, out of the cache
        quiet(shown)
        said = [each.value for each in shown.warning]
        assert len(said) == 2 and "is clipped" in said[0] and "opposite phase" in said[1], said
        shown.selectbox(key="clip").select("rooster").run()
        assert not shown.warning
        uploaded(shown, "odd.wav", wav(np.stack([loud, loud * turned], 1), "PCM_16"))


def test_a_link_to_an_upload_asks_for_it(open_page: Opener) -> None:
    page = open_page(clip="upload …")
    quiet(page)
    assert "cannot carry a sound" in page.info[0].value


def test_a_folder_without_a_model_ends_in_a_sentence(open_page: Opener, tmp_path: Path) -> None:
    assert "has no config.json" in open_page(folder=tmp_path).error[0].value
    assert "no checkpoint" in open_page(folder=tmp_path / "nowhere").error[0].value


def test_a_foreign_config_ends_in_a_sentence(
    open_page: Opener, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{not json")
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    page = open_page(folder=tmp_path)
    assert page.error[0].value and not page.exception


def test_a_model_without_lal_has_its_own_streams(open_page: Opener, plits_checkpoint: Path) -> None:
    page = open_page(folder=plits_checkpoint, seconds="none")
    quiet(page)
    assert set(metrics(page)) == {"text", "frames"}


def test_the_model_is_loaded_once_for_all_visitors(
    open_page: Opener, shown: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _models  # pyright: ignore[reportMissingImports]

    def load(name: str) -> None:
        raise AssertionError(f"{name} is loaded again")

    monkeypatch.setattr(_models, "load", load)
    another = open_page(new_page())
    quiet(another)
    assert answers(another) == answers(shown)


def test_the_model_keeps_its_own_route(open_page: Opener, checkpoint: Path) -> None:
    import _models  # pyright: ignore[reportMissingImports]

    quiet(open_page(route="frames:.4,summary/3:F4"))
    kept = _models.cached_model(str(checkpoint))
    assert kept.model.current_route == kept.route


def test_the_command_gives_the_pages_numbers(
    open_page: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = open_page(clip="rooster", question="What's that?", token="1")
    quiet(page)
    command = shlex.split(next(c.value for c in page.code if "attention_mass.py" in c.value))
    command[-1] = str(tmp_path / "out")
    monkeypatch.chdir(ROOT)  # where the page runs
    run_script(*command[1:]).check_returncode()
    table: Any = pd.read_parquet(tmp_path / "out" / "attention_mass.parquet")
    shares: Any = table.groupby("pathway", observed=True)["mass"].sum() / table["mass"].sum()
    for pathway, shown in metrics(page).items():
        assert 100 * shares[pathway] == pytest.approx(float(shown.split()[0]), abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo/lal", "demo/plits"])  # demo/pal does in the browser
def test_the_demo_hears_a_rooster(page: AppTest, name: str) -> None:
    page.query_params["model"] = name
    page.query_params["clip"] = "rooster"
    page.run()
    quiet(page)
    assert answers(page)["Answer"] == "rooster"
    assert any("known to be: **rooster**" in each for each in captions(page))


def test_the_lens_s_last_layer_is_the_answer(open_page: Opener) -> None:
    page = open_page(clip="rooster")
    assert not any("logit lens" in each.proto.body for each in page.get("html"))
    page.toggle(key="read lens").set_value(True).run()
    quiet(page)
    (table,) = [each.proto.body for each in page.get("html") if "logit lens" in each.proto.body]
    rows = re.findall(r"<tr>(.*?)</tr>", table)
    cells = re.findall(r"<td .*?>(.*?) <small>(.*?)</small>", rows[1])
    steps = next(each.proto.body for each in page.get("html") if "each step" in each.proto.body)
    chosen = re.findall(r"<b>(.*?)</b> <small>(.*?)</small>", steps)
    assert cells == chosen and "after 3" in rows[1] and "before layer 0" in rows[-1]
    unit = next(each for each in page.button_group if (each.key or "").startswith("lens unit"))
    unit.set_value("nats").run()
    (table,) = [each.proto.body for each in page.get("html") if "logit lens" in each.proto.body]
    first = float(re.findall(r"<small>(.*?)</small>", re.findall(r"<tr>(.*?)</tr>", table)[1])[0])
    assert np.exp(first) == pytest.approx(float(chosen[0][1].split()[0]) / 100, rel=0.02)


def test_a_text_shows_in_markdown_as_it_is() -> None:
    """Of what is no ASCII punctuation Markdown takes no backslash."""
    from _sides import plain  # pyright: ignore[reportMissingImports]

    assert plain("␣digit ⏎ “é”") == "␣digit ⏎ “é”"
    assert plain("*a*_b_`c`[d]<e>$f$~") == r"\*a\*\_b\_\`c\`\[d\]\<e\>\$f\$\~"
