"""The planted circuits are where they are said to be: shown by weights and attention alone."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch

from palscope._models.families import raw
from palscope.measures import attention_mass, by_pathway
from tests.planted import HEADS, LAYERS, Pathway, Planted, plant, planted_ear

PATHWAYS: tuple[Pathway, ...] = get_args(Pathway)
AT = 5


@pytest.fixture(scope="module", params=PATHWAYS)
def planted(request: Any) -> Planted:
    return plant(request.param)


def difference(planted: Planted, inputs: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        return planted.difference(planted.model(inputs))


def without_head(planted: Planted, layer: int, head: int, inputs: Any) -> float:
    """The difference with the head's columns of o_proj at zero."""
    weight = raw(planted.model.blocks[layer].attn.o).weight
    columns = slice(head * 8, (head + 1) * 8)
    before = weight.detach().clone()
    with torch.no_grad():
        weight[:, columns] = 0
        try:
            return difference(planted, inputs)
        finally:
            weight.copy_(before)


def mass(planted: Planted, at_token: int = AT, query: int = -1) -> pd.DataFrame:
    inputs = planted.inputs("A", at_token)
    return attention_mass(planted.model, inputs, queries=[query])


def test_the_answer_follows_the_class_wherever_the_event_stands(planted: Planted) -> None:
    for at_token in (0, AT, 11):
        a = difference(planted, planted.inputs("A", at_token))
        b = difference(planted, planted.inputs("B", at_token))
        assert a > 5 and b == -a
    assert difference(planted, planted.inputs(None, AT)) == 0


def test_what_nothing_reads_changes_nothing(planted: Planted) -> None:
    plain, other = (planted.inputs("A", AT, nuisance=seed) for seed in (None, 1))
    assert not torch.equal(plain["input_features"], other["input_features"])
    assert difference(planted, plain) == difference(planted, other)


def test_only_the_planted_heads_matter(planted: Planted) -> None:
    a, b = (planted.inputs(which, AT) for which in ("A", "B"))
    whole = difference(planted, a)
    matter = {(planted.layer, planted.head)}
    if planted.pathway == "relay":
        matter.add(planted.other)
    for layer in range(LAYERS):
        for head in range(HEADS):
            left = [without_head(planted, layer, head, inputs) for inputs in (a, b)]
            assert left == ([0, 0] if (layer, head) in matter else [whole, -whole]), (layer, head)


def test_attention_lies_on_the_event_alone(planted: Planted) -> None:
    query = planted.relay_column() if planted.pathway == "relay" else -1
    table = mass(planted, query=query)
    read = table[(table["layer"] == planted.layer) & (table["head"] == planted.head)]
    event = read[read["key"] == planted.event_column(AT)]
    assert event["pathway"].tolist() == [planted.stream]
    expected = 4 / 7 if planted.pathway == "decoy" else 1.0
    assert event["mass"].item() == pytest.approx(expected, abs=1e-3)
    assert read["mass"].drop(event.index).drop(read[read["token"] == "hear"].index).max() < 1e-12
    start, end = event[["start_s", "end_s"]].iloc[0]
    assert start <= AT / 10 < end


def test_the_event_stands_where_its_column_says(planted: Planted) -> None:
    layout = planted.model.layout(planted.inputs("A", AT))
    row = layout.table(0).iloc[planted.event_column(AT)]
    assert (row["stream"], row["token"]) == (planted.stream, planted.event_token(AT))


def test_a_relays_last_word_reads_no_sound() -> None:
    planted = plant("relay")
    assert planted.other is not None
    table = by_pathway(mass(planted))
    heads = table[table["layer"].eq(planted.other[0]) & table["head"].eq(planted.other[1])]
    assert heads.set_index("pathway")["mass"]["text"] == 1
    told = mass(planted)
    told = told[told["layer"].eq(planted.other[0]) & told["head"].eq(planted.other[1])]
    assert told.loc[told["mass"].idxmax(), "key"] == planted.relay_column()


@pytest.mark.parametrize("other", [None, (1, 3), (2, 0)])
def test_attention_mass_falls_for_a_decoy(other: tuple[int, int] | None) -> None:
    planted = plant("decoy", other=other)
    table = by_pathway(mass(planted))
    on_sound = table[table["pathway"] == "frames"].set_index(["layer", "head"])["mass"]
    decoy = planted.other
    assert decoy is not None
    assert on_sound[decoy] > 0.9 > on_sound[planted.layer, planted.head]
    assert (on_sound.drop([decoy]) < on_sound[decoy]).all()
    if other is None:
        assert decoy[0] == planted.layer and decoy[1] // 2 == planted.head // 2
    inputs = planted.inputs("A", AT)
    assert without_head(planted, *decoy, inputs) == difference(planted, inputs)


def test_the_place_can_be_chosen() -> None:
    planted = plant("lal", layer=3, head=2)
    inputs = planted.inputs("B", AT)
    assert difference(planted, inputs) < -5
    assert without_head(planted, 3, 2, inputs) == 0
    assert without_head(planted, 1, 1, inputs) == difference(planted, inputs)


def test_the_pathway_carries_the_answer() -> None:
    """Muting the stream that holds the event ends it; muting the other changes nothing."""
    for pathway, needed, spare in (("lal", "frames", "summary"), ("summary", "summary", "frames")):
        planted = plant(pathway)
        inputs = planted.inputs("A", AT)
        whole = difference(planted, inputs)
        route = planted.model.current_route
        with planted.model.route(route.mute(needed, [planted.layer])):
            assert difference(planted, inputs) == 0
        with planted.model.route(route.mute(spare)):
            assert difference(planted, inputs) == whole


def test_every_step_of_decoding_reads_the_event(planted: Planted) -> None:
    inputs = planted.inputs("B", AT)
    new = planted.model.model.generate(**inputs, max_new_tokens=3, do_sample=False, pad_token_id=0)
    steps = new[0, inputs["input_ids"].shape[1] :].tolist()
    # A relay hands over only at its word, which decoding does not read again; its key stays cached.
    assert steps == [planted.answers[1]] * 3


def test_the_planted_ear_hears_65_ms() -> None:
    model = planted_ear()
    rng = np.random.default_rng(0)
    plain = (0.1 * rng.standard_normal(16_000)).astype(np.float32)
    changed = plain.copy()
    changed[8_000:8_160] *= 0.5  # 0.50 to 0.51 s, quieter: the clip's loudest bin stays elsewhere

    def states(samples: np.ndarray) -> torch.Tensor:
        inputs = model.inputs("which sound", samples)
        encoder = model.model.encoder
        with torch.no_grad():
            return encoder(inputs["input_features"], inputs["feature_lengths"]).states[0]

    moved = (states(plain) != states(changed)).any(-1).nonzero()[:, 0].tolist()
    # Token i hears 0.02 i ± 0.0325 s: those of 0.48 to 0.54 s reach the window.
    assert moved == [24, 25, 26, 27]
