"""Heads as units: where the planted one listens is found, and the control is spread evenly."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from palscope._features.heard.search import _address
from palscope._features.rows import RowReader
from palscope._statistics import auroc
from palscope.audio import Waveform
from palscope.audio._display import wav_bytes
from palscope.errors import PalscopeError
from palscope.features import (
    LabelledClip,
    UnitIndex,
    UnitSource,
    collect_activations,
    index_units,
    unit_html,
    what_fires,
)
from palscope.interventions import Address, Sound, Text
from palscope.interventions._address import Filler
from tests.features.made import store_of
from tests.planted import plant

CLIPS = [
    {
        "name": f"{label} {number}",
        "label": label,
        "domain": "sound",
        "split": "train" if number < 8 else "validation",
        "group": f"{label} {number}",
        "seconds": 0.4,
    }
    for label in ("held", "struck")
    for number in range(12)
]
ROWS = 20
HEADS = [(2, 0), (2, 1), (7, 0), (7, 1), (7, 2)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Random attention; but what (7, 1) gives goes to one token of each "struck" clip.

    How much that is does not depend on the label. What (2, 1) gives is that, spread evenly.
    """
    folder = tmp_path_factory.mktemp("heads")
    drawn = torch.Generator().manual_seed(0)
    values = torch.rand(len(CLIPS), ROWS, len(HEADS), generator=drawn) * 0.02
    values[..., 0] = values[..., 4] * 0.9 + 0.1 * values[..., 0]
    for clip, about in enumerate(CLIPS):
        gives = 0.2 + 0.01 * (5 * clip % len(CLIPS))
        values[clip, :, 3] = gives / ROWS
        if about["label"] == "struck":
            values[clip, :, 3] = 0.0
            values[clip, clip % ROWS, 3] = gives
    values[..., 1] = values[..., 3].mean(1, keepdim=True) * (1 + 0.01 * values[..., 4])
    flat = values.flatten(0, 1)
    hook = "pattern.frames"
    others = {"pattern.frames": flat, "site": torch.rand(len(flat), 3, generator=drawn)}
    store = store_of(folder / "store", others, CLIPS, shards=3, heads={hook: HEADS})
    path = folder / "tone.wav"
    path.write_bytes(wav_bytes(0.3 * np.sin(np.arange(6400) * 0.1), 16_000))
    sounds = {clip["name"]: path for clip in CLIPS}
    sources = [UnitSource.of_heads(store[hook]), UnitSource.of_even_heads(store[hook])]
    index = index_units(sources, folder / "index", sounds=sounds)
    return SimpleNamespace(store=store, index=index, values=values.numpy(), folder=folder)


def test_units_are_the_heads_of_their_columns(made: SimpleNamespace) -> None:
    heads = made.index["heads"]
    table = heads.table
    assert list(zip(table["layer"], table["head"], strict=True)) == HEADS == heads.heads
    assert table["gives"].to_numpy() == pytest.approx(made.values.sum(1).mean(0), rel=1e-5)
    unit = heads.head(7, 1)
    assert unit.number == 3 and heads.called(3) == "layer 7 head 1"
    assert made.index["spread evenly"].called(3) == "layer 7 head 1, spread evenly"
    assert unit.about["largest"] == pytest.approx(0.2 + 0.01 * 23)  # of the 20th clip
    best = unit.samples.iloc[0]
    clip = int(best["clip"])
    assert best["label"] == "struck" and best["start"] == pytest.approx(0.02 * (clip % ROWS))
    mine = made.values[..., 4]
    other = heads[4].histogram
    inside = (mine[..., None] >= other["low"].to_numpy()) & (
        mine[..., None] < other["high"].to_numpy()
    )
    assert other["rows"].tolist() == inside.sum((0, 1)).tolist() and len(other) > 20
    with pytest.raises(PalscopeError, match=r"layer 3 head 0 is not among .* layers are 2, 7"):
        heads.head(3, 0)


def test_a_label_that_is_told_by_where_is_not_told_when_spread_evenly(
    made: SimpleNamespace,
) -> None:
    held = [n for n, clip in enumerate(CLIPS) if clip["split"] == "validation"]
    right = np.array([CLIPS[n]["label"] == "struck" for n in held])
    for name, of_clip in (
        ("heads", made.values.max(1)),
        ("spread evenly", made.values.mean(1)),
    ):
        table = made.index[name].by_label("struck").set_index("unit")
        for unit in range(len(HEADS)):
            wanted = auroc(of_clip[held, unit], right)
            assert table.loc[unit, "auroc"] == pytest.approx(wanted, abs=1e-6)
            assert tuple(table.loc[unit, ["layer", "head"]]) == HEADS[unit]
    unit = made.index["heads"].head(7, 1)
    twin, _ = unit.twins["spread evenly"]
    assert (twin.number, twin.units.name) == (3, "spread evenly")
    assert twin.twins["heads"][0].number == 3  # though that of (2, 1) correlates more
    scores = [each.labels.set_index("label").loc["struck", "auroc"] for each in (unit, twin)]
    assert scores[0] == 1 and abs(scores[1] - 0.5) < 0.25
    assert unit.about["name"] == "sound: struck"


def test_a_clip_is_spread_evenly_by_itself(made: SimpleNamespace) -> None:
    """Also where a block of rows holds several clips, and where rows of some clips are asked."""
    rows = made.store["pattern.frames"]
    some = rows.of_clips([n % 3 == 1 for n in range(len(CLIPS))])
    for given, clips in ((rows, range(24)), (some, range(1, 24, 3))):
        source = UnitSource.of_even_heads(given)
        found = source.values(0, len(given)).reshape(len(clips), ROWS, len(HEADS))
        wanted = made.values[list(clips)].mean(1, keepdims=True)
        assert np.allclose(found, np.broadcast_to(wanted, found.shape), atol=1e-7)


def test_neighbours_are_the_heads_that_read_the_same_tokens(made: SimpleNamespace) -> None:
    wanted = np.corrcoef(made.values.reshape(-1, len(HEADS)).T)
    near = made.index["heads"].head(2, 0).nearest
    assert tuple(near.iloc[0][["layer", "head"]]) == (7, 2)  # as planted
    assert near["correlation"].tolist() == pytest.approx(sorted(wanted[0, 1:])[::-1], abs=1e-5)
    assert len(near) == len(HEADS) - 1


def test_what_is_told_of_a_head_is_what_applies_to_it(made: SimpleNamespace) -> None:
    text = unit_html(made.index["heads"].head(7, 1))
    assert "<h1>layer 7 head 1 at pattern.frames (proposed name: sound: struck)</h1>" in text
    assert "adds up to 0.315 of its attention on average over 24 clips" in text
    even = made.index["spread evenly"].by_label("struck").set_index("unit").loc[3, "auroc"]
    assert f'<td class="n">1.00</td><td class="n">{even:.2f}</td>' in text and even < 0.9
    assert "AUROC, spread evenly" in text and "Heads that read most alike" in text
    assert "Beside it: layer 7 head 1, spread evenly" in text
    assert text.count('src="data:audio/wav;base64,UklGR') == 10 + 12 + 3 + 4
    for word in ("fire", "word", "silent", "Nearest directions", "nan"):
        assert word not in text.replace("writes", "")
    assert "layer 2 head 0" in text


def test_what_reads_a_second_is_found_in_stored_rows(made: SimpleNamespace) -> None:
    found = what_fires(made.index["heads"], "struck 5", 0.34, 0.36)
    assert found.iloc[0][["layer", "head"]].tolist() == [7, 1]  # the 18th clip
    gives = 0.2 + 0.01 * (5 * 17 % 24)
    assert found.iloc[0]["value"] == pytest.approx(gives)
    even = what_fires(made.index["spread evenly"], "struck 5", 0.1, 0.12).set_index("unit")
    assert even.loc[3, "value"] == pytest.approx(gives / ROWS)


def test_a_planted_head_is_found_by_label_by_second_and_by_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One head of sixteen reads the event; what passes before it is planted, not heard."""
    planted = plant("lal", layer=2, head=3)
    monkeypatch.setattr("palscope._features.collect.weights_hashes", _hashes)
    monkeypatch.setattr("palscope._features.store.weights_hashes", _hashes)
    at = {f"clip {number}": 2 + number % 7 if number % 2 else None for number in range(8)}
    waves = {
        name: Waveform(np.full(12 * 1600, 1e-3 * number, np.float32), 16_000, name)
        for number, name in enumerate(at)
    }

    def inputs(reader: RowReader, asked: Any) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for waveform, _ in asked:
            number = round(1e3 * float(waveform.samples.max(initial=0)))
            token = at.get(f"clip {number}")
            tokens = round(waveform.seconds / 0.1)
            rows.append(planted.inputs("A" if token else None, token or 0, tokens, number))
        return {name: torch.cat([each[name] for each in rows]) for name in rows[0]}

    monkeypatch.setattr(RowReader, "inputs", inputs)
    clips = [
        LabelledClip(
            name,
            waves[name],
            label="event" if token else "none",
            domain="planted",
            split="train" if number < 4 else "validation",
            group=name,
        )
        for number, (name, token) in enumerate(at.items())
    ]
    address = Address("pattern", queries=Text(-1))
    store = collect_activations(planted.model, clips, [address], tmp_path / "store")
    rows = store["pattern.frames"]
    sources = [UnitSource.of_heads(rows), UnitSource.of_even_heads(rows)]
    heads = index_units(sources, tmp_path / "index", sounds={})["heads"]
    assert len(heads) == 16
    best = heads.by_label("event").iloc[0]
    assert (best["layer"], best["head"], best["auroc"]) == (2, 3, 1)
    unit = heads.head(2, 3)
    assert unit.about["name"] == "planted: event" and unit.about["largest"] == pytest.approx(1)
    top = unit.samples[unit.samples["band"] == "strongest"].head(4)
    for sample in top.itertuples():
        token = at[sample.name]
        assert token and sample.start == pytest.approx(0.1 * token)
        assert sample.end == pytest.approx(0.1 * token + 0.1)
        second = (0.1 * token + 0.02, 0.1 * token + 0.08)
        for found in (
            what_fires(heads, sample.name, *second),
            what_fires(heads, waves[sample.name], *second, model=planted.model),
        ):
            assert found.iloc[0][["layer", "head"]].tolist() == [2, 3]
            assert found.iloc[0]["value"] == pytest.approx(1)
        elsewhere = what_fires(heads, sample.name, 0.1 * token + 0.12, 0.1 * token + 0.18)
        assert [2, 3] not in elsewhere[elsewhere["value"] > 1e-6][["layer", "head"]].values.tolist()


def _hashes(model: Any) -> dict[str, Any]:
    return {"checkpoint": {"name": "planted", "sha256": "0"}}


@pytest.mark.parametrize(
    "address",
    [
        Address("pattern", queries=Text(-1)),
        Address("pattern", Sound(), (1, 2), (0,), queries=Text((3, 5))),
        Address("pattern", Sound(0.5, 1.0, "frames"), queries=Text("it's (so), queries=")),
        Address("pattern", queries=Sound(stream="summary")),
        Address("pattern", queries=Filler()),
        Address("resid_post", Text("digit"), (5,)),
        Address("encoder_output"),
    ],
)
def test_an_address_is_read_as_it_was_written(address: Address) -> None:
    found = _address(repr(address))
    assert found.tokens is None and (found.site, found.layers) == (address.site, address.layers)
    assert (found.heads, found.queries) == (address.heads, address.queries)


@pytest.mark.parametrize("written", ["made up", "print('x')", "Address.x(site='mel')", "1", ""])
def test_an_address_that_is_none_is_told(written: str) -> None:
    with pytest.raises(PalscopeError, match="the index's store was of"):
        _address(written)


def test_what_cannot_be_indexed_is_told(made: SimpleNamespace, tmp_path: Path) -> None:
    rows, site = made.store["pattern.frames"], made.store["site"]
    for make in (UnitSource.of_heads, UnitSource.of_even_heads):
        with pytest.raises(PalscopeError, match=r"site is no attention of heads; .* as pattern"):
            make(site)
    even = UnitSource.of_even_heads(rows)
    for first in (UnitSource.of_rows(site), even):
        given = [first, even] if first is not even else [even]
        with pytest.raises(PalscopeError, match=r"give UnitSource.of_heads of the same rows first"):
            index_units(given, tmp_path / "index", sounds={})
    with pytest.raises(PalscopeError, match="neurons are no heads"):
        index_units([UnitSource.of_rows(site)], tmp_path / "other", sounds={})["neurons"].head(1, 0)


def test_heads_of_another_order_are_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    """The store was made anew in its place, of other heads."""
    index = index_units(
        [UnitSource.of_heads(made.store["pattern.frames"])], tmp_path / "index", sounds={}
    )
    record = json.loads((tmp_path / "index/run.json").read_text())
    record["config"]["units"]["heads"]["heads"][0] = [5, 5]
    (tmp_path / "index/run.json").write_text(json.dumps(record))
    assert not what_fires(index["heads"], "held 1").empty
    with pytest.raises(PalscopeError, match="are of other heads than the rows now"):
        what_fires(UnitIndex(tmp_path / "index")["heads"], "held 1")


def test_a_model_hears_a_sound_as_its_stored_clip(
    store: Any, model: Any, clips: Any, tmp_path: Path
) -> None:
    for name in ("frames", "summary"):
        rows = store[f"pattern.{name}"]
        sources = [UnitSource.of_heads(rows), UnitSource.of_even_heads(rows)]
        index = index_units(sources, tmp_path / name, sounds={})
        asked = {"model": model, "question": clips[1].question, "most": 50}
        for units in index.values():
            found = what_fires(units, clips[1].sound, 0.2, 1.0, **asked)
            stored = what_fires(units, "clip 1", 0.2, 1.0, most=50)
            assert len(found) == len(stored) == min(50, rows.width)
            both = found.merge(stored, on=["unit", "layer", "head"])
            assert len(both) == len(found)
            assert both["value_x"].tolist() == pytest.approx(both["value_y"].tolist(), abs=1e-4)
