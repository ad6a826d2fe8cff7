"""What heads read of sound: attention of chosen queries, a row a token and a column a head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import continued, end_tokens, greedy_answers
from palscope._queued import queued
from palscope._routing import TokenLayout
from palscope._routing.layout import TEXT
from palscope.errors import HookError, PalscopeError
from palscope.interventions._address import Address, Sound, Text
from palscope.interventions._parts import Part
from palscope.interventions._resolve import resolve
from palscope.measures._alignment import Head
from palscope.measures._attention_rows import AttentionRows, read_attention_rows

ANSWER = Text(-1)
"""The query that predicts the answer."""
_WORDS = 128
"""Tokens that a transcriber writes at most before its heads are read."""


def rows_name(stream: str) -> str:
    """What rows of attention to a stream are called where others have a hook point."""
    return f"pattern.{stream}"


def of_answer(address: Address) -> Address:
    """A site as a command names it: at `pattern` read by the query that predicts the answer."""
    return replace(address, queries=ANSWER) if address.site == "pattern" else address


class HeadReader:
    """Reads what heads give to tokens of sound, at an address of patterns.

    A value is the share of a query's attention, from 0 to 1; of several queries the largest, so
    that a clip with more words does not have smaller ones. A transcriber's answer is all that it
    writes: of it those queries are asked that predict the tokens of its own transcript, which it
    writes first (greedily, 128 tokens at most).

    Raises:
        PalscopeError: the address is of no sound.
    """

    def __init__(self, model: HookedAudioModel, address: Address) -> None:
        if not isinstance(address.tokens, Sound):
            raise PalscopeError(
                "a store of patterns holds what heads read of sound; address its tokens by "
                "Sound(...), and who reads by queries=."
            )
        self.model = model
        self.address = address
        self.writes = address.queries == ANSWER and not model.processor.takes_questions

    def written(self, prompts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The prompts, a transcriber's with what it writes behind them, but for its last token."""
        if not self.writes:
            return prompts
        model, processor = self.model.model, self.model.processor
        ends = end_tokens(model, processor)
        layout = self.model.layout(prompts).on_host
        room = model.text_config.max_target_positions - int((layout.stream == TEXT).sum(1).max())
        answers = greedy_answers(model, processor, prompts, min(_WORDS, room))
        words = [[each for each in answer if each not in ends][:-1] for answer in answers]
        return continued(prompts, *words) if any(words) else prompts

    def parts(self, inputs: Mapping[str, Any], layout: TokenLayout, prompt: int = 0) -> list[Part]:
        """The tokens that each layer reads, and the queries.

        Args:
            inputs: from `written`.
            layout: of them.
            prompt: columns of the prompts alone.

        Raises what `resolve` raises.
        """
        if not self.writes:
            return list(resolve(self.model, inputs, self.address, layout).parts)
        found = resolve(self.model, inputs, replace(self.address, queries=Text()), layout).parts
        return [replace(part, queries=_from(part.queries, prompt - 1)) for part in found]


def _from(queries: Int[Tensor, "queries"] | None, column: int) -> Int[Tensor, "later"]:
    assert queries is not None
    return queries[queries >= column]


@dataclass(eq=False)
class HeadReading:
    """What is read in one pass.

    Attributes:
        parts: from `HeadReader.parts`.
        layout: on the host.
    """

    parts: list[Part]
    layout: TokenLayout
    _found: dict[tuple[int, int, bool], Float[Tensor, "heads _tokens"]] = field(
        default_factory=dict[tuple[int, int, bool], Tensor]
    )

    def run(self, model: HookedAudioModel, inputs: Mapping[str, Any], stop: int | None) -> None:
        """A pass that ends below layer `stop`; hooks that are set on the model stay in effect."""
        asked: list[set[int]] = [set() for _ in range(self.layout.stream.shape[0])]
        for part in self.parts:
            assert part.queries is not None
            queries: list[int] = part.queries.tolist()
            asked[part.row].update(queries)
        wanted = {_key(part): part for part in self.parts}

        def take(rows: AttentionRows) -> None:
            key = rows.row, rows.layer, rows.crossed
            if key not in wanted:
                return
            where = _places(rows.columns.on_host.keys[rows.row], wanted[key].columns)
            most = rows.weights[..., queued(where, rows.weights.device)].amax(1)
            before = self._found.get(key)
            self._found[key] = most if before is None else torch.maximum(before, most)

        read_attention_rows(
            model, inputs, [sorted(each) for each in asked], take, stop_at_layer=stop
        )

    def streams(self, row: int) -> dict[int, Int[Tensor, "_tokens"]]:
        """Columns of each stream that some head of a row of the batch reads."""
        found: dict[int, Tensor] = {}
        for part in self.parts:
            if part.row == row:
                for number, columns in self._by_stream(part).items():
                    before = found.setdefault(number, columns)
                    assert torch.equal(before, columns)  # a layer sees all of a stream, or none
        return dict(sorted(found.items()))

    def values(self, row: int, stream: int) -> tuple[Float[Tensor, "tokens heads"], list[Head]]:
        """What each head that reads a stream gives to its tokens, and which heads those are.

        Raises `HookError` where a layer's attention was not read.
        """
        heads: list[Head] = []
        values: list[Tensor] = []
        for part in self.parts:
            assert part.layer is not None
            if part.row != row or stream not in self._by_stream(part):
                continue
            found = self._found.get(_key(part))
            if found is None:
                raise HookError(f"{part.hook} was not read in the pass.")
            numbers = range(found.shape[0]) if part.heads is None else part.heads
            mine = self.layout.stream[row, part.columns] == stream
            values.append(found.cpu()[list(numbers)][:, mine])
            heads += [(part.layer, head) for head in numbers]
        return torch.cat(values).T.contiguous(), heads

    def _by_stream(self, part: Part) -> dict[int, Int[Tensor, "_tokens"]]:
        streams = self.layout.stream[part.row, part.columns]
        return {number: part.columns[streams == number] for number in streams.unique().tolist()}


def _key(part: Part) -> tuple[int, int, bool]:
    assert part.layer is not None
    return part.row, part.layer, part.axis == "cross_pattern"


def _places(keys: Int[Tensor, "keys"], columns: Int[Tensor, "tokens"]) -> Int[Tensor, "tokens"]:
    """Where columns stand among a layer's keys, of which -1 are none."""
    place = torch.full((int(max(keys.max(), columns.max())) + 2,), -1)
    place[keys] = torch.arange(len(keys))  # those of -1 come to the end, which no column has
    return place[columns]
