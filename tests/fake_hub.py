"""A model hub on this machine: what the hub's client asks of it, over folders of the test's."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants, hf_api

from palscope import _hub as hub


@dataclass
class FakeHub:
    """Repositories by id: by revision, the folder that it holds.

    Attributes:
        fetched: paths of the files whose content was asked for, in order.
        gone: paths of files that are not to be had for now.
    """

    repositories: dict[str, dict[str, Path]] = field(default_factory=dict[str, Any])
    fetched: list[str] = field(default_factory=list[str])
    gone: set[str] = field(default_factory=set[str])

    def commit(self, repository: str, revision: str) -> tuple[str, Path] | None:
        """The commit that a revision, or a commit, names, and its folder."""
        known = self.repositories.get(repository, {})
        for name, folder in known.items():
            number = hashlib.sha1(f"{repository} {folder}".encode()).hexdigest()
            if revision in (name, number):
                return number, folder
        return None


@contextmanager
def serving(
    cache: Path, monkeypatch: pytest.MonkeyPatch, repositories: dict[str, dict[str, Path]]
) -> Generator[FakeHub, None, None]:
    """Within, the hub's client asks a hub of these repositories, with an empty `cache`."""
    made = FakeHub(repositories)

    class Handler(_Handler):
        hub = made

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", address)
        url = address + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(hf_api.api, "endpoint", address)
        hub.hub_reachable.cache_clear()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            hub.hub_reachable.cache_clear()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            self._tell("/".join(parts[2:4]), parts[4:])
        elif parts[2:3] == ["resolve"]:
            self._send("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        else:
            self._refuse("RepoNotFound")

    def _tell(self, repository: str, rest: list[str]) -> None:
        """Of a repository: its commit, or its files."""
        found = self.hub.commit(repository, rest[1] if len(rest) > 1 else "main")
        if found is None:
            known = repository in self.hub.repositories
            self._refuse("RevisionNotFound" if known else "RepoNotFound")
            return
        number, folder = found
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [file.relative_to(folder).as_posix() for file in files]
        told: Any = {"id": repository, "sha": number, "siblings": [{"rfilename": n} for n in names]}
        if rest[:1] == ["tree"]:
            told = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": _etag(file)}
                for name, file in zip(names, files, strict=True)
            ]
        content = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send(self, repository: str, revision: str, path: str, body: bool) -> None:
        found = self.hub.commit(repository, revision)
        if found is None:
            known = repository in self.hub.repositories
            self._refuse("RevisionNotFound" if known else "RepoNotFound")
            return
        number, folder = found
        if path in self.hub.gone or not (folder / path).is_file():
            self._refuse("EntryNotFound", number)
            return
        content = (folder / path).read_bytes()
        first, last = 0, len(content) - 1
        if asked := self.headers.get("Range"):
            begin, end = asked.removeprefix("bytes=").split("-")
            first, last = int(begin), min(int(end or last), last)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("X-Repo-Commit", number)
        self.send_header("ETag", f'"{_etag(folder / path)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if not body:
            return
        self.hub.fetched.append(path)
        self.wfile.write(content[first : last + 1])

    def _refuse(self, code: str, commit: str | None = None) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
