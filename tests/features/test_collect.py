"""What is stored is what the plain model computes; nothing stored is lost, or taken for another."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import palscope
from palscope import PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._features import shards
from palscope._features.rows import RowReader
from palscope._routing import Route
from palscope.analyses._items import BUNDLED
from palscope.datasets import read_manifest
from palscope.encoders import load_encoder
from palscope.errors import PalscopeError
from palscope.features import ActivationStore, collect_activations
from palscope.interventions import Address, Sound, Text
from tests import tiny, vocabulary
from tests.dashboards.conftest import saved
from tests.features.conftest import SECONDS, SITES

ENCODER = Address("encoder_block", layers=(1,))


def test_rows_are_those_of_torch_s_own_hooks_on_single_clips(clips: Any, tmp_path: Path) -> None:
    """Where all sound runs in the decoder: the plain model, a clip at a time, without palscope's
    hooks, layout or seconds."""
    folder = saved(Route.plits(tiny.LAYERS), tmp_path / "plits")
    addresses = [
        ENCODER,
        Address("resid_post", layers=(1,)),
        Address("mlp_out", Sound(), (2,)),
    ]
    store = collect_activations(
        palscope.load(folder), clips, addresses, tmp_path / "run", batch_size=8
    )
    plain: Any = PalscopeForConditionalGeneration.from_pretrained(folder).eval()
    processor: Any = PalscopeProcessor.from_pretrained(folder)
    layers = plain.language_model.model.layers
    modules = {
        "audio_blocks.1.hook_out": plain.encoder.model.layers[1],
        "blocks.1.hook_resid_post": layers[1],
        "blocks.2.hook_mlp_out": layers[2].mlp,
    }
    taken: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, given: Any, out: Any) -> None:
            taken[name] = (out[0] if isinstance(out, tuple) else out)[0]

        return hook

    for name, module in modules.items():
        module.register_forward_hook(keep(name))
    wanted: dict[str, list[torch.Tensor]] = {name: [] for name in modules}
    for clip in clips:
        inputs = processor(
            [processor.chat(clip.question)], [clip.sound.samples], sampling_rate=16_000
        )
        with torch.no_grad():
            plain(**inputs)
        sound = inputs["input_ids"][0] == plain.config.audio_token_id
        for name, found in wanted.items():
            found.append(taken[name] if name.startswith("audio") else taken[name][sound])
    for name, found in wanted.items():
        torch.testing.assert_close(store[name][:], torch.cat(found), atol=1e-4, rtol=0)
        counts = store[name].rows["clip"].value_counts(sort=False).tolist()
        assert counts == [len(each) for each in found]
    # A token of the encoder is 20 ms, one of the decoder 100 ms; the last one ends with the clip.
    for name, step in (("audio_blocks.1.hook_out", 0.02), ("blocks.1.hook_resid_post", 0.1)):
        rows: Any = store[name].rows
        for number, of_clip in rows.groupby("clip"):
            count = int(np.ceil(round(SECONDS[number] / step, 6)))
            assert of_clip["start"].tolist() == pytest.approx([n * step for n in range(count)])
            assert of_clip["end"].iloc[-1] == pytest.approx(SECONDS[number], abs=0.011)


def test_a_batch_gives_what_clips_give_alone(
    model: Any, clips: Any, store: Any, tmp_path: Path
) -> None:
    alone = collect_activations(model, clips, SITES, tmp_path / "run", batch_size=1)
    assert set(alone.hook_points) == set(store.hook_points) and len(store.hook_points) == 11
    for name in store.hook_points:
        torch.testing.assert_close(store[name][:], alone[name][:], atol=1e-4, rtol=0)
        assert store[name].rows.equals(alone[name].rows)
    streams = {name: set(store[name].rows["stream"]) for name in store.hook_points}
    assert streams["blocks.0.attn.hook_audio_state"] == {"frames"}
    assert streams["audio_input_summary.hook_in"] == streams["blocks.0.hook_resid_pre"]
    assert streams["audio_pool.hook_in"] == {"encoder"}
    assert store.hook_points["blocks.1.attn.hook_z"] == 2 * 8  # two heads of four


def test_the_layer_behind_the_last_site_does_not_run(
    model: Any, clips: Any, tmp_path: Path
) -> None:
    ran: list[int] = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(model.model.language_model.model.layers)
    ]
    for address, layers in ((Address("resid_post", layers=(1,)), [0, 1]), (ENCODER, [])):
        RowReader(model, [address])([(clips[0].sound, "?")])
        assert ran == layers
        ran.clear()
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_that_is_killed_goes_on(
    model: Any,
    clips: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    streamed: bool,
) -> None:
    """Killed while its second shard is written: the first stays, and is not heard again."""
    told: dict[str, Any] = {"shard_clips": 4}
    written: list[str] = []
    save = shards.save_file

    def killed(tensors: Any, path: Path, about: Any) -> None:
        save(tensors, path, about)
        written.append(path.name)
        if len(written) == 2:
            raise KeyboardInterrupt

    def given() -> Any:
        return iter(clips) if streamed else clips

    monkeypatch.setattr(shards, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        collect_activations(model, given(), [ENCODER], tmp_path / "run", **told)
    assert "about" in capsys.readouterr().out
    (first,) = (tmp_path / "run/shards").glob("*")
    with pytest.raises(PalscopeError, match=r"is not finished; .* --resume"):
        ActivationStore(tmp_path / "run")
    with pytest.raises(PalscopeError, match="go on with it by --resume"):
        collect_activations(model, given(), [ENCODER], tmp_path / "run", **told)
    collect_activations(model, given(), [ENCODER], tmp_path / "run", resume=True, **told)
    assert first.name + ".part" == written[0] and len(written) == 4
    monkeypatch.undo()
    collect_activations(model, clips, [ENCODER], tmp_path / "whole", **told)
    ours, theirs = (sorted((tmp_path / run / "shards").iterdir()) for run in ("run", "whole"))
    assert [(p.name, p.read_bytes()) for p in ours] == [(p.name, p.read_bytes()) for p in theirs]


@pytest.fixture
def small(model: Any, clips: Any, tmp_path: Path) -> Path:
    """A store of four clips in two shards."""
    collect_activations(model, clips[:4], [ENCODER], tmp_path / "small", shard_clips=2)
    return tmp_path / "small"


def test_another_run_is_refused_by_name(
    model: Any, clips: Any, small: Path, tmp_path: Path
) -> None:
    other = palscope.load(saved(Route.plits(tiny.LAYERS), tmp_path / "other"))
    before = {path: path.read_bytes() for path in (small / "shards").iterdir()}

    def again(model: Any, clips: Any, *addresses: Address) -> None:
        collect_activations(model, clips, addresses, small, shard_clips=2, resume=True)

    for call, says in (
        (lambda: again(other, clips[:4], ENCODER), "weights.checkpoint.sha256"),
        (lambda: again(model, clips[:4], Address("encoder_output")), "config.addresses"),
        (
            lambda: again(model, clips[4:8], ENCODER),
            r"other clips \(clip 0 to clip 1, where clip 4",
        ),
        (lambda: again(model, clips[:2], ENCODER), "more clips than are asked for"),
        (lambda: again(model, [], ENCODER), "at least one"),
        (lambda: ActivationStore(small).check_model(other), "weights.checkpoint.sha256"),
    ):
        with pytest.raises(PalscopeError, match=says):
            call()
    assert {path: path.read_bytes() for path in (small / "shards").iterdir()} == before
    again(model, clips[:4], ENCODER)
    ActivationStore(small).check_model(model)
    with pytest.raises(PalscopeError, match=r"no 'blocks.9'; it has audio_blocks.1.hook_out"):
        ActivationStore(small)["blocks.9"]


def test_a_version_s_store_is_not_gone_on_with_by_another(
    model: Any, clips: Any, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(palscope, "__version__", "99")
    with pytest.raises(PalscopeError, match=r"config.palscope: .*, now '99'"):
        collect_activations(model, clips[:4], [ENCODER], small, shard_clips=2, resume=True)


def test_damaged_shards_are_told_and_made_anew(model: Any, clips: Any, small: Path) -> None:
    one, other = sorted((small / "shards").iterdir())
    whole = other.read_bytes()
    for damage in (lambda: other.write_bytes(whole[:-100]), lambda: shutil.copy(one, other)):
        damage()
        with pytest.raises(PalscopeError, match=f"{other.name}.* --resume"):
            ActivationStore(small)
        collect_activations(model, clips[:4], [ENCODER], small, shard_clips=2, resume=True)
        assert other.read_bytes() == whole


def test_a_clip_that_was_mended_is_heard_again(model: Any, clips: Any, tmp_path: Path) -> None:
    lost = replace(clips[1], sound=tmp_path / "lost.wav")
    given = [clips[0], lost, *clips[2:4]]
    told: dict[str, Any] = {"shard_clips": 2, "resume": True}
    store = collect_activations(model, given, [ENCODER], tmp_path / "run", **told)
    assert list(store.left_out) == ["clip 1"] and "lost.wav" in store.left_out["clip 1"]
    assert store.clips["left_out"].astype(bool).tolist() == [False, True, False, False]
    assert set(store["audio_blocks.1.hook_out"].rows["clip"]) == {0, 2, 3}
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/shards").iterdir()}
    store = collect_activations(model, clips[:4], [ENCODER], tmp_path / "run", **told)
    assert not store.left_out and set(store["audio_blocks.1.hook_out"].rows["clip"]) == {0, 1, 2, 3}
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/shards").iterdir()}
    assert len(now) == 2 and len(kept.items() & now.items()) == 1


@pytest.mark.parametrize("at", ["audio_blocks.0.hook_out", "blocks.1.hook_resid_post"])
def test_a_clip_that_becomes_nan_is_left_out_alone(
    model: Any, clips: Any, tmp_path: Path, at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The longest of four clips that are heard together."""

    def spoil(tensor: Any, hook: Any) -> Any:
        return tensor / 0 if tensor.shape[0] == 1 and long_enough() else tensor

    def long_enough() -> bool:
        run = model.model.current_run
        passing = model.model.encoder.passing
        return passing.lengths == (131,) if passing else run.clips.seconds == (1.31,)

    def together(tensor: Any, hook: Any) -> Any:
        return tensor / 0 if tensor.shape[0] == 4 else spoil(tensor, hook)

    model.hook_dict[at].add_hook(together)
    try:
        store = collect_activations(
            model, clips[:4], [Address("resid_post", layers=(1,))], tmp_path / "run"
        )
    finally:
        model.reset_hooks()
    assert list(store.left_out) == ["clip 1"] and "NaN or infinity" in store.left_out["clip 1"]
    assert "left out: clip 1" in capsys.readouterr().err
    assert set(store["blocks.1.hook_resid_post"].rows["clip"]) == {0, 2, 3}


def test_nothing_but_broken_clips_is_an_error(model: Any, clips: Any, tmp_path: Path) -> None:
    lost = replace(clips[1], sound=tmp_path / "lost.wav", seconds=None)
    with pytest.raises(PalscopeError, match=r"none of 1 clips could be used; .*lost.wav"):
        collect_activations(model, [lost], [ENCODER], tmp_path / "run")


def test_a_disk_that_fills_loses_nothing(
    model: Any, clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = shards.save_file

    def full(tensors: Any, path: Path, about: Any) -> None:
        if path.name.startswith("00001"):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path, about)

    told: dict[str, Any] = {"shard_clips": 2, "resume": True}
    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(PalscopeError, match="no space is left on the disk"):
        collect_activations(model, clips[:4], [ENCODER], tmp_path / "run", **told)
    (kept,) = (tmp_path / "run/shards").iterdir()
    assert kept.name.startswith("00000")
    monkeypatch.setattr(shards, "save_file", save)
    assert (
        len(collect_activations(model, clips[:4], [ENCODER], tmp_path / "run", **told).clips) == 4
    )


def test_what_does_not_fit_on_the_disk_is_not_begun(
    model: Any, clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 8, 10_000))
    with pytest.raises(PalscopeError, match=r"would take about .* kB, of 10 kB that are free"):
        collect_activations(model, clips, [ENCODER], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_bytes_told_are_about_those_written(
    model: Any, clips: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [replace(clip, seconds=None) for clip in clips]  # then they are read
    told: list[float] = []
    for number, some in enumerate((clips, given)):
        store = collect_activations(model, some, [ENCODER], tmp_path / str(number))
        told.append(float(capsys.readouterr().out.split("about ")[1].split(" kB")[0]) * 1000)
        (file,) = (store.folder / "shards").iterdir()
        assert told[-1] == pytest.approx(file.stat().st_size, rel=0.1)
    assert told[0] == told[1]


def test_text_has_rows_without_seconds(model: Any, clips: Any, tmp_path: Path) -> None:
    addresses = [Address("resid_post", Text("digit is"), (1,))]
    store = collect_activations(model, [clips[1], clips[2]], addresses, tmp_path / "run")
    rows = store["blocks.1.hook_resid_post"].rows
    assert set(rows["stream"]) == {"text"} and rows["start"].isna().all()
    assert len(rows) == 2 * (rows["clip"] == 0).sum() > 2


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        ([], "no address"),
        ([ENCODER, Address("encoder_block", layers=(0, 1))], "two of the addresses are of"),
        ([Address("resid_post", layers=(9,))], "layer 9 does not exist"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_it_begins(
    model: Any, clips: Any, tmp_path: Path, addresses: list[Address], says: str
) -> None:
    with pytest.raises(PalscopeError, match=says):
        collect_activations(model, clips, addresses, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_clips_of_one_name_are_refused(model: Any, clips: Any, tmp_path: Path) -> None:
    def twice() -> Iterator[Any]:
        yield from (clips[0], clips[1], clips[0])

    for size in (2, 3):
        with pytest.raises(PalscopeError, match="two clips are called 'clip 0'"):
            collect_activations(model, twice(), [ENCODER], tmp_path / str(size), shard_clips=size)


def test_whisper_s_rows_are_those_of_its_layers_called_by_hand(tmp_path: Path) -> None:
    """Real weights and real sound: transformers' own front end and layers, a clip at a time."""
    encoder: Any = load_encoder("openai/whisper-tiny.en", layers=(2, 4))
    extractor = encoder.feature_extractor()
    processor = PalscopeProcessor(extractor, vocabulary.tokenizer(), 10, [1])
    route = Route.lal(tiny.LAYERS)
    made = PalscopeForConditionalGeneration.from_parts(
        tiny.decoder(vocab_size=vocabulary.COUNT),
        encoder,
        route,
        tiny.full_connector(route),
        audio_token_id=processor.audio_token_id,
    )
    made.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    clips = read_manifest(BUNDLED)[4::2][:2]
    store = collect_activations(
        palscope.load(tmp_path / "model"),
        clips,
        [Address("encoder_block", layers=(2,))],
        tmp_path / "run",
    )
    plain = encoder.model
    wanted: list[torch.Tensor] = []
    for clip in clips:
        samples = palscope.load_audio(clip.path).samples
        mel: Any = extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
        with torch.no_grad():
            hidden = functional.gelu(plain.conv1(mel[..., : -(-len(samples) // 160)]))
            hidden = functional.gelu(plain.conv2(hidden)).transpose(1, 2)
            hidden = hidden + plain.embed_positions.weight[: hidden.shape[1]]
            for layer in plain.layers[:3]:
                hidden = layer(hidden, None)
        wanted.append(hidden[0])
    rows = store["audio_blocks.2.hook_out"]
    torch.testing.assert_close(rows[:], torch.cat(wanted), atol=1e-3, rtol=1e-4)
    assert store.clips["label"].tolist() == [clip.label for clip in clips]
