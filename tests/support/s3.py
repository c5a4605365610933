"""A real S3-compatible server on loopback (moto's), in a process of its own."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
_SERVE = """
import os, sys, threading
def end():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=end, daemon=True).start()  # it ends with whoever started it
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
_REQUEST = re.compile(r'"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.\d(?:\S*)?" (\d+)')


@dataclass
class Server:
    """A server that runs, and what reaches it."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets once."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **KEYS,
        }

    def requests(self) -> list[tuple[str, str, int]]:
        """Return method, address and status of every request so far."""
        text = re.sub(r"\x1b\[\d+m", "", self.log.read_text(errors="replace"))
        return [(method, path, int(code)) for method, path, code in _REQUEST.findall(text)]


def start(log: Path, *, checks_keys: bool = False) -> Server:
    """Start a server without buckets; the caller stops it. It may know no key at all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(port)],
            env={**os.environ, **({"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if checks_keys else {})},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
        )
    server = Server(port, log, process)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    return server


def stop(server: Server) -> None:
    """End a server that `start` started."""
    server.process.kill()
    server.process.communicate()


def make_bucket(said: str) -> str:
    """Make a bucket on the server that the environment names, and return its address."""
    from pyarrow.fs import FileSystem

    name = f"b-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    store, _ = FileSystem.from_uri(f"s3://{name}/?allow_bucket_creation=true")
    store.create_dir(name)
    return f"s3://{name}"
