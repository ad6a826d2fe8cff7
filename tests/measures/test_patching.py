"""Activation patching finds exactly what was planted, and its statistics say what they claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope.audio import Waveform
from palscope.errors import AudioError, PalscopeError
from palscope.interventions import Address, Sound, Text, edit_waveform
from palscope.measures import _grids as grids
from palscope.measures import _patching as patching
from palscope.measures._metrics import Answers
from palscope.measures._patching import (
    GridCell,
    activation_patching,
    answers_moved,
    check_controls,
    greedy_answers,
    input_patching,
    patching_effects,
    solved_pairs,
)
from tests.planted import (
    HEADS,
    LAST,
    LAYERS,
    RELAY,
    WORDS,
    Planted,
    plant,
    planted_ear,
)

AT = 5  # the event's frame: 0.5 to 0.6 s
SECONDS = 1.2
EXACT = {"abs": 1e-5}
A, B = WORDS.index("A"), WORDS.index("B")
ANSWERS = Answers((), A, B)
DIRECTIONS = ("denoising", "noising")
PLACES: dict[str, Any] = {
    "clip, before": Sound(0, 0.3),
    "clip, event": Sound(0.3, 0.6),
    "clip, after": Sound(0.6, SECONDS),
    "the word": Text(RELAY),
    "last": Text(LAST),
}


def patched(planted: Planted, cells: list[GridCell], direction: Any = "denoising") -> pd.DataFrame:
    """Effects of patching between a clip with A and one with B, all else in them different too."""
    clean, corrupt, other = (
        planted.inputs(event, AT, nuisance=seed) for event, seed in (("A", 1), ("B", 2), (None, 3))
    )
    table = activation_patching(
        planted.model,
        clean,
        corrupt,
        cells,
        answers=ANSWERS,
        direction=direction,
        other=other,
        batch_size=64,
    ).assign(pair="one")
    check_controls(table)
    return patching_effects(table, grids.LABELS)


def places_of_effect(effects: Any, *names: str) -> set[Any]:
    """The cells that restore everything; the others must restore exactly nothing."""
    rows = effects[effects["run"] == "patch"]
    assert len(rows)
    full = rows["effect"].to_numpy() > 0.5
    np.testing.assert_allclose(rows["effect"], full.astype(float), atol=EXACT["abs"])
    found = rows.loc[full, list(names)]
    return set(found.iloc[:, 0]) if len(names) == 1 else set(found.itertuples(index=False))


def cells_by_layer(planted: Planted, **settings: Any) -> list[GridCell]:
    places = settings.pop("places", PLACES)
    layers = settings.pop("layers", grids.layer_windows(LAYERS))
    return grids.layers_by_places(planted.model.current_route, places, layers, **settings)


# -- layers × places ------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lal_is_found_in_its_layer_alone(direction: str) -> None:
    planted = plant("lal", layer=2)
    effects = patched(planted, cells_by_layer(planted), direction)
    assert places_of_effect(effects, "layer", "place") == {(2, "clip, event"), (3, "last")}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("pathway", ["summary", "plits"])
def test_carried_sound_matters_up_to_the_layer_that_reads_it(pathway: Any, direction: str) -> None:
    planted = plant(pathway, layer=2)
    effects = patched(planted, cells_by_layer(planted), direction)
    expected = {(layer, "clip, event") for layer in (0, 1, 2)} | {(3, "last")}
    assert places_of_effect(effects, "layer", "place") == expected


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_relay_is_followed_from_the_sound_to_the_word_to_the_answer(direction: str) -> None:
    planted = plant("relay", layer=0, other=(2, 2))
    effects = patched(planted, cells_by_layer(planted), direction)
    expected = {(0, "clip, event"), (1, "the word"), (2, "the word"), (3, "last")}
    assert places_of_effect(effects, "layer", "place") == expected


def test_a_decoy_reads_the_event_and_patching_it_does_nothing() -> None:
    planted = plant("decoy", layer=1, other=(2, 0))  # the decoy's layer is no other head's
    effects = patched(planted, cells_by_layer(planted))
    expected = {(1, "clip, event"), (2, "last"), (3, "last")}
    assert places_of_effect(effects, "layer", "place") == expected


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits", "relay", "decoy"])
def test_keys_and_values_tell_the_reading_layer_in_every_integration(pathway: Any) -> None:
    planted = plant(pathway)
    places = {name: PLACES[name] for name in PLACES if name.startswith("clip")}
    cells = cells_by_layer(planted, places=places, site="audio_kv")
    effects = patched(planted, cells)
    assert places_of_effect(effects, "layer", "place") == {(planted.layer, "clip, event")}


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits", "relay", "decoy"])
def test_from_a_layer_up_means_the_same_in_every_integration(pathway: Any) -> None:
    planted = plant(pathway)
    places = {name: PLACES[name] for name in PLACES if name.startswith("clip")}
    cells = cells_by_layer(planted, places=places, layers=grids.layers_from(LAYERS))
    found = places_of_effect(patched(planted, cells), "layer", "place")
    assert found == {(layer, "clip, event") for layer in range(planted.layer + 1)}


@pytest.mark.parametrize("pathway", ["lal", "plits", "decoy"])
def test_the_event_is_found_to_a_tenth_of_a_second(pathway: Any) -> None:
    planted = plant(pathway)
    places = grids.steps(SECONDS, 0.1)
    cells = cells_by_layer(planted, places=places, layers=[(0, 1, 2, 3)])
    assert places_of_effect(patched(planted, cells), "place") == {"0.50 to 0.60 s"}


# -- sites, streams, heads ------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("pathway", ["lal", "summary", "plits", "relay", "decoy"])
def test_every_site_of_sound_holds_the_event(pathway: Any, direction: str) -> None:
    planted = plant(pathway)
    sites = ("encoder_output", "connector_output", "audio_state")
    cells = grids.sites_by_places(grids.steps(SECONDS, 0.3), sites=sites)
    found = places_of_effect(patched(planted, cells, direction), "site", "place")
    assert found == {(site, "0.30 to 0.60 s") for site in sites}


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits", "relay", "decoy"])
def test_the_stream_is_found(pathway: Any) -> None:
    planted = plant(pathway)
    layers = grids.layer_windows(LAYERS)
    cells = grids.streams_by_layers(planted.model.current_route, layers, site="audio_kv")
    found = places_of_effect(patched(planted, cells), "layer", "stream")
    assert found == {(planted.layer, planted.stream)}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("pathway", ["lal", "summary", "plits", "decoy"])
def test_the_head_is_found(pathway: Any, direction: str) -> None:
    planted = plant(pathway, layer=2, head=3)
    cells = grids.layers_by_heads(LAYERS, HEADS)
    found = places_of_effect(patched(planted, cells, direction), "layer", "head")
    assert found == {(2, 3)}  # and not the decoy


def test_a_relays_first_head_speaks_at_the_word_only() -> None:
    planted = plant("relay")
    last = patched(planted, grids.layers_by_heads(LAYERS, HEADS))
    assert places_of_effect(last, "layer", "head") == {planted.other}
    everywhere = patched(planted, grids.layers_by_heads(LAYERS, HEADS, Text(), "all text"))
    first = (planted.layer, planted.head)
    assert places_of_effect(everywhere, "layer", "head") == {first, planted.other}


def test_a_clip_without_an_event_takes_half_of_the_difference_away() -> None:
    """The random-clip baseline: neither A nor B is heard, which lies between the two."""
    planted = plant("lal")
    effects: Any = patched(planted, cells_by_layer(planted))
    other = effects[effects["run"] == "other"].set_index(["layer", "place"])["effect"]
    assert other[planted.layer, "clip, event"] == pytest.approx(0.5, **EXACT)
    assert other[planted.layer, "clip, before"] == pytest.approx(0, **EXACT)


# -- input patching -------------------------------------------------------------------------------


def clip(seed: int, seconds: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(int(seconds * 16_000))).astype(np.float32)


def wave(samples: np.ndarray) -> Waveform:
    return Waveform(samples, 16_000, "made")


@pytest.fixture(scope="module")
def ear() -> Any:
    return planted_ear()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_input_patching_swaps_the_sound_itself(ear: Any, direction: Any) -> None:
    """Two clips that differ from 0.3 to 0.6 s alone."""
    question = "which sound"
    clean, corrupt, other = wave(clip(0)), wave(clip(0)), wave(clip(2))
    corrupt.samples[4_800:9_600] = clip(1)[4_800:9_600]
    places = grids.steps(1.0, 0.3)
    cells = grids.sites_by_places(places, sites=["waveform"])
    table: Any = input_patching(
        ear,
        question,
        clean,
        corrupt,
        cells,
        answers=ANSWERS,
        direction=direction,
        other=other,
        batch_size=3,
    ).assign(pair="one")
    check_controls(table)
    effects: Any = patching_effects(table, ["start_s"])
    patch = effects[effects["run"] == "patch"].sort_values("start_s")["effect"]
    np.testing.assert_allclose(patch, [0, 1, 0, 0], atol=1e-4)
    # Against the same splice, made by hand and heard on its own.
    target = clean if direction == "noising" else corrupt
    spliced = edit_waveform(target, Sound(0.6, 0.9), other)
    logits = ear(ear.inputs(question, spliced.samples))[0, -1].detach()
    row = table[(table["run"] == "other") & np.isclose(table["start_s"], 0.6)]
    assert row["logit_diff"].item() == pytest.approx(float(logits[A] - logits[B]), abs=1e-4)
    assert row["logit_diff"].item() != pytest.approx(
        table.set_index("run").loc["target", "logit_diff"], abs=1e-3
    )


def test_tokens_and_sound_agree_where_the_encoder_does_not_spread(ear: Any) -> None:
    """An encoder that hears 65 ms: away from a stretch's edges, patching either is the same."""
    clean, corrupt = wave(clip(0)), wave(clip(0))
    # The sounds differ well within 0.3 to 0.6 s, so that no token outside hears of it.
    corrupt.samples[6_400:8_000] = clip(1)[6_400:8_000]
    sound = Address("waveform", Sound(0.3, 0.6))
    tokens = [Address(site, Sound(0.3, 0.6)) for site in ("encoder_output", "audio_state")]
    by_sound = input_patching(
        ear, "which sound", clean, corrupt, [GridCell((sound,))], answers=ANSWERS
    ).assign(pair="one")
    inputs = [ear.inputs("which sound", each.samples) for each in (clean, corrupt)]
    by_tokens = activation_patching(
        ear, *inputs, [GridCell((each,)) for each in tokens], answers=ANSWERS
    ).assign(pair="one")
    for table, count in ((by_sound, 1), (by_tokens, 2)):
        effects: Any = patching_effects(table, [])
        patches = table[table["run"] == "patch"]
        assert len(patches) == count
        assert effects[effects["run"] == "patch"]["effect"].item() == pytest.approx(1, abs=1e-3)


def test_input_patching_refuses_other_sites(ear: Any) -> None:
    clips = wave(clip(0)), wave(clip(1))
    for bad in ([], [GridCell((Address("audio_state", Sound(0, 0.3)),))]):
        with pytest.raises(PalscopeError, match=r"cells|waveform"):
            input_patching(ear, "which sound", *clips, bad, answers=ANSWERS)
    outside = [GridCell((Address("waveform", Sound(0.5, 1.5)),))]
    with pytest.raises(AudioError, match="lies outside of"):
        input_patching(ear, "which sound", *clips, outside, answers=ANSWERS)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_denoising_starts_from_the_corrupt_run_and_noising_from_the_clean_one(
    direction: Any,
) -> None:
    planted = plant("lal")
    clean, corrupt = planted.inputs("A", AT), planted.inputs("B", AT)
    table = activation_patching(
        planted.model,
        clean,
        corrupt,
        cells_by_layer(planted),
        answers=ANSWERS,
        direction=direction,
    )
    ends = table.set_index("run")["logit_diff"]
    assert (ends["target"] < 0 < ends["source"]) == (direction == "denoising")
    assert (ends["self"] < 0 < ends["full"]) == (direction == "denoising")
    assert set(table["direction"]) == {direction}


def test_prompts_that_differ_in_more_than_sound_are_refused() -> None:
    planted = plant("lal")
    short, long = planted.inputs("A", AT), planted.inputs("B", AT, n_tokens=15)
    cells = cells_by_layer(planted)
    with pytest.raises(PalscopeError, match="clips' length"):
        activation_patching(planted.model, short, long, cells, answers=ANSWERS)
    with pytest.raises(PalscopeError, match="no cells"):
        activation_patching(planted.model, short, short, [], answers=ANSWERS)


def test_the_answers_common_beginning_stands_behind_the_prompt() -> None:
    """After "B" is put behind both prompts, both are asked once more, and answer as before."""
    planted = plant("lal")
    answers = Answers((WORDS.index("B"),), A, B)
    cells = cells_by_layer(planted)
    clean, corrupt = planted.inputs("A", AT), planted.inputs("B", AT)
    table = activation_patching(planted.model, clean, corrupt, cells, answers=answers)
    ends = table.set_index("run")["logit_diff"]
    behind = {**clean, "input_ids": None, "attention_mask": None} | answers.behind(clean)
    logits = planted.model(behind)[0, -1].detach()
    assert ends["source"] == pytest.approx(float(logits[A] - logits[B]), abs=1e-5)
    assert ends["source"] > 5 and ends["target"] < -5


# -- statistics, on made-up tables ----------------------------------------------------------------


def made_up(
    effect: float,
    pairs: int,
    rng: np.random.Generator,
    *,
    noise: float = 1.0,
    direction: str = "denoising",
) -> pd.DataFrame:
    """A table in which the cell restores `effect` of each pair's difference, give or take."""
    rows: list[dict[str, Any]] = []
    for number in range(pairs):
        clean, corrupt = rng.uniform(1, 7), rng.uniform(-7, -1)
        source, target = (clean, corrupt) if direction == "denoising" else (corrupt, clean)
        patched = target + effect * (source - target) + noise * rng.standard_normal()
        values = {"source": source, "target": target, "self": target, "full": source}
        for run, value in (values | {"patch": patched}).items():
            rows.append(
                {
                    "pair": f"p{number}",
                    "direction": direction,
                    "run": run,
                    "layer": 0.0 if run == "patch" else np.nan,
                    "logit_diff": value,
                    "logprob": value - 10,
                    "kl": 0.0 if run in ("source", "full") else abs(value),
                    "rank": 0 if value > 0 else 1,
                }
            )
    return pd.DataFrame(rows)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    inside: list[bool] = []
    for _ in range(100):
        table = made_up(0.8, 40, rng, noise=0.5)
        effects: Any = patching_effects(table, ["layer"])
        row = effects[effects["run"] == "patch"].iloc[0]
        inside.append(row["low"] <= 0.8 <= row["high"])
        assert row["n"] == 40
    assert 0.9 <= np.mean(inside) <= 0.99


def test_effects_are_ratios_of_means() -> None:
    """A pair whose runs hardly differ does not rule the mean."""
    table = made_up(0.5, 2, np.random.default_rng(0), noise=0)
    table.loc[table["pair"] == "p1", "logit_diff"] = [0.01, 0, 0, 0.01, 5]
    effects: Any = patching_effects(table, ["layer"])
    rows = table.pivot(index="pair", columns="run", values="logit_diff")
    moved = (rows["patch"] - rows["target"]).mean()
    expected = moved / (rows["source"] - rows["target"]).mean()
    patch = effects[effects["run"] == "patch"]
    assert patch["effect"].item() == pytest.approx(expected)
    assert patch["moved"].item() == pytest.approx(moved)
    assert expected < 2  # a mean of ratios would be 250


def test_one_pair_has_no_interval() -> None:
    effects = patching_effects(made_up(0.5, 1, np.random.default_rng(0), noise=0), ["layer"])
    patch: Any = effects[effects["run"] == "patch"]
    assert patch["effect"].item() == pytest.approx(0.5)
    assert patch[["low", "high"]].isna().to_numpy().all()


@pytest.mark.parametrize("metric", ["logit_diff", "logprob", "kl"])
def test_controls_hold_and_broken_ones_are_refused(metric: str) -> None:
    table = made_up(0.5, 4, np.random.default_rng(0))
    controls = check_controls(table, metric=metric).set_index("control")
    assert controls["worst"].max() == 0 and list(controls["n"]) == [4, 4]
    for control in ("self", "full"):
        broken = table.copy()
        broken.loc[(broken["run"] == control) & (broken["pair"] == "p2"), metric] += 0.05
        with pytest.raises(PalscopeError, match=f"{control}.*p2"):
            check_controls(broken, metric=metric)
        missing = table[(table["run"] != control) | (table["pair"] != "p2")]
        with pytest.raises(PalscopeError, match="not there"):
            check_controls(missing, metric=metric)
        unknown = table.copy()
        unknown.loc[(unknown["run"] == control) & (unknown["pair"] == "p2"), metric] = np.nan
        with pytest.raises(PalscopeError, match="not there"):
            check_controls(unknown, metric=metric)


def test_ranks_are_checked_by_their_log_probabilities() -> None:
    table = made_up(0.5, 4, np.random.default_rng(0))
    moved = table.copy()
    moved.loc[(moved["run"] == "self") & (moved["pair"] == "p0"), "rank"] += 1  # rounding's doing
    check_controls(moved, metric="rank")
    moved.loc[(moved["run"] == "self") & (moved["pair"] == "p0"), "logprob"] += 1
    with pytest.raises(PalscopeError, match="self"):
        check_controls(moved, metric="rank")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_solved_needs_both_sides(direction: str) -> None:
    table = made_up(0.5, 4, np.random.default_rng(0), direction=direction)
    clean, corrupt = ("source", "target") if direction == "denoising" else ("target", "source")
    for name, run, value in (("p1", clean, -1), ("p2", corrupt, 1), ("p3", clean, -9)):
        table.loc[(table["pair"] == name) & (table["run"] == run), "logit_diff"] = value
    # p3 is wrong on both sides, which no order of the two runs makes right.
    table.loc[(table["pair"] == "p3") & (table["run"] == corrupt), "logit_diff"] = 9
    assert solved_pairs(table) == ["p0"]


def test_without_a_corrupt_answer_the_clean_one_must_be_the_most_probable() -> None:
    table = made_up(0.5, 2, np.random.default_rng(0)).assign(logit_diff=np.nan)
    table.loc[(table["pair"] == "p1") & (table["run"] == "source"), "rank"] = 3
    assert solved_pairs(table) == ["p0"]
    with pytest.raises(PalscopeError, match="without a corrupt answer"):
        patching_effects(table, ["layer"])
    assert len(patching_effects(table, ["layer"], metric="logprob")) == 3


def test_a_models_own_answers_are_judged() -> None:
    planted = plant("lal")
    clean, corrupt = planted.inputs("A", AT), planted.inputs("B", AT)
    a, b = (" ".join(letter * 16) for letter in "AB")  # it never ends its answer by itself

    def right(*expected: Any) -> list[bool]:
        table = greedy_answers(planted.model, clean, corrupt, *expected)
        assert table["side"].tolist() == ["clean", "corrupt"]
        assert table["answer"].tolist() == [a, b]
        return table["right"].tolist()

    assert right(a, b) == [True, True]
    assert right(a.lower() + ".", None) == [True, True]
    assert right(b, b) == [False, True]
    assert right(a, "A") == [True, False]


def test_the_end_of_a_turn_is_no_part_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant("lal")
    tokenizer = planted.model.processor.tokenizer
    said = torch.tensor([[*tokenizer("A", add_special_tokens=False).input_ids]])
    ends = torch.tensor([[tokenizer.eos_token_id]])
    monkeypatch.setattr(patching, "greedy_tokens", lambda *_: torch.cat([said, ends], 1))
    clean = planted.inputs("A", AT)
    assert greedy_answers(planted.model, clean, clean, "A", None)["answer"].tolist() == ["A", "A"]


def test_answers_moved_counts_pairs() -> None:
    table = made_up(0.5, 10, np.random.default_rng(0), noise=0)
    patch = table["run"] == "patch"
    table.loc[patch, "logit_diff"] = [1.0] * 7 + [-1.0] * 3
    found: Any = answers_moved(table, ["layer"]).set_index("run")
    assert found.loc["patch", "share"] == 0.7 and found.loc["patch", "n"] == 10
    assert found.loc["patch", "low"] == pytest.approx(0.397, abs=1e-3)  # Wilson's, 7 of 10
    assert found.loc["patch", "high"] == pytest.approx(0.892, abs=1e-3)
    assert found.loc["self", "share"] == 0 and found.loc["full", "share"] == 1
    table.loc[(table["pair"] == "p0") & (table["run"] == "target"), "logit_diff"] = 1.0
    again: Any = answers_moved(table, ["layer"]).set_index("run")
    assert again.loc["patch", "n"] == 9  # a pair whose two runs agree cannot be moved


def test_runs_that_do_not_differ_have_no_effect_to_share() -> None:
    table = made_up(0.5, 2, np.random.default_rng(0)).assign(logit_diff=1.0)
    with pytest.raises(PalscopeError, match="the same in source and target"):
        patching_effects(table, ["layer"])
    with pytest.raises(PalscopeError, match="no metric 'loss'"):
        patching_effects(table, ["layer"], metric="loss")
