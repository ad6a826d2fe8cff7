"""Published models fetched from a hub: revisions, folders inside, caches filled in part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, snapshot_download

import palscope
from palscope import _hub as client
from palscope._models import PalscopeForConditionalGeneration, PalscopeProcessor, finding
from palscope._models.chat_format import PROMPT_DATE
from palscope._models.finding import Checkpoint, with_revision
from palscope._published import adapters
from palscope._published.loading import find_model, fingerprint, open_checkpoint
from palscope._routing import Route
from palscope._sweeps.record import run_record, weights_hashes
from palscope.errors import CheckpointError
from tests import tiny
from tests.dashboards.conftest import saved
from tests.fake_hub import FakeHub, serving
from tests.published.contract import noise
from tests.published.folders.build import about, hub_folder
from tests.published.tiny import qwen2_audio

QWEN2, PHI4 = about("qwen2_audio")["repository"], about("phi4_multimodal")["repository"]
Served = Callable[[dict[str, dict[str, Path]]], FakeHub]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A hub of these repositories, and an empty cache."""
    open_hubs: list[Any] = []

    def start(repositories: dict[str, dict[str, Path]]) -> FakeHub:
        open_hubs.append(serving(tmp_path / "cache", monkeypatch, repositories))
        return open_hubs[-1].__enter__()

    yield start
    for each in open_hubs:
        each.__exit__(None, None, None)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = hub_folder("qwen2_audio", tmp_path_factory.mktemp("qwen2"))
    (made / "README.md").write_text("not fetched", "utf-8")
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_folder("qwen2_audio", tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def phi4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_folder("phi4_multimodal", tmp_path_factory.mktemp("phi4"))


@pytest.fixture(scope="module")
def phi4_main(phi4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main branch: files of the same names, of the class that came with them."""
    made = shutil.copytree(phi4, tmp_path_factory.mktemp("main") / "phi4")
    config = about("phi4_multimodal")["main"]
    (made / "config.json").write_text(json.dumps(config), "utf-8")
    return made


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    client.hub_reachable.cache_clear()


def cached() -> list[str]:
    """Names of the files in the cache."""
    folder = Path(constants.HF_HUB_CACHE)
    return [file.name for file in folder.rglob("snapshots/*/**/*") if not file.is_dir()]


# -- revisions ------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_revision_is_other_weights_in_memory_and_in_records(
    serve: Served, qwen2: Path, other: Path
) -> None:
    serve({QWEN2: {"main": qwen2, "v2": other}})
    opened = {
        "main": palscope.load(QWEN2),
        "v2": palscope.load(QWEN2, revision="v2"),
        "named": palscope.load(f"{QWEN2}@v2"),
    }
    inputs = opened["main"].inputs("what?", noise(0.5))
    logits = {name: model(inputs) for name, model in opened.items()}
    assert torch.equal(logits["v2"], palscope.load(other)(inputs))
    assert torch.equal(logits["v2"], logits["named"])
    assert not torch.allclose(logits["v2"], logits["main"])
    first, second = (weights_hashes(opened[name]) for name in ("main", "v2"))
    known = {folder: fingerprint(find_model(folder)) for folder in (qwen2, other)}
    assert first["checkpoint"]["sha256"] == known[qwen2] != known[other]
    assert second["checkpoint"]["sha256"] == known[other]
    assert first["checkpoint"]["name"] == QWEN2 and second["checkpoint"]["name"] == f"{QWEN2}@v2"
    assert first["checkpoint"]["commit"] != second["checkpoint"]["commit"]
    record = run_record(opened["v2"], config={}, weights=second, seed=0)
    assert record["prompt"] == {"system": None, "date": None}
    assert record["generation_set_aside"]["repetition_penalty"] == 1.1


def test_a_revision_that_is_not_there_is_told(serve: Served, qwen2: Path, tmp_path: Path) -> None:
    serve({QWEN2: {"main": qwen2}})
    with pytest.raises(CheckpointError, match="RevisionNotFound"):
        palscope.load(QWEN2, revision="v9")
    found = Checkpoint(QWEN2, tmp_path)
    for name in (str(tmp_path), f"{QWEN2}@v2", "demo/pal", "nothing", found):
        with pytest.raises(CheckpointError, match="only a repository of the hub has revisions"):
            with_revision(name, "v1")


@pytest.mark.parametrize(
    "keywords", [{"token": "secret"}, {"cache_dir": "."}, {"subfolder": "x"}, {"nonsense": 1}]
)
def test_a_keyword_that_would_do_nothing_is_an_error(qwen2: Path, keywords: Any) -> None:
    with pytest.raises(CheckpointError, match=next(iter(keywords))):
        palscope.load(qwen2, **keywords)


@pytest.mark.parametrize("keywords", [{"dtype": torch.float16}, {"revision": "v2"}, {"x": 1}])
def test_what_cannot_apply_to_a_loaded_model_is_an_error(keywords: Any) -> None:
    with pytest.raises(CheckpointError, match="would do nothing: the model is loaded already"):
        palscope.load(qwen2_audio.model(), processor=qwen2_audio.processor(), **keywords)


def test_a_processor_beside_a_folder_is_an_error(qwen2: Path) -> None:
    with pytest.raises(CheckpointError, match="processor would do nothing"):
        palscope.load(qwen2, processor=qwen2_audio.processor())


# -- before weights -------------------------------------------------------------------------------


def test_a_class_that_cannot_be_opened_costs_no_weights(serve: Served, phi4_main: Path) -> None:
    serve({PHI4: {"main": phi4_main}})
    with pytest.raises(CheckpointError, match="revision='refs/pr/70'"):
        palscope.load(PHI4)
    assert "config.json" in cached()
    assert not [name for name in cached() if name.endswith(".safetensors")]


def test_a_package_that_is_missing_costs_no_weights(
    serve: Served, phi4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve({PHI4: {"main": phi4}})
    monkeypatch.setattr(adapters, "is_peft_available", lambda: False)
    with pytest.raises(CheckpointError, match="peft is needed"):
        find_model(PHI4)
    assert not [name for name in cached() if name.endswith(".safetensors")]


def test_a_template_that_loses_the_clip_costs_no_weights(
    serve: Served, qwen2: Path, tmp_path: Path
) -> None:
    deaf = shutil.copytree(qwen2, tmp_path / "deaf")
    (deaf / "chat_template.jinja").write_text("{{ messages[-1]['role'] }}", "utf-8")
    serve({QWEN2: {"main": deaf}})
    with pytest.raises(CheckpointError, match=r"writes 0 time\(s\)"):
        palscope.load(QWEN2)
    assert not [name for name in cached() if name.endswith(".safetensors")]


# -- folders inside -------------------------------------------------------------------------------


def test_the_adapter_s_folder_is_fetched_and_no_other(serve: Served, phi4: Path) -> None:
    served = serve({PHI4: {"refs/pr/70": phi4}})
    hooked: Any = palscope.load(PHI4, revision="refs/pr/70")
    assert set(hooked.model.published.peft_config) == {"speech"}
    assert "speech-lora/adapter_model.safetensors" in served.fetched
    assert not [path for path in served.fetched if path.startswith("vision-lora")]
    found = find_model(f"{PHI4}@refs/pr/70")
    folder, before = found.folder, fingerprint(found)
    (folder / "speech-lora" / "adapter_model.safetensors").unlink()
    assert fingerprint(found) != before  # the adapter is of the weights
    served.fetched.clear()
    assert find_model(f"{PHI4}@refs/pr/70") == found
    assert (folder / "speech-lora" / "adapter_model.safetensors").is_file()


# -- caches filled in part ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "had",
    [
        ["config.json"],
        ["*.safetensors"],
        ["*00001-of-*", "*.json"],
        ["*.index.json"],
    ],
)
def test_what_the_cache_lacks_is_fetched(serve: Served, qwen2: Path, had: list[str]) -> None:
    served = serve({QWEN2: {"main": qwen2}})
    snapshot_download(QWEN2, allow_patterns=had)
    before = set(cached())
    served.fetched.clear()
    folder = find_model(QWEN2).folder
    assert before and not before & set(served.fetched)
    wanted = {file.name for file in qwen2.iterdir()} - {"README.md"}
    assert {file.name for file in folder.iterdir()} == wanted


def test_a_transfer_that_breaks_off_goes_on(serve: Served, qwen2: Path) -> None:
    served = serve({QWEN2: {"main": qwen2}})
    shard = sorted(file.name for file in qwen2.glob("*.safetensors"))[1]
    served.gone.add(shard)
    with pytest.raises(CheckpointError, match=r"could not be fetched.*Ask again to go on"):
        find_model(QWEN2)
    served.gone.clear()
    served.fetched.clear()
    folder = find_model(QWEN2).folder
    assert served.fetched == [shard]
    assert (folder / shard).read_bytes() == (qwen2 / shard).read_bytes()


def test_a_whole_cache_asks_nobody(
    serve: Served, qwen2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the repository has files that are never fetched."""
    served = serve({QWEN2: {"main": qwen2}})
    found = find_model(QWEN2)
    served.fetched.clear()
    offline(monkeypatch)
    assert find_model(QWEN2) == found and not served.fetched
    assert isinstance(palscope.load(QWEN2).ask("what?", noise(0.3), max_new_tokens=1), str)


def test_a_checkpoint_is_looked_up_once(
    serve: Served, qwen2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, recorded, and opened without hooks by what was found."""
    serve({QWEN2: {"main": qwen2}})
    find_model(QWEN2)
    asked: list[str] = []
    look = finding.cached_snapshot

    def counted(name: str) -> Path | None:
        asked.append(name)
        return look(name)

    monkeypatch.setattr(finding, "cached_snapshot", counted)
    hooked = palscope.load(QWEN2)
    weights_hashes(hooked)
    assert hooked.checkpoint is not None
    open_checkpoint(hooked.checkpoint)
    assert asked == [QWEN2]


def test_weights_that_no_file_tells_are_not_recorded() -> None:
    hooked = palscope.load(qwen2_audio.model(), processor=qwen2_audio.processor())
    with pytest.raises(CheckpointError, match=r"wrapped from memory.*palscope\.load\(FOLDER\)"):
        weights_hashes(hooked)


def test_a_part_without_a_hub_says_what_it_lacks(
    serve: Served, qwen2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve({QWEN2: {"main": qwen2}})
    snapshot_download(QWEN2, allow_patterns=["config.json", "*00001-of-*"])
    offline(monkeypatch)
    with pytest.raises(CheckpointError, match="lacks a tokenizer, a processor's settings, weights"):
        palscope.load(QWEN2)


# -- palscope's own -------------------------------------------------------------------------------


@torch.no_grad()
def test_palscope_s_own_checkpoints_come_from_a_hub_likewise(
    serve: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: saved(Route.pal(tiny.LAYERS), tmp_path / name) for name in ("main", "v2")}
    config = json.loads((folders["v2"] / "processor_config.json").read_text("utf-8"))
    config["system"] = "hm"
    (folders["v2"] / "processor_config.json").write_text(json.dumps(config), "utf-8")
    served = serve({"me/pal": folders})
    snapshot_download("me/pal", revision="v2", allow_patterns=["config.json"])
    hooked = palscope.load("me/pal", revision="v2")
    assert hooked.processor.system == "hm" and hooked.processor.date == PROMPT_DATE
    served.fetched.clear()
    offline(monkeypatch)
    model = PalscopeForConditionalGeneration.from_pretrained("me/pal", revision="v2")
    assert PalscopeProcessor.from_pretrained("me/pal@v2").system == "hm"
    inputs = hooked.inputs("what?", noise(1.0))
    torch.testing.assert_close(model(**inputs).logits, hooked(inputs), atol=1e-5, rtol=0)
    assert not served.fetched
    with pytest.raises(CheckpointError, match="'me/pal': give a folder"):
        palscope.load("me/pal")
