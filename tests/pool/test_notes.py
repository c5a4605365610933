"""Notes in footers, and the digests in them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.killed_commit import ROWS

from bon.pool.notes import NOTE, PartNote, content_digest, drops_digest, settings_digest
from bon.records import CANDIDATES_SCHEMA, PROMPTS_SCHEMA, Drop

TABLE = pa.Table.from_pylist(ROWS, CANDIDATES_SCHEMA)


def test_a_note_comes_back_from_a_footer() -> None:
    note = PartNote("scores/rm", 3, 2, "d", None, "m", "s")
    said = {key.encode(): text.encode() for key, text in note.as_metadata().items()}
    assert PartNote.of(said) == note
    assert PartNote.of({}) is PartNote.of(None) is None


@pytest.mark.parametrize("text", [b"", b"x", b"[]", b'{"kind": "a"}', b'{"nobody": 1}', b"1"])
def test_a_note_that_nobody_can_read(text: bytes) -> None:
    with pytest.raises(ValueError):
        PartNote.of({NOTE.encode(): text})


def test_rows_have_one_digest_however_they_lie_in_memory() -> None:
    wanted = content_digest("candidates", TABLE)
    twice = pa.concat_tables([TABLE, TABLE])
    mask = pa.array([False] * len(ROWS) + [True] * len(ROWS))
    for same in (
        twice.slice(len(ROWS)),
        twice.filter(mask),
        pa.concat_tables([TABLE.slice(0, 7), TABLE.slice(7)]),
        TABLE.take(list(range(len(ROWS)))),
        pa.Table.from_pylist([{**row, "logprob": 0.5} for row in ROWS], CANDIDATES_SCHEMA),
    ):
        assert content_digest("candidates", same) == wanted
    first = pa.Table.from_pylist(ROWS[:9], CANDIDATES_SCHEMA)
    assert content_digest("candidates", TABLE.slice(0, 9)) == content_digest("candidates", first)
    assert content_digest("scores/rm", TABLE) is None


def test_no_version_of_arrow_changes_a_digest() -> None:
    """Pools hold them: another digest for the same rows would make every part another one."""
    message = {"role": "user", "content": "größer?"}
    prompts = [
        {"prompt_id": f"p{n}", "prompt": [message] * n, "extra": "{}", "row": n, "where": None}
        for n in range(3)
    ]
    table = pa.Table.from_pylist(prompts, PROMPTS_SCHEMA)
    assert content_digest("prompts", table) == "1:a51277a4991282350d5f7b32cb8a6583"
    rows = [*ROWS[:3], {**ROWS[3], "token_ids": None}, {**ROWS[4], "token_ids": [], "response": ""}]
    table = pa.Table.from_pylist(rows, CANDIDATES_SCHEMA)
    assert content_digest("candidates", table) == "1:b7595c16d24dbf14fc6195c4abd07990"
    assert content_digest("candidates", table.slice(0, 0)) == "1:a884b07b74b088bac5cf6631639ad909"


def test_what_lies_under_a_null_does_not_count() -> None:
    ids = TABLE["token_ids"].combine_chunks()
    mask = pa.array([n % 2 == 0 for n in range(len(TABLE))])
    under = pa.ListArray.from_arrays(ids.offsets, ids.values, mask=mask)
    column = CANDIDATES_SCHEMA.get_field_index("token_ids")
    tables = [
        TABLE.set_column(column, "token_ids", pa.array(values, pa.list_(pa.int32())))
        for values in (under, under.to_pylist())
    ]
    assert len({content_digest("candidates", table) for table in tables}) == 1


@pytest.mark.parametrize("change", [{"response": "x"}, {"token_ids": None}, {"candidate": 1}])
def test_other_rows_have_another_digest(change: dict[str, object]) -> None:
    rows = [{**ROWS[0], **change}, *ROWS[1:]]
    other = pa.Table.from_pylist(rows, CANDIDATES_SCHEMA)
    assert content_digest("candidates", other) != content_digest("candidates", TABLE)


def test_digests_of_drops_and_settings() -> None:
    drop = Drop("a", "b", row=1)
    assert drops_digest([]) is settings_digest(None) is None
    assert drops_digest([drop]) != drops_digest([drop, drop])
    assert settings_digest({"a": 1, "b": 2}) == settings_digest({"b": 2, "a": 1})
    assert settings_digest({"a": 1}) != settings_digest({"a": True})
