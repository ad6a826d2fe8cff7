"""Which tokens of a tensor a dictionary touches: those whose rows it could have been trained on."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from palscope._features.rows import stream_names, stream_of
from palscope._hooks import HookedAudioModel
from palscope.errors import HookError
from palscope.interventions._before_decoder import encoder_grid, tokens_of
from palscope.interventions._hook_places import HookPlace
from palscope.interventions._indexing import TokenIndexer
from palscope.interventions._parts import Part


class TouchedTokens:
    """Finds tokens of some kinds at a site's hook points, in whatever passes there.

    Args:
        model: whose calls pass.
        place: the site.
        streams: kinds of tokens inside the decoder, by name.
    """

    def __init__(self, model: HookedAudioModel, place: HookPlace, streams: Collection[str]) -> None:
        self._model = model
        self._place = place
        names = stream_names(model)
        self._kinds = torch.tensor([number for number, name in names.items() if name in streams])
        self._lengths: dict[str, Tensor] = {}

    @contextmanager
    def watching(self) -> Generator[None, None, None]:
        """Within, how long clips are is noted where no pass of the model tells it."""
        with ExitStack() as stack:
            for part in self._place.parts if self._place.address.site == "encoder_output" else ():
                if part.axis == "clip_tokens":
                    entry = self._model.get_submodule(part.hook.removesuffix(".hook_in"))
                    handle = entry.register_forward_pre_hook(self._noting(part.hook))
                    stack.callback(handle.remove)
            yield

    def _noting(self, hook: str) -> Any:
        def note(module: Any, args: Any) -> None:
            del module
            self._lengths[hook] = args[1]  # of (states, lengths, …)

        return note

    def __call__(self, part: Part, tensor: Tensor) -> Bool[Tensor, "*tokens"]:
        """Which tokens of `tensor`, on the CPU; less the dimensions of a token's values."""
        if part.axis == "passing":
            return self._in_encoder(part, tensor)
        if part.axis == "clip_tokens":
            counts = self._counts(part)
            return torch.arange(tensor.shape[1]) < counts[:, None]
        return self._in_decoder(part, tensor)

    def _in_encoder(self, part: Part, tensor: Tensor) -> Bool[Tensor, "*tokens"]:
        passing = self._model.model.encoder.parts[part.encoder].passing
        if passing is None:
            raise HookError(f"{part.hook} fired outside of a call of the encoder.")
        places = TokenIndexer(self._model, {"feature_lengths": passing.lengths}, 0)
        mask = torch.zeros(tensor.shape[:-1], dtype=torch.bool)
        grid = encoder_grid(self._model, part)
        for clip in passing.clips:
            count = tokens_of(self._model, grid, passing.lengths[clip])
            found = places.find(replace(part, columns=torch.arange(count)), clip, tensor)
            if found is not None:
                mask[tuple(each.cpu() for each in found.index)] = True
        return mask

    def _counts(self, part: Part) -> Tensor:
        """Tokens of each clip on its way out of the encoder, or the connector."""
        if part.hook in self._lengths:
            return self._lengths[part.hook].cpu()
        run = self._model.model.current_run
        if run is None or run.clips is None:
            raise HookError(f"{part.hook} fired outside of a call with clips.")
        name = stream_of(part.hook)
        (ratio,) = (each.ratio for each in run.layout.streams if each.name == name)
        return torch.tensor([-(-frames // ratio) for frames in run.clips.frames])

    def _in_decoder(self, part: Part, tensor: Tensor) -> Bool[Tensor, "batch tokens"]:
        run = self._model.model.current_run
        if run is None or part.layer is None:
            raise HookError(f"{part.hook} fired outside of a forward pass.")
        layer = run.columns_of(part.layer).on_host
        columns = {"memory": layer.audio, "fed": layer.fed}.get(part.axis, layer.running)
        first = run.first_memory_row(part.layer) if part.axis == "memory" else 0
        columns = columns[first : first + len(tensor)]
        stream = run.layout.on_host.stream[first : first + len(tensor)]
        mask = (columns >= 0) & torch.isin(stream.gather(1, columns.clamp(min=0)), self._kinds)
        if self._place.address.site == "mlp_out":
            fed = [torch.isin(*each) for each in zip(columns, layer.fed[first:], strict=False)]
            mask &= torch.stack(fed)
        return mask
