"""Saving and loading: the Auto classes, bases stored or referred to, and every way to be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from palscope._models import PalscopeConfig, PalscopeForConditionalGeneration
from palscope._routing import Route
from palscope._verify.tolerance import PER_LAYER, rounding
from palscope.encoders._weights import load_whisper_encoder
from palscope.errors import CheckpointError, RouteError
from tests import tiny

ROUTE = Route.pal(4, [0, 2])


def logits(made: Any) -> torch.Tensor:
    with torch.no_grad():
        return made(**tiny.batch([[37], [52, 30]])).logits


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Any, Path]:
    """A model saved with its bases."""
    made = tiny.model(ROUTE)
    made.save_pretrained(tmp_path / "whole")
    return made, tmp_path / "whole"


@pytest.fixture
def light(tmp_path: Path) -> tuple[Any, Path]:
    """A model saved beside its bases, which are local folders."""
    text, sound = tmp_path / "text", tmp_path / "sound"
    donor: Any = tiny.model(ROUTE)
    donor.language_model.save_pretrained(text)
    a_tokenizer().save_pretrained(text)
    donor.encoder.model.save_pretrained(sound)
    made = PalscopeForConditionalGeneration.from_parts(
        AutoModelForCausalLM.from_pretrained(text),
        load_whisper_encoder(sound, (1, 2)),
        ROUTE,
        tiny.full_connector(ROUTE),
        audio_token_id=tiny.AUDIO_ID,
        text_base=str(text),
        encoder_base=str(sound),
    ).eval()
    made.freeze_bases()
    made.save_pretrained(tmp_path / "light")
    return made, tmp_path / "light"


def a_tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({"<unk>": 0, "hi": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "phi3"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_stored_model_comes_back(tmp_path: Path, family: str, tied: bool) -> None:
    made = tiny.model(ROUTE, family, tie_word_embeddings=tied)
    made.save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.bin"))
    back = PalscopeForConditionalGeneration.from_pretrained(tmp_path)
    assert back.route == ROUTE and not back.training
    assert torch.equal(logits(back), logits(made))
    head: Any = back.get_output_embeddings()
    table: Any = back.get_input_embeddings()
    assert (head.weight.data_ptr() == table.weight.data_ptr()) is tied


def test_the_auto_classes(whole: tuple[Any, Path]) -> None:
    made, folder = whole
    config: Any = AutoConfig.from_pretrained(folder)
    assert isinstance(config, PalscopeConfig)
    assert config.parsed_route() == ROUTE and config.text_config.model_type == "llama"
    back = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(back, PalscopeForConditionalGeneration)
    assert torch.equal(logits(back), logits(made))
    fresh = AutoModelForCausalLM.from_config(config)
    assert isinstance(fresh, PalscopeForConditionalGeneration)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, "bfloat16", "auto", None])
def test_load_in_any_precision(stored: bool, dtype: Any, request: pytest.FixtureRequest) -> None:
    made, folder = request.getfixturevalue("whole" if stored else "light")
    back = PalscopeForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    asked = {"bfloat16": torch.bfloat16, "auto": torch.float32, None: torch.float32}
    wanted = asked.get(dtype, dtype)
    assert {p.dtype for p in back.parameters()} == {wanted}
    got, truth = logits(back).float(), logits(made)
    assert (got - truth).square().mean() < (0.05 * truth).square().mean()


@pytest.mark.parametrize("stored", [True, False])
def test_load_to_a_device_with_an_attention_of_choice(
    stored: bool, request: pytest.FixtureRequest
) -> None:
    made, folder = request.getfixturevalue("whole" if stored else "light")
    back = PalscopeForConditionalGeneration.from_pretrained(
        folder, device_map="cpu", attn_implementation="eager"
    )
    assert {str(p.device) for p in back.parameters()} == {"cpu"}
    assert back.language_model.config._attn_implementation == "eager"
    wanted = logits(made)
    tolerance = rounding(PER_LAYER * tiny.LAYERS, float(wanted.abs().max()))
    torch.testing.assert_close(logits(back), wanted, **tolerance)


def test_a_model_that_refers_to_its_bases(light: tuple[Any, Path], tmp_path: Path) -> None:
    made, folder = light
    kept = load_file(folder / "model.safetensors")
    assert kept and all(name.startswith("connector.") for name in kept)
    back = PalscopeForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(logits(back), logits(made))
    assert not any(p.requires_grad for p in back.language_model.parameters())
    back.save_pretrained(tmp_path / "again")
    assert torch.equal(
        logits(PalscopeForConditionalGeneration.from_pretrained(tmp_path / "again")), logits(made)
    )


def test_the_encoders_settings_come_back(light: tuple[Any, Path]) -> None:
    _, folder = light
    config = json.loads((folder / "config.json").read_text())
    config["encoder"]["pad_to_window"] = True
    (folder / "config.json").write_text(json.dumps(config))
    back: Any = PalscopeForConditionalGeneration.from_pretrained(folder)
    assert back.encoder.config.pad_to_window and back.encoder.config.layers == (1, 2)


def test_bases_that_were_trained_are_never_left_out(
    light: tuple[Any, Path], tmp_path: Path
) -> None:
    made, _ = light
    made.language_model.requires_grad_(True)
    with pytest.raises(CheckpointError, match="store_base"):
        made.save_pretrained(tmp_path / "lost")
    made.config.store_base = True
    made.save_pretrained(tmp_path / "kept")
    back = PalscopeForConditionalGeneration.from_pretrained(tmp_path / "kept")
    assert torch.equal(logits(back), logits(made))


def edited(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})


BIAS = "connector.layer_projectors.frames.layer_2.0.bias"


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(BIAS), f"missing: {BIAS}"),
        (lambda s: s.update(foreign=torch.zeros(2)), "foreign: foreign"),
        (lambda s: s.update({BIAS: torch.zeros(3)}), BIAS),
    ],
    ids=["missing", "foreign", "misshapen"],
)
def test_a_tensor_that_does_not_belong(
    stored: bool, change: Any, message: str, request: pytest.FixtureRequest
) -> None:
    _, folder = request.getfixturevalue("whole" if stored else "light")
    edited(folder, change)
    with pytest.raises(CheckpointError) as raised:
        PalscopeForConditionalGeneration.from_pretrained(folder)
    assert message in str(raised.value) and str(folder) in str(raised.value)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("content", [b"", b"no safetensors at all", None])
def test_damaged_weights(
    stored: bool, content: bytes | None, request: pytest.FixtureRequest
) -> None:
    _, folder = request.getfixturevalue("whole" if stored else "light")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(CheckpointError, match="safetensors"):
        PalscopeForConditionalGeneration.from_pretrained(folder)


def test_a_pickle_is_never_opened(whole: tuple[Any, Path]) -> None:
    _, folder = whole
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*never loaded"):
        PalscopeForConditionalGeneration.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="never loaded"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_folders_that_hold_no_palscope_model(tmp_path: Path, whole: tuple[Any, Path]) -> None:
    _, folder = whole
    load = PalscopeForConditionalGeneration.from_pretrained
    with pytest.raises(CheckpointError, match="no checkpoint 'nowhere'"):
        load("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path / "empty")
    tiny.decoder().save_pretrained(tmp_path / "llama")
    with pytest.raises(CheckpointError, match="'llama' model, not a palscope one"):
        load(tmp_path / "llama")
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(folder)


def test_a_config_whose_parts_are_gone(whole: tuple[Any, Path]) -> None:
    _, folder = whole
    text = (folder / "config.json").read_text()
    for part, error in (("route", CheckpointError), ("encoder", CheckpointError)):
        config = json.loads(text)
        config[part] = None
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(error, match=part):
            PalscopeForConditionalGeneration.from_pretrained(folder)
    config = json.loads(text)
    config["route"]["streams"][0]["levels"][0] = "loud"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RouteError, match="loud"):
        PalscopeForConditionalGeneration.from_pretrained(folder)


def test_a_base_that_is_gone_or_another_one(light: tuple[Any, Path]) -> None:
    _, folder = light
    text = Path(json.loads((folder / "config.json").read_text())["text_base"])
    tiny.decoder(hidden_size=48).save_pretrained(text)
    with pytest.raises(CheckpointError, match="connector"):
        PalscopeForConditionalGeneration.from_pretrained(folder)
    tiny.decoder(num_hidden_layers=6).save_pretrained(text)
    with pytest.raises(RouteError, match="the route has 4 layers, the decoder 6"):
        PalscopeForConditionalGeneration.from_pretrained(folder)
    shutil.rmtree(text)
    with pytest.raises(CheckpointError, match="text"):
        PalscopeForConditionalGeneration.from_pretrained(folder)


def test_an_unsupported_family_is_refused_by_name() -> None:
    donor = tiny.model()
    gpt = GPT2LMHeadModel(GPT2Config(n_layer=4, n_embd=32, n_head=4, vocab_size=89))
    with pytest.raises(CheckpointError, match=r"no decoder family 'gpt2'; expected one of llama"):
        PalscopeForConditionalGeneration.from_parts(
            gpt, donor.encoder, ROUTE, tiny.full_connector(ROUTE), audio_token_id=90
        )


def test_no_folder_of_this_machine_is_written_down_unasked(whole: tuple[Any, Path]) -> None:
    _, folder = whole
    back = PalscopeForConditionalGeneration.from_pretrained(folder)
    back.save_pretrained(folder)
    assert str(folder) not in (folder / "config.json").read_text()
