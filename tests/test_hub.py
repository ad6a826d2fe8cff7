"""A hub that answers, one that is silent, and one that is not there."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from palscope import _hub as hub
from palscope.errors import CheckpointError


@pytest.fixture(autouse=True)
def _probe_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The answer is kept for a process: forget it before and after, and allow the network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.hub_reachable.cache_clear()
    yield
    hub.hub_reachable.cache_clear()


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server on this machine that answers, and has no repository."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_that_answers_is_reachable(empty_hub: str) -> None:
    assert hub.hub_reachable()


def test_offline_mode_asks_nobody(empty_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.hub_reachable()


def test_a_hub_that_is_not_there_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert not hub.hub_reachable()


def test_a_silent_hub_costs_no_more_than_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never answers
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        assert not hub.hub_reachable()
        assert time.perf_counter() - start < 2
        assert not hub.hub_reachable()


def test_a_repository_that_does_not_exist_is_named(empty_hub: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"'org/none' could not be fetched from the hub \(Repo"
    ):
        hub.download_snapshot("org/none")


def test_nothing_is_cached_of_an_unknown_repository(empty_hub: str) -> None:
    assert hub.cached_snapshot("org/none") is None
    assert hub.cached_snapshot("no id // at all") is None
