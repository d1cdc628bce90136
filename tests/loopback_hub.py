"""A server in the Hugging Face hub's shape, on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

GATED = "org/gated"


class LoopbackHub:
    """Repositories by name, each with its revisions: {"org/repo": {"main": directory}}."""

    def __init__(self, repositories: dict[str, dict[str, Path]]) -> None:
        self.repositories = repositories
        self.fetched: list[str] = []

    def commit(self, repository: str, revision: str) -> str:
        """A made-up commit hash; a commit names itself."""
        hashes = {name: _sha1(f"{repository}@{name}") for name in self.repositories[repository]}
        return revision if revision in hashes.values() else hashes[revision]

    def folder(self, repository: str, revision: str) -> Path:
        for name, path in self.repositories[repository].items():
            if revision in (name, _sha1(f"{repository}@{name}")):
                return path
        raise KeyError(revision)


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


@contextmanager
def serve(hub: LoopbackHub) -> Iterator[str]:
    """The endpoint of a running hub."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository, rest = "/".join(parts[2:4]), parts[4:]
            revision = rest[1] if len(rest) > 1 else "main"
        else:
            repository, rest = "/".join(parts[:2]), parts[2:]
            revision = rest[1]
        if repository == GATED:
            return self._error(403, "GatedRepo")
        if repository not in self.hub.repositories:
            return self._error(404, "RepoNotFound")
        try:
            folder = self.hub.folder(repository, revision)
        except KeyError:
            return self._error(404, "RevisionNotFound")
        if rest[:1] == ["resolve"]:
            return self._file(folder / "/".join(rest[2:]), self.hub.commit(repository, revision))
        if rest[:1] == ["tree"]:
            return self._json([_entry(path) for path in sorted(folder.iterdir())])
        self._json(
            {
                "id": repository,
                "sha": self.hub.commit(repository, revision),
                "private": False,
                "siblings": [{"rfilename": path.name} for path in folder.iterdir()],
            }
        )

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, path: Path, commit: str) -> None:
        if not path.is_file():
            return self._error(404, "EntryNotFound")
        if self.command == "GET":
            self.hub.fetched.append(path.name)
        etag = f'"{_sha1(path.name + commit)}"'
        self._send(path.read_bytes(), {"ETag": etag, "X-Repo-Commit": commit})

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _entry(path: Path) -> dict[str, object]:
    return {
        "type": "file",
        "path": path.name,
        "size": path.stat().st_size,
        "oid": _sha1(path.name),
    }
