"""Arbitrary bytes, and valid files with damage, through every reader and format.

Nothing but a `BonError` comes out, and the books close: rows read are prompts and drops, numbered
without a gap, every drop with its place and reason, and reading twice gives the same.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.config import InputSettings, ResponseSettings
from bon.errors import BonError
from bon.records import Drop, GivenResponses, Prompt
from bon.sources.files import read_rows
from bon.sources.prompts import PromptReader
from bon.sources.responses import ResponseReader

MESSAGES = [{"role": "user", "content": "Grüße 🙂"}, {"role": "assistant", "content": "R"}]
ROWS = [
    {"id": "a", "prompt": "Q", "response": "R", "score": 1.5, "x": {"k": [1, None]}},
    {"id": "b", "prompt": MESSAGES[:1], "response": "", "score": None, "x": None},
    {"id": 3, "prompt": 'a, "b"\n☃', "response": "S", "score": 2, "x": "\ud83d\ude42"},
]
PAIRS = [{"id": 1, "prompt": "Q", "chosen": MESSAGES, "rejected": MESSAGES, "margin": 0.5}] * 2


def as_lines(rows: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(rows: list[dict[str, object]]) -> bytes:
    sink = io.BytesIO()
    texts = [{name: json.dumps(value) for name, value in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(texts), sink, write_page_checksum=True)
    return sink.getvalue()


VALID: dict[str, bytes] = {
    "rows.jsonl": as_lines(ROWS),
    "pairs.jsonl": as_lines(PAIRS),
    "array.json": json.dumps(ROWS).encode(),
    "objects.json": b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS),
    "table.csv": b'id,prompt,response\r\na,Q,R\r\nb,"x ""y"", z\r\nw",S\r\n'
    b'3,"[{""role"": ""user"", ""content"": ""Q""}]",T\r\n',
    "table.tsv": b"id\tprompt\tresponse\na\tQ\tR\nb\t\tS\n",
    "text.txt": "first\r\n\nGrüße 🙂\n".encode(),
    "table.parquet": as_parquet(ROWS),
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: bytes(pa.Codec("zstd").compress(data)),
}
NAMES = [name + ending for name in VALID for ending in PACKINGS if name != "table.parquet"]
NAMES += ["table.parquet"]
BYTES = st.one_of(
    st.binary(max_size=120),
    st.lists(
        st.sampled_from(
            [bytes([byte]) for byte in b'{}[]:,1\n\r"\t \x00\x0b\x0c\x1c\x1d\x1e\x1fx\xff']
            + [b'"prompt":', b'"response":"R"', b"\\ud800", b"\xef\xbb\xbf", b"NaN", b'{"id":1,']
        ),
        max_size=40,
    ).map(b"".join),
)
Damage = Callable[[bytes], bytes]


def flip(at: int, bit: int) -> Damage:
    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        if changed:
            changed[at % len(changed)] ^= 1 << bit
        return bytes(changed)

    return damage


def cut(at: int, length: int) -> Damage:
    return lambda data: data[: at % (len(data) + 1)] + data[at % (len(data) + 1) + length :]


def insert(at: int, piece: bytes) -> Damage:
    return lambda data: data[: at % (len(data) + 1)] + piece + data[at % (len(data) + 1) :]


def repeat_lines(first: int, times: int) -> Damage:
    def damage(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        at = first % (len(lines) + 1)
        return b"".join(lines[:at] + lines[at : at + 2] * times + lines[at + 2 :])

    return damage


DAMAGES = st.lists(
    st.one_of(
        st.builds(flip, st.integers(0, 9999), st.integers(0, 7)),
        st.builds(cut, st.integers(0, 9999), st.integers(1, 9999)),
        st.builds(insert, st.integers(0, 9999), BYTES),
        st.builds(repeat_lines, st.integers(0, 9), st.integers(0, 3)),
    ),
    min_size=1,
    max_size=4,
)


def check(path: Path) -> None:
    """Read a file in every way, and check the books."""
    inputs = InputSettings()
    try:
        num_rows: int | None = sum(1 for _ in read_rows(str(path), "train"))
    except BonError:
        num_rows = None
    prompts = outcome(PromptReader(str(path), inputs))
    if prompts is not None:
        assert num_rows == len(prompts)
    for kind in ("responses", "pairs"):
        given = ResponseSettings(source_kind=kind)
        for group in (True, False):
            items = outcome(ResponseReader(str(path), inputs, given, group=group))
            if items is not None and not group:
                assert num_rows == len({row_of(item) for item in items})


def row_of(item: Prompt | GivenResponses | Drop) -> int:
    return item.prompt.row if isinstance(item, GivenResponses) else item.row


def outcome(reader: PromptReader | ResponseReader) -> list[Prompt | GivenResponses | Drop] | None:
    """Return what a reader gives, checked, or none where it ends with an error, twice the same."""
    results: list[object] = []
    for _ in range(2):
        items: list[Prompt | GivenResponses | Drop] = []
        try:
            for item in reader:
                items.append(item)
            results.append((items, ""))
        except BonError as error:
            assert error.what
            assert error.next_step
            results.append((items, str(error)))
        check_items(items)
    assert repr(results[0]) == repr(results[1])
    return items if results[1][1] == "" else None  # type: ignore[index]


def check_items(items: list[Prompt | GivenResponses | Drop]) -> None:
    numbers = [row_of(item) for item in items]
    assert sorted(set(numbers)) == list(range(len(set(numbers))))
    ids = []
    for item in items:
        if isinstance(item, Drop):
            assert item.reason
            assert item.detail
            assert ":" in item.where
            continue
        prompt = item.prompt if isinstance(item, GivenResponses) else item
        ids.append(prompt.prompt_id)
        assert prompt.messages
        # all of it can be stored as JSON in UTF-8
        json.dumps([prompt.messages, prompt.extra], allow_nan=False, ensure_ascii=False).encode()
        if isinstance(item, GivenResponses):
            assert item.responses
            "".join(one.response for one in item.responses).encode()
    assert len(set(ids)) == len(ids)
    whole = [row_of(item) for item in items if not isinstance(item, Drop) or item.candidate is None]
    assert whole == sorted(whole)
    assert len(set(whole)) == len(whole)


def read_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    check(path)


def packed(name: str, data: bytes) -> bytes:
    return PACKINGS[Path(name).suffix if Path(name).suffix in PACKINGS else ""](data)


@pytest.mark.parametrize("name", NAMES)
def test_valid_files_are_read_whole(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    plain = name.removesuffix(".gz").removesuffix(".zst")
    read_bytes(tmp_path_factory, name, packed(name, VALID[plain]))


@pytest.mark.parametrize("blank", [b"\x0c", b"\x0b\x0b", b"\x1c\n\x1f", b"\x0c\n{}", b" \r\n\t"])
def test_what_only_python_takes_for_blank(
    tmp_path_factory: pytest.TempPathFactory, blank: bytes
) -> None:
    for name in ("a.json", "a.jsonl", "a.txt", "a.csv"):
        read_bytes(tmp_path_factory, name, blank)


few = settings(max_examples=40, deadline=None)
many = settings(max_examples=1500, deadline=None)


def arbitrary(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes, inside: bool
) -> None:
    read_bytes(tmp_path_factory, name, packed(name, data) if inside else data)


def damaged(
    tmp_path_factory: pytest.TempPathFactory, name: str, damages: list[Damage], inside: bool
) -> None:
    data = VALID[name.removesuffix(".gz").removesuffix(".zst")]
    data = data if inside else packed(name, data)
    for damage in damages:
        data = damage(data)
    read_bytes(tmp_path_factory, name, packed(name, data) if inside else data)


any_bytes = given(name=st.sampled_from(NAMES), data=BYTES, inside=st.booleans())
any_damage = given(name=st.sampled_from(NAMES), damages=DAMAGES, inside=st.booleans())
test_arbitrary_bytes = few(any_bytes(arbitrary))
test_damaged_files = few(any_damage(damaged))
test_many_arbitrary_bytes = pytest.mark.faults(many(any_bytes(arbitrary)))
test_many_damaged_files = pytest.mark.faults(many(any_damage(damaged)))
