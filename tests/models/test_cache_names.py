"""A cache goes by either name, in and out, and no call of palscope's warns of the other."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from palscope._models.cache_names import NEW, OLD, cache_in, naming_cache
from palscope._routing import Route
from palscope.errors import PalscopeError
from tests import tiny


@pytest.fixture(scope="module")
def made() -> Any:
    return tiny.model(Route.pal(4, [0, 2]))


@pytest.fixture
def told(caplog: Any) -> Any:
    """What transformers logs, also what it says but once."""
    logger: Any = logging.getLogger("transformers")
    type(logger).warning_once.cache_clear()
    logger.propagate = True
    with caplog.at_level(logging.WARNING, "transformers"):
        yield caplog
    logger.propagate = False


@torch.no_grad()
@pytest.mark.parametrize("name", [OLD, NEW])
def test_either_name_goes_in_and_comes_out(made: Any, told: Any, name: str) -> None:
    batch, word = tiny.batch([[37]]), torch.tensor([[5]])
    longer = {**batch, "input_ids": torch.cat([batch["input_ids"], word], 1)}
    longer["attention_mask"] = torch.ones_like(longer["input_ids"])
    wanted = made(**longer).logits[:, -1:]

    first = made(**batch, use_cache=True)
    got = made(input_ids=word, **{name: getattr(first, name)}).logits
    torch.testing.assert_close(got, wanted)

    cache = getattr(made(**batch, use_cache=True), name)
    text = {key: longer[key] for key in ("input_ids", "attention_mask")}
    options: Any = {"max_new_tokens": 2, "do_sample": False, "eos_token_id": None}
    said = made.generate(**text, **options, **{name: cache})
    assert torch.equal(said, made.generate(**longer, **options))
    assert not told.records


@torch.no_grad()
def test_two_caches_are_refused(made: Any) -> None:
    one, two = (made(**tiny.batch([[37]]), use_cache=True).cache for _ in range(2))
    word = torch.tensor([[5]])
    with pytest.raises(PalscopeError, match="two names of one thing"):
        made(input_ids=word, cache=one, past_key_values=two)
    with pytest.raises(PalscopeError, match="two names of one thing"):
        made.generate(input_ids=word, cache=one, past_key_values=two)
    assert made(input_ids=word, cache=one, past_key_values=one).cache is one


def test_names_are_exchanged_and_all_else_stays() -> None:
    held = object()
    for given in ({OLD: held, "use_cache": True}, {NEW: held, "use_cache": True}):
        for name in (OLD, NEW):
            assert naming_cache(given, name) == {name: held, "use_cache": True}
        assert cache_in(given) is held
    assert naming_cache({"use_cache": True}) == {"use_cache": True}
