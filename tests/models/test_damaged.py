"""Checkpoints whose files are damaged, foreign or ask too much: one sentence, at once, or the same.

Each file of tiny saved checkpoints is cut, emptied, replaced or changed: opening it raises a
`PalscopeError` that names the folder, or gives the same logits, within bounds of time and memory.
"""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from palscope._connectors import ConnectorConfig, ProjectorConfig, QFormerConfig
from palscope._models import AUDIO_TOKEN, PalscopeForConditionalGeneration, PalscopeProcessor
from palscope._models.base_weights import load_base, load_tokenizer
from palscope._published.loading import find_model, open_checkpoint
from palscope._routing import Route
from palscope.encoders import load_encoder
from palscope.encoders._weights import save_encoder
from palscope.errors import CheckpointError, PalscopeError
from tests import tiny
from tests.published.contract import save_parts
from tests.published.tiny import qwen2_audio

ROUTE = Route.pal(4, [0, 2])
SECONDS = 20
"""Of this process, for what must be refused at once: some for the modules of a tiny model."""
MEGABYTES = 300


def tokenizer() -> Any:
    words = {f"w{number}": number for number in range(3, tiny.VOCABULARY)}
    words |= {"<pad>": 0, "<s>": 1, "</s>": 2, AUDIO_TOKEN: tiny.AUDIO_ID}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=[AUDIO_TOKEN],
    )
    made.chat_template = "{{ bos_token }}{{ messages[0]['content'] }} w3"
    return made


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints: with their bases, beside them, and a published one; and what was theirs."""
    root = tmp_path_factory.mktemp("saved")
    made = tiny.model(ROUTE)
    made.save_pretrained(root / "whole")
    made.save_pretrained(root / "shards", max_shard_size="20KB")
    made.language_model.save_pretrained(root / "text")
    tokenizer().save_pretrained(root / "text")
    save_encoder(made.encoder, root / "sound")
    light = PalscopeForConditionalGeneration.from_parts(
        load_base(root / "text"),
        load_encoder(root / "sound"),
        ROUTE,
        tiny.full_connector(ROUTE),
        audio_token_id=tiny.AUDIO_ID,
        text_base=str(root / "text"),
        encoder_base=str(root / "sound"),
    )
    light.freeze_bases()
    light.save_pretrained(root / "light")
    processor = PalscopeProcessor.for_grid(
        made.encoder.feature_extractor(), tokenizer(), made.frame_grid, made.streams
    )
    for name in ("whole", "shards", "light"):
        processor.save_pretrained(root / name)
    qwen2_audio.model().save_pretrained(root / "published")
    save_parts(qwen2_audio.processor(), root / "published")
    return {folder.name: folder for folder in root.iterdir()}


@pytest.fixture
def copy(saved: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def made(name: str) -> Path:
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        return shutil.copytree(saved[name], tmp_path / name)

    return made


def opened(folder: Path) -> None:
    open_checkpoint(find_model(folder))


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """No test takes long or much, whatever a file asks for."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - began < 4 * SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


def test_what_is_whole_opens(saved: dict[str, Path]) -> None:
    batch = tiny.batch([[37]])
    logits: list[torch.Tensor] = []
    for name in ("light", "whole", "shards"):
        model, processor = open_checkpoint(find_model(saved[name]))
        assert isinstance(processor, PalscopeProcessor)
        with torch.no_grad():
            logits.append(model.eval()(**batch).logits)
    assert torch.equal(logits[1], logits[2])
    opened(saved["published"])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "last byte": lambda file: file.write_bytes(file.read_bytes()[:-2]),
    "empty": lambda file: file.write_bytes(b""),
    "page": lambda file: file.write_bytes(b"<!DOCTYPE html><html>404</html>"),
    "pointer": lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 9"),
    "list": lambda file: file.write_bytes(b"[1, 2]"),
    "text": lambda file: file.write_bytes(b'"text"'),
    "deep": lambda file: file.write_bytes(b'{"a":' + b"[" * 100_000),
    "binary": lambda file: file.write_bytes(bytes(range(256)) * 4),
    "zeros": lambda file: file.write_bytes(b"\0" * file.stat().st_size),
    "folder": lambda file: (file.unlink(), file.mkdir()),
    "link to nowhere": lambda file: (file.unlink(), file.symlink_to("nowhere")),
    "link to itself": lambda file: (file.unlink(), file.symlink_to(file.name)),
}
READ = (".json", ".safetensors")


@settings(max_examples=45, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), damage=st.sampled_from(sorted(DAMAGES)))
def test_a_damaged_file_is_told(
    saved: dict[str, Path], copy: Callable[[str], Path], data: st.DataObject, damage: str
) -> None:
    name = data.draw(st.sampled_from(["whole", "shards", "light", "published"]))
    files = sorted(each.name for each in saved[name].iterdir() if each.suffix in READ)
    folder = copy(name)
    file = data.draw(st.sampled_from(files))
    DAMAGES[damage](folder / file)
    with pytest.raises(PalscopeError) as raised:
        opened(folder)
    assert str(folder) in str(raised.value) and len(str(raised.value)) < 1500


@pytest.mark.parametrize("damage", ["cut", "empty", "page", "folder"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_bases_that_are_damaged_are_told(
    copy: Callable[[str], Path], file: str, damage: str
) -> None:
    for name, read in (("text", load_base), ("text", load_tokenizer), ("sound", load_encoder)):
        folder = copy(name)
        if not (folder / file).exists():
            continue
        DAMAGES[damage](folder / file)
        with pytest.raises(CheckpointError, match=file.partition(".")[0]):
            read(folder)


def changed(folder: Path, file: str, change: Callable[[Any], object]) -> None:
    settings = json.loads((folder / file).read_text())
    change(settings)
    (folder / file).write_text(json.dumps(settings))


HUGE: list[tuple[str, str, Callable[[Any], object]]] = [
    ("whole", "config.json", lambda c: c["text_config"].update(hidden_size=10**9)),
    ("whole", "config.json", lambda c: c["text_config"].update(hidden_size=64_000)),
    ("whole", "config.json", lambda c: c["text_config"].update(vocab_size=10**7)),
    ("whole", "config.json", lambda c: c["text_config"].update(num_hidden_layers=10**9)),
    ("whole", "config.json", lambda c: c["text_config"].update(num_labels=10**9)),
    ("whole", "config.json", lambda c: c["text_config"].update(intermediate_size=10**8)),
    ("whole", "config.json", lambda c: c["encoder"].update(d_model=10**7)),
    ("whole", "config.json", lambda c: c["encoder"].update(encoder_layers=10**6)),
    ("light", "config.json", lambda c: c["encoder"].update(max_source_positions=10**7)),
    ("light", "config.json", lambda c: c["connector"].update(summary_width=10**7)),
    ("light", "config.json", lambda c: c["connector"]["inputs"]["frames"].update(hidden=10**7)),
    ("light", "config.json", lambda c: c["connector"]["inputs"]["frames"].update(depth=10**9)),
    (
        "light",
        "config.json",
        lambda c: c["connector"].update(
            resampler={"kind": "qformer", "latents": 10**9}, frames_per_token=5
        ),
    ),
    ("text", "config.json", lambda c: c.update(hidden_size=64_000)),
    ("text", "config.json", lambda c: c.update(num_hidden_layers=10**9)),
    ("sound", "config.json", lambda c: c.update(d_model=64_000)),
    ("sound", "config.json", lambda c: c.update(max_source_positions=10**7)),
    ("published", "config.json", lambda c: c["text_config"].update(hidden_size=64_000)),
    ("published", "config.json", lambda c: c["audio_config"].update(encoder_layers=10**7)),
    ("published", "preprocessor_config.json", lambda c: c.update(n_fft=10**9)),
    ("published", "preprocessor_config.json", lambda c: c.update(sampling_rate=0)),
    ("published", "preprocessor_config.json", lambda c: c.update(feature_size=10**8)),
    ("whole", "processor_config.json", lambda c: c["feature_extractor"].update(n_fft=10**9)),
    ("whole", "processor_config.json", lambda c: c["feature_extractor"].update(hop_length=-160)),
    ("whole", "processor_config.json", lambda c: c["feature_extractor"].update(chunk_length=10**9)),
    ("whole", "processor_config.json", lambda c: c["feature_extractor"].update(feature_size="8")),
    ("whole", "processor_config.json", lambda c: c.update(features_per_frame=1e-9)),
    ("whole", "processor_config.json", lambda c: c.update(features_per_frame=float("nan"))),
    ("whole", "processor_config.json", lambda c: c.update(features_per_frame=-10)),
    ("whole", "processor_config.json", lambda c: c.update(features_per_frame=5)),
    ("whole", "processor_config.json", lambda c: c.update(features_per_frame=None)),
    ("whole", "processor_config.json", lambda c: c.update(frames_per_step=10**9)),
    ("whole", "processor_config.json", lambda c: c.update(stream_ratios=[3, 1])),
    ("whole", "processor_config.json", lambda c: c.update(stream_ratios=[1])),
    ("whole", "processor_config.json", lambda c: c.update(stream_ratios=[0, 3])),
    ("whole", "processor_config.json", lambda c: c.update(stream_ratios=[])),
    ("whole", "config.json", lambda c: c.update(audio_token_id=7)),
    ("whole", "config.json", lambda c: c["route"]["streams"].reverse()),
    ("whole", "config.json", lambda c: c["route"]["streams"][1].update(ratio=10**9)),
    ("light", "config.json", lambda c: c.update(text_base=3)),
    ("light", "config.json", lambda c: c.update(encoder_base=None)),
]


@pytest.mark.parametrize(("name", "file", "change"), HUGE)
def test_settings_that_ask_for_what_is_not_there_are_refused_at_once(
    copy: Callable[[str], Path], name: str, file: str, change: Callable[[Any], object]
) -> None:
    folder = copy(name)
    changed(folder, file, change)
    read: Any = {"text": load_base, "sound": load_encoder}.get(name, opened)
    began = time.process_time()
    with pytest.raises(PalscopeError) as raised:
        read(folder)
    assert time.process_time() - began < SECONDS
    assert len(str(raised.value)) < 1500


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    value=st.sampled_from([None, -1, 0, 1.5, 10**9, "x", [], {}, True, float("nan"), 10**30]),
)
def test_any_setting_of_another_type_is_told_or_does_nothing(
    copy: Callable[[str], Path], data: st.DataObject, value: Any
) -> None:
    name, part = data.draw(
        st.sampled_from(
            [
                ("whole", "connector"),
                ("whole", "encoder"),
                ("whole", "text_config"),
                ("whole", "route"),
                ("whole", ""),
                ("light", "connector"),
                ("light", "encoder"),
            ]
        )
    )
    folder = copy(name)
    settings = json.loads((folder / "config.json").read_text())
    inside = settings[part] if part else settings
    # What decides shapes or the layout; a dropout may be anything.
    key = data.draw(st.sampled_from(sorted(inside)))
    inside[key] = value
    (folder / "config.json").write_text(json.dumps(settings))
    try:
        opened(folder)
    except PalscopeError as error:
        assert len(str(error)) < 1500


@pytest.mark.parametrize("name", ["whole", "light", "text", "sound", "published"])
@pytest.mark.parametrize("kind", [torch.int64, torch.int8, torch.float8_e4m3fn, torch.bool])
def test_numbers_of_another_kind_are_no_weights(
    copy: Callable[[str], Path], name: str, kind: torch.dtype
) -> None:
    folder = copy(name)
    state = load_file(folder / "model.safetensors")
    key = next(key for key in sorted(state) if key.endswith("weight"))
    state[key] = state[key].to(kind)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    read: Any = {"text": load_base, "sound": load_encoder}.get(name, opened)
    with pytest.raises(CheckpointError, match="of type"):
        read(folder)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ({"a": "../other/model.safetensors"}, "no file of its folder"),
        ({"a": "/etc/passwd"}, "no file of its folder"),
        ({"a": "gone.safetensors"}, "gone.safetensors, which is missing"),
        ({"a": 3}, "3, which is missing"),
        ({}, "weight_map is {}"),
        ([], "weight_map is"),
    ],
)
def test_an_index_names_files_of_its_folder(
    copy: Callable[[str], Path], places: Any, told: str
) -> None:
    folder = copy("shards")
    changed(folder, "model.safetensors.index.json", lambda index: index.update(weight_map=places))
    with pytest.raises(CheckpointError, match=told):
        opened(folder)


def test_a_tokenizer_without_words_and_one_of_another_model(copy: Callable[[str], Path]) -> None:
    folder = copy("whole")
    changed(folder, "tokenizer.json", lambda read: read["model"].update(vocab={}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has no vocabulary"):
        opened(folder)
    folder = copy("whole")
    words = {f"w{number}": number for number in range(3, 120)}
    changed(folder, "tokenizer.json", lambda read: read["model"]["vocab"].update(words))
    with pytest.raises(CheckpointError, match="tokens up to 119, the decoder embeds 89"):
        opened(folder)


def test_a_base_that_lacks_a_tensor_is_not_filled_with_random_numbers(
    copy: Callable[[str], Path],
) -> None:
    folder = copy("text")
    state = load_file(folder / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks tensors.*layers\.1\.mlp\.up_proj"):
        load_base(folder)


def test_the_order_of_a_routes_rows_moves_no_token(copy: Callable[[str], Path]) -> None:
    made = tiny.model(ROUTE)
    batch = tiny.batch([[37], [52, 30]])
    with torch.no_grad():
        before = made(**batch).logits
        with made.routed(Route(4, ROUTE.rows[::-1])):
            assert torch.equal(made(**batch).logits, before)
    # In a checkpoint's config it would: the order is that of the tokens in prompts.
    folder = copy("whole")
    changed(folder, "config.json", lambda config: config["route"]["streams"].reverse())
    with pytest.raises(CheckpointError, match=r"ratios \[1, 3\], the route \[3, 1\]"):
        PalscopeForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"resampler": QFormerConfig(latents=10**9)}, "latents is 1000000000"),
        ({"inputs": ProjectorConfig(depth=10**9)}, "depth is 1000000000"),
        ({"inputs": ProjectorConfig(hidden=10**7, depth=9)}, "does not fit|would have"),
        ({"summary_width": 10**10}, "summary_width is 10000000000"),
    ],
)
def test_a_new_connector_that_asks_too_much(changes: dict[str, Any], told: str) -> None:
    made = tiny.model(ROUTE)
    with pytest.raises(CheckpointError, match=told):
        PalscopeForConditionalGeneration.from_parts(
            made.language_model,
            made.encoder,
            ROUTE,
            ConnectorConfig.for_route(ROUTE, **changes),
            audio_token_id=tiny.AUDIO_ID,
        )
