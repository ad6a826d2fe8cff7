"""The tokenizer is the processor's; words have their own ids, and no text two start marks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformer_lens.utilities.exploratory_utils import test_prompt as show_prompt

import palscope
from palscope.errors import PalscopeError
from tests.hooks.conftest import noise
from tests.published.tiny import gemma3n

WORD = " dog"


@pytest.fixture(scope="module")
def marking() -> Any:
    """A published model whose tokenizer begins every text with a start mark."""
    model = palscope.load(gemma3n.model(), processor=gemma3n.processor())
    assert model.cfg.tokenizer_prepends_bos
    return model


def test_the_usual_idiom_gives_the_words_id(hooked: Any) -> None:
    assert hooked.tokenizer is hooked.processor.tokenizer
    (wanted,) = hooked.processor.tokenizer(WORD, add_special_tokens=False)["input_ids"]
    assert hooked.tokenizer.decode(wanted) == WORD
    assert hooked.tokenizer.encode(WORD)[0] == wanted
    assert hooked.to_single_token(WORD) == wanted
    assert hooked.to_tokens(WORD).tolist() == [[wanted]]
    assert hooked.to_single_str_token(wanted) == WORD
    direction = hooked.tokens_to_residual_directions(WORD)
    assert torch.equal(direction, hooked.W_U[:, wanted])
    with pytest.raises(AssertionError, match="single token"):
        hooked.to_single_token("no single word")
    with pytest.raises(PalscopeError, match="processor's"):
        hooked.tokenizer = hooked.processor.tokenizer


def test_a_chat_prompt_has_one_start_mark(hooked: Any, marking: Any) -> None:
    for model in (hooked, marking):
        mark = model.tokenizer.bos_token_id
        chat = model.processor.chat("what is heard ?", clips=0)
        (wanted,) = model.processor([chat])["input_ids"]
        assert wanted[0] == mark and wanted[1] != mark
        for prepend in (None, True):
            assert torch.equal(model.to_tokens(chat, prepend_bos=prepend)[0], wanted)
        assert model.to_str_tokens(chat)[:2] == model.to_str_tokens(wanted)[:2]
        plain = chat.removeprefix(model.tokenizer.bos_token)
        assert model.to_tokens(plain, prepend_bos=True)[0, 0] == mark
        assert model.to_tokens(plain, prepend_bos=False)[0, 0] != mark
        assert model.get_token_position(int(wanted[-1]), chat, mode="last") == len(wanted) - 1
        two = model.to_tokens([chat, plain], prepend_bos=True)
        assert torch.equal(two[0], two[1])
        written = model.hf_generate(chat, max_new_tokens=2, do_sample=False, return_type="tokens")
        assert torch.equal(written[0, : len(wanted)], wanted)


def test_a_processors_batch_never_has_two_start_marks(marking: Any) -> None:
    """Rows that have theirs beside rows that do not."""
    chat = marking.processor.chat("what is heard ?", clips=0)
    plain = chat.removeprefix(marking.tokenizer.bos_token)
    ids = marking.processor([chat, plain])["input_ids"]
    assert torch.equal(ids[0], ids[1])
    assert (ids == marking.tokenizer.bos_token_id).sum(1).tolist() == [1, 1]


def test_texts_are_padded_on_the_left_and_their_padding_is_no_word(hooked: Any) -> None:
    texts = ["one dog barks loudly", "rain"]
    tokens = hooked.to_tokens(texts)
    assert torch.equal(tokens, hooked.processor(texts)["input_ids"])
    with torch.no_grad():
        alone = hooked("rain")[0, -1]
        torch.testing.assert_close(hooked(texts)[1, -1], alone, atol=2e-5, rtol=0)


def test_a_prompt_is_shown_with_the_ranks_of_its_answer(hooked: Any, capsys: Any) -> None:
    inputs = hooked.inputs("what is heard?", noise(0.3))
    with torch.no_grad(), hooked.attach_clips(inputs):
        logits = hooked(inputs)[0, -1]
        text = hooked.to_string(inputs["input_ids"][0])
        show_prompt(text, ["dog", "rain"], hooked, print_details=False)
    order = logits.argsort(descending=True).tolist()
    ranks = [(word, order.index(hooked.to_single_token(word))) for word in (" dog", " rain")]
    shown = " ".join(capsys.readouterr().out.split())
    assert str(ranks) in shown
