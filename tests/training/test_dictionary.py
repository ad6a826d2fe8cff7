"""Dictionaries that are known are found again; a training that was killed goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palscope._features.objective import Objective
from palscope.errors import PalscopeError
from palscope.features import dictionary_scores, matched_cosine
from palscope.training import train_dictionary
from tests.features.made import planted, store_of

D, LATENTS, K = 24, 40, 3
HOOK = "audio_blocks.0.hook_out"
SETTINGS: dict[str, Any] = {
    "d_sae": LATENTS,
    "k": K,
    "steps": 300,
    "batch_size": 256,
    "learning_rate": 1e-2,
    "dead_after": 20_000,
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, torch.Tensor]:
    """Rows that are sums of three of forty directions, and those."""
    values, directions = planted(20_000, d=D, latents=LATENTS, k=K)
    return store_of(tmp_path_factory.mktemp("known") / "run", {HOOK: values}), directions


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "jumprelu"])
def test_planted_directions_are_found(known: Any, tmp_path: Path, kind: Any) -> None:
    store, directions = known
    made = train_dictionary(store[HOOK], tmp_path, kind=kind, **SETTINGS)
    assert matched_cosine(made.W_dec, directions).mean() > 0.95
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(LATENTS))
    found = dictionary_scores(made, store[HOOK])
    assert found["fvu"] < 0.1 and found["l0"] == pytest.approx(K, rel=0.25)
    assert found["dead"] == 0
    assert made.kind == ("topk" if kind == "topk" else "jumprelu")
    assert made.about["hook_point"] == HOOK and made.about["model"] == "made/up"
    assert made.about["streams"] == ["encoder"]
    assert made.about["mean"] == pytest.approx(store[HOOK][:].mean(0).tolist(), abs=1e-4)


def test_a_training_that_is_killed_goes_on(
    known: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same dictionary, by the same call, without the steps before its checkpoint."""
    told = SETTINGS | {"steps": 30, "save_steps": 10}
    whole = train_dictionary(known[0][HOOK], tmp_path / "whole", **told)
    steps: list[int] = []
    forward = Objective.forward

    def killed(self: Any, x: Any, y: Any) -> Any:
        steps.append(len(x))
        if len(steps) == 15:
            raise KeyboardInterrupt
        return forward(self, x, y)

    monkeypatch.setattr(Objective, "forward", killed)
    with pytest.raises(KeyboardInterrupt):
        train_dictionary(known[0][HOOK], tmp_path / "run", **told)
    made = train_dictionary(known[0][HOOK], tmp_path / "run", **told)
    assert len(steps) == 15 + 20
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(made.state_dict()[name], value)
    train_dictionary(known[0][HOOK], tmp_path / "run", **told)
    assert len(steps) == 15 + 20  # trained: it is read
    with pytest.raises(PalscopeError, match="another settings or rows"):
        train_dictionary(known[0][HOOK], tmp_path / "run", **told | {"k": 4})


def test_a_transcoder_with_a_skip_finds_the_linear_part(tmp_path: Path) -> None:
    """What is given is a linear map of what is taken, and a step of one of its numbers."""
    x, _ = planted(8_000, d=8, latents=12, k=2)
    linear = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    y = x @ linear.T - 7
    store = store_of(tmp_path / "store", {"in": x, "out": y + (x[:, :1] > 3) * 4.0})
    told: Any = SETTINGS | {"d_sae": 16, "k": 2, "steps": 200, "scale": "dimension"}
    made = train_dictionary(store["in"], tmp_path / "run", targets=store["out"], skip=True, **told)
    found = dictionary_scores(made, store["in"], store["out"])
    assert found["fvu"] < 0.05 and made.d_out == 5 and made.W_skip is not None
    assert made.about["hook_point_out"] == "out"
    without = train_dictionary(store["in"], tmp_path / "other", targets=store["out"], **told)
    assert dictionary_scores(without, store["in"], store["out"])["fvu"] > 2 * found["fvu"]


@pytest.mark.parametrize("wrong", ["nan", "other tokens"])
def test_rows_that_cannot_be_trained_on_are_told(tmp_path: Path, wrong: str) -> None:
    values, _ = planted(600, d=6, latents=8, k=2)
    spoilt = values.clone()
    spoilt[7, 3] = torch.nan
    store = store_of(
        tmp_path / "store",
        {"in": spoilt if wrong == "nan" else values, "out": values[:300]},
        clips=[{"name": "a"}, {"name": "b"}],
    )
    targets = None if wrong == "nan" else store["out"]
    says = "in hold NaN or infinity" if wrong == "nan" else "not of the same tokens"
    with pytest.raises(PalscopeError, match=says):
        train_dictionary(store["in"], tmp_path / "run", targets=targets, d_sae=8, k=2, steps=2)
