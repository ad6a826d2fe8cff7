"""Residual states as words: the unembedding, and tables of vocabulary entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._models.families import family_of, raw
from palscope._whole import whole_number
from palscope.errors import PalscopeError
from palscope.measures._metrics import Answers


def unembed(
    model: HookedAudioModel, states: Float[Tensor, "tokens d_model"]
) -> Float[Tensor, "tokens vocabulary"]:
    """The decoder's logits of residual states: final norm, unembedding, soft cap. Fires no hook.

    Of Gemma 3n, `states` are four times as wide: its four streams, which it merges before the norm.
    """
    inner = model.model
    states = family_of(inner.text_config).leave(inner.decoder, states)
    norm: Any = raw(getattr(inner.decoder, family_of(inner.text_config).norm))
    made = raw(inner.unembedding).forward(norm.forward(states)).float()
    return inner.finish_logits(made)


def norm_gain(
    norm: Any, state: Float[Tensor, "*tokens d_model"]
) -> Float[Tensor, "*tokens d_model"]:
    """What an RMSNorm multiplies each dimension of `state` by.

    The weight is read from what the norm makes of a large constant, where its epsilon counts for
    nothing: Gemma's norms store the weight less 1.
    """
    epsilon = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    state = state.detach().float()
    with torch.no_grad():
        weight = norm.forward(torch.full_like(state, 1e3)).float()
    return weight * torch.rsqrt(state.square().mean(-1, keepdim=True) + epsilon)


def answer_entries(model: HookedAudioModel, answers: Sequence[str | int]) -> list[int]:
    """Vocabulary ids of `answers`: ids stay, of a word the first token counts.

    Raises:
        PalscopeError: an answer is empty or no id of the vocabulary, or two begin with the same
            token, so that no lens could tell them apart.
    """
    size = int(raw(model.model.unembedding).weight.shape[0])
    tokenizer: Any = model.tokenizer
    ids: list[int] = []
    for answer in answers:
        if isinstance(answer, str):
            found = tokenizer(answer, add_special_tokens=False)["input_ids"]
            if not found:
                raise PalscopeError("an answer is empty; give a word that the model may answer.")
            answer = int(found[0])
        answer = whole_number(answer, "an answer's id")
        if not 0 <= answer < size:
            raise PalscopeError(f"answer {answer} is no id of a vocabulary of {size} entries.")
        if answer in ids:
            raise PalscopeError(
                f"answers {answers[ids.index(answer)]!r} and {answers[len(ids)]!r} begin with the "
                f"same token, {tokenizer.decode([answer])!r}; give answers that differ there."
            )
        ids.append(answer)
    return ids


def spellings(model: HookedAudioModel, choices: Sequence[str]) -> dict[str, list[int]]:
    """First tokens of each choice as it is answered, and as it stands inside a text.

    Deep in a decoder a word is often there as it stands after a space, before the last layers turn
    it into the form that begins an answer. First tokens inside a text that two choices share are
    left out.

    Raises:
        PalscopeError: two choices begin alike as they are answered: what decides between them is a
            later token. Of two answers, `deciding_entries` finds it.
    """
    tokenizer: Any = model.tokenizer
    found: dict[str, list[int]] = {}
    for choice in dict.fromkeys(choices):
        tokens = [
            tokenizer(w, add_special_tokens=False)["input_ids"] for w in (choice, f" {choice}")
        ]
        found[choice] = list(dict.fromkeys(int(ids[0]) for ids in tokens if ids))
    counts = Counter(id for ids in found.values() for id in ids)
    alike = [choice for choice, ids in found.items() if counts[ids[0]] > 1]
    if alike:
        raise PalscopeError(
            f"these choices begin like others, so that their first token tells nothing: "
            f"{', '.join(alike)}; leave some out."
        )
    return {choice: [id for id in ids if counts[id] == 1] for choice, ids in found.items()}


def deciding_entries(
    model: HookedAudioModel, inputs: Mapping[str, Any], clean: str, corrupt: str
) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Where two answers part: the prompt up to there, and the entries that go on as either.

    Returns:
        `inputs` with what both answers begin with behind them; and by answer its entries there:
        `spellings` where they differ from the first token on, else the deciding tokens.

    Raises:
        PromptError: the answers are the same.
    """
    answers = Answers.of(model.processor, clean, corrupt)
    if not answers.prefix:
        return dict(inputs), spellings(model, [clean, corrupt])
    assert answers.corrupt is not None
    return answers.behind(inputs), {clean: [answers.clean], corrupt: [answers.corrupt]}


def check_asked(ids: Sequence[int], top_k: int) -> None:
    """Raise `PalscopeError` when neither answers nor the highest entries are asked for."""
    if top_k < 0 or not (ids or top_k):
        raise PalscopeError("name answers, or a top_k above 0: there is nothing to list.")


def top_entries(
    model: HookedAudioModel,
    logits: Float[Tensor, "tokens vocabulary"],
    ids: Sequence[int],
    top_k: int,
    *,
    probs: bool,
) -> pd.DataFrame:
    """For each token the answers, and then the highest entries that are no answers."""
    tokens, size = logits.shape
    answers = torch.tensor(list(ids), dtype=torch.long, device=logits.device)
    highest = logits.topk(min(top_k, size)).indices
    listed = torch.cat([answers.expand(tokens, -1), highest], 1)
    values = logits.gather(1, listed)
    ranks = torch.stack([(logits > values[:, at, None]).sum(1) for at in range(listed.shape[1])], 1)
    columns: dict[str, Any] = {
        "place": torch.arange(tokens)[:, None].expand_as(listed).flatten().numpy(),
        "id": listed.flatten().cpu().numpy(),
        "logit": values.flatten().cpu().numpy(),
    }
    if probs:
        scores = values - logits.logsumexp(1, keepdim=True)
        columns["logprob"] = scores.flatten().cpu().numpy()
    columns["rank"] = ranks.flatten().cpu().numpy()
    table: Any = pd.DataFrame(columns).drop_duplicates(["place", "id"], ignore_index=True)
    tokenizer: Any = model.tokenizer
    words = {int(id): tokenizer.decode([int(id)]) for id in table["id"].unique()}
    table.insert(2, "entry", table["id"].map(words))
    return table


def named_tokens(labels: pd.DataFrame, columns: Sequence[int], **name: Any) -> pd.DataFrame:
    """A row for each of `columns`: `name`'s values, the column, and what stands there."""
    table: Any = labels.iloc[list(columns)].reset_index(drop=True)
    table.insert(0, "column", list(columns))
    for number, (key, value) in enumerate(name.items()):
        table.insert(number, key, value)
    return table


def beside(where: pd.DataFrame, entries: pd.DataFrame) -> pd.DataFrame:
    """Each entry beside the token that it belongs to."""
    table: Any = where.iloc[entries["place"].to_numpy()].reset_index(drop=True)
    rest: Any = entries.drop(columns="place")
    return table.join(rest)
