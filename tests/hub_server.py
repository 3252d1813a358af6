"""A Hub on the loopback interface: the part of the Hugging Face Hub's HTTP API that fetching a checkpoint needs.

Serves folders as model repositories: model info, the list of files, and files with the headers that
huggingface_hub reads. It counts what is asked of it and can refuse, in the ways the real Hub refuses.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gemma4_mlx.checkpoint.builtin import FOLDER


@dataclass
class Repository:
    """One model on the server.

    Attributes:
        folder: its files, sub-folders included.
        gated: file requests are refused with 403 GatedRepo, as for a licence not yet accepted.
        breaks: file name → bytes after which its first download is cut; every later one is answered 503.
        hangs: name of a file whose download stops half-way and stays open until the server ends.
        branch: the one branch it has besides its commit.
        claims: file name → how large it is said to be.
    """

    folder: Path
    gated: bool = False
    breaks: dict[str, int] = field(default_factory=dict)
    hangs: str | None = None
    branch: str = "main"
    claims: dict[str, int] = field(default_factory=dict)

    def files(self) -> dict[str, Path]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}

    def config(self) -> dict[str, object]:
        """What the real Hub tells of config.json."""
        try:
            raw = json.loads((self.folder / "config.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {key: raw[key] for key in ("architectures", "model_type") if key in raw}

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, path in self.files().items():
            digest.update(name.encode() + path.read_bytes())
        return digest.hexdigest()


class HubServer(ThreadingHTTPServer):
    """`repositories` may be changed while it runs; `downloads` and `requests` count what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.downloads: Counter[str] = Counter()
        self.requests: list[str] = []
        self.ending = threading.Event()
        self.status = 200
        """Anything else: every request is answered with it."""
        self.body: bytes | None = None
        """If set: every request is answered with it, as a network's log-in page would be."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running_demo_hub(*repo_ids: str) -> Iterator[HubServer]:
    """A Hub on which every one of these is the built-in model."""
    with running_hub() as server:
        server.repositories |= {repo_id: Repository(FOLDER) for repo_id in repo_ids}
        yield server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        quoted = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {unquote(quoted)}")
        if self.server.body is not None:
            return self._send(200, self.server.body)
        if self.server.status != 200:
            return self._send(self.server.status, b"")
        parts = [unquote(part) for part in quoted.strip("/").split("/")]  # a branch's name may have a "/"
        api = parts[:2] == ["api", "models"]
        if api:
            parts = parts[2:]
        repo_id, rest = "/".join(parts[:2]), parts[2:]
        repository = self.server.repositories.get(repo_id)
        if repository is None:
            # What the real Hub answers to whoever is not logged in, for a missing model as for a private one.
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        commit = repository.commit
        if rest and rest[1] not in (commit, repository.branch):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"})
        if api:
            return self._answer_api(repo_id, repository, rest)
        return self._answer_file(repository, "/".join(rest[2:]))

    def _answer_api(self, repo_id: str, repository: Repository, rest: list[str]) -> None:
        files = repository.files()
        answer: object = {
            "id": repo_id,
            "sha": repository.commit,
            "config": repository.config(),
            "siblings": [{"rfilename": name} for name in files],
        }
        if rest[:1] == ["tree"]:
            answer = [
                {
                    "type": "file",
                    "path": name,
                    "size": repository.claims.get(name, path.stat().st_size),
                    "oid": _etag(path),
                }
                for name, path in files.items()
            ]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _answer_file(self, repository: Repository, name: str) -> None:
        if repository.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "licence not accepted"})
        path = repository.files().get(name)
        if path is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})
        content = path.read_bytes()
        size = str(repository.claims.get(name, len(content)))
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{_etag(path)}"', "X-Linked-Size": size}
        if self.command == "HEAD":
            return self._send(200, content, headers)
        self.server.downloads[name] += 1
        breaks = repository.breaks.get(name)
        if breaks is not None and self.server.downloads[name] > 1:
            return self._send(503, b"")
        start = 0
        if (wanted := self.headers.get("Range")) is not None:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if name == repository.hangs:
            self._send(200, content, headers, cut=len(content) // 2)
            self.server.ending.wait()
            return None
        return self._send(206 if start else 200, content[start:], headers, cut=breaks)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
