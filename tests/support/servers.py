"""Small real HTTP servers that do as a test says: faults, and SGLang's documented contract.

    python -m support.servers PORT MODEL_PATH [--delay-s S] [--busy-every K] [--count FILE]

runs a reward server like SGLang's in a process of its own, which can be killed and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    number: int
    """Among the POST requests, from 1; 0 for a GET."""
    path: str
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What is sent back, or done instead."""

    body: Any = None
    """JSON, or a text that is sent as it is."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    is_reset: bool = False
    """The connection is broken off, with no answer at all."""
    is_cut: bool = False
    """Half of the body is sent."""


Reply = Callable[[Asked], Answer]


class FakeServer:
    """Serves what `reply` says on a port of its own; a context manager."""

    def __init__(self, reply: Reply, port: int = 0) -> None:
        self.reply = reply
        self.asked: list[Asked] = []
        self.num_in_flight = self.most_in_flight = self.num_connections = 0
        self._port = port
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> FakeServer:
        owner = self

        class Handler(_Handler):
            server_owner = owner

        self._http = _Server(("127.0.0.1", self._port), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def posts(self) -> list[Asked]:
        return [one for one in self.asked if one.number]

    def take(self, path: str, body: Any, headers: Mapping[str, str], *, is_post: bool) -> Answer:
        with self._lock:
            number = len(self.posts) + 1 if is_post else 0
            asked = Asked(number, path, body, headers)
            self.asked.append(asked)
            self.num_in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        try:
            answer = self.reply(asked)
            is_closed = self._closing.wait(answer.delay_s)
            return Answer(is_reset=True) if is_closed else answer
        finally:
            with self._lock:
                self.num_in_flight -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error here."""

    def close_connections(self) -> None:
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_owner: FakeServer
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server_owner.num_connections += 1

    def do_GET(self) -> None:
        self._serve(None, is_post=False)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve(json.loads(text), is_post=True)

    def _serve(self, body: Any, *, is_post: bool) -> None:
        headers = dict(self.headers)
        answer = self.server_owner.take(self.path, body, headers, is_post=is_post)
        if answer.is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
            return
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        data = text.encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if answer.is_cut else data)
        self.wfile.flush()
        if answer.is_cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        """Tests look at `asked`."""


def reward_of(tokens: Sequence[int]) -> float:
    """The score that `Sglang` gives: a number that depends on every token and its place."""
    total = 0
    for token in tokens:
        total = (total * 31 + token + 1) % 99_991
    return total / 10_000 - 5


@dataclass
class Sglang:
    """A reward server's contract as SGLang documents it: /get_model_info, /v1/models, /classify.

    `fault` may answer instead. Without `takes_ids` only texts are taken, which `tokenize` reads.
    """

    model_path: str
    max_model_len: int = 2048
    fault: Callable[[Asked], Answer | None] = lambda asked: None
    takes_ids: bool = True
    tokenize: Callable[[str], Sequence[int]] | None = None
    is_generation: bool = False

    def __call__(self, asked: Asked) -> Answer:
        return self.fault(asked) or self._answer(asked)

    def _answer(self, asked: Asked) -> Answer:
        if asked.path == "/get_model_info":
            info = {"model_path": self.model_path, "tokenizer_path": self.model_path}
            return Answer({**info, "is_generation": self.is_generation})
        if asked.path == "/v1/models":
            model = {"id": self.model_path, "object": "model", "owned_by": "sglang"}
            model |= {"root": self.model_path, "max_model_len": self.max_model_len}
            return Answer({"object": "list", "data": [model]})
        if asked.path != "/classify":
            return Answer({"detail": "Not Found"}, status=404)
        return self._classify(asked.body)

    def _classify(self, body: Any) -> Answer:
        if "input_ids" in body and not self.takes_ids:
            return Answer({"error": {"message": "give text"}}, status=400)
        given = body.get("input_ids", body.get("text"))
        is_one = isinstance(given, str) or not isinstance(given[0], list | str)
        rows = [given] if is_one else given
        tokens = [self.tokenize(row) if isinstance(row, str) else row for row in rows]  # type: ignore[misc]
        if any(len(row) > self.max_model_len for row in tokens):
            return Answer({"error": {"message": "The input is too long"}}, status=400)
        found = [
            {"embedding": [reward_of(row)], "meta_info": {"id": "x", "prompt_tokens": len(row)}}
            for row in tokens
        ]
        return Answer(found[0] if is_one else found)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class ServerProcess:
    """A server in a process of its own, on a port that stays the same."""

    command: list[str]
    port: int
    log: Path
    health: str = "/v1/models"
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout_s: float = 240) -> None:
        """Start it and wait until it answers."""
        import urllib.request

        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": paths.rstrip(os.pathsep)},
            )  # fmt: skip
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            with suppress(OSError), urllib.request.urlopen(self.url + self.health, timeout=5):
                return
            time.sleep(0.05)
        raise AssertionError(f"it never answered: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """End it and its children, as a crash would."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def sglang_process(folder: Path, model_path: str, *flags: str) -> Iterator[ServerProcess]:
    """Run `Sglang` in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "support.servers", str(port), model_path, *flags]
    server = ServerProcess(command, port, folder / "server.log")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def vllm_process(
    folder: Path, model: Path, *flags: str, health: str = "/v1/models"
) -> Iterator[ServerProcess]:
    """Run the real vLLM's server."""
    port = free_port()
    entry = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command = [*entry, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20), "--block-size", "32"]
    server = ServerProcess([*command, *flags], port, folder / "server.log", health)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("model_path")
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--busy-every", type=int, default=0)
    parser.add_argument("--count", type=Path)
    given = parser.parse_args()

    def fault(asked: Asked) -> Answer | None:
        if asked.number:
            time.sleep(given.delay_s)
            if given.count:
                with given.count.open("a") as file:
                    file.write(f"{asked.number}\n")
        if given.busy_every and asked.number and asked.number % given.busy_every == 0:
            return Answer({"error": "busy"}, status=429, headers={"Retry-After": "0.05"})
        return None

    with FakeServer(Sglang(given.model_path, fault=fault), given.port):
        threading.Event().wait()


if __name__ == "__main__":
    main()
