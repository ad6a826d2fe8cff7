"""Tiny checkpoints that the pages can open, and the pages run by Streamlit's AppTest."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from transformers import WhisperFeatureExtractor

from palscope._connectors import ConnectorConfig
from palscope._models import PalscopeProcessor
from palscope._routing import Route
from tests import tiny, vocabulary

DASHBOARDS = Path(__file__).resolve().parents[2] / "dashboards"
OTHER = "another …"


def saved(route: Route, folder: Path, connector: ConnectorConfig | None = None) -> Path:
    """A tiny checkpoint; with every projector unless it is given a connector."""
    tokenizer = vocabulary.tokenizer()
    ratios = [stream.ratio for stream in route.streams]
    processor = PalscopeProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer, 10, ratios)
    model = tiny.model(route, connector=connector, vocab_size=vocabulary.COUNT)
    model.config.audio_token_id = processor.audio_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Route.pal(tiny.LAYERS), tmp_path_factory.mktemp("pal"))


@pytest.fixture(scope="session")
def plits_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Route.plits(tiny.LAYERS), tmp_path_factory.mktemp("plits"))


@pytest.fixture(scope="session", autouse=True)
def packages_looked_through_once() -> Generator[None]:
    """Each `AppTest` looks for components in all that is installed: a fifth of a page's time."""
    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture(autouse=True)
def as_streamlit_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DASHBOARDS))
    monkeypatch.setattr("sys.argv", ["attention.py"])  # not pytest's own words


def new_page() -> AppTest:
    """The attention page, which the script opens with."""
    return AppTest.from_file(str(DASHBOARDS / "attention.py"), default_timeout=600)


@pytest.fixture
def page() -> AppTest:
    return new_page()


@pytest.fixture
def open_page(checkpoint: Path) -> Callable[..., AppTest]:
    """A page with the tiny checkpoint open and these parameters in its address."""

    def opened(page: AppTest | None = None, folder: Path = checkpoint, **address: str) -> AppTest:
        page = page or new_page()
        page.query_params["model"] = OTHER
        page.query_params["model-folder"] = str(folder)
        for name, value in address.items():
            page.query_params[name] = value
        return page.run()

    return opened


def quiet(page: AppTest) -> None:
    assert [e.value for e in page.error] == []
    assert [e.value for e in page.exception] == []


def metrics(page: AppTest) -> dict[str, str]:
    return {m.label: m.value for m in page.metric}


def figures(page: AppTest) -> list[Any]:
    """The page's plotly figures, from top to bottom."""
    return [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]


def captions(page: AppTest) -> list[str]:
    return [c.value for c in page.caption]
