"""A real HTTP proxy on loopback that lets requests through, or answers as a failing server does."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Refusal = Callable[[str, str], int | None]
"""Given method and address, the status to answer with; none lets the request through."""


@dataclass
class Proxy:
    """What runs, and what it has refused."""

    port: int
    refused: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def proxy_to(port: int, refuse: Refusal) -> Iterator[Proxy]:
    """Forward to a server on loopback; `refuse` decides, one request after the other."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self._body()
            with lock:
                status = refuse(self.command, self.path)
                if status is not None:
                    found.refused.append((self.command, self.path))
            if status is not None:
                return self._answer(status, [], b"")
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("transfer-encoding", "content-length", "expect")
            }
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            self._answer(answer.status, answer.getheaders(), content)
            upstream.close()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # what stands behind the last chunk
            return b"".join(chunks)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                is_length = name.lower() == "content-length" and self.command == "HEAD"
                hop = name.lower() in ("content-length", "transfer-encoding", "connection")
                if is_length or not hop:
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client was killed
    found = Proxy(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
