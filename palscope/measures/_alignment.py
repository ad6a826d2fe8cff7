"""Which attention listens in time: what each head gives to the seconds of the word it predicts.

A model is made to write words whose seconds are known. The query that predicts a word is the token
before it; heads that give that word's seconds their attention align text with sound. (Whisper's are
published as `alignment_heads`, and openai-whisper reads word times from them.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import continued
from palscope._routing import route_to_text
from palscope.audio._compose import LabelledSpan
from palscope.audio._timegrid import overlaps
from palscope.errors import PalscopeError, PromptError
from palscope.interventions import Address, Filler, Knockout, Sound, intervene
from palscope.measures._attention_rows import AttentionRows, read_attention_rows

Head = tuple[int, int]
"""Layer, and head in it."""

MARK = -1
"""Number of the word that a comma, the full stop and the end belong to: none."""


@dataclass(frozen=True)
class ForcedWords:
    """A prompt, and behind it words that the model is made to write: "three, seven, one.".

    Attributes:
        inputs: of the prompt with the words behind it.
        ids: the tokens behind the prompt, and the one that ends what is written.
        first: column of the first of them.
        words: of each token the number of its word, or `MARK`.
    """

    inputs: dict[str, Any]
    ids: tuple[int, ...]
    first: int
    words: tuple[int, ...]

    @classmethod
    def behind(
        cls, model: HookedAudioModel, inputs: Mapping[str, Any], words: Sequence[str]
    ) -> ForcedWords:
        """`words` behind the one prompt of `inputs`, as `model.inputs` or `with_encoded` gives it.

        The text is cut into tokens as a whole, and begins as the model's answers begin.

        Raises:
            PromptError: there is no word, or one has no token of its own; or the tokenizer does not
                tell which letters its tokens stand for.
        """
        processor = model.processor
        text, spans = "", list[tuple[int, int]]()
        for word in words:  # each with the space before it, which may be a token
            text += "," if spans else ""
            written = f"{' ' if spans else processor.answer_start}{word}" if word else ""
            spans.append((len(text), len(text) + len(written)))
            text += written
        tokenizer: Any = processor.tokenizer
        if not tokenizer.is_fast:
            raise PromptError(
                f"the tokenizer, a {type(tokenizer).__name__}, does not tell which letters a token "
                "stands for, by which words are told apart; give one of the library tokenizers "
                "(with a tokenizer.json)."
            )
        cut = tokenizer(f"{text}.", add_special_tokens=False, return_offsets_mapping=True)
        ids = [int(each) for each in cut["input_ids"]]
        numbers = [_word_at(spans, *place) for place in cut["offset_mapping"]]
        missing = [word for number, word in enumerate(words) if number not in numbers]
        if missing or not words:
            raise PromptError(
                f"{missing[0]!r} has no token." if missing else "no word was given to be written."
            )
        first = int(inputs["input_ids"].shape[1])
        end = processor.turn_end
        return cls(continued(inputs, ids), (*ids, end), first, (*numbers, MARK))

    @property
    def queries(self) -> list[int]:
        """The columns that predict each token: those before them."""
        return [self.first - 1 + place for place in range(len(self.ids))]

    @property
    def starts(self) -> list[int]:
        """The place among the tokens at which each word begins."""
        return [self.words.index(number) for number in range(max(self.words) + 1)]

    @torch.no_grad()
    def logprobs(self, model: HookedAudioModel) -> Float[np.ndarray, " tokens"]:
        """Log-probability of each token behind those before it, in nats."""
        return self.logprobs_by(model(self.inputs, logits_to_keep=len(self.ids)))

    def logprobs_by(
        self, logits: Float[Tensor, "1 kept vocabulary"]
    ) -> Float[np.ndarray, " tokens"]:
        """`logprobs`, by the logits of a run of `inputs`."""
        last = logits[0, -len(self.ids) :].float()
        chosen = torch.tensor(self.ids, device=last.device)[:, None]
        return last.log_softmax(-1).gather(1, chosen)[:, 0].cpu().numpy()

    def unheard_logprobs(self, model: HookedAudioModel) -> Float[np.ndarray, " tokens"]:
        """The same with text cut off from all sound, and from what fills the window behind it."""
        everything = [Sound()] if model.model.filler_id is None else [Sound(), Filler()]
        cuts = [Knockout(Address("pattern", each)) for each in everything]
        with intervene(model, self.inputs, cuts):
            return self.logprobs(model)


def spoken_attention(
    model: HookedAudioModel, inputs: Mapping[str, Any], spoken: Sequence[LabelledSpan]
) -> pd.DataFrame:
    """What each head gives to sound while the words of a clip, known in time, are written.

    Args:
        inputs: of one prompt about one clip; an encoded clip (`audio`) serves as well.
        spoken: the words and their seconds, in the order in which they are said.

    Returns:
        One row a (token, layer, head), of layers that see the clip's frames: `token`, its place
        behind the prompt; `text`; `word`, the number of its word, -1 of a mark; `start_s, end_s`,
        the word's seconds, NaN of a mark; `heard`, the token's log-probability in nats, and
        `written`, the same with text cut off from all sound; `layer, head`; `mass`, the share of
        attention that the query before the token gives to its word's seconds; `step_s`, a token of
        sound in seconds; `pattern`, the query's attention to each of the clip's tokens of sound.

    Raises:
        PromptError: a word has no tokens.
        PalscopeError: a word's seconds hold no token of sound, or no layer sees sound.
    """
    forced = ForcedWords.behind(model, inputs, [each.label for each in spoken])
    layout = model.layout(forced.inputs)
    times: Any = layout.seconds.cpu().numpy()[0]
    found: list[pd.DataFrame] = []

    def take(rows: AttentionRows) -> None:
        columns = _heard_columns(rows, layout.stream[0].cpu())
        if columns is None:
            return
        where, order = columns
        weights: Any = rows.weights[..., order.to(rows.weights.device)].cpu().numpy()
        at = [query - forced.first + 1 for query in rows.queries]
        found.append(_rows(rows.layer, at, weights, times[where.numpy()], forced, spoken))

    logits = read_attention_rows(
        model, forced.inputs, [forced.queries], take, logits_to_keep=len(forced.ids)
    )
    if not found:
        raise PalscopeError(
            "no layer sees the clip's frames under the route "
            f"{route_to_text(model.current_route)}, so none attends to words' seconds. Take one on "
            "which a layer does."
        )
    table = pd.concat(found, ignore_index=True)
    heard, written = forced.logprobs_by(logits), forced.unheard_logprobs(model)
    tokenizer: Any = model.tokenizer
    texts = np.array([tokenizer.decode([each]) for each in forced.ids], dtype=object)
    places = table["token"].to_numpy()
    for at, (name, values) in enumerate(
        [("text", texts), ("heard", heard), ("written", written)], start=1
    ):
        table.insert(at, name, values[places])
    return table.sort_values(by=["token", "layer", "head"], ignore_index=True)


def word_scores(table: pd.DataFrame) -> pd.DataFrame:
    """How well each head listens to each word of one clip, by the query that predicts it.

    Args:
        table: of `spoken_attention`.

    Returns:
        One row a (word, layer, head): `word, text, start_s, end_s, layer, head`; `mass`, the share
        of the head's attention on the word's seconds; `share`, of what it gives to the clip; and
        `distance_s`, from the word's middle to where the head gives most; `heard` and `written`,
        summed over the word's tokens.
    """
    said: Any = table[table["word"] != MARK]
    by_head = said.groupby(["word", "layer", "head"], sort=True)
    first: Any = by_head[["start_s", "end_s", "mass", "step_s", "pattern"]].first()
    patterns = np.stack(cast("list[np.ndarray]", first.pop("pattern").tolist()))
    clip, peak = patterns.sum(-1), (patterns.argmax(-1) + 0.5) * first.pop("step_s")
    first["share"] = first["mass"] / np.maximum(clip, np.finfo(np.float32).tiny)
    first["distance_s"] = (peak - (first["start_s"] + first["end_s"]) / 2).abs()
    first.insert(0, "text", by_head["text"].agg("".join).str.strip())
    return first.join(by_head[["heard", "written"]].sum()).reset_index()


def published_heads(model: HookedAudioModel) -> list[Head]:
    """The alignment heads that the checkpoint's generation_config names, if it does."""
    listed: Any = getattr(model.model.checkpoint_generation, "alignment_heads", None)
    return [(int(layer), int(head)) for layer, head in listed or ()]


def _word_at(spans: Sequence[tuple[int, int]], start: int, end: int) -> int:
    """The number of the first word that has characters of those from `start` to `end`."""
    return next((i for i, (first, last) in enumerate(spans) if start < last and end > first), MARK)


def _heard_columns(
    rows: AttentionRows, stream: Int[Tensor, " columns"]
) -> tuple[Int[Tensor, " sound"], Int[Tensor, " sound"]] | None:
    """Columns of the first stream's keys in order of time, and their places among the keys."""
    keys = rows.columns.keys[rows.row].cpu()
    sound = ((keys >= 0) & (stream[keys.clamp(min=0)] == 0)).nonzero()[:, 0]
    if not len(sound):
        return None
    order = sound[keys[sound].argsort()]
    return keys[order], order


def _rows(
    layer: int,
    at: Sequence[int],
    weights: Float[np.ndarray, "heads tokens keys"],
    times: Float[np.ndarray, "keys 2"],
    forced: ForcedWords,
    spoken: Sequence[LabelledSpan],
) -> pd.DataFrame:
    heads = weights.shape[0]
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for place, token in enumerate(at):
        number = forced.words[token]
        start, end, mass = np.nan, np.nan, np.full(heads, np.nan)
        if number != MARK:
            start, end = spoken[number].start, spoken[number].end
            within = np.asarray(overlaps(times[:, 0], times[:, 1], start, end))
            if not within.any():
                raise PalscopeError(
                    f"no token of sound overlaps {spoken[number].label!r}, {start:.2f} to "
                    f"{end:.2f} s: the clip's reach to {times[-1, 1]:.2f} s."
                )
            mass = weights[:, place, within].sum(-1)
        same = (token, number, start, end, layer, float(times[0, 1] - times[0, 0]))
        for name, value in zip(_SAME, same, strict=True):
            columns[name] += [value] * heads
        columns["head"] += range(heads)
        columns["mass"] += mass.tolist()
        columns["pattern"] += list(weights[:, place])
    return pd.DataFrame(columns)


_SAME = ("token", "word", "start_s", "end_s", "layer", "step_s")
_COLUMNS = ("token", "word", "start_s", "end_s", "layer", "head", "mass", "step_s", "pattern")
