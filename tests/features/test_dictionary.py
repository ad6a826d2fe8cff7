"""Activations of dictionaries and their gradients, by hand; whom a dictionary belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palscope._features.dictionary import Dictionary, Fires, JumpReLU
from palscope._features.objective import AUXILIARY, Objective, unstandardised
from palscope.errors import PalscopeError
from palscope.features import load_dictionary, save_dictionary
from tests.features.made import RECORD, store_of


def made(kind: Any = "topk", **sizes: Any) -> Dictionary:
    torch.manual_seed(0)
    given: dict[str, Any] = {"d_in": 6, "d_sae": 10, "k": 3, "kind": kind}
    return Dictionary(**given | sizes)


def test_the_largest_of_a_token_and_of_a_batch() -> None:
    pre = torch.tensor([[5.0, 4.0, 3.0, -1.0], [1.0, 2.0, -3.0, -4.0]])
    of_tokens = torch.tensor([[5.0, 4.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]])
    of_batch = torch.tensor([[5.0, 4.0, 3.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    assert torch.equal(made("topk", d_sae=4, k=2).activate(pre), of_tokens)
    batch = made("batchtopk", d_sae=4, k=2)
    assert torch.equal(batch.activate(pre), of_batch)
    with pytest.raises(PalscopeError, match="no threshold yet"):
        batch.eval().activate(pre)
    batch.threshold.fill_(1.5)  # now each token by itself, whatever else is there
    assert torch.equal(batch.activate(pre), of_batch)
    assert torch.equal(batch.activate(pre[:1]), of_batch[:1])


def test_batchtopk_learns_the_smallest_that_a_batch_keeps() -> None:
    objective = Objective(made("batchtopk"), 10_000)
    least: list[float] = []
    for seed in range(3):
        x = torch.randn(50, 6, generator=torch.Generator().manual_seed(seed))
        latents = objective.dictionary.encode(x).detach()
        least.append(float(latents[latents > 0].min()))
        objective(x, x)
    wanted = least[0]
    for each in least[1:]:
        wanted += 0.01 * (each - wanted)
    torch.testing.assert_close(objective.dictionary.threshold, torch.full((10,), wanted))


def test_a_step_s_threshold_has_the_gradient_of_its_rectangle() -> None:
    """Rajamanoharan et al. 2024, equations 11 and 12, of three latents around their thresholds."""
    pre = torch.tensor([[0.48, 0.7, 1.0], [0.53, 0.1, 0.99]], requires_grad=True)
    threshold = torch.tensor([0.5, 0.5, 1.0], requires_grad=True)
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    latents: Any = JumpReLU.apply(pre, threshold, 0.1)
    torch.testing.assert_close(latents, torch.tensor([[0.0, 0.7, 0.0], [0.53, 0.0, 0.0]]))
    (latents * weight).sum().backward()
    assert pre.grad is not None and threshold.grad is not None
    assert pre.grad.tolist() == [[0, 2, 0], [4, 0, 0]]
    near = torch.tensor([1.0 + 4.0, 0.0, 3.0 + 6.0])  # those within 0.05 of it
    torch.testing.assert_close(threshold.grad, -torch.tensor([5.0, 5.0, 10.0]) * near)
    threshold.grad = pre.grad = None
    fires: Any = Fires.apply(pre, threshold, 0.1)
    assert fires.tolist() == [[0, 1, 0], [1, 0, 0]]
    (fires * weight).sum().backward()
    torch.testing.assert_close(threshold.grad, -10.0 * near)
    assert pre.grad is None or not pre.grad.any()


def test_latents_that_are_dead_get_a_loss_of_their_own() -> None:
    """What the best of them leave of what the others leave; no live latent has a part in it."""
    dictionary = made("topk", k=2)
    with torch.no_grad():
        dictionary.b_enc[[4, 7]] = -0.5
        dictionary.b_enc[:2] = 5.0  # always the two largest
    objective = Objective(dictionary, 100)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    without = float(objective(x, x)["loss"].detach())
    assert objective.idle.tolist() == [0, 0, *[40] * 8]
    objective.idle[[4, 7]] = 1000
    dictionary.zero_grad()
    loss = objective(x, x)["loss"]
    loss.backward()
    assert dictionary.W_enc.grad is not None
    assert dictionary.W_enc.grad.any(0).nonzero()[:, 0].tolist() == [0, 1, 4, 7]
    with torch.no_grad():
        pre = dictionary.pre_activations(x)
        left = x - dictionary(x)
        still = left - pre[:, [4, 7]].relu() @ dictionary.W_dec[[4, 7]]
        share = float(still.square().sum() / left.square().sum())
    assert float(loss.detach()) == pytest.approx(without + AUXILIARY * share, rel=1e-5)


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize("d_out", [None, 4])
@torch.no_grad()
def test_rows_as_they_are_give_what_standardised_rows_gave(kind: Any, d_out: int | None) -> None:
    """Whatever mean and scale: each dimension its own."""
    dictionary = made(kind, d_out=d_out, skip=d_out is not None).eval()
    for value in dictionary.parameters():
        value.add_(torch.randn_like(value) * 0.3)
    dictionary.threshold.copy_(torch.rand(10))
    mean, scale = torch.randn(6) * 5, 0.1 + torch.rand(6) * 3
    told = {"mean": mean, "scale": scale, "mean_out": mean, "scale_out": scale}
    if d_out is not None:
        told |= {"mean_out": torch.randn(d_out), "scale_out": 0.1 + torch.rand(d_out)}
    x = torch.randn(30, 6)
    raw = unstandardised(dictionary, {name: value.tolist() for name, value in told.items()})
    wanted = dictionary(x) * told["scale_out"] + told["mean_out"]
    torch.testing.assert_close(raw.eval()(x * scale + mean), wanted, atol=1e-4, rtol=1e-4)
    if kind != "topk":
        torch.testing.assert_close(raw.W_dec.norm(dim=1), torch.ones(10))


def test_another_site_width_or_model_is_refused_by_name(tmp_path: Path) -> None:
    dictionary = made("topk")
    dictionary.about = {"hook_point": "blocks.3.hook_resid_post", "record": RECORD}
    save_dictionary(dictionary, tmp_path / "saved")
    read = load_dictionary(tmp_path / "saved")
    assert read.about["hook_point"] == "blocks.3.hook_resid_post"
    values = {
        "blocks.3.hook_resid_post": torch.randn(9, 6),
        "blocks.4.hook_resid_post": torch.randn(9, 6),
        "audio_pool.hook_in": torch.randn(9, 7),
    }
    store = store_of(tmp_path / "run", values)
    read.check_rows(store["blocks.3.hook_resid_post"])
    for hook, says in (
        ("blocks.4.hook_resid_post", r"is of blocks.3.hook_resid_post, not of blocks.4"),
        ("audio_pool.hook_in", r"rows of 7 numbers; this dictionary takes 6, at blocks.3"),
    ):
        with pytest.raises(PalscopeError, match=says):
            read.check_rows(store[hook])
    with pytest.raises(PalscopeError, match="rows of 7 numbers"):
        read.encode(torch.randn(2, 7))
    store.record["weights"] = {"checkpoint": {"name": "other", "sha256": "1" * 64}}
    with pytest.raises(PalscopeError, match="another model than this dictionary"):
        read.check_rows(store["blocks.3.hook_resid_post"])


def test_a_dictionary_is_of_the_model_that_it_was_trained_on(model: Any, store: Any) -> None:
    dictionary = made("topk", d_in=16)
    hook = "audio_blocks.0.hook_out"
    record = {name: store.record[name] for name in ("weights", "route")}
    dictionary.about = {"hook_point": hook, "record": record}
    dictionary.check_model(model, hook)
    dictionary.check_rows(store[hook])
    with pytest.raises(PalscopeError, match=r"not of blocks.0"):
        dictionary.check_model(model, "blocks.0.hook_resid_post")
    record["weights"] = RECORD["weights"]
    with pytest.raises(PalscopeError, match=r"another model or route .*sha256"):
        dictionary.check_model(model, hook)
