"""An index of units against plain counting over dense matrices, one row and one clip at a time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope._features.heard.bins import EDGES
from palscope._features.heard.labels import average_precisions
from palscope._features.heard.survey import survey
from palscope._routing import Route
from palscope._statistics import auroc
from palscope.audio._display import wav_bytes
from palscope.errors import PalscopeError
from palscope.features import (
    ActivationStore,
    Dictionary,
    UnitIndex,
    UnitSource,
    index_units,
    random_dictionary,
    save_dictionary,
    unit_html,
    what_fires,
)
from tests import tiny
from tests.features.made import planted, store_of

LABELS = (("sound", "dog"), ("sound", "rain"), ("speech", "one"), ("speech", "two"))
CLIPS = [
    {
        "name": f"{label} {number}",
        "label": label,
        "domain": domain,
        "split": "train" if number < 6 else "validation",
        "group": f"{label} {number}",
        "seconds": 0.8,
    }
    for domain, label in LABELS
    for number in range(10)
]
ROWS = 40
"""Of each clip, 20 ms each."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A dictionary whose latents are the rows' directions; the dog's clips have one of their own.

    It lasts from the 5th to the 9th token, and is strongest in the 7th.
    """
    folder = tmp_path_factory.mktemp("heard")
    torch.manual_seed(0)
    values, directions = planted(ROWS * len(CLIPS), d=16, latents=24, k=2)
    values -= 2.0
    for clip, about in enumerate(CLIPS):
        values[ROWS * clip : ROWS * clip + ROWS] *= 0.9 + 0.2 * clip / len(CLIPS)
        if about["label"] == "dog":
            for token, size in zip(range(5, 10), (4.0, 9.0, 12.0, 7.0, 4.0), strict=True):
                values[ROWS * clip + token] = (size + 0.1 * clip) * directions[0]
    dictionary = Dictionary(16, 24, kind="topk", k=3).eval()
    dictionary.W_enc.data, dictionary.W_dec.data = directions.T.contiguous(), directions
    save_dictionary(dictionary, folder / "dictionary")
    neurons = torch.randn(len(values), 9, generator=torch.Generator().manual_seed(2))
    neurons[:, 4] += 2 * (values @ directions[3])
    store = store_of(folder / "store", {"site": values, "neurons": neurons}, CLIPS, shards=3)
    sounds: dict[str, Path] = {}
    for number, clip in enumerate(CLIPS):
        path = folder / "sounds" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        tone = 0.3 * np.sin(np.arange(round(0.8 * 16_000)) * (0.05 + 0.01 * number))
        path.write_bytes(wav_bytes(tone, 16_000))
        sounds[clip["name"]] = path
    return SimpleNamespace(folder=folder, store=store, dictionary=dictionary, sounds=sounds)


@pytest.fixture(scope="module")
def index(made: SimpleNamespace) -> UnitIndex:
    return built(made, made.folder / "index")


def built(made: SimpleNamespace, folder: Path) -> UnitIndex:
    rows, path = made.store["site"], made.folder / "dictionary"
    sources = [
        UnitSource.of_dictionary(path, rows),
        UnitSource.of_rows(made.store["neurons"]),
        UnitSource.of_random(path, rows),
    ]
    return index_units(sources, folder, sounds=made.sounds)


@pytest.fixture(scope="module")
def dense(made: SimpleNamespace) -> dict[str, np.ndarray]:
    """`[clips, tokens, units]` of each kind, all at once."""
    rows = made.store["site"][:]
    with torch.no_grad():
        values = {
            "features": made.dictionary.encode(rows),
            "neurons": made.store["neurons"][:],
            "random": random_dictionary(made.dictionary).encode(rows),
        }
    return {
        name: each.numpy().reshape(len(CLIPS), ROWS, each.shape[1]) for name, each in values.items()
    }


def test_what_a_unit_does_is_counted(index: UnitIndex, dense: dict[str, np.ndarray]) -> None:
    for name, values in dense.items():
        table: Any = index[name].table
        assert table["rows"].to_numpy() == pytest.approx((values > 0).mean((0, 1)), abs=1e-6)
        assert table["clips"].tolist() == (values > 0).any(1).sum(0).tolist()
        assert table["largest"].to_numpy() == pytest.approx(np.maximum(values.max((0, 1)), 0))
        unit = index[name][3]
        mine = values[..., 3]
        expected = np.histogram(mine[mine > 0], EDGES)[0]
        assert unit.histogram["rows"].tolist() == np.trim_zeros(expected).tolist()
        assert (unit.histogram["low"] < unit.histogram["high"]).all()
        for row in unit.labels.itertuples():
            clips = [number for number, clip in enumerate(CLIPS) if clip["label"] == row.label]
            assert row.fires == pytest.approx((mine[clips] > 0).any(1).mean())
            held = [n for n, c in enumerate(CLIPS) if c["split"] == "validation"]
            held = [n for n in held if CLIPS[n]["domain"] == row.domain]
            right = np.array([CLIPS[n]["label"] == row.label for n in held])
            assert row.auroc == pytest.approx(auroc(np.maximum(mine[held].max(1), 0), right))


def test_samples_are_the_strongest_and_some_of_every_quarter(
    index: UnitIndex, dense: dict[str, np.ndarray]
) -> None:
    for name, number in (("features", 0), ("features", 5), ("neurons", 4), ("random", 2)):
        values = dense[name][..., number]
        peaks = values.max(1)
        order = [clip for clip in np.argsort(-peaks, kind="stable") if peaks[clip] > 0]
        samples: Any = index[name][number].samples
        top = samples[samples["band"] == "strongest"]
        assert top["clip"].tolist() == order[:10]
        assert samples["value"].tolist() == pytest.approx(peaks[samples["clip"]].tolist())
        assert samples["label"].tolist() == [CLIPS[clip]["label"] for clip in samples["clip"]]
        quarters = np.array_split(order[::-1], 4)
        for quarter, (_, drawn) in zip(
            quarters, samples[samples["band"] != "strongest"].groupby("band", sort=False),
            strict=True,
        ):  # fmt: skip
            assert set(drawn["clip"]) <= set(quarter) and len(set(drawn["clip"])) == len(drawn) == 3
        for sample in samples.itertuples():
            mine = values[sample.clip]
            first, last = round(sample.start / 0.02), round(sample.end / 0.02)
            inside = mine[first:last]
            assert inside.max() == mine.max() and (inside >= mine.max() / 2).all()
            assert first == 0 or mine[first - 1] < mine.max() / 2
            assert last == ROWS or mine[last] < mine.max() / 2
    dogs: Any = index["features"][0].samples
    assert set(dogs[dogs["band"] == "strongest"]["label"]) == {"dog"}
    assert dogs.iloc[0][["start", "end"]].tolist() == pytest.approx([0.12, 0.18])


def test_names_are_chosen_on_training_clips_and_scored_on_others(index: UnitIndex) -> None:
    table: Any = index["features"].table
    assert table.loc[0, ["name", "best_label"]].tolist() == ["sound: dog"] * 2
    assert table.loc[0, "score"] == 1
    below = table[table["score"] < 0.5]
    assert len(below) and (below["name"] == "").all() and (below["best_label"] != "").all()
    found = index["features"].by_label("dog")
    assert found.loc[0, "unit"] == 0 and (found["auroc"].diff().dropna() <= 0).all()
    with pytest.raises(PalscopeError, match=r"label 'cat': no clip has; there are sound: dog, "):
        index["features"].by_label("cat")


def test_average_precision_is_that_of_a_ranking() -> None:
    """By hand: precision at each clip of the label; those that do not fire share the last place."""
    drawn = np.random.default_rng(0)
    values = np.where(drawn.random((30, 5)) < 0.6, drawn.random((30, 5)), 0).astype(np.float32)
    listed = drawn.random((30, 3)) < [0.2, 0.5, 0.0]
    found = average_precisions(values, listed)
    for unit in range(5):
        for label in range(2):
            right = listed[:, label]
            every = [
                right[values[:, unit] >= value].mean() if value > 0 else right.mean()
                for value in values[right, unit]
            ]
            assert found[unit, label] == pytest.approx(np.mean(every))
    assert np.isnan(found[:, 2]).all()


def test_twins_go_with_a_unit_best(index: UnitIndex, dense: dict[str, np.ndarray]) -> None:
    flat = {name: values.reshape(-1, values.shape[2]) for name, values in dense.items()}
    for name in ("neurons", "random"):
        whole = np.corrcoef(flat["features"].T, flat[name].T)[:24, 24:]
        for number in (0, 3, 11):
            twin, correlation = index["features"][number].twins[name]
            assert correlation == pytest.approx(whole[number].max(), abs=1e-4)
            assert twin.number == whole[number].argmax() and twin.units.name == name
        other, _ = index[name][2].twins["features"]
        assert other.number == whole[:, 2].argmax()
    assert index["features"][3].twins["neurons"][0].number == 4  # as planted


def test_neighbours_are_those_of_the_decoder(index: UnitIndex, made: SimpleNamespace) -> None:
    cosines = (made.dictionary.W_dec @ made.dictionary.W_dec.T).detach().fill_diagonal_(-2)
    found = index["features"][7].nearest
    assert found["unit"].tolist() == cosines[7].topk(8).indices.tolist()
    assert found["cosine"].tolist() == pytest.approx(cosines[7].topk(8).values.tolist(), abs=1e-5)
    assert index["neurons"][1].nearest.empty


def test_what_fires_in_a_stored_clip(index: UnitIndex, dense: dict[str, np.ndarray]) -> None:
    """A unit comes first that is seldom so strong; how seldom is counted over all rows."""
    found: Any = what_fires(index["features"], "dog 9", 0.1, 0.2, most=3)
    assert "sound: dog" in found.set_index("unit").loc[0, "name"]
    assert (found["share_below"].diff().dropna() <= 0).all() and len(found) == 3
    values = dense["features"]
    for row in found.itertuples():
        mine = values[9, 5:10, row.unit]
        assert row.value == pytest.approx(mine.max())
        assert round(row.start / 0.02) == 5 + mine.argmax()
        below = (values[..., row.unit] < row.value).mean()
        assert row.share_below == pytest.approx(below, abs=0.02)  # within a bin of the histogram
    (first, second) = (what_fires(index["neurons"], "rain 2", start, start + 0.005, most=9)
                       for start in (0.405, 0.425))  # within a token  # fmt: skip
    assert first["start"].tolist() == [0.4] * len(first) and len(first)
    assert second["start"].tolist() == pytest.approx([0.42] * len(second)) and len(second)
    assert set(what_fires(index["neurons"], "rain 2")["unit"]) <= set(range(9))
    with pytest.raises(PalscopeError, match=r"no token of this sound lies from 5 to 6 s"):
        what_fires(index["features"], "dog 9", 5, 6)
    with pytest.raises(PalscopeError, match=r"has no clip 'cat 1'; give a model"):
        what_fires(index["features"], "cat 1")


def test_a_unit_is_one_file_that_plays(
    index: UnitIndex, made: SimpleNamespace, tmp_path: Path
) -> None:
    text = unit_html(index["features"][0], tmp_path / "dog.html")
    assert (tmp_path / "dog.html").read_text() == text
    # 10 strongest, 3 of each quarter that has so many; of two twins 3 and 4.
    assert text.count('src="data:audio/wav;base64,UklGR') == 10 + 12 + 14
    assert "http" not in text and "<script" not in text
    assert "Proposed name: sound: dog" in text and "it is a proposal" in text
    assert "Beside it, of neurons" in text and "Beside it, of random" in text
    assert "writes no words directly" in text
    assert "<b>No name</b>: the label that it ranks highest" in text  # of the random twin
    assert index["neurons"][4]._repr_html_().startswith("<section")


def test_sounds_that_are_gone_are_told_and_the_rest_is_played(
    index: UnitIndex, made: SimpleNamespace, tmp_path: Path
) -> None:
    gone, other = made.sounds["dog 9"], made.sounds["dog 8"]
    kept = gone.read_bytes(), other.read_bytes()
    gone.unlink()
    other.write_bytes(wav_bytes(np.zeros(4000), 16_000))
    try:
        text = unit_html(index["features"][0])
    finally:
        gone.write_bytes(kept[0])
        other.write_bytes(kept[1])
    assert "Cannot be played: dog 9: " in text and "9.wav is gone" in text
    assert "lasts 0.25 s now, 0.80 s when it was stored" in text
    assert text.count("<audio") >= 30


def test_what_cannot_be_indexed_is_told(made: SimpleNamespace, index: UnitIndex) -> None:
    path, rows = made.folder / "dictionary", made.store["site"]
    with pytest.raises(PalscopeError, match=r"neurons has rows of 9 numbers; .* takes 16"):
        UnitSource.of_dictionary(path, made.store["neurons"])
    with pytest.raises(PalscopeError, match=r"index holds a finished run; give another folder"):
        built(made, index.folder)
    source = UnitSource("mine", rows, lambda x: x / 0)
    with pytest.raises(PalscopeError, match=r"mine of site hold NaN or infinity, of rows 0 to"):
        index_units([source], made.folder / "nan", sounds={})
    few = UnitSource.of_rows(made.store["neurons"].of_clips(made.store.clips["label"] == "dog"))
    with pytest.raises(PalscopeError, match=r"neurons \(neurons\) has rows of other tokens than"):
        index_units([UnitSource.of_dictionary(path, rows), few], made.folder / "few", sounds={})
    with pytest.raises(PalscopeError, match="units are called 'neurons'"):
        index_units([few, few], made.folder / "twice", sounds={})
    with pytest.raises(PalscopeError, match="no units are given"):
        index_units([], made.folder / "none", sounds={})
    with pytest.raises(PalscopeError, match=r"there is no unit 24 among 24 features"):
        index["features"][24]
    with pytest.raises(PalscopeError, match=r"store is another run's folder"):
        UnitIndex(made.folder / "store")
    with pytest.raises(PalscopeError, match=r"nan is not finished"):
        UnitIndex(made.folder / "nan")


def test_directions_of_ones_own_are_units(made: SimpleNamespace, tmp_path: Path) -> None:
    """Without splits there are no names; and a function is not stored."""
    directions = made.dictionary.W_dec.detach()[:2]
    source = UnitSource("mine", made.store["site"], lambda x: x @ directions.T, directions)
    found = index_units([source], tmp_path / "mine", sounds={}, test="none")
    assert set(found["mine"].table["name"]) == {""} == set(found["mine"].table["best_label"])
    top: Any = found["mine"][0].samples
    assert set(top[top["band"] == "strongest"]["label"]) == {"dog"}
    text = unit_html(found["mine"][0])
    assert "chosen and scored on clips of two splits" in text and "“none”" in text
    assert "no sound file was given" in text and "<audio" not in text
    with pytest.raises(PalscopeError, match=r"no clip of split 'none' has it"):
        found["mine"].by_label("dog")
    with pytest.raises(PalscopeError, match="given as a function"):
        what_fires(found["mine"], "dog 1")


def test_clips_without_rows_do_not_count(made: SimpleNamespace, tmp_path: Path) -> None:
    """A unit is not silent in clips that nobody asked about."""
    some = made.store["neurons"].of_clips(made.store.clips["domain"] == "speech")
    found = index_units([UnitSource.of_rows(some)], tmp_path / "index", sounds={})
    assert found.labels["label"].tolist() == ["one", "two"]
    assert found["neurons"][3].labels["fires"].tolist() == [1.0, 1.0]
    assert (found.clips["left_out"] == "its rows were not asked about").sum() == 20


def test_a_speaker_on_both_sides_is_told_before_the_pass(tmp_path: Path) -> None:
    clips = [{**clip, "group": clip["label"]} for clip in CLIPS]
    store = store_of(tmp_path / "store", {"site": torch.rand(40, 2)}, clips)
    with pytest.raises(PalscopeError, match=r"2 groups of sound, 'dog' for one, have training and"):
        index_units([UnitSource.of_rows(store["site"])], tmp_path / "out", sounds={})
    assert not (tmp_path / "out").exists()


def test_a_damaged_index_is_told(made: SimpleNamespace, tmp_path: Path) -> None:
    source = UnitSource.of_rows(made.store["neurons"])
    found = index_units([source], tmp_path / "index", sounds={})
    (tmp_path / "index/neurons/units.safetensors").write_bytes(b"cut")
    with pytest.raises(PalscopeError, match=r"units.safetensors cannot be read"):
        _ = found["neurons"][0].samples
    (tmp_path / "index/clips.parquet").write_bytes(b"cut")
    with pytest.raises(PalscopeError, match=r"clips.parquet cannot be read"):
        UnitIndex(tmp_path / "index")


def test_a_folder_may_move(made: SimpleNamespace, index: UnitIndex, tmp_path: Path) -> None:
    """Nothing in the index names where it stood."""
    for file in index.folder.rglob("*"):
        if file.suffix in (".json", ".parquet"):
            assert str(made.folder) not in file.read_bytes().decode("latin1").replace("\\/", "/"), (
                json.loads(file.read_text()) if file.suffix == ".json" else pd.read_parquet(file)
            )


def test_rows_are_read_a_block_at_a_time(
    made: SimpleNamespace, index: UnitIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palscope._features.heard.survey.AT_ONCE", 3 * ROWS)
    again = built(made, made.folder / "small")
    for name, units in index.items():
        for array in units.arrays:
            assert np.allclose(
                units.array(array), again[name].array(array), equal_nan=True, atol=1e-5
            )


def test_a_clip_of_two_streams_has_one_peak(
    made: SimpleNamespace, dense: dict[str, np.ndarray]
) -> None:
    """The larger of the two; what is around it ends where its stream does."""
    rows = ActivationStore(made.folder / "store")["neurons"]
    second = np.arange(len(rows)) % ROWS >= ROWS // 2
    rows.rows["stream"] = pd.Categorical(np.where(second, "summary", "frames"))
    (found,), _ = survey([UnitSource.of_rows(rows)])
    for unit in range(9):
        mine = found.of(unit)
        values = dense["neurons"][..., unit]
        assert sorted(found.clip[mine].tolist()) == list(range(len(CLIPS)))
        assert found.value[mine] == pytest.approx(values[found.clip[mine]].max(1))
        assert (np.diff(found.value[mine]) <= 0).all()
        assert not ((found.start[mine] < 0.39) & (found.end[mine] > 0.41)).any()


def test_an_empty_store_is_told(made: SimpleNamespace, tmp_path: Path) -> None:
    store: ActivationStore = store_of(tmp_path / "empty", {"site": torch.zeros(0, 4)}, CLIPS[:1])
    with pytest.raises(PalscopeError, match="there are no rows at site"):
        index_units([UnitSource.of_rows(store["site"])], tmp_path / "out", sounds={})


def test_a_model_hears_a_sound_as_its_stored_clip(
    store: ActivationStore, model: Any, clips: Any, tmp_path: Path
) -> None:
    """In every kind of site; and a residual stream's directions have words."""
    for site in ("audio_blocks.0.hook_out", "blocks.2.hook_resid_post", "blocks.1.attn.hook_z"):
        source = UnitSource.of_dimensions(store[site])
        units = index_units([source], tmp_path / site, sounds={})["dimensions"]
        asked = {"model": model, "question": clips[1].question, "most": 5}
        found = what_fires(units, clips[1].sound, 0.2, 1.0, **asked)
        stored = what_fires(units, "clip 1", 0.2, 1.0, most=5)
        assert found["unit"].tolist() == stored["unit"].tolist() and len(found) == 5
        assert found["value"].tolist() == pytest.approx(stored["value"].tolist(), rel=1e-3)
    with (
        pytest.raises(PalscopeError, match="is of another model or route"),
        model.route(Route.plits(tiny.LAYERS)),
    ):
        what_fires(units, clips[1].sound, model=model)


def test_directions_in_the_residual_stream_write_words(
    store: ActivationStore, model: Any, tmp_path: Path
) -> None:
    """Those of the logits of the direction alone, which is an unembedding's row here."""
    rows = store["blocks.2.hook_resid_post"]
    directions = model.model.unembedding.weight.detach()[[30, 7]].clone()
    source = UnitSource("mine", rows, lambda x: x @ directions.T, directions)
    found = index_units([source], tmp_path / "index", sounds={}, model=model)["mine"]
    for unit, token in enumerate((30, 7)):
        state = model.model.decoder.norm(directions[unit])
        logits = state @ model.model.unembedding.weight.T
        words = [model.tokenizer.decode([each]) for each in logits.topk(8).indices.tolist()]
        assert found[unit].about["words"] == " ".join(map(repr, words)) != ""
        assert model.tokenizer.decode([token]) in words
    assert "writes by the unembedding" in unit_html(found[0])


def test_a_transcoder_writes_where_it_writes(
    store: ActivationStore, model: Any, tmp_path: Path
) -> None:
    """It reads the encoder here, and writes what the feed-forward network adds; so does chance."""
    rows = store["audio_blocks.0.hook_out"]
    width = model.model.unembedding.weight.shape[1]
    words: dict[str, set[str]] = {}
    for out in ("blocks.1.hook_mlp_out", "audio_blocks.0.hook_out"):
        torch.manual_seed(0)
        made = Dictionary(rows.width, 8, kind="jumprelu", k=2, d_out=width)
        made.about = {"hook_point": rows.hook_point, "hook_point_out": out}
        path = tmp_path / out
        save_dictionary(made, path)
        both = [UnitSource.of_dictionary(path, rows), UnitSource.of_random(path, rows)]
        found = index_units(both, tmp_path / f"{out} index", sounds={}, model=model)
        words[out] = set(found["features"].table["words"]) | set(found["random"].table["words"])
    assert "" not in words["blocks.1.hook_mlp_out"] and len(words["blocks.1.hook_mlp_out"]) > 8
    assert words["audio_blocks.0.hook_out"] == {""}
