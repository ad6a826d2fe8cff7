"""The bundled dictionary is of the demo, and its index says what the model does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palscope
from palscope._features.store import check_made_by, what_differs
from palscope._sweeps.record import encoder_hash
from palscope.audio._bundled import CLIPS_FOLDER
from palscope.datasets import read_manifest
from palscope.directions import clip_examples, find_direction
from palscope.errors import PalscopeError
from palscope.features import (
    FEATURES_FOLDER,
    UnitIndex,
    UnitSource,
    collect_activations,
    index_units,
    load_dictionary,
    what_fires,
)
from palscope.interventions import Address, capture
from palscope.training import train_dictionary


@pytest.fixture(scope="module", params=["demo/pal", "demo/lal", "demo/plits"])
def demo(request: pytest.FixtureRequest) -> Any:
    """One of the models with the encoder that the dictionary is of."""
    return palscope.load(request.param)


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


HOOK = "audio_blocks.2.hook_out"
OTHER = {"checkpoint": {"name": "x", "sha256": "1"}, "text_base": {"sha256": "0"}}
"""Weights of another checkpoint on another decoder."""


def test_an_encoders_features_hang_on_the_encoder_alone(demo: Any) -> None:
    record = load_dictionary(FEATURES_FOLDER / "dictionary").about["record"]
    other = {**record, "weights": {**record["weights"], **OTHER}, "route": {}}
    check_made_by("it", other, demo, HOOK)
    with pytest.raises(
        PalscopeError, match=r"it is of another model or route.*checkpoint.*route\."
    ):
        check_made_by("it", other, demo, HOOK, "blocks.3.hook_resid_post")
    with pytest.raises(PalscopeError, match=r"\(encoder: '0', now '47a822b4"):
        check_made_by("it", {**record, "encoder": "0"}, demo, HOOK)


def test_what_is_made_of_one_models_rows_is_for_the_others(demo: Any, tmp_path: Path) -> None:
    """Stores, dictionaries, directions and indexes alike know the encoder's hash."""
    known = read_manifest(CLIPS_FOLDER / "clips.csv")
    clips = [each for each in known if each.domain == "sound"][:4]
    sites = [Address("encoder_block", layers=(2,)), Address("resid_post", layers=(3,))]
    pal = palscope.load("demo/pal")
    store = collect_activations(pal, clips, sites[:1], tmp_path / "store")
    store.check_model(demo)
    rows = store[HOOK]
    load_dictionary(FEATURES_FOLDER / "dictionary").check_rows(rows)
    made = train_dictionary(rows, tmp_path / "dictionary", d_sae=8, k=2, steps=1, batch_size=8)
    made.check_model(demo, HOOK)
    found = find_direction(clip_examples(rows), clips[0].label)
    found.check_model(demo)
    sources = [UnitSource.of_dictionary(tmp_path / "dictionary", rows)]
    index = index_units(sources, tmp_path / "index", sounds={})
    assert len(what_fires(index["features"], clips[0].path, model=demo))
    both = collect_activations(pal, clips, sites, tmp_path / "both")
    if demo.checkpoint.name != "demo/pal":
        with pytest.raises(PalscopeError, match="of another model or route"):
            both.check_model(demo)


def test_without_its_hash_a_checkpoint_stands_for_its_encoder() -> None:
    demo = palscope.load("demo/pal")
    known = load_dictionary(FEATURES_FOLDER / "dictionary").about["record"]
    record = {name: known[name] for name in ("weights", "route")}
    assert what_differs(known, record, HOOK) == what_differs(record, known, HOOK) == {}
    told = record["weights"]
    check_made_by("it", {**record, "weights": {**told, "text_base": {"sha256": "0"}}}, demo, HOOK)
    for part in ("checkpoint", "encoder_base"):
        changed = {**record, "weights": {**told, part: {"sha256": "0"}}}
        with pytest.raises(PalscopeError, match=part):
            check_made_by("it", changed, demo, HOOK)


@pytest.mark.parametrize(
    ("file", "part", "name", "same"),
    [
        ("config.json", "encoder", "pad_to_window", False),
        ("processor_config.json", "feature_extractor", "hop_length", False),
        ("config.json", "connector", "summary_width", True),
        ("processor_config.json", "feature_extractor", "", True),
    ],
)
def test_an_encoder_that_hears_otherwise_has_another_hash(
    file: str, part: str, name: str, same: bool, tmp_path: Path
) -> None:
    demo: Any = palscope.load("demo/pal")
    before = encoder_hash(demo)
    for each in ("config.json", "processor_config.json"):
        settings = json.loads((demo.checkpoint.folder / each).read_text())
        if name and each == file:
            settings[part][name] = 7
        (tmp_path / each).write_text(json.dumps(settings))
    demo.checkpoint = replace(demo.checkpoint, folder=tmp_path)
    assert (encoder_hash(demo) == before) == same
    # What transformers of another version would add in memory is nothing to the encoder.
    demo.processor.feature_extractor.added_later = True
    assert (encoder_hash(demo) == before) == same


def test_another_base_has_another_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from palscope._sweeps import record

    demo: Any = palscope.load("demo/pal")
    before = encoder_hash(demo)
    base = record.find_encoder(demo.model.config.encoder_base)
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(record, "find_encoder", lambda name: tmp_path)
    assert encoder_hash(demo) == before
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert encoder_hash(demo) != before
    demo.model.config.store_base = True
    assert encoder_hash(demo) is None  # it may have been trained
