"""The other side: the class's own code, or palscope's model without hooks, and what it gives.

It is run and recorded before the hooked model is opened, so that one model is in memory at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import transformers
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, GenerationMixin

from palscope._models.audio_model import AudioLanguageModel
from palscope._models.finding import Checkpoint
from palscope._models.processor import AudioProcessor
from palscope._models.scoring import UserTurn, end_tokens, prompt_batch
from palscope._models.stamps import Stamp, stamp_tensor
from palscope._published import PublishedFamily, published_family
from palscope._published.loading import open_checkpoint
from palscope._published.model import unhooked_state
from palscope._stored import reading
from palscope._verify.own import OwnPrompt, open_own, own_prompt
from palscope._verify.tolerance import MARGIN, SHAKES, apart, limits, shaken
from palscope.encoders import Component
from palscope.errors import CheckpointError

TIMED = 2
"""Passes that are timed, of which the faster counts."""
_GREEDY: Mapping[str, Any] = {
    "max_new_tokens": 6,
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}


class Passes:
    """Counts forward passes: rows that a model was called with, prompts and decoding steps alike.

    Attributes:
        count: so far.
    """

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counting(self, model: nn.Module) -> Generator[None, None, None]:
        """Within, calls of `model` count."""

        def before(_module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
            ids = args[0] if args else kwargs.get("input_ids")
            self.count += 1 if ids is None else len(ids)

        handle = model.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@dataclass
class Plain:
    """A model without hooks, and a prompt as it takes it.

    Attributes:
        model: on its device.
        inputs: what it is called with; one row.
        ids: the prompt as palscope should have it, `[columns]`; None where palscope's own processor
            made `inputs`.
        no_ids: why there are none.
        place: id of an audio token.
        end: tokens that end an answer.
        layers: of tower and decoder.
        label: what it is, in a report.
        published: whether it is another's code, which takes a mask over columns and may return its
            attention.
        crosses: whether it is an encoder–decoder: its ids and logits are the words' alone.
    """

    model: Any
    inputs: dict[str, Tensor]
    ids: Int[Tensor, "columns"] | None
    no_ids: str
    place: int
    end: list[int]
    layers: list[nn.Module]
    label: str
    published: bool
    crosses: bool = False


def plain_published(model: Any, family: PublishedFamily, own: OwnPrompt) -> Plain:
    """A published class's own code on its own processor's tensors."""
    given = model.generation_config.eos_token_id
    ends: list[Any] = [own.end, *(given if isinstance(given, list) else [given])]
    return Plain(
        model,
        {name: _like(value, model) for name, value in own.made.items()},
        own.ids,
        "",
        family.audio_token_id,
        sorted({int(end) for end in ends if end is not None}),
        [
            *stacks(model, family.components()),
            *model.get_submodule(family.decoder_path).layers,
        ],
        type(model).__name__,
        published=True,
        crosses=family.crosses,
    )


def plain_unhooked(
    model: AudioLanguageModel, processor: AudioProcessor, row: UserTurn, no_ids: str
) -> Plain:
    """palscope's model, without hooks.

    Args:
        no_ids: why its prompt has nothing to be held against.
    """
    return Plain(
        model,
        prompt_batch(processor, [row], model.device),
        None,
        no_ids,
        model.audio_token_id,
        end_tokens(model, processor),
        [*stacks(model, model.audio_components()), *model.decoder.layers],
        "the unhooked model",
        published=False,
    )


def open_plain(
    found: Checkpoint, dtype: torch.dtype | None, device: torch.device, row: UserTurn
) -> Plain:
    """The model of a checkpoint, as it is without palscope's hooks.

    A published class whose own processor does not serve is palscope's model of it, without hooks.

    Raises:
        CheckpointError: it does not open.
    """
    if found.is_own:
        return _unhooked(found, dtype, device, row, "palscope's own processor is the only one")
    folder = found.folder
    with reading(folder / "config.json", "a published model's settings"):
        family = published_family(cast(Any, AutoConfig).from_pretrained(folder))
    try:
        own = own_prompt(open_own(folder), family, row)
    except CheckpointError as error:
        return _unhooked(found, dtype, device, row, str(error))
    kind: Any = getattr(transformers, family.architecture)
    wanted = f"a {family.architecture} that transformers can open"
    with family.loading(), reading(folder, wanted):
        config = kind.config_class.from_pretrained(folder)
        model = kind.from_pretrained(
            folder, config=config, dtype=dtype or "auto", use_safetensors=True
        )
    family.complete(model, folder)
    return plain_published(model.to(device).eval(), family, own)


def _unhooked(
    found: Checkpoint, dtype: torch.dtype | None, device: torch.device, row: UserTurn, no_ids: str
) -> Plain:
    model, processor = open_checkpoint(found, dtype=dtype)
    cast(Any, model).to(device)
    return plain_unhooked(model.eval(), processor, row, no_ids)


def stacks(model: nn.Module, components: Mapping[str, Component]) -> list[nn.Module]:
    """The layers of an encoder's stacks."""
    paths = [each.path for each in components.values() if each.each]
    return [layer for path in paths for layer in cast(Any, model.get_submodule(path))]


def _like(value: Tensor, model: Any) -> Tensor:
    """On the model's device; features in its type."""
    return value.to(model.device, model.dtype if value.is_floating_point() else None)


def weights_of(model: nn.Module) -> dict[str, Stamp]:
    """What is in each of a model's weights, by the name that it has without hooks."""
    return {name: stamp_tensor(weight) for name, weight in unhooked_state(model).items()}


@dataclass(frozen=True)
class Recorded:
    """What the model without hooks gave; tensors on the CPU.

    Attributes:
        label: what it is.
        ids: the prompt, as palscope should have it; None where palscope made it.
        no_ids: why.
        place: id of an audio token.
        end: tokens that end an answer.
        published: whether it is another's code.
        weights: of each of its weights.
        logits: `[columns, vocabulary]`.
        limits: how far apart from them logits may be, `[columns]`.
        answer: greedy tokens.
        answer_logits: that each was chosen by, `[tokens, vocabulary]`.
        deaf: logits with sound's columns masked, and which columns are text; None where the model
            takes no such mask.
        attention: of the last token, by layer, `[heads, keys]`; None where there is none.
        attention_limit: how far apart it may be.
        seconds: of a pass.
        peak: bytes that a pass needs; None where that is not known.
    """

    label: str
    ids: Int[Tensor, "columns"] | None
    no_ids: str
    place: int
    end: list[int]
    published: bool
    weights: Mapping[str, Stamp]
    logits: Float[Tensor, "columns vocabulary"]
    limits: Float[Tensor, "columns"]
    answer: list[int]
    answer_logits: Float[Tensor, "tokens vocabulary"]
    deaf: tuple[Float[Tensor, "columns vocabulary"], Bool[Tensor, "columns"]] | None
    attention: list[Float[Tensor, "heads keys"]] | None
    attention_limit: float
    seconds: float
    peak: int | None


@torch.no_grad()
def record(plain: Plain) -> Recorded:
    """Run a model without hooks, for all that the checks hold against it."""
    model, inputs = plain.model, plain.inputs
    logits = logits_of(model, inputs)
    moved: list[Tensor] = []
    for seed in range(SHAKES):
        with shaken(plain.layers, seed):
            moved.append(apart(logits_of(model, inputs), logits))
    (answer,), (answer_logits,) = greedy(model, inputs, plain.end, plain.place)
    attention, attention_limit = _attention(plain)
    seconds, peak = timed(model.device, lambda: model(**inputs))
    return Recorded(
        plain.label,
        plain.ids,
        plain.no_ids,
        plain.place,
        plain.end,
        plain.published,
        weights_of(model),
        logits,
        limits(moved, model.dtype),
        [int(token) for token in answer],
        answer_logits,
        _deaf(plain) if plain.published and not plain.crosses else None,
        attention,
        attention_limit,
        seconds,
        peak,
    )


def logits_of(model: Any, inputs: Mapping[str, Any]) -> Float[Tensor, "columns vocabulary"]:
    """The logits of one row, on the CPU."""
    return model(**inputs).logits[0].cpu()


def greedy(
    model: Any, inputs: Mapping[str, Any], end: Sequence[int], place: int, **settings: Any
) -> tuple[Int[Tensor, "rows new"], Float[Tensor, "rows new vocabulary"]]:
    """Greedy answers, and the logits that their tokens were chosen by, on the CPU.

    Both sides are asked by this, so that their settings are the same: the token with the largest
    logit, whatever the checkpoint's own settings say.

    Args:
        end: tokens that end an answer; the first fills rows that are done.
        place: id of an audio token, which no answer has.
        **settings: of `generate`, others than these.
    """
    words = inputs.get("decoder_input_ids")
    # Whisper's own method puts its windows around that of all classes.
    generate = model.generate
    if words is not None:
        generate = partial(cast(Any, GenerationMixin).generate, model, begin_suppress_tokens=None)
    known = place < model.config.get_text_config().vocab_size  # encoder–decoders have no such word
    made: Any = generate(
        **inputs,
        **{**_GREEDY, "eos_token_id": list(end), "pad_token_id": end[0], **settings},
        suppress_tokens=[place] if known else None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    new = made.sequences[:, (inputs["input_ids"] if words is None else words).shape[1] :]
    return new.cpu(), torch.stack(list(made.logits), 1).cpu()


def _deaf(plain: Plain) -> tuple[Tensor, Tensor]:
    """Logits where no token may attend to sound: the mask by hand."""
    model = plain.model
    assert plain.ids is not None
    sound = (plain.ids == plain.place)[None].to(model.device)
    mask = plain.inputs["attention_mask"] * ~sound
    positions = torch.arange(mask.shape[1], device=mask.device)[None]
    inputs = {**plain.inputs, "attention_mask": mask, "position_ids": positions}
    return logits_of(model, inputs), ~sound[0].cpu()


def _attention(plain: Plain) -> tuple[list[Tensor] | None, float]:
    """The last token's attention, where the class gives it, and how far rounding may move it."""
    model = plain.model
    if not plain.published:
        return None, 0.0
    try:
        found = last_attention(model, plain.inputs)
        with shaken(plain.layers, 0):
            off = last_attention(model, plain.inputs)
    except Exception:  # whatever the class raises: masses are then held against 1 alone
        return None, 0.0
    moved = max(float((a - b).abs().max()) for a, b in zip(found, off, strict=True))
    return found, MARGIN * max(moved, torch.finfo(model.dtype).eps)


def last_attention(model: Any, inputs: Mapping[str, Any]) -> list[Float[Tensor, "heads keys"]]:
    """What the last token of one row attends to, by layer, computed step by step; on the CPU.

    Of an encoder–decoder sound, then words: two attentions.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        run = model(**inputs, output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    if "decoder_input_ids" not in inputs:
        return [weights[0, :, -1].cpu() for weights in run.attentions]
    both = zip(run.cross_attentions, run.decoder_attentions, strict=True)
    return [torch.cat([each[0, :, -1] for each in pair], -1).cpu() for pair in both]


def timed(device: torch.device, call: Callable[[], Any]) -> tuple[float, int | None]:
    """Seconds of a call, and the most bytes of a GPU that it takes beside what is there."""
    gpu = device.type == "cuda"

    def once() -> float:
        begin = time.perf_counter()
        call()
        if gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    before = torch.cuda.memory_allocated(device) if gpu else 0
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = min(once() for _ in range(TIMED))
    return seconds, torch.cuda.max_memory_allocated(device) - before if gpu else None
