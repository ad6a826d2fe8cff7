"""Published checkpoints become encoders with the very same weights, or an error says why not."""

from __future__ import annotations

import json
import logging as levels
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from palscope._models import PalscopeForConditionalGeneration
from palscope.encoders import Several, load_encoder
from palscope.encoders import _convert as converting
from palscope.encoders._convert import convert_encoder, main
from palscope.encoders._weights import save_encoder
from palscope.errors import CheckpointError
from tests.encoders import small

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TEXT = SIZES | {
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
VISION = {"text_config": TEXT, "vision_config": SIZES | {"image_size": 32, "patch_size": 8}}
AUDIO = {
    "num_mel_bins": 16,
    "spec_size": 128,
    "depths": [1, 2],
    "num_attention_heads": [1, 2],
    "patch_embeds_hidden_size": 8,
}
TOWER = SIZES | {
    "model_type": "audioflamingo3_encoder",
    "num_mel_bins": 8,
    "max_source_positions": 100,
}
SAMPLES: dict[str, Any] = {
    "hubert": hf.HubertForCTC,
    "wav2vec2": hf.Wav2Vec2ForPreTraining,
    "wavlm": hf.WavLMForSequenceClassification,
}
QWEN = SIZES | {"model_type": "qwen2", "vocab_size": 20, "num_key_value_heads": 1}


def whole(kind: str) -> tuple[Any, Any]:
    """A whole model as it is published, tiny, and the encoder's part of it."""
    torch.manual_seed(0)
    made: Any
    if kind == "ast":
        config = hf.ASTConfig(**SIZES, max_length=256, num_mel_bins=32)
        made = hf.ASTForAudioClassification(config)
        return made, made.audio_spectrogram_transformer
    if kind == "clip-vision":
        made = hf.CLIPModel(hf.CLIPConfig(**VISION, projection_dim=8))
        return made, made.vision_model
    if kind == "siglip-vision":
        made = hf.SiglipModel(hf.SiglipConfig(**VISION))
        return made, made.vision_model
    if kind == "af-whisper":
        config = hf.AudioFlamingo3Config(audio_config=TOWER, text_config=QWEN, audio_token_id=3)
        made = hf.AudioFlamingo3ForConditionalGeneration(config)
        return made, made.model.audio_tower
    if kind in SAMPLES:
        sizes = SIZES | {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 16}
        sizes |= {"num_conv_pos_embedding_groups": 2, "vocab_size": 20}
        made = SAMPLES[kind](SAMPLES[kind].config_class(**sizes))
        return made, made.base_model
    fused = {"enable_fusion": True} if kind == "clap-fused" else {}
    made = hf.ClapModel(hf.ClapConfig(text_config=TEXT, audio_config=AUDIO | fused))
    return made, made.audio_model


KINDS = ("ast", "clip-vision", "siglip-vision", "af-whisper", "clap", "clap-fused", *SAMPLES)
TRAINING = ("head.", "masked_spec_embed")


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_and_its_part_alone_are_converted(kind: str, tmp_path: Path) -> None:
    model, part = whole(kind)
    expected = {n: t for n, t in part.state_dict().items() if not n.startswith(TRAINING)}
    for which, saved in (("whole", model), ("part", part)):
        saved.save_pretrained(tmp_path / which)
        made: Any = convert_encoder(kind.removesuffix("-fused"), tmp_path / which)
        found = made.model.state_dict()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
    save_encoder(made, tmp_path / "out")
    back: Any = load_encoder(tmp_path / "out")
    assert back.config == made.config and not back.training
    for name, tensor in expected.items():
        assert torch.equal(back.model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("audio_model.audio_encoder.norm.bias"), "missing.*norm.bias"),
        (lambda t: t.update({"audio_model.audio_encoder.more": torch.zeros(1)}), "foreign.*more"),
        (lambda t: t.update({"surprise": torch.zeros(1)}), "foreign.*surprise"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(change: Any, says: str, tmp_path: Path) -> None:
    whole("clap")[0].save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=says):
        convert_encoder("clap", tmp_path)


def test_the_front_ends_settings_are_read(tmp_path: Path) -> None:
    whole("clap")[0].save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"frequency_min": 20}))
    made: Any = convert_encoder("clap", tmp_path)
    assert (made.config.frequency_min, made.config.frequency_max) == (20, 14_000)
    for kind, default in (("hubert", True), ("wavlm", False)):
        whole(kind)[0].save_pretrained(tmp_path / kind)
        for said in ({}, {"do_normalize": not default}):
            (tmp_path / kind / "preprocessor_config.json").write_text(json.dumps(said))
            made = convert_encoder(kind, tmp_path / kind)
            assert made.config.normalize is (not default if said else default)


def test_the_older_names_of_a_normed_weight_are_read(tmp_path: Path) -> None:
    """As in most files of HuBERT, wav2vec 2.0 and WavLM that were published."""
    _, part = whole("hubert")
    part.save_pretrained(tmp_path)
    older = {"parametrizations.weight.original0": "weight_g"}
    older["parametrizations.weight.original1"] = "weight_v"
    tensors = load_file(tmp_path / "model.safetensors")
    for name in list(tensors):
        for new, old in older.items():
            if name.endswith(new):
                tensors[name.replace(new, old)] = tensors.pop(name)
    assert sum(name.endswith(("weight_g", "weight_v")) for name in tensors) == 2
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    made: Any = convert_encoder("hubert", tmp_path)
    found, wanted = (each.encoder.pos_conv_embed.conv.weight for each in (made.model, part))
    assert torch.equal(found, wanted)


# --- fairseq -------------------------------------------------------------------------------------


def fairseq(made: Any, prefix: str = "") -> dict[str, Any]:
    """A checkpoint as fairseq writes it, with what only pre-training needs."""
    image = f"{prefix}modality_encoders.IMAGE."
    model = {f"{prefix}{name}": tensor for name, tensor in made.model.state_dict().items()}
    model |= {
        f"{image}decoder.blocks.0.0.weight": torch.zeros(2),
        f"{prefix}recon_proj.weight": torch.zeros(2),
    }
    if prefix:
        model |= {"head.weight": torch.zeros(2), "fc_norm.bias": torch.zeros(2)}
    else:
        model["_ema"] = {"blocks.0.norm1.weight": torch.zeros(2)}
    return {"args": None, "cfg": {"model": {"depth": 2}}, "model": model}


@pytest.fixture(scope="module")
def sslam() -> Any:
    torch.manual_seed(0)
    config = small.SSLAMConfig(embed_dim=64, depth=2, num_heads=1, max_length=96, layers=(2,))
    return small.randomised(small.build_encoder(config))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_checkpoint_of_fairseq_is_converted(sslam: Any, prefix: str, tmp_path: Path) -> None:
    torch.save(fairseq(sslam, prefix), tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="--unpickle"):
        convert_encoder("sslam", tmp_path / "checkpoint.pt")
    made: Any = convert_encoder("sslam", tmp_path / "checkpoint.pt", unpickle=True)
    assert made.config == sslam.config
    for name, tensor in sslam.model.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], tensor), name


class _Code:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


def test_a_pickle_that_holds_code_is_not_run(tmp_path: Path, capsys: Any) -> None:
    torch.save({"model": {}, "extra": _Code()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="plain values alone"):
        convert_encoder("eat", tmp_path / "evil.pt", unpickle=True)
    folder = tmp_path / "clap"
    whole("clap")[0].save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"audio_model.x": _Code()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin may run code"):
        convert_encoder("clap", folder)
    assert "this ran" not in capsys.readouterr().out


def test_a_pickle_of_transformers_is_read_when_asked_for(tmp_path: Path) -> None:
    model, part = whole("clap")
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    made: Any = convert_encoder("clap", tmp_path, unpickle=True)
    name = "audio_encoder.norm.weight"
    assert torch.equal(made.model.state_dict()[name], part.state_dict()[name])


@pytest.mark.parametrize("change", ["missing", "foreign", "none"])
def test_fairseq_tensors_that_do_not_fit(sslam: Any, change: str, tmp_path: Path) -> None:
    tensors = dict(sslam.model.state_dict())
    if change == "missing":
        del tensors["blocks.1.attn.qkv.bias"]
    elif change == "foreign":
        tensors["blocks.1.attn.surprise"] = torch.zeros(1)
    else:
        tensors = {"weight": torch.zeros(1)}
    file = tmp_path / "sslam.safetensors"
    save_file(tensors, file)
    says = {"missing": "qkv.bias is missing", "foreign": "surprise is foreign", "none": "no EAT"}
    with pytest.raises(CheckpointError, match=says[change]):
        convert_encoder("sslam", file)


def test_a_file_without_laions_audio_tower(tmp_path: Path) -> None:
    file = tmp_path / "text.safetensors"
    save_file({"module.text_branch.weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="no audio tower of LAION's CLAP"):
        convert_encoder("clap", file)


# --- the command, and checkpoints that refer to what it wrote ------------------------------------


def test_the_command(sslam: Any, tmp_path: Path, capsys: Any) -> None:
    save_file(sslam.model.state_dict(), tmp_path / "sslam.safetensors")
    assert main(["sslam", str(tmp_path / "sslam.safetensors"), str(tmp_path / "out")]) == 0
    assert "M parameters, width 64" in capsys.readouterr().out
    assert load_encoder(tmp_path / "out").config == sslam.config
    assert main(["clap", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["clap", "sslam", "ast", "several"])
def test_a_checkpoint_refers_to_a_converted_encoder(name: str, tmp_path: Path) -> None:
    if name == "several":
        made: Any = Several.of(small.encoder("sslam"), small.encoder("clap"))
    else:
        made = small.encoder(name)
    save_encoder(made, tmp_path / "encoder")
    model, processor = small.whole(made)
    model.language_model.save_pretrained(tmp_path / "text")
    model.config.text_base = str(tmp_path / "text")
    model.config.encoder_base = str(tmp_path / "encoder")
    model.config.store_base = False
    model.freeze_bases()
    model.save_pretrained(tmp_path / "checkpoint")
    kept = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert all(key.startswith("connector.") for key in kept)
    back = PalscopeForConditionalGeneration.from_pretrained(tmp_path / "checkpoint")
    clip = small.CONFIGS["clap"].blank()
    batch = processor(processor.chat("what"), clip, sampling_rate=48_000)
    with torch.no_grad():
        logits = [each(**batch).logits for each in (back, model)]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)
    assert not any(weight.requires_grad for weight in back.encoder.parameters())

    save_encoder(small.encoder("eat"), tmp_path / "encoder")  # of another kind
    with pytest.raises(CheckpointError):
        PalscopeForConditionalGeneration.from_pretrained(tmp_path / "checkpoint")


def test_choices_are_changed_on_loading(tmp_path: Path) -> None:
    made: Any = small.encoder("ast")
    save_encoder(made, tmp_path)
    assert load_encoder(tmp_path, layers=(0,)).config.layers == (0,)
    with pytest.raises(CheckpointError, match="no such choice"):
        load_encoder(tmp_path, depth=3)
    with pytest.raises(CheckpointError, match="convert"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "clap"}))
        load_encoder(tmp_path)


def test_what_there_is_no_conversion_for(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="no conversion for the kind 'sonar'; there are: af-whisper, ast"
    ):
        convert_encoder("sonar", tmp_path)


def test_threads_that_convert_leave_transformers_as_loud_as_it_was() -> None:
    """Whichever ends last."""
    before = logging.get_verbosity()
    first, second = converting._quietly(), converting._quietly()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.get_verbosity() == levels.ERROR
    second.__exit__(None, None, None)
    assert logging.get_verbosity() == before
