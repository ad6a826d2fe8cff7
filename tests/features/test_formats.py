"""Files of SAELens, dictionary_learning and AudioSAE are read; what is written is SAELens's."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import relu

from palscope._features.dictionary import Dictionary
from palscope._features.formats import load_dictionary, save_dictionary
from palscope.errors import CheckpointError, PalscopeError

WRITTEN = Path(__file__).parent / "saelens"
RESULTS = load_file(WRITTEN / "results.safetensors")
NAMES = sorted(path.name for path in WRITTEN.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_saelens_s_own_are_read_and_written_again(name: str, tmp_path: Path) -> None:
    """With the latents and rows that SAELens itself made of them."""
    made = load_dictionary(WRITTEN / name)
    for _ in range(2):
        rows = RESULTS["rows"]
        torch.testing.assert_close(made(rows), RESULTS[f"{name}:out"], atol=1e-5, rtol=0)
        fires = RESULTS[f"{name}:latents"] > 0
        assert torch.equal(made.encode(rows) > 0, fires) and fires.any()
        save_dictionary(made, tmp_path)
        made = load_dictionary(tmp_path)
    theirs, ours = (
        json.loads((folder / "cfg.json").read_text()) for folder in (WRITTEN / name, tmp_path)
    )
    written = {"topk_rescaled": {"rescale_acts_by_decoder_norm": False}}
    written |= {"jumprelu_uncentred": {"apply_b_dec_to_input": True}}
    written |= {"standard": {"architecture": "jumprelu"}}
    alone = name in ("transcoder", "skip_transcoder")
    written |= {name: {"architecture": f"jumprelu_{name}"}} if alone else {}
    wanted = theirs | written.get(name, {})
    assert {key: ours[key] for key in wanted if key != "metadata"} == {
        key: value for key, value in wanted.items() if key != "metadata"
    }
    assert ours["metadata"]["sae_lens_version"] == theirs["metadata"]["sae_lens_version"]


def ae(path: Path, trainer: dict[str, Any] | None = None, **changes: Any) -> Path:
    """An `ae.pt` as dictionary_learning's BatchTopKSAE has it, and its config.json."""
    drawn = torch.Generator().manual_seed(0)
    state = {
        "encoder.weight": torch.randn(10, 6, generator=drawn),
        "encoder.bias": torch.randn(10, generator=drawn) * 0.3,
        "decoder.weight": torch.randn(6, 10, generator=drawn),
        "b_dec": torch.randn(6, generator=drawn),
        "k": torch.tensor(3, dtype=torch.int32),
        "threshold": torch.tensor(0.4),
    } | changes
    torch.save({name: value for name, value in state.items() if value is not None}, path / "ae.pt")
    if trainer is not None:
        (path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    return path / "ae.pt"


def by_hand(path: Path) -> tuple[Any, torch.Tensor]:
    """The tensors, and what dictionary_learning's encoder gives before it is cut."""
    state = torch.load(path, weights_only=True)
    rows = RESULTS["rows"]
    return state, relu((rows - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"])


@torch.no_grad()
def test_dictionary_learning_s_batchtopk_has_its_threshold(tmp_path: Path) -> None:
    file = ae(tmp_path, {"dict_class": "BatchTopKSAE", "k": 3, "lm_name": "some/model"})
    state, acts = by_hand(file)
    latents = acts * (acts > 0.4)
    made = load_dictionary(tmp_path)  # the folder, as the file
    assert made.kind == "jumprelu" and made.about["model"] == "some/model"
    torch.testing.assert_close(made.encode(RESULTS["rows"]), latents)
    torch.testing.assert_close(
        made(RESULTS["rows"]), latents @ state["decoder.weight"].T + state["b_dec"]
    )


@torch.no_grad()
def test_audiosae_s_runs_a_token_at_a_time(tmp_path: Path) -> None:
    """It has no threshold: the k largest of each token, whatever else is in the batch."""
    file = ae(tmp_path, None, threshold=None)
    _, acts = by_hand(file)
    made = load_dictionary(file, hook_point="audio_blocks.0.hook_out")
    latents = made.encode(RESULTS["rows"])
    for row, found in zip(acts, latents, strict=True):
        kept, largest = (each[each > 0].sort().values for each in (found, row))
        torch.testing.assert_close(kept, largest[-3:])
    torch.testing.assert_close(made.encode(RESULTS["rows"][:1]), latents[:1])
    assert made.about["hook_point"] == "audio_blocks.0.hook_out"
    never = ae(tmp_path, None, threshold=torch.tensor(-1.0))  # and one that was never learned
    torch.testing.assert_close(load_dictionary(never).encode(RESULTS["rows"]), latents)


@torch.no_grad()
def test_dictionary_learning_s_others(tmp_path: Path) -> None:
    rows = RESULTS["rows"]
    topk = load_dictionary(ae(tmp_path, {"dict_class": "AutoEncoderTopK", "k": 3}))
    assert topk.kind == "topk" and (topk.encode(rows) > 0).sum(1).max() <= 3
    state, acts = by_hand(tmp_path / "ae.pt")
    plain = ae(tmp_path, {"dict_class": "AutoEncoder"}, k=None, threshold=None, bias=state["b_dec"])
    torch.testing.assert_close(load_dictionary(plain).encode(rows), acts)
    jump = {
        "W_enc": state["encoder.weight"].T,
        "W_dec": state["decoder.weight"].T,
        "b_enc": state["encoder.bias"],
        "b_dec": state["b_dec"],
        "threshold": torch.linspace(0, 1, 10),
    }
    torch.save(jump, tmp_path / "ae.pt")
    (tmp_path / "config.json").unlink()
    pre = rows @ jump["W_enc"] + jump["b_enc"]  # its class takes no b_dec away
    made = load_dictionary(tmp_path / "ae.pt")
    torch.testing.assert_close(made.encode(rows), relu(pre) * (pre > jump["threshold"]))


def test_an_ae_pt_is_never_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "ae.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match=r"ae.pt cannot be read"):
        load_dictionary(tmp_path / "ae.pt")
    torch.save({"encoder.weight": Evil()}, tmp_path / "ae.pt")
    with pytest.raises(CheckpointError, match=r"ae.pt cannot be read"):
        load_dictionary(tmp_path / "ae.pt")
    assert not (tmp_path / "ran").exists()


def changed(folder: Path, **config: Any) -> None:
    told = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(told | config))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: changed(f, architecture="gated"), "architecture is 'gated'"),
        (lambda f: changed(f, normalize_activations="layer_norm"), "fold it into the weights"),
        (lambda f: changed(f, k=0), "k is 0; expected 1 to 10"),
        (lambda f: changed(f, finetuning_scaling_factor=True), "finetuning_scaling_factor"),
        (lambda f: (f / "cfg.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "cfg.json").unlink(), "is no dictionary"),
        (lambda f: (f / "sae_weights.safetensors").write_bytes(b"\0" * 9), "cannot be read"),
        (lambda f: weights(f, W_dec=torch.zeros(9, 6)), r"W_dec is \(9, 6\); expected \(10, 6\)"),
        (lambda f: weights(f, b_dec=None), "has no b_dec"),
        (lambda f: weights(f, b_enc=torch.full((10,), torch.nan)), "b_enc holds NaN"),
    ],
)
def test_what_cannot_be_used_is_told(damage: Any, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "topk"
    shutil.copytree(WRITTEN / "topk", folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=says):
        load_dictionary(folder)


def weights(folder: Path, **changes: Any) -> None:
    file = folder / "sae_weights.safetensors"
    tensors = load_file(file) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, file)


def test_what_saelens_has_no_form_of_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no transcoder by TopK"):
        save_dictionary(Dictionary(4, 8, kind="topk", k=2, d_out=3), tmp_path)
    with pytest.raises(CheckpointError, match="no threshold yet"):
        save_dictionary(Dictionary(4, 8, kind="batchtopk", k=2), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PalscopeError, match="k is 9; expected 1 to 8"):
        Dictionary(4, 8, k=9)
    with pytest.raises(PalscopeError, match="nothing to learn"):
        Dictionary(4, 8, k=2, skip=True)
