"""`--upload`: the files of a conversion arrive on a Hub, byte for byte.

The Hub is a server on the loopback interface that takes what huggingface_hub sends: git-lfs objects for the weights and
a commit for the rest. The real Hub's own chunk store (xet) is not imitated; it is switched off here.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from command_line import COMMAND, checkpoint, environment, only_line


class UploadServer(ThreadingHTTPServer):
    """A Hub with one user, `me`. `files` is what was committed; with `refuses` the token may not write."""

    daemon_threads = True

    def __init__(self, refuses: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuses = refuses
        self.objects: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: UploadServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        answers = {"/api/whoami-v2": {"name": "me", "type": "user"}, "/api/models/me": {"id": "me", "sha": "0" * 40}}
        self._send(next(answer for path, answer in answers.items() if self.path.startswith(path)))

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self._body()
        self._send({})

    def do_POST(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            return self._send({"url": f"{self.server.url}/me/mine", "id": "me/mine"})
        if path == "/api/validate-yaml":
            return self._send({"warnings": [], "errors": []})
        if self.server.refuses:
            return self._send({"error": "this token may only read"}, 403)
        if "/preupload/" in path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            return self._send({"files": modes})
        if path.endswith("/objects/batch"):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.server.url}/lfs/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            return self._send({"transfer": "basic", "objects": objects})
        assert "/commit/" in path, path
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
        commit = "1" * 40
        return self._send(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/me/mine/commit/{commit}"}
        )

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, answer: object, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def running_server(refuses: bool = False) -> Iterator[UploadServer]:
    server = UploadServer(refuses)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def upload(server: UploadServer, target: Path) -> subprocess.CompletedProcess[str]:
    settings = {
        **environment(),
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": "hf_anything",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [*COMMAND, "convert", str(checkpoint()), str(target), "--upload", "me/mine"]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=60)


def test_every_file_arrives_as_it_was_written(tmp_path: Path) -> None:
    with running_server() as server:
        done = upload(server, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "out")]
    assert "uploaded to me/mine" in done.stderr.splitlines()
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {name: server.files.get(name) for name in written} == written


def test_a_hub_that_refuses_is_one_line_and_the_work_is_kept(tmp_path: Path) -> None:
    with running_server(refuses=True) as server:
        done = upload(server, tmp_path / "out")
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert "refused access to me/mine (403)" in line
    assert f"`hf upload me/mine {tmp_path / 'out'}` sends it" in line
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize("repository", ["not an id", "mine"])
def test_a_repository_that_cannot_be_is_told_before_any_work(repository: str, tmp_path: Path) -> None:
    command = [*COMMAND, "convert", str(checkpoint()), str(tmp_path / "out"), "--upload", repository]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not a Hub id" in only_line(done.stderr)
    assert list(tmp_path.iterdir()) == []
