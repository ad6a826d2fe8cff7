"""Cutting on the page: new answers, controls, taking back, and heads by effect."""

from __future__ import annotations

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

from palscope import load
from palscope.interventions import Address, Knockout, Sound, intervene
from palscope.measures import Answers, head_effects
from palscope.measures._metrics import answer_metrics
from tests.dashboards.conftest import captions, figures, quiet
from tests.scripts import run_script

Opener = Callable[..., AppTest]


def written(page: AppTest) -> str:
    """The edits in the address; a fragment writes them as they are, the whole page in a list."""
    found: Any = page.query_params["edits"]
    return found if isinstance(found, str) else found[0]


def new_answers(page: AppTest) -> list[tuple[str, ...]]:
    """The old and the new answer of each line."""
    lines = [m.value for m in page.markdown if " → " in m.value]
    return [tuple(re.findall(r"\*\*(.*?)\*\*", line)) for line in lines]


@pytest.fixture
def scene(open_page: Opener) -> AppTest:
    return open_page()


def test_the_first_screen_selects_where_the_answer_sounds_and_has_no_edit(scene: AppTest) -> None:
    quiet(scene)
    assert scene.selectbox(key="clip").value == "three, seven, one"
    assert new_answers(scene) == [] and "edits" not in scene.query_params
    assert not scene.button(key="cut").disabled
    assert any("from 0.68–1.21 s" in each for each in captions(scene))


def test_a_cut_asks_again_and_stands_in_the_address(scene: AppTest, checkpoint: Any) -> None:
    from _sounds import bundled_sound  # pyright: ignore[reportMissingImports]

    scene.button(key="cut").click().run()
    quiet(scene)
    assert written(scene) == "cut~0.68-1.21~~~~"
    ((old, new),) = new_answers(scene)
    clip, model = bundled_sound("three, seven, one"), load(checkpoint)
    inputs = model.inputs(clip.question, clip.waveform)
    assert old == (model.ask(clip.question, clip.waveform, max_new_tokens=16) or "(nothing)")
    with intervene(model, inputs, [Knockout(Address("pattern", Sound(0.68, 1.21)))]):
        assert new == (model.ask(clip.question, clip.waveform, max_new_tokens=16) or "(nothing)")
    assert any("shares no token with it" in each for each in captions(scene))


def test_the_command_gives_the_page_s_numbers(
    scene: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from _sounds import bundled_sound  # pyright: ignore[reportMissingImports]

    scene.button_group(key="cut streams").set_value(["summary"])
    scene.select_slider(key="cut layers").set_value((1, 2))
    scene.multiselect(key="cut heads").set_value([1, 3])
    scene.button(key="cut").click().run()
    quiet(scene)
    (shown,) = [each.value for each in scene.dataframe if "lead then (nats)" in each.value]
    (command,) = [each.value for each in scene.code if "attention_knockout" in each.value]
    clip = bundled_sound("three, seven, one").waveform
    soundfile.write(tmp_path / "CLIP.wav", clip.samples, clip.sample_rate, subtype="FLOAT")
    monkeypatch.chdir(tmp_path)
    run_script(*shlex.split(command)[1:])
    table: Any = pd.read_parquet(tmp_path / "runs" / "cut" / "knockout.parquet")
    cuts = table[table["run"] == "cut"]
    assert len(cuts) == len(shown) > 1
    for page, script in (
        ("change (nats)", "logit_diff_change"),
        ("lead then (nats)", "logit_diff"),
    ):
        np.testing.assert_allclose(shown[page], cuts[script], atol=6e-4)


def test_what_was_done_is_taken_back(open_page: Opener) -> None:
    page = open_page(edits="cut~0.68-1.21~~~~|keep~0-0.5~summary~~~")
    quiet(page)
    assert {m.value.split(": ", 1)[-1] for m in page.markdown if "content_cut" in m.value} == {
        "cut 0.68–1.21 s",
        "keep only 0.00–0.50 s of summary",
    }
    page.button(key="take back 0").click().run()
    quiet(page)
    assert written(page) == "keep~0-0.5~summary~~~"
    page.button(key="take back 0").click().run()
    assert "edits" not in page.query_params and new_answers(page) == []


def test_streams_layers_and_heads_are_those_that_were_meant(scene: AppTest) -> None:
    scene.button_group(key="cut streams").set_value(["summary"])
    scene.select_slider(key="cut layers").set_value((1, 2))
    scene.multiselect(key="cut heads").set_value([3])
    scene.button(key="cut").click().run()
    quiet(scene)
    assert written(scene) == "cut~0.68-1.21~summary~1.2~3~"


def test_other_sound_is_put_in(scene: AppTest) -> None:
    scene.selectbox(key="patch source").select("noise")
    scene.button(key="patch").click().run()
    quiet(scene)
    assert written(scene) == "patch~0.68-1.21~~~~noise"
    assert len(new_answers(scene)) == 1
    assert not any("The cut moves" in each for each in captions(scene))


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ("burn~0-1~~~~", "cannot be read"),
        ("cut~7-8~~~~", "lies outside of clip 0"),
        ("cut~0-1~frames~99~~", "text sees none of it there"),
        ("cut~0-1~other~~~", "no stream"),
        ("patch~0-1~~~~no such clip", "there is no bundled sound"),
    ],
)
def test_an_edit_that_cannot_be_made_is_said_and_the_page_stands(
    open_page: Opener, edits: str, said: str
) -> None:
    page = open_page(edits=edits)
    assert [each.value for each in page.exception] == []
    (error,) = [each.value for each in page.error]
    assert said in error and new_answers(page) == []
    assert len(figures(page)) == 4


def test_heads_stand_by_what_cutting_them_does(scene: AppTest, checkpoint: Any) -> None:
    from _sounds import bundled_sound  # pyright: ignore[reportMissingImports]

    clip, model = bundled_sound("three, seven, one"), load(checkpoint)
    inputs = model.inputs(clip.question, clip.waveform)
    said = next(each for each in captions(scene) if each.startswith("Heads by effect"))
    answer, rival = re.findall("“(.*?)”", said)
    answers = Answers.of(model.processor, answer, rival)
    table: Any = head_effects(
        model, inputs, answers=answers, sounds=[Sound(0.68, 1.21)], checked=12
    )
    (top,) = [each.value for each in scene.dataframe if "attention (%)" in each.value]
    wanted = [f"{row.layer}.{row.head}" for row in table.head(8).itertuples()]
    assert top["head"].tolist() == wanted
    assert top["effect (nats)"].tolist() == table["effect"].head(8).round(2).tolist()
    # What is looked at first is the head that does most.
    first = table.iloc[0]
    chosen = [scene.selectbox(key=key).value for key in ("layer", "head")]
    assert chosen == [str(int(first["layer"])), str(int(first["head"]))]
    # A select box means one as a click on the map does, and none again.
    by_name = scene.selectbox(key="one head")
    rows = [*table.head(8).itertuples()]
    cut = [f"layer {row.layer}, head {row.head}: {row.effect:+.2f} nats" for row in rows]
    assert by_name.value is None and by_name.options[:8] == cut
    by_name.select_index(2).run()
    layer, head = rows[2].layer, rows[2].head
    assert scene.select_slider(key="cut layers").value == (layer, layer)
    assert scene.multiselect(key="cut heads").value == [head]
    assert scene.selectbox(key="layer").value == str(layer)
    scene.selectbox(key="one head").set_value(None).run()
    assert scene.multiselect(key="cut heads").value == []
    assert scene.select_slider(key="cut layers").value == (0, model.cfg.n_layers - 1)


def test_the_fewest_layers_are_found_and_meant(
    open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _effects_view  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(_effects_view, "SOLE", 1e9)  # no head is enough by itself
    page = open_page()
    assert any("No single head carries it" in each for each in captions(page))
    page.button(key="fewest").click().run()
    quiet(page)
    (said,) = [each for each in captions(page) if "neighbouring layers none does half" in each]
    layers = [int(each) for each in re.findall(r"\d+", said.split("**")[1])]
    page.button(key="take window").click().run()
    quiet(page)
    assert page.select_slider(key="cut layers").value == (layers[0], layers[-1])


def test_every_stretch_is_cut_when_it_is_asked_for(scene: AppTest) -> None:
    before = len(figures(scene))
    scene.toggle(key="cut seconds").set_value(True).run()
    quiet(scene)
    assert len(figures(scene)) == before + 1


def strip(page: AppTest) -> Any:
    """What the player gets of effects."""
    sent = [each.proto.json for each in page.get("bidi_component")]
    (effects,) = [json.loads(each)["effects"] for each in sent if '"effects"' in each]
    return effects


def test_the_player_shows_what_cutting_each_stretch_does(scene: AppTest, checkpoint: Any) -> None:
    from _sounds import bundled_sound  # pyright: ignore[reportMissingImports]

    assert strip(scene) is None
    scene.toggle(key="cut seconds").set_value(True).run()
    quiet(scene)
    effects = strip(scene)
    assert effects["start"][1:] == pytest.approx(effects["end"][:-1])
    assert effects["most"] == pytest.approx(max(map(abs, effects["change"])), rel=1e-3)
    said = next(each for each in captions(scene) if each.startswith("Heads by effect"))
    answer, rival = re.findall("“(.*?)”", said)
    assert effects["about"] == f"lead of “{answer}” over “{rival}”"
    clip, model = bundled_sound("three, seven, one"), load(checkpoint)
    answers = Answers.of(model.processor, answer, rival)
    inputs = answers.behind(model.inputs(clip.question, clip.waveform))

    def lead() -> float:
        logits = model(inputs, logits_to_keep=1)[:, -1].detach().float()
        return float(answer_metrics(logits, answers, logits[0])["logit_diff"].iloc[0])

    before = lead()
    for i in (3, len(effects["change"]) - 1):
        sound = Sound(effects["start"][i], effects["end"][i])
        with intervene(model, inputs, [Knockout(Address("pattern", sound))]):
            assert effects["change"][i] == pytest.approx(lead() - before, rel=2e-3, abs=1e-5)
    scene.toggle(key="cut seconds").set_value(False).run()
    assert strip(scene) is None


@pytest.mark.slow
def test_the_demo_s_examples_do_what_they_say(page: AppTest) -> None:
    page.run()
    quiet(page)
    page.button(key="cut").click().run()
    assert new_answers(page) == [("seven", "one")]
    page.button(key="example Dog or rain first?").click().run()
    quiet(page)
    assert "edits" not in page.query_params
    page.button(key="cut").click().run()
    quiet(page)
    assert written(page) == "cut~0.92-2.92~summary~20.21.22.23.24.25~~"
    assert new_answers(page) == [("rain", "dog")]
