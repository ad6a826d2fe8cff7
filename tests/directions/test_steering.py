"""The dose curve against the same vector added by hand, one prompt and one dose at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palscope._directions.steering import steered_choices
from palscope._routing import Route
from palscope.directions import Direction
from palscope.errors import PalscopeError
from palscope.interventions import Add, Address, Patch, Sound, intervene
from palscope.measures import choice_logprobs
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise

CHOICES = [("one", "two", "three"), ("dog", "rain")]
DOSES = (0.0, -1.0, 3.0)


@pytest.fixture(scope="module")
def pal() -> Any:
    return make_hooked(vocabulary.tokenizer(), Route.pal(tiny.LAYERS, [0, 2]))


@pytest.mark.parametrize(
    ("site", "hook", "width"),
    [("resid_post", "blocks.1.hook_resid_post", 32), ("encoder_block", "", 16)],
)
@torch.no_grad()
def test_every_dose_is_the_vector_added_by_hand(pal: Any, site: Any, hook: str, width: int) -> None:
    vector = torch.randn(width, generator=torch.Generator().manual_seed(3))
    direction = Direction(vector, hook or "audio_blocks.1.hook_out")
    where = Address(site, Sound(0.0, 0.4), (1,))
    sounds = [noise(0.8, 1), noise(0.8, 2)]
    asked = ["which digit is spoken first?", "what?"]
    alone = [pal.inputs(*each) for each in zip(asked, sounds, strict=True)]
    texts = [pal.processor.chat(question) for question in asked]
    both = dict(pal.processor(texts, sounds, sampling_rate=16_000))
    tables = steered_choices(pal, both, CHOICES, direction, where, DOSES, target="two")
    for inputs, choices, table in zip(alone, CHOICES, tables, strict=True):
        assert table["dose"].tolist() == list(DOSES)
        plain = pal(inputs)[0, -1].double().log_softmax(-1)
        for row in table.to_dict("records"):
            patches = [Patch(where, Add(vector, row["dose"]))]
            ranked = choice_logprobs(pal, inputs, choices, patches)
            assert row["best"] == choices[int(ranked.argmax())]
            if "two" in choices:
                p = np.exp(ranked)
                assert row["log_odds"] == pytest.approx(np.log(p[1] / (p[0] + p[2])), abs=1e-3)
            else:
                assert np.isnan(row["log_odds"])
            with intervene(pal, inputs, patches):
                new = pal(inputs)[0, -1].double().log_softmax(-1)
            kl = float((plain.exp() * (plain - new)).sum())
            assert row["kl"] == pytest.approx(kl, abs=1e-5)
        assert table["kl"][0] == 0 and (table["kl"][1:] > 1e-5).all()


def test_a_direction_of_another_layer_is_refused(pal: Any) -> None:
    direction = Direction(torch.ones(32), "blocks.2.hook_resid_post")
    inputs = pal.inputs("what?", noise(0.5))
    with pytest.raises(PalscopeError, match=r"is of blocks\.2\.hook_resid_post, not of blocks\.1"):
        steered_choices(
            pal,
            inputs,
            [("dog", "rain")],
            direction,
            Address("resid_post", Sound(), (1,)),
            (1.0,),
            target="dog",
        )
