"""The page of features, on a small index of noise that the tiny checkpoint heard."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import palscope
from palscope.audio import bundled_clips
from palscope.errors import PalscopeError
from palscope.features import UnitIndex, what_fires
from tests.dashboards.conftest import captions, quiet
from tests.dashboards.heard import HOOK, index_of_heads, index_of_noise


def script() -> None:
    from _features_view import view  # pyright: ignore[reportMissingImports]
    from _pages import guarded  # pyright: ignore[reportMissingImports]

    guarded(view)()


@pytest.fixture(scope="module")
def index(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> UnitIndex:
    return index_of_noise(checkpoint, tmp_path_factory.mktemp("heard"))


def opened(folder: Path | str, **address: str) -> AppTest:
    page = AppTest.from_function(script, default_timeout=600)
    page.query_params["index"] = str(folder)
    for name, value in address.items():
        page.query_params[name] = value
    return page.run()


def listed(page: AppTest) -> Any:
    return page.dataframe[0].value


def html(page: AppTest) -> str:
    return next(each.proto.body for each in page.get("html") if "palscope-unit" in each.proto.body)


def test_a_list_and_its_first_unit(index: UnitIndex) -> None:
    page = opened(index.folder)
    quiet(page)
    table = listed(page)
    assert sorted(table["unit"]) == list(range(len(index["ends"])))
    assert (table["score"].diff().dropna() <= 0).all()
    first = int(table["unit"].iloc[0])
    assert page.header[0].value == f"ends {first}"
    text = html(page)
    assert "Its strongest clips" in text and text.count("<audio") == 8 + 8 + 3 + 4
    assert f"{len(index['ends'])} ends at {HOOK} of {{}}" in "".join(captions(page)).replace(
        index.record["weights"]["checkpoint"]["name"], "{}"
    )
    page.number_input(key="unit").set_value(3).run()
    assert page.header[0].value == "ends 3"


def test_a_link_opens_a_unit(index: UnitIndex) -> None:
    page = opened(index.folder, units="neurons", unit="2", find="by a label", label="noise: b")
    quiet(page)
    assert page.header[0].value == "neurons 2" and "Beside it, of ends" in html(page)
    expected = index["neurons"].by_label("b")
    assert listed(page)["unit"].tolist() == expected["unit"].tolist()
    page = opened(index.folder, units="neurons", unit="900")
    assert "“900” for “Unit”, which it cannot be" in page.error[0].value
    page = opened(index.folder, units="dreams")
    assert "There is no kind of units “dreams” here" in page.error[0].value


def test_a_kind_with_fewer_units_opens_its_first(index: UnitIndex) -> None:
    page = opened(index.folder, unit=str(len(index["ends"]) - 1))
    quiet(page)
    page.button_group(key="units").set_value("neurons").run()
    quiet(page)
    assert page.header[0].value == "neurons 0"


def test_what_fires_in_a_clip_and_in_any_sound(
    index: UnitIndex, checkpoint: Path, tmp_path: Path
) -> None:
    """The stored rows, and those that the model makes anew, give the same units."""
    expected = what_fires(index["ends"], "clip 3", 0.1, 0.3, most=100)
    asked = {"find": "in seconds of a clip", "heard": "clip 3", "seconds": "0.10-0.30"}
    page = opened(index.folder, **asked)
    quiet(page)
    assert listed(page)["unit"].tolist() == expected["unit"].tolist()
    assert page.header[0].value == f"ends {expected['unit'].iloc[0]}"
    kept = index.folder.parent / "store"
    shutil.move(kept, tmp_path / "away")
    try:
        page = opened(index.folder, **asked | {"heard": "clip 5"})
        quiet(page)
        sound = index.folder.parent / "5.wav"
        anew = what_fires(index["ends"], sound, 0.1, 0.3, model=palscope.load(checkpoint), most=100)
        assert listed(page)["unit"].tolist() == anew["unit"].tolist()
        with pytest.raises(PalscopeError):
            what_fires(index["ends"], "clip 5")
    finally:
        shutil.move(tmp_path / "away", kept)
    page = opened(index.folder, find="in a sound of yours", clip="chainsaw")
    quiet(page)
    assert set(listed(page).columns) >= {"unit", "value", "share_below"}


def test_heads_are_listed_by_layer_and_found_by_second(checkpoint: Path, tmp_path: Path) -> None:
    """What says where a unit fires, or which words it writes, is not there."""
    heads = index_of_heads(checkpoint, tmp_path)["heads"]
    page = opened(heads.index.folder, unit="6")
    quiet(page)
    called = heads.called(6)
    assert called == "layer 1 head 2" == page.header[0].value
    shown = list(page.dataframe[0].proto.column_order)
    assert shown[:3] == ["unit", "layer", "head"] and "gives" in shown
    assert not {"rows", "clips", "fires", "words"} & set(shown)
    assert "Beside it: layer 1 head 2, spread evenly" in html(page) and "fire" not in html(page)
    page = opened(heads.index.folder, find="by a label", label="noise: b")
    quiet(page)
    assert "fires" not in page.dataframe[0].proto.column_order
    assert listed(page)["unit"].tolist() == heads.by_label("b")["unit"].tolist()
    expected = what_fires(heads, "clip 3", 0.1, 0.3, most=100)
    asked = {"find": "in seconds of a clip", "heard": "clip 3", "seconds": "0.10-0.30"}
    page = opened(heads.index.folder, **asked)
    quiet(page)
    assert listed(page)[["layer", "head"]].equals(expected[["layer", "head"]])
    assert "What reads 0.10 to 0.30 s" in "".join(captions(page))
    shutil.move(tmp_path / "store", tmp_path / "away")
    page = opened(heads.index.folder, **asked)  # asked what was asked when it was stored
    quiet(page)
    anew = listed(page).set_index("unit")["value"].sort_index().tolist()
    assert anew == pytest.approx(
        expected.set_index("unit")["value"].sort_index().tolist(), rel=1e-3
    )
    asked = {"find": "in a sound of yours", "clip": "chainsaw", "question": "what digit is spoken?"}
    page = opened(heads.index.folder, **asked)
    quiet(page)
    sound = bundled_clips().set_index("label").loc["chainsaw", "path"]
    told: dict[str, Any] = {"model": palscope.load(checkpoint), "most": 100}
    same, other = (
        what_fires(heads, sound, question=each, **told)["value"].tolist()
        for each in ("what digit is spoken?", "")
    )
    assert listed(page)["value"].tolist() == pytest.approx(same)
    assert same != pytest.approx(other, rel=1e-2)


def test_where_there_is_no_index_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: UnitIndex
) -> None:
    import _heard  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(_heard, "ROOT", tmp_path)
    monkeypatch.setattr(_heard, "FEATURES_FOLDER", tmp_path)
    page = opened("")
    quiet(page)
    assert "analyses/hear.py --help` tells how" in page.info[0].value
    shutil.copytree(index.folder, tmp_path / "deep/heard")
    assert opened("").text_input(key="index").placeholder == str(tmp_path / "deep/heard")
    assert "holds no run.json" in opened(tmp_path / "none").error[0].value
    assert "is another run's folder" in opened(index.folder.parent / "store").error[0].value
    assert "cannot be looked into" in opened("b" * 400).error[0].value


def test_sounds_that_are_gone_are_told(index: UnitIndex) -> None:
    gone = index.folder.parent / "2.wav"
    kept = gone.read_bytes()
    gone.unlink()
    try:
        text = html(opened(index.folder, unit="7"))
        assert "Cannot be played: clip 2" in text and "<audio" in text
        page = opened(index.folder, find="in seconds of a clip", heard="clip 2")
        assert "2.wav is gone; put it back" in page.error[0].value
    finally:
        gone.write_bytes(kept)
