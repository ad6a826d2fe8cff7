"""The pretence itself: what a GPU refuses is refused, what it takes is taken, waits are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palscope._models import decoder
from palscope._models.clips import AudioClips
from tests.devices.placed import ONE, TWO, check, kept
from tests.devices.pretended import FIRST, SECOND, DeviceFault, waits
from tests.devices.tasks import clean, masses

Made = Callable[..., Tensor]


def here(*shape: int) -> Tensor:
    return torch.ones(shape, device=FIRST)


def there(*shape: int) -> Tensor:
    return torch.ones(shape, device=SECOND)


@pytest.mark.parametrize("other", [torch.ones, there])
@pytest.mark.parametrize(
    "meet",
    [
        lambda made: here(2, 3) + made(2, 3),
        lambda made: made(2, 3).add_(here(2, 3)),
        lambda made: here(2, 3) @ made(3, 2),
        lambda made: torch.cat([here(2, 3), made(2, 3)]),
        lambda made: here(2, 3).gather(1, made(2, 1).long()),
        lambda made: torch.where(here(2) > 0, here(2), made(2)),
        lambda made: torch.searchsorted(here(3), made(3)),
        lambda made: torch.isin(here(3), made(3)),
        lambda made: torch.equal(here(3), made(3)),
        lambda made: here(3).masked_fill(made(3) > 0, 0.0),
        lambda made: made(2, 3)[here(2).long() - 1],
        lambda made: torch.nn.functional.embedding(made(2).long(), here(3, 3)),
        lambda made: here(3).scatter(0, made(2).long() - 1, 1.0),
    ],
)
def test_tensors_of_two_devices_do_not_meet(meet: Any, other: Made) -> None:
    with pytest.raises(DeviceFault, match=r"on pretend:0.*on |on .*on pretend:0"):
        meet(other)


def test_indices_of_another_accelerator_are_refused() -> None:
    with pytest.raises(DeviceFault, match="index"):
        here(3)[there(2).long()]


def test_what_cuda_takes_of_the_cpu_is_taken() -> None:
    values = torch.arange(6.0, device=FIRST).view(2, 3)
    assert (values * torch.tensor(2.0)).tolist() == [[0, 2, 4], [6, 8, 10]]
    assert (
        values[:, torch.tensor([2, 0])].tolist() == values[:, [2, 0]].tolist() == [[2, 0], [5, 3]]
    )
    assert torch.where(values > 2, values, torch.tensor(0.0)).sum() == 12
    values[torch.tensor([0])] = torch.tensor(7.0)
    assert values[0].tolist() == [7, 7, 7] and values.device == torch.device(FIRST)
    assert values.to(SECOND).device == torch.device(SECOND)
    assert torch.zeros(2).copy_(values[0, :2]).tolist() == [7, 7]


def test_numpy_and_generators_of_the_cpu_are_refused() -> None:
    with pytest.raises(TypeError, match="can't convert pretend:0 device type tensor to numpy"):
        here(3).numpy()
    with pytest.raises(TypeError, match="can't convert"):
        np.asarray(here(3))
    with pytest.raises(DeviceFault, match="generator of cpu"):
        torch.randn(3, device=FIRST, generator=torch.Generator())


def test_a_copy_is_no_view_and_gradients_cross() -> None:
    leaf = torch.ones(3, device=FIRST, requires_grad=True)
    (leaf.to(SECOND) * 2).sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [2, 2, 2]
    copy = leaf.detach().cpu()
    copy.zero_()
    assert leaf.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: x.sum().item(), "read: _local_scalar_dense"),
        (lambda x: bool(x.any()), "read: _local_scalar_dense"),
        (lambda x: x.tolist(), "read: _to_copy"),
        (lambda x: x.nonzero(), "read: nonzero"),
        (lambda x: x[x > 0], "read: index"),
        (lambda x: torch.equal(x, x + 1), "read: equal"),
        (lambda x: x[[0, 1]], "written: index"),
        (lambda x: torch.tensor([1], device=x.device), "written: copy_"),
    ],
)
def test_waits_are_counted(call: Any, kind: str) -> None:
    values = here(3)
    with waits() as found:
        call(values)
    (only,) = found
    assert only == f"{kind} in no line of palscope's" and found[only] == 1


def test_what_is_queued_does_not_wait() -> None:
    with waits() as found:
        moved = torch.ones(3).to(FIRST, non_blocking=True)
        assert not torch.equal(moved, here(2))  # of another size: known without reading
        moved.to(SECOND)
    assert not found


# -- planted faults: the suite would see them -----------------------------------------------------


def test_a_state_left_on_the_cpu_is_caught() -> None:
    model = kept(ONE, "pal")
    hook = [("blocks.1.hook_resid_post", lambda state, hook: state.cpu())]
    with pytest.raises(DeviceFault, match="on cpu"):
        model.run_with_hooks(clean(model), fwd_hooks=hook)


def test_columns_left_on_the_cpu_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def gathered(values: Tensor, columns: Tensor) -> Tensor:
        at = columns.cpu().clamp(min=0)[..., None].expand(-1, -1, values.shape[-1])
        return values.gather(1, at)

    monkeypatch.setattr(decoder, "gathered", gathered)
    with pytest.raises(DeviceFault, match=r"gather of .* on pretend:0, .* on cpu"):
        check(ONE, "a_batch", "pal")


def test_values_left_on_the_first_of_two_devices_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = AudioClips.columns
    monkeypatch.setattr(
        AudioClips, "columns", lambda *given: columns(*given).to(FIRST), raising=True
    )
    with pytest.raises(DeviceFault, match=r"on pretend:[01], .* on pretend:[01]"):
        masses(kept(TWO, "pal"))
