"""Every change at every site, with heads and without, against an index made by hand.

The batch is padded; its first row has one clip, its second two. Nothing of `resolve` or the layout
is used: where a token stands is counted from `input_ids` and the paper's order of tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from palscope.interventions import (
    Add,
    Address,
    Mean,
    Noise,
    Patch,
    Resample,
    Scale,
    Sound,
    Text,
    Zero,
    intervene,
)
from tests.hooks.conftest import noise

RATIO = 3  # frames a summary
CLIPS = ((0.5,), (0.7, 0.3))
HEADS, KV_HEADS = 4, 2

Token = tuple[str, int, int]
"""Stream or "text", clip in its row, number in the stream; of text its number."""


def made(model: Any, seed: int) -> dict[str, Any]:
    texts = [model.processor.chat("what?"), model.processor.chat("which came first?", clips=2)]
    clips = [noise(s, seed + i) for i, s in enumerate(s for row in CLIPS for s in row)]
    return dict(model.processor(texts, clips, sampling_rate=16_000))


def tokens_by_hand(model: Any, inputs: Any, row: int) -> list[Token]:
    """What each real token of a row is, in order."""
    order: list[list[tuple[str, int]]] = []
    for seconds in CLIPS[row]:
        count, clip = round(seconds * 10), []
        for frame in range(count):
            clip.append(("frames", frame))
            if (frame + 1) % RATIO == 0 or frame == count - 1:
                clip.append(("summary", frame // RATIO))
        order.append(clip)
    found: list[Token] = []
    audio = model.processor.audio_token_id
    ids = inputs["input_ids"][row][inputs["attention_mask"][row] == 1].tolist()
    queue = [(name, clip, number) for clip, each in enumerate(order) for name, number in each]
    words = 0
    for token in ids:
        found.append(queue.pop(0) if token == audio else ("text", -1, words))
        words += token != audio
    assert not queue
    return found


class Place(NamedTuple):
    """A site, its hook point, which streams stand on the hook's axis, and how many heads it has."""

    site: str
    hook: str
    axis: tuple[str, ...]
    heads: int = 0


RUNNING = ("text", "summary")  # in layer 0: frames are keys, the summary runs
PLACES = [
    Place("audio_state", "blocks.0.attn.hook_audio_state", ("frames",)),
    Place("audio_k", "blocks.0.attn.hook_audio_k", ("frames",), KV_HEADS),
    Place("audio_v", "blocks.0.attn.hook_audio_v", ("frames",), KV_HEADS),
    Place("resid_pre", "blocks.1.hook_resid_pre", RUNNING),
    Place("resid_post", "blocks.1.hook_resid_post", RUNNING),
    Place("attn_out", "blocks.1.hook_attn_out", RUNNING),
    Place("mlp_in", "blocks.1.mlp.hook_in", RUNNING),
    Place("mlp_out", "blocks.1.hook_mlp_out", RUNNING),
    Place("head_output", "blocks.1.attn.hook_z", RUNNING, HEADS),
    Place("connector_output", "audio_input_summary.hook_in", ()),
    Place("encoder_output", "audio_pool.hook_in", ()),
    Place("encoder_block", "audio_blocks.0.hook_out", ()),
    Place("encoder_neurons", "audio_blocks.0.mlp_out.hook_in", ()),
]


def index_of(place: Place, rows: list[list[Token]], row: int, wanted: list[Token]) -> list[int]:
    """Places of tokens on the hook's axis, whose rows are aligned to the right."""
    on_axis = [[token for token in each if token[0] in place.axis] for each in rows]
    left = max(map(len, on_axis)) - len(on_axis[row])
    return [left + on_axis[row].index(token) for token in wanted]


def seen(model: Any, inputs: Any, hook: str) -> Tensor:
    with torch.no_grad():
        _, cache = model.run_with_cache(dict(inputs), names_filter=[hook], logits_to_keep=1)
    return cache[hook]


CHANGES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "Zero": lambda width, other, references: Zero(),
    "Scale": lambda width, other, references: Scale(-0.5),
    "Add": lambda width, other, references: Add(torch.linspace(-1, 1, width), 2.0),
    "Noise": lambda width, other, references: Noise(),
    "Resample": lambda width, other, references: Resample(other),
    "Mean": lambda width, other, references: Mean(references),
}


@pytest.mark.parametrize(
    ("place", "named"),
    [(place, named) for place in PLACES for named in (False, True) if place.heads or not named],
    ids=lambda value: value.site if isinstance(value, Place) else "named heads" if value else "",
)
def test_a_change_is_made_there_and_nowhere_else(pal: Any, place: Place, named: bool) -> None:
    clip, start, end = 0, 0.1, 0.29  # frames 1 and 2: the first summary
    stream = None if not place.axis else "frames" if "frames" in place.axis else "summary"
    stream = "summary" if place.site == "connector_output" else stream
    heads = None
    if named:  # query heads 2 and 3 share the second of two keys and values
        heads = (2, 3)
    chosen = [1] if place.heads == KV_HEADS else [2, 3]
    layers = None
    if place.hook.startswith("blocks."):
        layers = (int(place.hook.split(".")[1]),)
    elif place.site in ("encoder_block", "encoder_neurons"):
        layers = (0,)
    address = Address(place.site, Sound(start, end, stream, clip), layers, heads)
    target, other, reference = (made(pal, seed) for seed in (0, 10, 20))
    plain, theirs = (seen(pal, inputs, place.hook) for inputs in (target, other))
    rows = [tokens_by_hand(pal, target, row) for row in range(2)]
    index = []
    for row in range(2):
        if place.axis:
            numbers = [1, 2] if stream == "frames" else [0]
            at = index_of(place, rows, row, [(str(stream), clip, n) for n in numbers])
            index.append((row, at))
        else:  # the row's first clip; encoder tokens are 20 ms each
            of_clip = 0 if row == 0 else 1
            index.append((of_clip, [0] if stream else list(range(5, 15))))

    # The mean by hand: over all tokens of the stream, of every clip of both rows.
    values = seen(pal, reference, place.hook)
    if place.axis:
        every = [
            values[row, index_of(place, rows, row, [t for t in rows[row] if t[0] == stream])]
            for row in range(2)
        ]
    else:
        lengths = [round(s * 10) for row in CLIPS for s in row]
        counts = [-(-n // RATIO) if stream else 5 * n for n in lengths]
        every = [values[number, :count] for number, count in enumerate(counts)]
    references = [one_row(pal, row, 20) for row in range(2)]
    mean = torch.cat(every).mean(0)

    for name, make in CHANGES.items():
        change = make(plain.shape[-1], other, references)
        with intervene(pal, target, [Patch(address, change)]):
            got = seen(pal, target, place.hook)
        wanted, touched = plain.clone(), torch.zeros_like(plain, dtype=torch.bool)
        for row, at in index:
            where: Any = (row, at) if not named else (row, torch.tensor(at)[:, None], chosen)
            touched[where] = True
            old = plain[where]
            wanted[where] = {
                "Zero": torch.zeros_like(old),
                "Scale": -0.5 * old,
                "Add": old + 2 * torch.linspace(-1, 1, old.shape[-1]),
                "Noise": got[where],
                "Resample": theirs[where],
                "Mean": (mean[chosen] if named else mean).expand_as(old),
            }[name]
        assert torch.equal(got[~touched], plain[~touched]), name
        assert not torch.equal(got[touched], plain[touched]), name
        # A row of a batch and the same prompt alone differ by the padding's rounding.
        torch.testing.assert_close(got, wanted, atol=1e-5 if name == "Mean" else 0, rtol=0)


def one_row(model: Any, row: int, seed: int) -> dict[str, Any]:
    """A row of `made` by itself."""
    first = sum(map(len, CLIPS[:row]))
    question = ("what?", "which came first?")[row]
    clips = [noise(s, seed + first + i) for i, s in enumerate(CLIPS[row])]
    return model.inputs(question, *clips)


def test_the_mean_of_text_and_of_named_heads_holds_while_decoding(pal: Any) -> None:
    """What decoding adds gets the mean, too: as a full pass over the longer prompt has it."""
    inputs, reference = made(pal, 0), made(pal, 20)
    inputs = one_row(pal, 0, 0)
    patch = Patch(Address("head_output", Text(), (1,), (0, 3)), Mean([reference]))
    with torch.no_grad(), intervene(pal, inputs, [patch]):
        out = pal.model.generate(
            **inputs,
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    ids = dict(inputs)
    for step in out.logits:
        with torch.no_grad(), intervene(pal, ids, [patch]):
            assert torch.allclose(step[0], pal(dict(ids))[0, -1], atol=1e-4)
        new = out.sequences[:, ids["input_ids"].shape[1]][:, None]
        ids["input_ids"] = torch.cat([ids["input_ids"], new], 1)
        ids["attention_mask"] = torch.ones_like(ids["input_ids"])
