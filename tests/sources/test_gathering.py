"""Responses to one prompt, wherever they stand in the input, become one prompt."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.config import InputSettings, ResponseSettings
from bon.errors import OutputError
from bon.records import Drop, GivenResponse, GivenResponses
from bon.sources.gathering import gather_rows
from bon.sources.groups import ReadRow
from bon.sources.responses import ResponseReader
from bon.sources.rows import Fault


def row(key: str | None, place: int, asks: str = "") -> ReadRow:
    """One input row, with all that a row may have."""
    return ReadRow(
        key,
        ({"role": "user", "content": f"question {key}{asks}"},),
        (GivenResponse(f"answer {place} \u2028é", 0.1 * place, place % 2 == 0, "stop", place),),
        {"place": place, "deep": {"a": [1, None, 2.5, "ü"]}, "big": 2**70},
        f"in.jsonl:{place + 1}",
        True,
        (Fault("missing_response", "null"),) if place % 5 == 0 else (),
    )


def drop(place: int) -> Drop:
    """One input row that cannot be read."""
    return Drop("malformed_json", "cut off", f"in.jsonl:{place + 1}")


def in_memory(rows: list[ReadRow | Drop]) -> list[ReadRow | Drop]:
    """What gathering must give: groups by their first row, drops behind the row before them."""
    groups: dict[object, list[ReadRow | Drop]] = {}
    key: object = None
    for one in rows:
        if isinstance(one, ReadRow):
            key = ("id", one.own_id) if one.own_id is not None else str(one.messages)
        groups.setdefault(key, []).append(one)
    return [one for group in groups.values() for one in group]


KEYS = st.lists(st.sampled_from(["a", "b", "c", "", None, "drop"]), max_size=25)


@settings(deadline=None, max_examples=8)
@given(KEYS)
def test_rows_come_by_prompt_in_the_order_of_first_rows(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str | None]
) -> None:
    folder = tmp_path_factory.mktemp("g")
    rows = [drop(n) if key == "drop" else row(key, n) for n, key in enumerate(keys)]
    assert list(gather_rows(rows, folder / "pool")) == in_memory(rows)
    assert list(folder.iterdir()) == []


def test_rows_that_stand_together_stay_as_they_are(tmp_path: Path) -> None:
    keys = ["drop", "a", "a", "drop", "a", "drop", "drop", None, None, "b", "drop"]
    rows = [drop(n) if key == "drop" else row(key, n) for n, key in enumerate(keys)]
    assert list(gather_rows(rows, tmp_path / "pool")) == rows


def test_many_batches(tmp_path: Path) -> None:
    order = random.Random(0)
    rows: list[ReadRow | Drop] = [row(f"k{order.randrange(900)}", n) for n in range(4500)]
    assert list(gather_rows(rows, tmp_path / "pool")) == in_memory(rows)


def test_nothing_is_left_where_the_reading_fails_or_stops(tmp_path: Path) -> None:
    def failing() -> Iterator[ReadRow | Drop]:
        yield row("a", 0)
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        list(gather_rows(failing(), tmp_path / "pool"))
    rows = gather_rows([row("a", n) for n in range(100_000)], tmp_path / "pool")
    next(rows)
    assert len(list(tmp_path.iterdir())) == 1
    rows.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_what_duckdb_lacks_is_said_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its faults have no number; this is one of the real one, with next to no memory."""
    import duckdb

    connect = duckdb.connect

    def little(path: str, config: dict[str, object]) -> duckdb.DuckDBPyConnection:
        return connect(path, config=config | {"memory_limit": "1MB", "temp_directory": ""})

    monkeypatch.setattr(duckdb, "connect", little)
    with pytest.raises(OutputError, match="cannot bring") as caught:
        list(gather_rows([row("a", n) for n in range(100_000)], tmp_path / "pool"))
    assert caught.value.where == str(tmp_path / "pool")
    assert caught.value.why == "Cannot allocate memory"
    assert caught.value.next_step.startswith("free memory")
    assert list(tmp_path.iterdir()) == []


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def read(path: Path, *, gather: bool, limit: int | None = None) -> tuple[list, ResponseReader]:
    reader = ResponseReader(str(path), InputSettings(limit=limit), ResponseSettings(), group=True)
    if gather:
        reader.gather(path.parent / "pool")
    return list(reader), reader


def plain(items: list) -> list:
    """What is left of items without the places where their rows stood."""
    return [
        (item.prompt.prompt_id, item.prompt.row, item.prompt.extra, item.responses)
        if isinstance(item, GivenResponses)
        else (item.reason, item.id, item.row, item.candidate)
        for item in items
    ]


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_shuffled_file_is_read_as_a_grouped_one(tmp_path: Path, with_ids: bool) -> None:
    rows = [
        {**({"id": f"q{n % 7}"} if with_ids else {}), "prompt": f"question {n % 7}",
         "response": f"answer {n}", "score": n / 8, "note": n % 3}
        for n in range(50)
    ]  # fmt: skip
    random.Random(1).shuffle(rows)
    first = list(dict.fromkeys(one["prompt"] for one in rows))
    grouped = sorted(rows, key=lambda one: first.index(one["prompt"]))
    shuffled_path = write(tmp_path / "s.jsonl", rows)
    expected, in_order = read(write(tmp_path / "g.jsonl", grouped), gather=False)
    found, reader = read(shuffled_path, gather=True)
    assert plain(found) == plain(expected)
    assert len(found) == 7
    assert not in_order.is_scattered
    assert not reader.is_scattered
    assert "50 rows joined by prompt into 7, those that stood apart too" in reader.describe()
    for limit in (0, 1, 3):
        assert plain(read(shuffled_path, gather=True, limit=limit)[0]) == plain(expected)[:limit]
    _, apart = read(shuffled_path, gather=False)
    assert apart.is_scattered


def test_what_never_joins_is_never_scattered(tmp_path: Path) -> None:
    several = [{"id": "a", "prompt": "q", "responses": ["x", "y"]}] * 2
    items, reader = read(write(tmp_path / "s.jsonl", several), gather=False)
    assert items[1].reason == "duplicate_id"
    assert not reader.is_scattered


def test_an_id_that_asks_something_else_later_is_a_drop(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "prompt": "one", "response": "1"},
        {"id": "b", "prompt": "two", "response": "2"},
        {"id": "a", "prompt": "other", "response": "3"},
        {"id": "a", "prompt": "one", "response": "4"},
    ]
    items, _ = read(write(tmp_path / "s.jsonl", rows), gather=True)
    assert items[0].reason == "prompt_differs"
    assert [r.response for r in items[1].responses] == ["1", "4"]
    assert items[2].prompt.prompt_id == "b"
