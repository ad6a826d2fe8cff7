"""Features by address: against torch's own hooks, and against the site that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from palscope.errors import PalscopeError
from palscope.features import Dictionary, spliced
from palscope.interventions import (
    Address,
    Mean,
    Patch,
    Resample,
    Scale,
    Sound,
    Text,
    Zero,
    capture,
    intervene,
    resolve,
    run_cells,
)
from palscope.measures import Answers, attribution_patching
from tests.features.spliced import random_at
from tests.interventions.conftest import QUESTION, prompt, two_rows

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 0}
ENCODER, RESIDUAL = "audio_blocks.1.hook_out", "blocks.2.hook_resid_post"


def orthonormal(hook_point: str, width: int, latents: int, **about: Any) -> Dictionary:
    """Latent `i` is how far a row goes along direction `i`, where that is forwards."""
    drawn = torch.Generator().manual_seed(4)
    directions = torch.linalg.qr(torch.randn(width, width, generator=drawn))[0][:latents]
    made = Dictionary(width, latents, kind="jumprelu", k=1)
    with torch.no_grad():
        made.W_dec.copy_(directions)
        made.W_enc.copy_(directions.T)
        made.threshold.zero_()
    made.about = {"hook_point": hook_point, **about}
    return made.eval()


def without(states: Tensor, directions: Tensor) -> Tensor:
    """Rows less what they have of directions, forwards."""
    return states - (states @ directions.T).relu() @ directions


@torch.no_grad()
def hooked_plainly(model: Any, inputs: Any, module: Any, edit: Any) -> Tensor:
    """Logits with a hook of torch's on a module of the Hugging Face model."""

    def hook(module: Any, given: Any, out: Any) -> Any:
        states = (out[0] if isinstance(out, tuple) else out).clone()
        states[0] = edit(states[0])
        return (states, *out[1:]) if isinstance(out, tuple) else states

    handle = module.register_forward_hook(hook)
    try:
        return model.model(**inputs).logits[0, -1]
    finally:
        handle.remove()


@pytest.mark.parametrize("features", [(2,), (0, 3, 5)])
@torch.no_grad()
def test_taking_features_out_takes_their_directions_out(pal: Any, features: Sequence[int]) -> None:
    """In the encoder from 0.2 to 0.5 s, and at the residual stream of all text."""
    inputs = prompt(pal)
    bare = pal(inputs)[0, -1]
    dictionary = orthonormal(ENCODER, 16, 6)
    taken = dictionary.W_dec[list(features)]

    def early(states: Tensor) -> Tensor:  # tokens of 20 ms
        return torch.cat([states[:10], without(states[10:25], taken), states[25:]])

    layer = pal.model.encoder.model.layers[1]
    wanted = hooked_plainly(pal, inputs, layer, early)
    place = Address("feature", Sound(0.2, 0.5), features=tuple(features))
    with spliced(pal, dictionary), intervene(pal, inputs, [Patch(place, Zero())]):
        torch.testing.assert_close(pal(inputs)[0, -1], wanted, **CLOSE)
    assert (wanted - bare).abs().max() > 1e-2

    late = orthonormal(RESIDUAL, 32, 6, streams=["text"])
    columns = pal.layout(inputs).layer_columns(pal.current_route, 2).running[0]
    text = inputs["input_ids"][0][columns] != pal.processor.audio_token_id
    taken = late.W_dec[list(features)]

    def words(states: Tensor) -> Tensor:
        return torch.where(text[:, None], without(states, taken), states)

    wanted = hooked_plainly(pal, inputs, pal.model.language_model.model.layers[2], words)
    place = Address("feature", features=tuple(features))
    with spliced(pal, late), intervene(pal, inputs, [Patch(place, Zero())]):
        torch.testing.assert_close(pal(inputs)[0, -1], wanted, **CLOSE)
    assert (wanted - bare).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("site", "hook_point", "width", "tokens"),
    [
        (Address("encoder_block", layers=(1,)), ENCODER, 16, Sound(0.1, 0.6)),
        (Address("encoder_output"), "audio_pool.hook_in", 32, Sound(0.1, 0.6)),
        (Address("connector_output"), "audio_input_summary.hook_in", 12, Sound(0.1, 0.6)),
        (Address("audio_state", layers=(0,)), "blocks.0.attn.hook_audio_state", 32, Sound(0.1)),
        (Address("resid_post", layers=(2,)), RESIDUAL, 32, Text("digit")),
        (Address("head_output", layers=(1,)), "blocks.1.attn.hook_z", 32, Text("digit")),
    ],
    ids=lambda value: value.site if isinstance(value, Address) else "",
)
@torch.no_grad()
def test_all_features_and_the_error_are_the_site(
    pal: Any, site: Address, hook_point: str, width: int, tokens: Any
) -> None:
    """Patched from another run, and the mean over two; one cell of a batch of them."""
    clean, corrupt = prompt(pal), prompt(pal, seed=1)
    about = {} if isinstance(tokens, Sound) else {"streams": ["text"]}
    stream = "summary" if site.site == "connector_output" else None
    at = Sound(tokens.start, tokens.end, stream) if isinstance(tokens, Sound) else tokens
    if site.site == "audio_state":
        at = Sound(tokens.start, tokens.end, "frames")
    own = Address(site.site, at, site.layers)
    both = [Address("feature", tokens), Address("feature_error", tokens)]
    for change in (Resample(corrupt), Mean([clean, corrupt])):
        with intervene(pal, clean, [Patch(own, change)]):
            wanted = pal(clean)[0, -1]
        with spliced(pal, random_at(hook_point, width, **about)):
            cells = [[Patch(each, change) for each in both], [Patch(both[0], Zero())], []]
            patched, _, bare = run_cells(pal, clean, cells)
            with intervene(pal, clean, cells[1]):
                ablated = pal(clean)[0, -1]
            torch.testing.assert_close(run_cells(pal, clean, cells[1:2])[0], ablated, **CLOSE)
        torch.testing.assert_close(patched, wanted, **CLOSE)
        torch.testing.assert_close(bare, pal(clean)[0, -1], **CLOSE)
        assert (wanted - bare).abs().max() > 1e-3
        assert (ablated - bare).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("site", "hook_point", "width"),
    [
        (Address("encoder_block", layers=(1,)), ENCODER, 16),
        (Address("connector_output", Sound(stream="summary")), "audio_input_summary.hook_in", 12),
        (Address("resid_post", Sound(), (2,)), RESIDUAL, 32),
    ],
    ids=lambda value: value.site if isinstance(value, Address) else "",
)
def test_attributions_of_features_and_error_add_up_to_their_site_s(
    pal: Any, site: Address, hook_point: str, width: int
) -> None:
    """Token by token: what the site's gradient says of its difference is shared out."""
    told: dict[str, Any] = {"answers": Answers((), 5, 7)}
    clean, corrupt = prompt(pal), prompt(pal, seed=1)
    whole = attribution_patching(pal, clean, corrupt, [site], **told)
    with spliced(pal, random_at(hook_point, width)):
        both = [Address("feature"), Address("feature_error")]
        shared: Any = attribution_patching(pal, clean, corrupt, both, **told)
        some = [Address("feature", features=tuple(range(at, 24, 2))) for at in (0, 1)]
        halves: Any = attribution_patching(pal, clean, corrupt, some, **told)
    by = ["stream", "clip", "token", "start_s"]
    found = shared.groupby(by, sort=False)["attribution"].sum()
    wanted: Any = whole.set_index(by)["attribution"]
    assert found.to_dict() == pytest.approx(wanted.to_dict(), abs=1e-5)
    assert whole["attribution"].abs().max() > 1e-3
    features = shared[shared["site"] == "feature"]["attribution"].sum()
    assert halves["attribution"].sum() == pytest.approx(features, abs=1e-5)


@torch.no_grad()
def test_features_of_every_row_and_clip(pal: Any) -> None:
    inputs = two_rows(pal)
    with spliced(pal, random_at(ENCODER, 16), random_at(RESIDUAL, 32)):
        place = Address("feature", Sound(clip=0), features=(1, 4), at=ENCODER)
        found = capture(pal, inputs, place).at(pal, place)
        assert {(part.row, len(part.columns)) for part in found.parts.values()} == {
            (0, 25),
            (1, 38),
        }
        assert {tuple(each.shape) for each in found.values.values()} == {(25, 2), (38, 2)}
        with intervene(pal, inputs, [Patch(place, Scale(0.0))]):
            assert not any(
                v.any() for v in capture(pal, inputs, place).at(pal, place).values.values()
            )
        summary = resolve(pal, inputs, Address("feature", at=RESIDUAL))
        assert summary.covered["stream"].unique().tolist() == ["summary"]
        assert not any(part.onwards for part in summary.parts)


def test_features_that_are_not_there_are_refused(pal: Any) -> None:
    inputs = prompt(pal)
    with pytest.raises(PalscopeError, match="no dictionary is spliced in"):
        resolve(pal, inputs, Address("feature"))
    with pytest.raises(PalscopeError, match="resid_post has no features"):
        Address("resid_post", features=(1,))
    with pytest.raises(PalscopeError, match="resid_post is of no dictionary"):
        Address("resid_post", at=RESIDUAL)
    with spliced(pal, random_at(ENCODER, 16), random_at(RESIDUAL, 32)):
        for wrong, message in (
            (Address("feature"), "name one of them by at="),
            (Address("feature", at="blocks.0.hook_out"), "none of them at blocks.0.hook_out"),
            (Address("feature", features=(24,), at=ENCODER), "feature 24 does not exist"),
            (Address("feature", Text(), at=RESIDUAL), "touches none of the addressed tokens"),
            (Address("feature", Text(QUESTION), at=RESIDUAL), "it was trained on frames, summary"),
        ):
            with pytest.raises(PalscopeError, match=message):
                resolve(pal, inputs, wrong)
        pal(inputs)  # a dictionary that nothing went through would be an error
    with spliced(pal, random_at(ENCODER, 16), error=False):
        with pytest.raises(PalscopeError, match="without its error term"):
            resolve(pal, inputs, Address("feature_error"))
        pal(inputs)
