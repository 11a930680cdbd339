"""A hub of models on 127.0.0.1: as much of its HTTP interface as fetching a model takes."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_REVISION = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_RANGE = re.compile(r"bytes=(?P<start>\d+)-")


@dataclass
class Repository:
    """The files of one repository at one commit.

    Args:
        commit: Its commit, 40 hexadecimal digits.
        files: Content by path.
        branch: The branch that ends at the commit.
    """

    commit: str
    files: dict[str, bytes]
    branch: str = "main"

    def sibling(self, name: str) -> dict[str, Any]:
        """What the API says about a file: large ones (here: .safetensors, .pth) are LFS files."""
        content = self.files[name]
        about: dict[str, Any] = {
            "rfilename": name,
            "size": len(content),
            "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        }
        if name.endswith((".safetensors", ".pth")):
            digest = hashlib.sha256(content).hexdigest()
            about["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 134}
        return about


@dataclass
class HubServer:
    """The server's state, to be looked at and changed by tests.

    Args:
        endpoint: Its base address.
        repositories: What it serves, by `owner/name`.
        requests: (path, first byte asked for) of every file requested, in order.
        sent: Bytes of content sent, by path of the file.
        asked: Number of requests of any kind.
        drop_after: Bytes of a file after which the connection is closed, by path; used up once.
        broken: Whether every file request is answered by 503.
        broken_after_drop: Whether it is so once a connection was dropped.
        seconds_a_block: Pause after every 16 kB, to be slow.
        tampered: Content sent instead of the true one, by path.
        ignores_ranges: Whether a Range is answered by the whole file.
    """

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    drop_after: dict[str, int] = field(default_factory=dict)
    broken: bool = False
    broken_after_drop: bool = False
    seconds_a_block: float = 0.0
    tampered: dict[str, bytes] = field(default_factory=dict)
    ignores_ranges: bool = False


class Handler(BaseHTTPRequestHandler):
    """Answers one connection from the state of its server."""

    protocol_version = "HTTP/1.1"
    state: HubServer

    def log_message(self, format: str, *arguments: object) -> None:
        return

    def do_GET(self) -> None:
        self.state.asked += 1
        if match := _REVISION.match(self.path):
            self._answer_revision(match["repo"], match["revision"])
        elif match := _RESOLVE.match(self.path):
            self._answer_file(match["repo"], match["revision"], match["name"])
        else:
            self._refuse(404, "EntryNotFound")

    def _answer_revision(self, repo: str, revision: str) -> None:
        repository = self.state.repositories.get(repo)
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        if revision not in (repository.commit, repository.branch):
            return self._refuse(404, "RevisionNotFound")
        body = json.dumps(
            {
                "_id": "0",
                "id": repo,
                "sha": repository.commit,
                "siblings": [repository.sibling(name) for name in repository.files],
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer_file(self, repo: str, revision: str, name: str) -> None:
        repository = self.state.repositories[repo]
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        start = int(match["start"]) if match else 0
        self.state.requests.append((name, start))
        if self.state.broken or revision != repository.commit:
            return self._refuse(503 if self.state.broken else 404, "EntryNotFound")
        content = self.state.tampered.get(name, repository.files[name])
        partial = match is not None and not self.state.ignores_ranges
        body = content[start:] if partial else content
        self.send_response(206 if partial else 200)
        about = repository.sibling(name)
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{about.get("lfs", {}).get("sha256", about["blobId"])}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if partial:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.end_headers()
        self._send_body(name, body)

    def _send_body(self, name: str, body: bytes) -> None:
        limit = self.state.drop_after.pop(name, None)
        for offset in range(0, len(body), 1 << 14):
            block = body[offset : offset + (1 << 14)]
            if limit is not None and offset + len(block) > limit:
                block = block[: limit - offset]
            try:
                self.wfile.write(block)
                self.wfile.flush()
            except OSError:
                return  # The other side left.
            self.state.sent[name] = self.state.sent.get(name, 0) + len(block)
            if limit is not None and offset + len(block) >= limit:
                self.state.broken = self.state.broken_after_drop
                self.close_connection = True
                self.connection.close()
                return
            time.sleep(self.state.seconds_a_block)

    def _refuse(self, code: int, reason: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Serve until the context ends."""
    state = HubServer()

    handler = type("BoundHandler", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
