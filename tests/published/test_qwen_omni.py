"""What is special about the thinkers of Qwen2.5-Omni and Qwen3-Omni."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import palscope
from palscope._models.families import sliding_window
from palscope._published import PublishedFamily
from palscope._published.qwen2_5_omni import Qwen25Omni
from palscope._published.qwen3_omni import Qwen3Omni
from palscope._verify.tolerance import PER_LAYER, rounding
from palscope.interventions import Address, Sound, resolve
from tests import tiny
from tests.published.contract import CASES as ALL_CASES
from tests.published.contract import WORDS, Opened, noise

RATE = 16_000
CASES = [case for case in ALL_CASES if case.name.endswith("_omni")]
WHOLE = {
    "qwen2_5_omni": "Qwen2_5OmniForConditionalGeneration",
    "qwen3_omni": "Qwen3OmniMoeForConditionalGeneration",
}
ATOL = 5e-5


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def opened(request: Any) -> Opened:
    return Opened(request.param)


def heard(opened: Opened, samples: np.ndarray) -> Tensor:
    """The clip's audio tokens `[tokens, d_model]`."""
    inputs = opened.hooked.inputs(WORDS[0], samples)
    return opened.hooked.encode_audio(inputs).streams["frames"][0]


def with_burst(quiet: np.ndarray, second: float) -> np.ndarray:
    """Five milliseconds of noise, not so loud that it lifts the features' floor (8 decades)."""
    clip = quiet.copy()
    first = round((second - 0.0025) * RATE)
    clip[first : first + RATE // 200] += noise(0.005, seed=1)
    return clip


# -- the whole and its thinker --------------------------------------------------------------------


def hub_folder(opened: Opened, folder: Path) -> None:
    """A checkpoint of the whole as the hub has it: a nested config, prefixed keys, a talker.

    The files of the processor are those of transformers 4, in which the checkpoints were made.
    """
    opened.plain.save_pretrained(folder, max_shard_size="60KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = {f"thinker.{name}": file for name, file in index["weight_map"].items()}
    for file in set(files.values()):
        tensors = {f"thinker.{name}": x for name, x in load_file(folder / file).items()}
        if file == files["thinker.lm_head.weight"]:
            tensors["talker.codec_head.weight"] = torch.zeros(3)
            files["talker.codec_head.weight"] = file
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index["weight_map"] = files
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    thinker = json.loads((folder / "config.json").read_text())
    whole = thinker["model_type"].removesuffix("_thinker")
    config = {"architectures": [WHOLE[opened.case.name]], "model_type": whole}
    config |= {"thinker_config": thinker, "enable_audio_output": True}
    (folder / "config.json").write_text(json.dumps(config))

    kind = type(opened.own_processor).__name__
    opened.own_processor.tokenizer.save_pretrained(folder)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, "processor_class": kind}))
    sees = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2}
    extractor = opened.own_processor.feature_extractor.to_dict()
    preprocessor = {**extractor, **sees, "processor_class": kind}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    template = {"chat_template": opened.own_processor.chat_template}
    (folder / "chat_template.json").write_text(json.dumps(template))


@pytest.mark.filterwarnings("ignore")  # transformers finds fault with the talker's default ids
@torch.no_grad()
def test_a_checkpoint_of_the_whole_opens_its_thinker_without_eyes(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_folder(opened, tmp_path)
    # The processor as a whole needs torchvision, for films: nothing on the way may ask for it.
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", _never)
    monkeypatch.setattr(transformers.ProcessorMixin, "from_pretrained", _never)
    hooked = palscope.load(tmp_path)
    assert type(hooked.model.published) is type(opened.plain)
    assert hooked.processor.audio_token_id == opened.family.audio_token_id
    inputs, wanted = (each.inputs(WORDS[0], noise(1.3)) for each in (hooked, opened.hooked))
    assert all(torch.equal(inputs[name], wanted[name]) for name in wanted)
    agree(hooked(inputs), opened.hooked(wanted))


def _never(*_args: Any, **_kwargs: Any) -> None:
    raise AssertionError("the loading path asked for it")


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_loaded_whole_opens_its_thinker(opened: Opened) -> None:
    kind: Any = getattr(transformers, WHOLE[opened.case.name])
    config = kind.config_class(
        thinker_config=opened.plain.config.to_dict(), enable_audio_output=False
    )
    whole = kind(config).eval()
    whole.thinker.load_state_dict(opened.plain.state_dict())
    hooked = palscope.load(whole, processor=opened.tiny.processor())
    assert hooked.model.published is whole.thinker
    agree(hooked(opened.batch), opened.hooked(opened.batch))


def agree(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """To rounding: equal weights lie elsewhere in memory, where products may add up otherwise."""
    near = rounding(PER_LAYER * tiny.LAYERS, float(wanted.abs().max()))
    torch.testing.assert_close(got, wanted, **near)


# -- decoder --------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_class_s_own_positions_are_those_of_the_layout(opened: Opened) -> None:
    batch = opened.batch
    mask = batch["attention_mask"]
    three, _ = opened.plain.model.get_rope_index(batch["input_ids"], attention_mask=mask)
    positions = opened.hooked.layout(batch).position
    real = mask.bool()
    assert three.shape[0] == 3
    assert all(torch.equal(axis[real], positions[real]) for axis in three)
    [(_, given)] = opened.given()
    del given["position_ids"]
    wanted = opened.plain(**given).logits
    torch.testing.assert_close(opened.hooked(batch)[real], wanted[real], atol=ATOL, rtol=0)


@contextmanager
def unfed(opened: Opened) -> Generator[None, None, None]:
    """Within, the plain class's feed-forward networks add nothing to audio tokens."""
    sound = opened.batch["input_ids"] == opened.family.audio_token_id

    def silence(_module: Any, _args: Any, out: Tensor) -> Tensor:
        return out.masked_fill(sound[..., None], 0.0)

    handles = [layer.mlp.register_forward_hook(silence) for layer in opened.layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def test_sound_that_attends_goes_to_no_expert(opened: Opened) -> None:
    text = opened.is_text_of(opened.batch)
    [(_, given)] = opened.given()
    plain = opened.plain(**given).logits[text]
    with unfed(opened):
        wanted = opened.plain(**given).logits[text]
    assert (wanted - plain).abs().max() > 20 * ATOL
    route = opened.hooked.current_route.with_audio_queries()
    hook = "blocks.1.mlp.hook_in"
    with opened.hooked.route(route):
        got, cache = opened.hooked.run_with_cache(opened.batch, names_filter=[hook])
    torch.testing.assert_close(got[text], wanted, atol=ATOL, rtol=0)
    assert cache[hook].shape[1] == int(text.sum(1).max())


@torch.no_grad()
def test_sound_that_is_frozen_goes_to_no_expert(opened: Opened) -> None:
    hooks = [f"blocks.{layer}.mlp.hook_in" for layer in range(4)]
    with opened.hooked.route(opened.hooked.current_route.frozen_from(2)):
        _, cache = opened.hooked.run_with_cache(opened.batch, names_filter=hooks)
    everything = opened.batch["input_ids"].shape[1]
    text = int(opened.is_text_of(opened.batch).sum(1).max())
    assert [cache[hook].shape[1] for hook in hooks] == [everything, everything, text, text]


@torch.no_grad()
def test_qwen3_reads_no_sliding_window_and_qwen2_5_does() -> None:
    for case in CASES:
        tiny: Any = importlib.import_module(f"tests.published.tiny.{case.name}")
        narrow: Any = tiny.config()
        narrow.text_config.sliding_window = 8
        reads = case.name == "qwen2_5_omni"
        if reads:
            narrow.text_config.layer_types[1] = "sliding_attention"
        plain = tiny.model()
        state = plain.state_dict()
        models = [type(plain)(narrow).eval() for _ in range(2)]
        for model in models:
            model.load_state_dict(state)
        hooked: Any = palscope.load(models[0], processor=tiny.processor())
        widths = [sliding_window(hooked.model.text_config, layer) for layer in range(3)]
        assert widths == [None, 8 if reads else None, None]
        inputs = hooked.inputs(WORDS[0], noise(1.0))
        [frames] = inputs["feature_lengths"].tolist()
        given = {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "input_features": inputs["input_features"],
            "feature_attention_mask": torch.ones(1, frames, dtype=torch.long),
        }
        wanted = models[1](**given).logits
        torch.testing.assert_close(hooked(inputs), wanted, atol=ATOL, rtol=0)
        wide = plain(**given).logits
        assert (bool((wide - wanted).abs().max() > 20 * ATOL)) == reads


# -- features and the tower -----------------------------------------------------------------------


@pytest.mark.parametrize("loud_end", [False, True])
@pytest.mark.parametrize("samples", [3333, 16_000, 16_001, 40_100])
def test_features_are_the_published_processor_s_of_the_clip_alone(
    opened: Opened, samples: int, loud_end: bool
) -> None:
    clip = noise(samples / RATE)
    if loud_end:
        clip[:-3] = 0  # the loudest frame, which sets the floor, is the first behind the clip
    published = opened.clips([clip])
    mask = published["feature_attention_mask"][0].bool()
    mine = opened.hooked.processor(f"{opened.family.place} ?", clip, sampling_rate=RATE)
    assert mine["feature_lengths"].tolist() == [int(mask.sum())]
    assert torch.equal(mine["input_features"][0], published["input_features"][0][:, mask])


@pytest.mark.parametrize("seconds", [0.3, 0.75, 1.0, 2.06, 3.23])
@torch.no_grad()
def test_the_tower_has_the_tokens_that_its_grids_count(opened: Opened, seconds: float) -> None:
    hooked, family = opened.hooked, opened.family
    inputs = hooked.inputs(WORDS[0], noise(seconds))
    layers = {f"audio_{layer.name}.hook_out": layer.grid for layer in family.tower_layers()}
    names = {**layers, f"audio_{family.projector}.hook_in": family.tower_grid}
    assert len(layers) == 2
    _, cache = hooked.run_with_cache(inputs, names_filter=list(names))
    length = int(inputs["feature_lengths"]) * family.seconds_per_frame
    for name, grid in names.items():
        assert cache[name].ndim == 2
        assert len(cache[name]) == grid.tokens(length), name
    # The clip's end belongs to its last token, in the decoder and before it.
    layout = hooked.layout(inputs)
    assert float(layout.seconds[layout.stream == 0][-1, 1]) == pytest.approx(length)
    hooks = {"encoder_block": f"audio_{family.tower_layers()[0].name}.hook_out"}
    hooks["encoder_output"] = f"audio_{family.projector}.hook_in"
    for site, hook in hooks.items():
        end = resolve(hooked, inputs, Address(site, Sound(length - 0.005, length)))
        assert end.covered["end_s"].tolist() == pytest.approx([length])
        [last] = {int(column) for part in end.parts for column in part.columns}
        assert last == len(cache[hook]) - 1


@torch.no_grad()
def test_tokens_answer_where_the_grid_puts_them(opened: Opened) -> None:
    # Of the second 1.0 to 1.5, in which neither tower's windows end within reach.
    quiet = noise(2.0) * 0.05
    before = heard(opened, quiet)
    times = np.arange(0.9, 1.6, 0.02)
    answers = np.stack(
        [
            (heard(opened, with_burst(quiet, time)) - before).norm(dim=1).square().numpy()
            for time in times
        ]
    )
    middles = opened.family.grid.spans(len(before)).mean(1)
    tokens = np.flatnonzero((middles > 1.05) & (middles < 1.45))
    assert len(tokens) >= 4
    for token in tokens:
        near = abs(times - middles[token]) < 0.09  # attention carries a little everywhere
        weight = answers[near, token]
        centre = (weight * times[near]).sum() / weight.sum()
        assert centre == pytest.approx(middles[token], abs=0.02)


@pytest.mark.parametrize(
    ("name", "window", "tokens"), [("qwen2_5_omni", 2.0, 50), ("qwen3_omni", 8.0, 104)]
)
@torch.no_grad()
def test_sound_stays_in_its_window(name: str, window: float, tokens: int) -> None:
    opened = Opened(next(case for case in CASES if case.name == name))
    quiet = noise(window + 1.0) * 0.05
    before = heard(opened, quiet)
    for second, changed in ((window - 0.4, slice(tokens)), (window + 0.4, slice(tokens, None))):
        moved = (heard(opened, with_burst(quiet, second)) - before).norm(dim=1) > 1e-5
        assert bool(moved[changed].all()) and int(moved.sum()) == len(moved[changed])
    spans = opened.family.grid.spans(len(before))
    assert spans[tokens].tolist()[0] == pytest.approx(window)


# -- the families ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Qwen25Omni, Qwen3Omni])
def test_a_family_counts_as_its_grid(kind: type[PublishedFamily]) -> None:
    family = kind(None)
    for frames in range(3, 1205):
        assert family.tokens(frames) == family.grid.tokens(frames * 0.01), frames
        assert family.seconds(frames) == pytest.approx(frames * 0.01)
