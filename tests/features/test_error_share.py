"""What errors carry, of planted dictionaries that have all, none or some directions of a site."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope.errors import PalscopeError
from palscope.features import Dictionary, error_share, spliced
from palscope.measures import Answers
from tests.features.spliced import random_at
from tests.hooks.conftest import noise

HOOK, ANSWERS = "blocks.1.hook_resid_post", Answers((), 11, 12)


def of_directions(directions: torch.Tensor, **about: Any) -> Dictionary:
    """Both ends of each direction: what it gives is the projection onto them."""
    both = torch.cat([directions, -directions])
    made = Dictionary(both.shape[1], len(both), kind="jumprelu", k=1)
    with torch.no_grad():
        made.W_dec.copy_(both)
        made.W_enc.copy_(both.T)
        made.threshold.zero_()
    made.about = {"hook_point": HOOK, **about}
    return made.eval()


@pytest.mark.parametrize("streams", [["text"], ["summary"]])
def test_features_carry_what_lies_along_them_and_errors_the_rest(
    model: Any, streams: list[str]
) -> None:
    """Against the bare model's gradient at the site, taken by torch."""
    clean, corrupt = (model.inputs("what?", noise(1.0, seed)) for seed in (0, 1))
    kept: list[torch.Tensor] = []

    def keep(tensor: Any, hook: Any) -> None:
        if tensor.requires_grad:
            tensor.retain_grad()
        kept.append(tensor)

    for inputs in (clean, corrupt):
        logits = model.run_with_hooks(inputs, fwd_hooks=[(HOOK, keep)])
    (logits[0, -1, 11] - logits[0, -1, 12]).backward()
    gradient = kept[1].grad
    model.model.zero_grad()
    assert gradient is not None
    columns = model.layout(clean).layer_columns(model.current_route, 1).running[0]
    sound = clean["input_ids"][0][columns] == model.processor.audio_token_id
    mine = torch.zeros_like(sound)
    mine |= ~sound if "text" in streams else False
    mine |= sound if "summary" in streams else False
    step = (kept[0] - kept[1]).detach()[0][mine]
    drawn = torch.Generator().manual_seed(0)
    some = torch.linalg.qr(torch.randn(32, 32, generator=drawn))[0][:7]
    along = float((gradient[0][mine] * (step @ some.T @ some)).sum())
    whole = float((gradient[0][mine] * step).sum())
    for directions, wanted in ((some, along), (torch.eye(32), whole), (torch.zeros(1, 32), 0.0)):
        with spliced(model, of_directions(directions, streams=streams)):
            (found,) = error_share(model, clean, corrupt, answers=ANSWERS).to_dict("records")
        assert found["features"] == pytest.approx(wanted, abs=1e-4)
        assert found["errors"] == pytest.approx(whole - wanted, abs=1e-4)
        assert found["linear"] == pytest.approx(0, abs=1e-4)
        share = abs(whole - wanted) / (abs(whole - wanted) + abs(wanted))
        assert found["error_share"] == pytest.approx(share, abs=1e-3)
    assert abs(whole) > 5e-3 and abs(along) > 5e-4


def test_transcoders_of_several_layers_are_told_apart(model: Any) -> None:
    clean, corrupt = (model.inputs("what?", noise(1.0, seed)) for seed in (0, 1))
    told: dict[str, Any] = {"streams": ["text"], "d_out": 32}
    made = [
        random_at(
            f"blocks.{at}.mlp.hook_in", 32, hook_point_out=f"blocks.{at}.hook_mlp_out", **told
        )
        for at in (1, 2)
    ]
    with torch.no_grad():
        made[1].W_dec.zero_()
    with spliced(model, *made):
        found = error_share(model, clean, corrupt, answers=ANSWERS).set_index("hook_point")
    assert found.index.tolist() == ["blocks.1.mlp.hook_in", "blocks.2.mlp.hook_in"]
    assert found["features"].iloc[1] == 0 and abs(found["linear"].iloc[1]) > 1e-3
    assert (found["error_share"].between(0, 1)).all() and abs(found["features"].iloc[0]) > 1e-3
    with pytest.raises(PalscopeError, match="no dictionary is spliced in"):
        error_share(model, clean, corrupt, answers=ANSWERS)
    with spliced(model, made[0], error=False):
        with pytest.raises(PalscopeError, match="without its error term"):
            error_share(model, clean, corrupt, answers=ANSWERS)
        model(clean)
