"""What calls give: the loss is the model's own, over text; gradients reach what is listened to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palscope._routing import ABSENT, ATTEND, FULL, KEYS, PROJECTED, Route
from palscope.errors import PalscopeError, PromptError
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise
from tests.published.contract import CASES, Opened

ROUTES = {
    "plits": Route.plits(tiny.LAYERS),
    "lal": Route.lal(tiny.LAYERS, [0, 2]),
    "pal": Route.pal(tiny.LAYERS, [0, 2]),
    "ends as keys": tiny.both_streams(
        [PROJECTED, ABSENT, ATTEND, KEYS], [FULL, FULL, ABSENT, KEYS]
    ),
    "ends as queries": tiny.both_streams(
        [PROJECTED, KEYS, ATTEND, ATTEND], [FULL, KEYS, KEYS, KEYS]
    ),
}


@pytest.fixture(scope="module", params=ROUTES.values(), ids=ROUTES.keys())
def pair(tokenizer: Any, request: Any) -> tuple[Any, Any]:
    """A hooked model and the plain one with the same weights, under one route."""
    hooked = make_hooked(tokenizer, request.param)
    plain = tiny.model(request.param, vocab_size=vocabulary.COUNT)
    plain.config.audio_token_id = hooked.model.audio_token_id
    return hooked, plain


def asked(model: Any, clips: list[list[int]], seed: int = 0) -> dict[str, Tensor]:
    """A left-padded batch, of the clips' feature frames a row."""
    batch = tiny.batch(clips, streams=model.streams, seed=seed)
    ids = batch["input_ids"]
    return batch | {"input_ids": torch.where(ids == tiny.AUDIO_ID, model.audio_token_id, ids)}


def text_labels(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The words themselves, -100 at audio places and padding."""
    ids = batch["input_ids"]
    return ids.masked_fill((ids == model.audio_token_id) | (batch["attention_mask"] == 0), -100)


def by_hand(model: Any, batch: dict[str, Tensor], logits: Tensor) -> list[float]:
    """The loss of each word that a token predicts, column by column."""
    labels, last = text_labels(model, batch), model.route.n_layers - 1
    columns = model.layout(
        batch["input_ids"], batch["attention_mask"], None, batch.get("feature_lengths")
    ).layer_columns(model.route, last)
    found: list[float] = []
    for row, runs in enumerate(columns.running.tolist()):
        for column in sorted(set(runs) - {-1}):
            if column + 1 < labels.shape[1] and labels[row, column + 1] != -100:
                scores = logits[row, column].double().log_softmax(-1)
                found.append(-float(scores[labels[row, column + 1]]))
    return found


@settings(max_examples=4, deadline=None)
@given(
    clips=st.lists(st.lists(st.integers(10, 60), max_size=2), min_size=1, max_size=3).filter(any),
    seed=st.integers(0, 99),
)
def test_the_loss_is_over_the_text_that_is_predicted(
    pair: tuple[Any, Any], clips: list[list[int]], seed: int
) -> None:
    hooked, plain = pair
    batch = asked(plain, clips, seed)
    with torch.no_grad():
        wanted = by_hand(plain, batch, plain(**batch).logits)
        own = plain(**batch, labels=text_labels(plain, batch)).loss
        loss = hooked(batch, return_type="loss")
        both = hooked(batch, return_type="both")
        each = hooked(batch, return_type="loss", loss_per_token=True)
    expected = torch.tensor(wanted).mean()
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(loss, expected, **tolerance)
    torch.testing.assert_close(loss, own, **tolerance)
    assert torch.equal(both[1], loss) and both[0].shape[:2] == batch["input_ids"].shape
    assert each.shape == (len(clips), batch["input_ids"].shape[1] - 1)
    torch.testing.assert_close(each[each != 0].sort().values, torch.tensor(wanted).sort().values)
    with hooked.attach_clips(batch) as tokens:
        torch.testing.assert_close(hooked(tokens, return_type="loss"), loss)
        torch.testing.assert_close(hooked.loss_fn(both[0], tokens), loss)


def test_labels_are_targets_where_they_are_given(pair: tuple[Any, Any]) -> None:
    hooked, plain = pair
    batch = asked(plain, [[40], [25, 30]])
    labels = text_labels(plain, batch)
    labels[:, :-3] = -100
    with torch.no_grad():
        wanted = plain(**batch, labels=labels).loss
        torch.testing.assert_close(hooked(batch, labels=labels, return_type="loss"), wanted)
        torch.testing.assert_close(hooked(batch | {"labels": labels}, return_type="loss"), wanted)


def test_a_published_models_loss_is_its_classs_own() -> None:
    (case,) = (case for case in CASES if case.name == "qwen2_audio")
    opened = Opened(case)
    losses: list[Tensor] = []
    for _, plain in opened.given():
        ids = plain["input_ids"]
        mask = plain["attention_mask"]
        real = (ids != opened.family.audio_token_id) & (mask != 0)
        real[range(len(ids)), mask.argmax(1)] = False  # nothing but padding precedes a row's first
        with torch.no_grad():
            losses.append(opened.plain(**plain, labels=ids.masked_fill(~real, -100)).loss)
    assert len(losses) == 1
    with torch.no_grad():
        got = opened.hooked(opened.batch, return_type="loss")
    torch.testing.assert_close(got, losses[0], rtol=1e-5, atol=1e-5)


def test_what_has_no_loss_is_refused(hooked: Any) -> None:
    batch = asked(hooked.model, [[40]])
    with torch.no_grad():
        with pytest.raises(PalscopeError, match="logits_to_keep"):
            hooked(batch, return_type="loss", logits_to_keep=1)
        with pytest.raises(PromptError, match="no word to predict"):
            hooked(batch, return_type="loss", labels=torch.full_like(batch["input_ids"], -100))
        with pytest.raises(PalscopeError, match="masked language models"):
            hooked(batch, return_type="predictions")
        with pytest.raises(PalscopeError, match="embeddings"):
            hooked(torch.zeros(1, 4, 32))


def test_a_text_alone_is_read_as_by_the_processor(hooked: Any) -> None:
    texts = ["a dog barks", "rain"]
    made = dict(hooked.processor(texts))
    with torch.no_grad():
        wanted, loss = hooked(made), hooked(made, return_type="loss")
        assert torch.equal(hooked(texts), wanted)
        assert torch.equal(hooked(texts, return_type="loss"), loss)
        assert torch.equal(hooked("rain"), hooked(dict(hooked.processor("rain"))))


def gradients_of(hooked: Any, inputs: dict[str, Tensor]) -> Any:
    """Of the loss, with TransformerLens's norms as the class computes them."""
    asked = {"return_type": "loss", "incl_bwd": True}
    inside = ("hook_scale", "hook_normalized")
    names = lambda name: not name.endswith(inside)  # noqa: E731
    return hooked.run_with_cache(inputs, names_filter=names, **asked)[1]


@pytest.mark.parametrize("route", ["plits", "lal", "pal"])
def test_gradients_reach_what_is_listened_to_whether_or_not_weights_have_them(
    tokenizer: Any, route: str
) -> None:
    """The oracle has gradients everywhere; here every weight is frozen."""
    inputs: dict[str, Any] = {}
    caches: list[Any] = []
    for frozen in (False, True):
        hooked = make_hooked(tokenizer, ROUTES[route])
        hooked.model.requires_grad_(not frozen)
        inputs = inputs or hooked.inputs("what is heard?", noise(0.4))
        caches.append(gradients_of(hooked, inputs))
    wanted, got = caches
    gradients = {name for name in got if name.endswith("_grad")}
    # Below the words' embeddings there is nothing to differentiate.
    assert {name for name in wanted if name.endswith("_grad")} - gradients <= {
        "embed.hook_out_grad",
        "audio_conv1.hook_in_grad",
    }
    assert any(name.startswith("audio_blocks") for name in gradients)
    assert {"blocks.0.hook_in_grad", "blocks.1.attn.hook_z_grad"} <= gradients
    for name in gradients:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=1e-6)


def test_parameters_keep_what_they_require(hooked: Any) -> None:
    hooked.model.freeze_bases()
    before = [weight.requires_grad for weight in hooked.model.parameters()]
    assert not all(before)
    inputs = hooked.inputs("what is heard?", noise(0.4))
    gradients_of(hooked, inputs)
    assert before == [weight.requires_grad for weight in hooked.model.parameters()]
    assert hooked(inputs).requires_grad  # the connector's
    hooked.model.requires_grad_(False)
    assert not hooked(inputs).requires_grad  # nobody listens
