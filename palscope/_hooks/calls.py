"""What a call of the hooked model takes and gives: clips, text's loss, gradients, generation."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from palscope._hooks.attached_clips import AttachedPrompt, found_clips
from palscope._hooks.tokens import TokensBridge
from palscope._models.cache_names import OLD, cache_in, naming_cache
from palscope._models.turns import SPLICED
from palscope._routing import TokenLayout
from palscope.errors import HookError, PalscopeError, PromptError

CLIPS = ("input_features", "feature_lengths", "audio")
"""Arguments that hold clips."""


class CallsBridge(TokensBridge):
    """A bridge whose calls have clips, also where a tool passes tokens alone."""

    _numbers: Iterator[int]

    @contextmanager
    def attach_clips(self, *inputs: Mapping[str, Any]) -> Generator[Any, None, None]:
        """Within, calls with tokens alone have the clips of `inputs`: for tools that pass no more.

        Gives the tokens of each of `inputs` (one tensor, or as many as there are inputs), with ids
        at audio places that name their clips: so a tool can be given two sounds in the same words,
        clean and corrupt. `input_ids` themselves will do where words tell the prompts apart. Tokens
        that go on behind a prompt, as in generation, have its clips; so do, of one prompt, other
        words with as many audio places. Rows are padded as their prompt is.

        Raises:
            PromptError: within, by calls whose tokens fit several of the prompts, or none.
        """
        prompts: list[AttachedPrompt] = []
        for given in inputs:
            layout = self.layout(given)
            first = self._first_sound_id + next(self._numbers)
            for _ in range(len(layout.clip_row)):
                next(self._numbers)
            prompts.append(AttachedPrompt.of(given, layout, first))
        tokens = [prompt.tokens for prompt in prompts]
        with self.turns.block("attach_clips", tuple(prompts)):
            yield tokens[0] if len(tokens) == 1 else tuple(tokens)

    def layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        """What stands in each column of `inputs`; its `layer_columns` give those of a layer."""
        return self.model.layout(
            inputs["input_ids"],
            inputs.get("attention_mask"),
            inputs.get("audio"),
            inputs.get("feature_lengths"),
            cache_in(inputs),
        )

    # -- forward ----------------------------------------------------------------------------------

    def forward(
        self,
        input: Any,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """TransformerLens's forward; `input` may also be what `inputs` gave.

        The loss is the model's own, over text: targets at audio places and at padding do not count,
        nor does a word that no token predicts (right behind a clip whose tokens do not run in the
        last layer). Per token it is `[batch, columns - 1]`, 0 where there is no target. Targets are
        `labels`, or the words themselves.

        With gradients on, activations with a hook have them, whether or not weights do.

        Raises:
            HookError: a hook of `add_hook` did not fire; encoder or connector hooks are set, but
                clips come encoded already.
            PromptError: clips and tokens do not fit together.
        """
        if kwargs.get("start_at_layer") is not None:
            raise PalscopeError(
                "start_at_layer is not supported: the layers' audio comes from input_ids. Patch "
                "hook_resid_pre of that layer instead."
            )
        if return_type == "predictions":
            raise PalscopeError(
                "return_type='predictions' is of masked language models; ask for logits."
            )
        kwargs = naming_cache(kwargs, OLD)  # as TransformerLens calls it
        kwargs = self._call(input, prepend_bos, padding_side, kwargs)
        ids, labels = kwargs.pop("input_ids"), kwargs.pop("labels", None)
        stop, cache = kwargs.get("stop_at_layer"), cache_in(kwargs)
        scores = return_type in ("loss", "both") and stop is None
        layout = self.layout(kwargs | {"input_ids": ids}) if scores else None
        if kwargs.get("audio") is not None:
            self._refuse_encoder_hooks()
        given = any(kwargs.get(name) is not None for name in CLIPS)
        held = cache is not None and cache.get_seq_length() > 0
        with self._added_fire(stop, no_clip=held and not given) as hooked, ExitStack() as stack:
            if hooked and torch.is_grad_enabled() and not self.training:
                stack.enter_context(self._differentiable(kwargs))
            if layout is None:
                if labels is not None:
                    kwargs["labels"] = labels
                return super().forward(ids, return_type, **kwargs)
            logits = super().forward(ids, **kwargs)
        loss = self._text_loss(logits, ids if labels is None else labels, layout, loss_per_token)
        return (logits, loss) if return_type == "both" else loss

    def loss_fn(
        self,
        logits: Tensor,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        per_token: bool = False,
    ) -> Tensor:
        """The loss of `logits` over text, as `forward` gives it; within `attach_clips` for clips.

        Raises `PromptError` for tokens of clips that are not attached.
        """
        call = self._call(tokens, None, None, {"attention_mask": attention_mask})
        return self._text_loss(logits, call["input_ids"], self.layout(call), per_token)

    def _text_loss(
        self, logits: Tensor, labels: Tensor, layout: TokenLayout, per_token: bool
    ) -> Tensor:
        """Cross-entropy of the words that count, or that of each, 0 at other places."""
        if logits.shape[1] != labels.shape[1]:
            raise PalscopeError(
                f"the loss needs the logits of all {labels.shape[1]} columns, not of "
                f"{logits.shape[1]}: leave logits_to_keep out."
            )
        wanted = self.model.targets(labels, layout).to(logits.device)
        if not bool(wanted.any()):
            raise PromptError(
                "there is no word to predict: all columns are audio, padding, or the first."
            )
        right = labels[:, 1:].to(logits.device)[wanted]
        losses = functional.cross_entropy(logits[:, :-1][wanted].float(), right, reduction="none")
        if not per_token:
            return losses.mean()
        return losses.new_zeros(wanted.shape).masked_scatter(wanted, losses)

    def _call(
        self,
        input: Any,
        prepend_bos: bool | None,
        padding_side: str | None,
        kwargs: dict[str, Any],
    ) -> dict[str, Any]:
        """All that the model takes, by name: clips beside `input_ids`."""
        if isinstance(input, Mapping):
            kwargs = naming_cache(dict(cast(Mapping[str, Any], input)), OLD) | {
                name: value
                for name, value in kwargs.items()
                if value is not None or name not in input
            }
            input = kwargs.pop("input_ids")
        elif isinstance(input, str | list | tuple):
            input, mask = self._read(cast(Any, input), prepend_bos, padding_side)
            if kwargs.get("attention_mask") is None and len(input) > 1:
                kwargs = kwargs | {"attention_mask": mask}
        if not isinstance(input, Tensor) or input.is_floating_point():
            raise PalscopeError(
                "give tokens, a text, or what inputs() made: the layout of audio and text is read "
                "from input_ids, so embeddings cannot stand in their place."
            )
        input = input[None] if input.ndim == 1 else input
        return kwargs | self._with_clips(input, kwargs)

    def _with_clips(self, ids: Tensor, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """`input_ids`, and the attached clips that they are about where none are given."""
        named = bool((ids >= self._first_sound_id).any())
        if any(kwargs.get(name) is not None for name in CLIPS):
            return {"input_ids": self.plain_tokens(ids) if named else ids}
        prompts = self.turns.values("attach_clips")[::-1]
        if not named and (not prompts or cache_in(kwargs) is not None):
            return {"input_ids": ids}
        place, mask = self.model.audio_token_id, kwargs.get("attention_mask")
        return found_clips(ids, mask, prompts, place, self._first_sound_id)

    @contextmanager
    def _differentiable(self, call: dict[str, Any]) -> Generator[None, None, None]:
        """Within, activations have gradients from the bottom up: of words, and of clips."""
        features = call.get("input_features")
        if features is not None and any(p.has_hooks() for p in self._encoder_points.values()):
            call["input_features"] = features.detach().requires_grad_()
        embedding = cast(nn.Module, self.embed.original_component)
        handle = embedding.register_forward_hook(_with_gradient)
        try:
            yield
        finally:
            handle.remove()

    def _refuse_encoder_hooks(self) -> None:
        # Clips that were encoded without a dictionary that is spliced in are refused as such.
        blocks = self.turns.values(SPLICED)
        spliced = {hook for block in blocks for each in block for hook in each.acts}
        for name, point in self._encoder_points.items():
            if len(point.fwd_hooks) + len(point.bwd_hooks) > (name in spliced):
                raise HookError(
                    f"{name} has a hook, but the clips were given encoded (audio=), so it cannot "
                    "fire. Give input_features instead."
                )

    # -- generation -------------------------------------------------------------------------------

    def generate(self, input: Any = "", *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `generate`; `input` may also be what `inputs` gave.

        Raises:
            PalscopeError: a penalty on repetition is asked for where there are clips.
        """
        with self._generating(input, kwargs) as (ids, given):
            return super().generate(ids, *args, **given)

    def generate_stream(self, input: Any = "", *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `generate_stream`; otherwise as `generate`."""
        with self._generating(input, kwargs) as (ids, given):
            yield from super().generate_stream(ids, *args, **given)

    def hf_generate(self, input: Any = "", *args: Any, **kwargs: Any) -> Any:
        """TransformerLens's `hf_generate`; `input` may also be what `inputs` gave."""
        if isinstance(input, str | list):
            if self.cfg.tokenizer_prepends_bos:
                input = self._unmarked(input)
            given = kwargs
        else:
            given = self._call(input, None, None, kwargs)
            input = given.pop("input_ids")
        with self._added_fire():
            return super().hf_generate(cast(Any, input), *args, **given)

    @contextmanager
    def _generating(
        self, input: Any, kwargs: dict[str, Any]
    ) -> Generator[tuple[Any, dict[str, Any]], None, None]:
        """What TransformerLens's loop takes, which passes on tokens and their mask alone."""
        clips = {name: kwargs[name] for name in CLIPS if kwargs.get(name) is not None}
        if clips and isinstance(input, Tensor):
            input = {"input_ids": input, "attention_mask": kwargs.get("attention_mask"), **clips}
        kwargs = {name: value for name, value in kwargs.items() if name not in CLIPS}
        with ExitStack() as stack:
            if isinstance(input, Mapping):
                given = cast(Mapping[str, Any], input)
                stack.enter_context(self.attach_clips(given))
                input = given["input_ids"]
                if kwargs.get("attention_mask") is None:
                    kwargs["attention_mask"] = given.get("attention_mask")
            if isinstance(input, Tensor) and not input.is_floating_point():
                input = input[None] if input.ndim == 1 else input
                call = self._with_clips(input, kwargs)
                kwargs = kwargs | {n: v for n, v in call.items() if n == "attention_mask"}
                penal = kwargs.get("freq_penalty", 0.0), kwargs.get("repetition_penalty", 1.0)
                if len(call) > 1 and penal != (0.0, 1.0):
                    raise PalscopeError(
                        "freq_penalty and repetition_penalty would count audio places as words. "
                        "Use hf_generate(repetition_penalty=…), which leaves them out."
                    )
            yield input, kwargs


def _with_gradient(module: nn.Module, args: Any, embedded: Tensor) -> None:
    if embedded.is_leaf:
        embedded.requires_grad_()
