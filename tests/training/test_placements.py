"""Short trainings of placements: all alike, resumed after a kill as if there had been none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from palscope._connectors import ConnectorConfig, ProjectorConfig
from palscope._models import PalscopeForConditionalGeneration
from palscope._routing import Route
from palscope._routing.depths import lal_at, queries_at
from palscope.datasets._manifest import Corpus
from palscope.errors import PalscopeError
from palscope.training import _placements as placements
from palscope.training._placements import Schedule, train_placements
from tests import tiny
from tests.planted import WORDS, small_processor

PLACEMENTS = [lal_at(tiny.LAYERS, range(2), "a"), queries_at(tiny.LAYERS, range(4), "b")]
SCHEDULE = Schedule(steps=5, batch=2, parameters=3000)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny bases instead of the demo's, few examples, no worker processes."""

    def build(bases: Any, route: Route, connector: ConnectorConfig) -> Any:
        shape = ProjectorConfig(hidden=8)
        connector = ConnectorConfig.for_route(route, inputs=shape, layers=shape)
        model = tiny.model(route, connector=connector, vocab_size=len(WORDS))
        processor = small_processor(8, [stream.ratio for stream in route.streams])
        model.config.audio_token_id = processor.audio_token_id
        model.freeze_bases()
        return model, processor

    arguments = placements.training_arguments
    monkeypatch.setattr(placements, "build", build)
    monkeypatch.setattr(placements, "MEASURED", 4)
    monkeypatch.setattr(
        placements,
        "training_arguments",
        lambda *args, **kwargs: arguments(*args, **kwargs, dataloader_num_workers=0),
    )


@pytest.fixture
def train(corpus: Corpus, tmp_path: Path) -> Any:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,domain,label\n")

    def run(name: str, steps: int, **changes: Any) -> dict[str, Path]:
        return train_placements(
            changes.pop("placed", PLACEMENTS),
            corpus,
            tmp_path / name,
            replace(SCHEDULE, steps=steps, **changes),
            manifest=manifest,
            save_every=2,
        )

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_each_placement_is_trained_on_its_route(train: Any) -> None:
    folders = train("out", 2)
    assert list(folders) == ["LAL 0-1", "queries 0-3"]
    for placement, (name, folder) in zip(PLACEMENTS, folders.items(), strict=True):
        assert folder.name == name.lower().replace(" ", "_")
        model = PalscopeForConditionalGeneration.from_pretrained(folder)
        assert model.route == placement.route
        assert json.loads((folder / "trained.json").read_text()) == {"steps": 2}
    first, other = (load_file(each / "model.safetensors") for each in folders.values())
    for name in ("connector.pool.mean", "connector.pool.deviation"):
        assert torch.equal(first[name], other[name])  # standardised over the same clips
    assert first["connector.pool.deviation"].float().std() > 0


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("whole", 5)
    step = Trainer.training_step
    done: list[int] = []

    def killed(*args: Any, **kwargs: Any) -> Any:
        if len(done) == 8:  # in the second placement's fourth step
            raise KeyboardInterrupt
        done.append(1)
        return step(*args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train("killed", 5)
    done.clear()
    monkeypatch.setattr(Trainer, "training_step", killed)
    resumed = train("killed", 5)
    assert len(done) == 3  # the first was whole, the second had a checkpoint after two
    assert all(same(whole[name], resumed[name]) for name in whole)


def test_what_is_trained_is_not_trained_again(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train("out", 1)

    def again(*args: Any) -> None:
        raise AssertionError("a finished training was begun again")

    monkeypatch.setattr(placements, "train", again)
    train("out", 1)


def test_another_training_is_not_mixed_with_this_one(train: Any) -> None:
    placed = PLACEMENTS[:1]
    train("out", 1, placed=placed)
    for changes in ({"batch": 3}, {"learning_rate": 1e-4}, {"seed": 1}):
        with pytest.raises(PalscopeError, match="another schedule, route or manifest"):
            train("out", 1, placed=placed, **changes)
    with pytest.raises(PalscopeError, match="another schedule, route or manifest"):
        train("out", 2, placed=placed)
