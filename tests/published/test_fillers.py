"""Gemma 3n's fillers, the word in a clip's places behind its sound: neither text nor sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import palscope
from analyses import attention_knockout as script
from palscope import measures
from palscope.errors import PromptError
from palscope.interventions import Address, Filler, Knockout, Sound, Text, intervene, resolve
from palscope.measures._knockout import (
    and_fillers,
    attention_knockout,
    text_to_audio,
    through_fillers,
)
from palscope.measures._masking import masking
from palscope.measures._metrics import Answers
from palscope.measures._profile import attention_profile
from tests.published.contract import noise
from tests.published.tiny import gemma3n, qwen2_audio

PLACES, SOUND = 188, 7
"""Of every clip, and of one of a second."""


@pytest.fixture(scope="module")
def hooked() -> Any:
    return palscope.load(gemma3n.model(), processor=gemma3n.processor())


@pytest.fixture(scope="module")
def inputs(hooked: Any) -> dict[str, torch.Tensor]:
    return hooked.inputs("what?", noise(1.0))


def test_they_are_a_group_of_their_own_in_the_layout(hooked: Any, inputs: Any) -> None:
    layout = hooked.layout(inputs)
    counts = layout.table(0)["stream"].value_counts().to_dict()
    text = hooked.processor.tokenizer(hooked.processor.chat("what?", 0), add_special_tokens=False)
    marks = hooked.processor.tokenizer("\n\n<start_of_audio><end_of_audio>\n\n")["input_ids"][1:]
    assert counts == {
        "text": len(text["input_ids"]) + len(marks),
        "filler": PLACES - SOUND,
        "frames": SOUND,
    }
    assert list(layout.pathways) == ["text", "filler", "frames"]
    assert "181 filler" in layout._repr_html_()
    assert "filler" not in hooked.layout(hooked.inputs("what?")).pathways


@torch.no_grad()
def test_masses_tell_them_apart_and_sum_to_one(hooked: Any, inputs: Any) -> None:
    table: Any = measures.pathway_mass(hooked, inputs)
    sums = table.groupby(["layer", "head"])["mass"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    # Of single keys, which the contract holds to the class's attention.
    keys: Any = measures.attention_mass(hooked, inputs)
    filling = (inputs["input_ids"] == hooked.model.filler_id)[0]
    is_filler = keys["key"].isin(filling.nonzero()[:, 0].tolist())
    wanted = keys[is_filler].groupby(["layer", "head"])["mass"].sum()
    got = table[table["pathway"] == "filler"].set_index(["layer", "head"])["mass"]
    np.testing.assert_allclose(got.sort_index(), wanted, atol=1e-6)
    asked: Any = measures.attention_mass(hooked, inputs, queries="text")
    filled = set(filling.nonzero()[:, 0].tolist())
    assert not filled & set(asked["query"]) and filled <= set(asked["key"])
    named = set(asked.loc[asked["key"].isin(filled), "pathway"])
    assert named == {"filler"}


@torch.no_grad()
def test_an_edge_to_them_and_from_them_can_be_cut(hooked: Any, inputs: Any) -> None:
    filling = (inputs["input_ids"] == hooked.model.filler_id)[0].nonzero()[:, 0].tolist()
    found = resolve(hooked, inputs, Address("pattern", Filler(), layers=(2,)))
    assert found.parts[0].columns.tolist() == filling
    assert "all fillers" in str(found) and found.covered["stream"].tolist() == ["filler"]
    with intervene(hooked, inputs, [Knockout(Address("pattern", Filler()))]):
        of_text: Any = measures.attention_mass(hooked, inputs, queries="text")
        of_fillers: Any = measures.attention_mass(hooked, inputs, queries=filling[-2:])
    assert of_text.loc[of_text["key"].isin(filling), "mass"].fillna(0).max() == 0
    assert of_fillers.loc[of_fillers["key"].isin(filling), "mass"].max() > 0  # among themselves
    with pytest.raises(PromptError, match="a filler; address all of them by Filler"):
        resolve(hooked, inputs, Address("pattern", Text(filling[0])))


@torch.no_grad()
def test_cut_off_from_sound_text_still_hears_through_them(hooked: Any, inputs: Any) -> None:
    other = hooked.inputs("what?", noise(1.0, 5))
    deaf = Knockout(Address("pattern", Sound()))
    by_way = Knockout(Address("pattern", Sound(), queries=Filler()))

    def moved(*cuts: Knockout) -> float:
        logits: list[torch.Tensor] = []
        for each in (inputs, other):
            with intervene(hooked, each, list(cuts)):
                logits.append(hooked(each)[0, -1])
        return float((logits[0] - logits[1]).abs().max())

    assert moved(deaf) > 0.01
    assert moved(deaf, by_way) < 1e-5


@torch.no_grad()
def test_masking_and_profiles_close_the_by_way(hooked: Any, inputs: Any) -> None:
    other = hooked.inputs("what?", noise(1.0, 5))
    logits: list[torch.Tensor] = []
    for each in (inputs, other):
        with intervene(hooked, each, masking(hooked, each, ["frames"], "knockout")):
            logits.append(hooked(each)[0, -1])
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=0)
    answers = Answers((), int(hooked(inputs)[0, -1].argmax()), None)
    whole = and_fillers(
        text_to_audio(hooked.current_route, readers=["text"]), hooked.layout(inputs)
    )
    cut: Any = attention_knockout(hooked, inputs, whole, [range(5)], answers=answers)
    wanted = logits[0].log_softmax(-1)[answers.clean].item()
    assert cut.loc[cut["run"] == "cut", "logprob"].item() == pytest.approx(wanted, abs=1e-4)
    profile: Any = attention_profile(hooked, inputs, seconds=1.0, step=0.5)
    assert profile["value"].notna().all()
    masses: Any = measures.attention_mass(hooked, inputs)
    assert set(measures.over_time(masses)["pathway"]) == {"frames"}
    sums = measures.by_pathway(masses).groupby(["layer", "head"])["mass"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_the_measure_and_the_script_cut_them(hooked: Any, inputs: Any) -> None:
    edges = through_fillers(hooked, inputs)
    labels = [(each.labels["queries"], each.labels["pathway"]) for each in edges]
    assert labels == [("text", "filler"), ("filler", "frames")]
    answers = Answers.of(hooked.processor, "a", "b")
    table = attention_knockout(hooked, inputs, edges, [range(5)], answers=answers)
    cut: Any = table[table["run"] == "cut"]
    assert cut["keys"].tolist() == [PLACES - SOUND, SOUND]
    assert (cut["kl"] > 1e-6).all()
    assert script.through_fillers is through_fillers
    plain: Any = palscope.load(qwen2_audio.model(), processor=qwen2_audio.processor())
    assert through_fillers(plain, plain.inputs("what?", noise(0.5))) == []


def test_they_are_no_targets_and_their_last_predicts_the_word_behind(
    hooked: Any, inputs: Any
) -> None:
    model, layout = hooked.model, hooked.layout(inputs)
    counted = model.targets(inputs["input_ids"], layout)[0]
    filling = (inputs["input_ids"] == model.filler_id)[0]
    assert not counted[filling[1:]].any()
    behind = int(filling.nonzero()[-1]) + 1
    assert counted[behind - 1]
