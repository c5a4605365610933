"""The upload, against a server on loopback that speaks the Hub's API."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest

from bon.errors import OutputError, SettingsError
from bon.exports.card import CardFacts
from bon.exports.folder import MARKER
from bon.exports.formats import choose_format
from bon.exports.hub import check_push, push_folder
from bon.exports.writer import DatasetWriter

# huggingface_hub's plain upload calls httpx in a way that httpx warns of
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

REPO = "org/my-set"


class Hub(ThreadingHTTPServer):
    """What one dataset's repository receives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.status: dict[str, int] = {}
        """Answers to give instead, by the end of the path."""
        self.created: dict[str, Any] = {}
        self.private = True
        self.tokens: set[str | None] = set()
        self.files: dict[str, bytes] = {"data/train-00001-of-00002.parquet": b"old"}
        self.large: dict[str, bytes] = {}


class Handler(BaseHTTPRequestHandler):
    """Creating a repository, asking how to upload, uploading, committing."""

    server: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refused(self) -> bool:
        path = self.path.split("?")[0]
        for end, status in self.server.status.items():
            if path.endswith(end):
                url = f"{self.server.url}/datasets/{REPO}"  # which a conflict names
                self.answer({"error": f"refused with {status}", "url": url}, status)
                return True
        return False

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        hub = self.server
        hub.tokens.add(self.headers.get("Authorization"))
        if self.refused():
            return
        if "/tree/" in self.path:
            self.answer([{"type": "file", "path": p, "size": 1, "oid": "0"} for p in hub.files])
        else:
            siblings = [{"rfilename": path} for path in hub.files]
            self.answer({"id": REPO, "private": hub.private, "siblings": siblings, "sha": "0" * 40})

    def do_PUT(self) -> None:
        data = self.body()
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        self.answer({})

    def do_POST(self) -> None:
        hub, data = self.server, self.body()
        hub.tokens.add(self.headers.get("Authorization"))
        if self.refused():
            return
        if self.path.endswith("/repos/create"):
            hub.created = json.loads(data)
            self.answer({"url": f"{hub.url}/datasets/{REPO}"})
        elif self.path.endswith("/validate-yaml"):
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(data)["files"]]
            modes = ["lfs" if path.endswith(".parquet") else "regular" for path in paths]
            self.answer(
                {
                    "files": [
                        {"path": path, "uploadMode": mode, "shouldIgnore": False}
                        for path, mode in zip(paths, modes, strict=True)
                    ]
                }
            )
        elif self.path.endswith("/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/put/{one['oid']}"}}}
                for one in json.loads(data)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        else:
            assert "/commit/" in self.path
            self.commit([json.loads(line) for line in data.splitlines()])
            self.answer(
                {
                    "commitUrl": f"{hub.url}/datasets/{REPO}/commit/{'1' * 40}",
                    "commitOid": "1" * 40,
                    "success": True,
                }
            )

    def commit(self, operations: list[dict[str, Any]]) -> None:
        for operation in operations:
            value = operation["value"]
            match operation["key"]:
                case "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    self.server.files[value["path"]] = self.server.large[value["oid"]]
                case "deletedFile":
                    del self.server.files[value["path"]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # Its storage protocol is a binary one of its own; the older one is plain HTTP.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path, pairs: pa.Table) -> Path:
    with DatasetWriter(
        tmp_path / "out", schema=pairs.schema, kind="pairs", format=choose_format("bon", "pairs")
    ) as writer:
        writer.write(pairs)
        writer.describe(CardFacts(name="x", command="bon", version="0", source="x", input_rows=2))
    return tmp_path / "out"


def test_every_byte_arrives_and_old_shards_go(hub: Hub, folder: Path) -> None:
    hub.files["data/mine.csv"] = b"kept"
    url = push_folder(folder, REPO, private=True)

    assert url == f"{hub.url}/datasets/{REPO}"
    assert (hub.created["name"], hub.created["organization"]) == ("my-set", "org")
    assert (hub.created["type"], hub.created["visibility"]) == ("dataset", "private")
    assert hub.tokens == {"Bearer hf_secret"}
    expected = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARKER
    }
    assert {"README.md", "data/train-00000-of-00001.parquet"} <= set(expected)
    assert hub.files == {**expected, "data/mine.csv": b"kept"}


def test_what_people_keep_in_the_folder_stays_there(hub: Hub, folder: Path) -> None:
    before = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    for name in (".env", "notes.md", "data/.env", "data/key.pem", "mine/x-00000-of-00001.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("HF_TOKEN=hf_secret")
    hub.files = {}
    push_folder(folder, REPO, private=True)
    assert set(hub.files) == {str(path) for path in before} - {MARKER}
    assert len(hub.files) == 2


def test_a_folder_without_an_export_is_not_uploaded(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    before = dict(hub.files)
    with pytest.raises(OutputError, match="no export"):
        push_folder(tmp_path, REPO, private=True)
    assert hub.files == before


def test_public_where_asked(hub: Hub, folder: Path) -> None:
    hub.private = False
    push_folder(folder, REPO, private=False, token="hf_other")
    assert hub.created["visibility"] == "public"
    assert hub.tokens == {"Bearer hf_other"}


def test_a_private_set_never_goes_into_a_public_repository(hub: Hub, folder: Path) -> None:
    hub.private, before = False, dict(hub.files)
    hub.status["/repos/create"] = 409  # it is there
    with pytest.raises(SettingsError, match="public") as caught:
        push_folder(folder, REPO, private=True)
    assert "--public" in caught.value.next_step
    assert hub.files == before


@pytest.mark.parametrize(
    ("end", "status", "advice"),
    [
        ("/repos/create", 401, "HF_TOKEN is not valid"),
        ("/repos/create", 403, "write access to org/my-set"),
        ("/repos/create", 500, "try again later"),
        ("/commit/main", 403, "write access to org/my-set"),
        ("/objects/batch", 403, "write access to org/my-set"),
    ],
)
def test_refusals_come_with_advice(
    hub: Hub, folder: Path, end: str, status: int, advice: str
) -> None:
    hub.status[end] = status
    if end == "/repos/create":  # it asks whether the repository is there nevertheless
        hub.status[f"/datasets/{REPO}"] = status
    with pytest.raises(OutputError) as caught:
        push_folder(folder, REPO, private=True)
    assert advice in caught.value.next_step
    assert str(folder) == caught.value.where
    assert "hf_secret" not in str(caught.value)


def test_no_server(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OutputError, match="did not take"):
        push_folder(folder, REPO, private=True)


def test_what_can_be_known_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert check_push(REPO) == "hf_x"
    with pytest.raises(SettingsError, match="bad value"):
        check_push("a/b/c")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SettingsError, match="no token") as caught:
        check_push(REPO)
    assert "HF_TOKEN" in caught.value.next_step
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    with pytest.raises(SettingsError, match="needs huggingface_hub"):
        check_push(REPO)
