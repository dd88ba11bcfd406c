"""A hub on loopback: one repository, one file, as huggingface-hub asks for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

REPOSITORY = "someone/Backbones"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the stub serves, and every path that was asked for."""

    file_name: str
    data: bytes
    licence: str | None = "mit"
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def hub_on_loopback(file_name: str, data: bytes, licence: str | None = "mit") -> Iterator[Hub]:
    """Serve ``data`` as ``file_name`` of REPOSITORY until the block ends."""
    hub = Hub(file_name, data, licence)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if path == f"/api/models/{REPOSITORY}/revision/main":
                body = json.dumps(_info(hub)).encode()
                self._send(200, body, {"Content-Type": "application/json"}, with_body=with_body)
            elif path == f"/{REPOSITORY}/resolve/{COMMIT}/{hub.file_name}":
                etag = hashlib.sha1(hub.data, usedforsecurity=False).hexdigest()
                headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
                self._send(200, hub.data, headers, with_body=with_body)
            else:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)

        def _send(
            self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *values: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _info(hub: Hub) -> dict[str, object]:
    card = {"license": hub.licence} if hub.licence else {}
    return {
        "id": REPOSITORY,
        "sha": COMMIT,
        "siblings": [{"rfilename": hub.file_name, "size": len(hub.data)}],
        "cardData": card,
    }
