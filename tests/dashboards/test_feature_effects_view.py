"""Features on the page: what fires, what changing each does, changing some, and their sounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import palscope
from palscope._features.effects import feature_effects
from palscope.audio import Waveform
from palscope.features import FEATURES_FOLDER, load_dictionary, spliced
from palscope.interventions import Address, Patch, Resample, Sound, Zero, intervene
from palscope.measures import Answers
from tests.dashboards.conftest import captions, new_page, quiet
from tests.dashboards.dictionary import dictionary_of_noise
from tests.dashboards.test_edit_view import new_answers, written

Opener = Callable[..., AppTest]
SELECTED = Sound(0.68, 1.21)


@pytest.fixture(scope="module")
def folders(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return dictionary_of_noise(checkpoint, tmp_path_factory.mktemp("noise"))


@pytest.fixture
def page(open_page: Opener, folders: tuple[Path, Path]) -> AppTest:
    return open_page(features="true", dictionary=str(folders[0]))


def effects(page: AppTest) -> Any:
    return next(each.value for each in page.dataframe if "estimate" in each.value)


def asked(page: AppTest) -> tuple[str, str | None]:
    """The answer and its rival."""
    told = next(each for each in captions(page) if "features fire" in each)
    named = told.split("“")[1:]
    answer, rival = [each.split("”")[0] for each in (*named, "")][:2]
    return answer, rival or None


def scene() -> Any:
    from _sounds import bundled_sound  # pyright: ignore[reportMissingImports]

    return bundled_sound("three, seven, one")


def test_nothing_is_read_before_it_is_opened(
    open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _dictionaries  # pyright: ignore[reportMissingImports]

    read: list[Any] = []
    st.cache_resource.clear()
    monkeypatch.setattr(_dictionaries, "load_dictionary", lambda path: read.append(path))
    monkeypatch.setattr(_dictionaries, "stored_dictionaries", lambda: read.append(None))
    quiet(open_page())
    assert read == []


def test_features_stand_by_what_changing_them_does(
    page: AppTest, checkpoint: Path, folders: tuple[Path, Path]
) -> None:
    quiet(page)
    clip, model = scene(), palscope.load(checkpoint)
    answers = Answers.of(model.processor, *asked(page))
    inputs = model.inputs(clip.question, clip.waveform)
    silent = np.zeros_like(clip.waveform.samples)
    silence = model.inputs(clip.question, Waveform(silent, 16_000, "silence"))
    for change in (Zero(), Resample(silence)):
        with spliced(model, load_dictionary(folders[0])):
            wanted: Any = feature_effects(model, inputs, change, answers=answers, tokens=SELECTED)
        found = effects(page)
        numbers = wanted["feature"].astype("string").fillna("error")
        assert found["feature"].tolist() == numbers.tolist() and len(found) > 3
        for name in ("value", "estimate", "effect"):
            np.testing.assert_allclose(found[name], wanted[name].astype(float), atol=2e-5)
        page.button_group(key="feature change").set_value("as in another sound").run()
        quiet(page)


def test_a_change_asks_again_stands_in_the_address_and_is_taken_back(
    page: AppTest, checkpoint: Path, folders: tuple[Path, Path]
) -> None:
    assert page.button(key="change features").disabled
    numbers = [each for each in effects(page)["feature"] if each != "error"]
    page.multiselect(key="feature").set_value([*numbers, "error"]).run()
    page.button(key="change features").click().run()
    quiet(page)
    told = ".".join(map(str, sorted(map(int, numbers))))
    assert written(page) == f"zero~0.68-1.21~{told}.error~{folders[0]}~~"
    ((old, new), *_) = new_answers(page)
    clip, model = scene(), palscope.load(checkpoint)
    inputs = model.inputs(clip.question, clip.waveform)
    places = [
        Address("feature", SELECTED, features=tuple(map(int, numbers))),
        Address("feature_error", SELECTED),
    ]
    patches = [Patch(place, Zero()) for place in places]
    ask: dict[str, Any] = {"max_new_tokens": 16}
    assert old == model.ask(clip.question, clip.waveform, **ask) or "(nothing)"
    with spliced(model, load_dictionary(folders[0])), intervene(model, inputs, patches):
        assert new == model.ask(clip.question, clip.waveform, **ask) or "(nothing)"
    assert any(f"→ **{new}**" in each for each in captions(page))  # where the button is, too
    (code,) = [each.value for each in page.code if "spliced(" in each.value]
    assert f'load_dictionary("{folders[0]}")' in code
    page.button(key="take back 0").click().run()
    assert "edits" not in page.query_params


def test_everywhere_and_with_another_factor(open_page: Opener, folders: tuple[Path, Path]) -> None:
    page = open_page(features="true", dictionary=str(folders[0]), seconds="none")
    page.button_group(key="feature change").set_value("multiply").run()
    page.number_input(key="feature factor").set_value(-1.5).run()
    quiet(page)
    assert any("fire everywhere" in each and "times -1.5" in each for each in captions(page))
    page.multiselect(key="feature").set_value(["3"]).run()
    page.button(key="change features").click().run()
    quiet(page)
    assert written(page) == f"times~~3~{folders[0]}~~-1.5"


@pytest.mark.parametrize("typed", ["24", "-1", "2.5", "dog", "9" * 400])
def test_a_number_that_is_no_feature_is_refused(page: AppTest, typed: str) -> None:
    page.multiselect(key="feature").set_value([typed]).run()
    assert not [each for each in page.button if each.key == "change features"]
    (error,) = [each.value for each in page.error]
    assert "There is no feature “" in error and error.endswith("the dictionary has 0 to 23.")
    assert "edits" not in page.query_params and not page.exception


def test_more_features_than_an_address_holds_are_refused(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _address  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(_address, "EDITS_CHARACTERS", 40)
    page.multiselect(key="feature").set_value([*map(str, range(24))]).run()
    quiet(page)
    page.button(key="change features").click().run()
    (error,) = [each.value for each in page.error]
    assert "characters, 40 at most" in error and "edits" not in page.query_params


@pytest.mark.parametrize(
    ("dictionary", "said"),
    [
        ("bundled", "bundled does not fit {} here: it is of demo/pal on the route "),
        ("no/where", "no/where does not fit {} here: no/where is no dictionary"),
        ("b" * 400, "cannot be looked into"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_said(
    open_page: Opener, checkpoint: Path, dictionary: str, said: str
) -> None:
    page = open_page(features="true", dictionary=dictionary)
    (error,) = [each.value for each in page.error]
    assert said.format(checkpoint) in error and not page.exception
    assert not [each for each in page.dataframe if "estimate" in each.value]


def test_where_none_fits_it_says_of_what_they_are(
    open_page: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path]
) -> None:
    import _dictionaries  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(_dictionaries, "ROOT", tmp_path)
    page = open_page(features="true")
    quiet(page)
    (said,) = [each.value for each in page.info if "No dictionary is here" in each.value]
    assert "bundled: it is of demo/pal on the route" in said
    # One that fits is taken, before it is asked for.
    monkeypatch.setattr(_dictionaries, "ROOT", folders[0].parent)
    page = open_page(features="true")
    quiet(page)
    assert page.text_input(key="dictionary").placeholder == str(folders[0])
    assert len(effects(page)) > 3


def features_page() -> None:
    from _features_view import view  # pyright: ignore[reportMissingImports]
    from _pages import guarded  # pyright: ignore[reportMissingImports]

    guarded(view)()


def links(page: AppTest) -> dict[str, dict[str, str]]:
    """What buttons that are links ask for, by their label."""
    found = {each.proto.label: each.proto.url for each in page.get("link_button")}
    return {
        label: {name: each[0] for name, each in parse_qs(urlsplit(url).query).items()}
        for label, url in found.items()
    }


def test_from_a_feature_s_sounds_to_an_answer_and_back(
    open_page: Opener,
    checkpoint: Path,
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import _heard  # pyright: ignore[reportMissingImports]

    asked = links(heard(folders[1], 7))["Change it in an answer"]
    assert asked["model-folder"] == str(checkpoint) and asked["feature"] == "7"
    monkeypatch.setattr(_heard, "ROOT", folders[0].parent)
    page = open_page(**asked)
    quiet(page)
    assert page.multiselect(key="feature").value == ["7"]
    assert page.text_input(key="dictionary").value == str(folders[0])
    back = links(page)["Hear feature 7"]
    assert back == {"index": str(folders[1]), "units": "features", "unit": "7"}
    # Of units of no dictionary there is no such button.
    assert not links(heard(folders[0].parent / "index", 7))


def heard(index: Path, unit: int) -> AppTest:
    """The page of features, a unit open."""
    page = AppTest.from_function(features_page, default_timeout=600)
    page.query_params["index"], page.query_params["unit"] = str(index), str(unit)
    page.run()
    quiet(page)
    return page


def test_the_bundled_features_open_where_they_are_strongest() -> None:
    asked = links(heard(FEATURES_FOLDER / "index", 380))["Change it in an answer"]
    assert asked["model"] == "demo/pal" and asked["dictionary"] == "bundled"
    assert asked["clip"] == "seven" and asked["seconds"] == "0.02-0.38"


def test_names_that_an_index_proposes_stand_in_the_table(
    open_page: Opener, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import _feature_effects  # pyright: ignore[reportMissingImports]
    import pandas as pd

    named = pd.DataFrame({"name": [f"sound {number}" for number in range(24)]})
    units = type("Units", (), {"table": named, "index": None, "name": "features"})
    monkeypatch.setattr(_feature_effects, "units_of", lambda dictionary: units)
    table = effects(open_page(features="true", dictionary=str(folders[0])))
    wanted = ["" if each == "error" else f"sound {each}" for each in table["feature"]]
    assert table["name"].tolist() == wanted


@pytest.mark.slow
def test_what_the_documentation_says_of_the_demo_s_features() -> None:
    page = new_page()
    page.query_params["features"] = "true"
    page.query_params["edits"] = "times~0.68-1.21~380~bundled~~-1"
    page.run()
    quiet(page)
    assert new_answers(page)[0] == ("seven", "one")
    first = effects(page).iloc[0]
    assert first["feature"] == "380" and first["effect"] == pytest.approx(-1.94, abs=0.02)
