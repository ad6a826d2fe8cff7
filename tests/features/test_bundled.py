"""The bundled dictionary is of the demo, and its index says what the model does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import palscope
from palscope._features.store import check_made_by
from palscope.errors import PalscopeError
from palscope.features import FEATURES_FOLDER, UnitIndex, load_dictionary, what_fires
from palscope.interventions import Address, capture


@pytest.fixture(scope="module")
def demo() -> Any:
    return palscope.load("demo/pal")


def test_what_fires_in_a_bundled_clip_is_what_the_index_says(demo: Any) -> None:
    """The model hears the clip anew; a hook and the dictionary by hand say the same."""
    index = UnitIndex(FEATURES_FOLDER / "index")
    features = index["features"]
    strongest = features[int(features.table["largest"].idxmax())]
    peak = strongest.samples.iloc[0]
    row = index.clips.iloc[peak["clip"]]
    sound = index.path(row["sound"])
    assert sound.is_file() and palscope.load_audio(sound).seconds >= peak["end"]
    found = what_fires(features, sound, peak["start"], peak["end"], model=demo)
    value = found.set_index("unit")["value"][strongest.number]
    assert value == pytest.approx(peak["value"], rel=0.02)

    dictionary = load_dictionary(FEATURES_FOLDER / "dictionary")
    inputs = demo.inputs(demo.processor.any_question, sound)
    rows = capture(demo, inputs, Address("encoder_block", layers=(2,))).values
    (rows,) = [each for each in rows.values()]
    rows = rows.flatten(0, -2)
    with torch.no_grad():
        latents = dictionary.encode(rows)
        left = rows - dictionary.decode(latents, rows)
    assert latents[:, strongest.number].max() == pytest.approx(value, rel=1e-3)
    unexplained = left.square().sum() / (rows - rows.mean(0)).square().sum()
    assert unexplained < 0.35


def test_every_unit_of_the_index_has_clips_of_the_package() -> None:
    index = UnitIndex(FEATURES_FOLDER / "index")
    assert list(index) == ["features", "neurons", "random"]
    for sound in index.clips["sound"]:
        assert index.path(sound).is_file()
    for label in ("dog", "seven", "cello"):  # what the page lists by label
        assert index["features"].by_label(label)["auroc"].iloc[0] == 1
    fired = index["features"].table["clips"]
    assert (fired > 0).mean() > 0.9
    assert set(index["features"][int(np.argmax(fired))].twins) == {"neurons", "random"}


def test_an_encoders_features_do_not_hang_on_the_decoder(demo: Any) -> None:
    dictionary = load_dictionary(FEATURES_FOLDER / "dictionary")
    record = dictionary.about["record"]
    hook_point = dictionary.about["hook_point"]
    other = {**record, "weights": {**record["weights"], "text_base": {"sha256": "0"}}}
    check_made_by("it", other, demo, hook_point)
    with pytest.raises(PalscopeError, match=r"it is of another model or route.*text_base"):
        check_made_by("it", other, demo, hook_point, "blocks.3.hook_resid_post")
    encoder = {**record, "weights": {**record["weights"], "encoder_base": {"sha256": "0"}}}
    with pytest.raises(PalscopeError, match="encoder_base"):
        check_made_by("it", encoder, demo, hook_point)
