"""A part's candidates as groups: what scorers that ask for more get, and what the others read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import Run, input_rows

from bon.pipeline.generate import _sampled_before
from bon.pipeline.groups import candidate_groups, group_columns, token_ids
from bon.pool.pool import CANDIDATES, Pool
from bon.records import CANDIDATES_SCHEMA

IDS = st.none() | st.lists(st.integers(0, 2**31 - 1), max_size=5)


@given(st.lists(IDS, max_size=8), st.data())
def test_token_ids_are_those_of_the_rows_that_were_taken(
    rows: list[list[int] | None], data: st.DataObject
) -> None:
    table = pa.table({"token_ids": rows}, pa.schema([CANDIDATES_SCHEMA.field("token_ids")]))
    want = [None if row is None else tuple(row) for row in rows]
    assert token_ids(table) == want
    start = data.draw(st.integers(0, len(rows)))
    assert token_ids(table.slice(start)) == want[start:]
    assert token_ids(pa.concat_tables([table.slice(start), table])) == want[start:] + want
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=4)) if rows else []
    assert token_ids(table.take(pa.array(chosen, pa.int64()))) == [want[row] for row in chosen]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A pool whose candidates have token ids, but for one."""
    pool = Run(input_rows(6, bad=[1])).candidates(tmp_path / "p")
    for part in pool.parts():
        table = pool.read(CANDIDATES, part)
        ids = [None if row == 1 else [part, row] for row in range(table.num_rows)]
        column = pa.array(ids, CANDIDATES_SCHEMA.field("token_ids").type)
        table = table.set_column(table.num_columns - 1, "token_ids", column)
        pool.commit(CANDIDATES, part, table, [], covers=pool.num_prompts(part))
    return pool


def test_candidates_come_whole_where_a_scorer_asks_for_them(pool: Pool) -> None:
    rows = pool.read(CANDIDATES, 0, group_columns(with_candidates=True))
    groups = candidate_groups(pool.prompts(0), rows, {"raw": True})
    flat = [(group.prompt_id, one) for group in groups for one in group.candidates]
    want = pool.read(CANDIDATES, 0).to_pylist()
    assert len(flat) == len(want) == 9
    for (prompt_id, one), row in zip(flat, want, strict=True):
        assert prompt_id == row.pop("prompt_id")
        assert one.token_ids == (row["token_ids"] and tuple(row["token_ids"]))
        assert {name: getattr(one, name) for name in row if name != "token_ids"} == {
            name: value for name, value in row.items() if name != "token_ids"
        }
    assert [group.responses for group in groups] == [
        tuple(one.response for one in group.candidates) for group in groups
    ]
    assert all(group.generation == {"raw": True} for group in groups)


def test_other_scorers_read_no_more_than_responses(pool: Pool) -> None:
    columns = group_columns(with_candidates=False)
    assert columns == ["prompt_id", "candidate", "response"]
    groups = candidate_groups(pool.prompts(0), pool.read(CANDIDATES, 0, columns), {"raw": True})
    assert [group.prompt_id for group in groups] == ["p0", "p2", "p3"]
    assert [(group.candidates, group.generation) for group in groups] == [((), {})] * 3


def test_a_part_that_grows_keeps_the_tokens_that_were_sampled(pool: Pool) -> None:
    rows = [row["token_ids"] for row in pool.read(CANDIDATES, 0).to_pylist()]
    kept = [one for result in _sampled_before(pool, 0).values() for one in result.candidates]
    assert [one.token_ids for one in kept] == [row and tuple(row) for row in rows]
