"""A prompt file as a set: columns, books, limits."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from support.fakes import FakeSource, bad_row, input_rows, prompt

from bon.errors import PoolError
from bon.pipeline.plans import PromptsPlan
from bon.pipeline.prompts import PromptSet, prompts_pool
from bon.pool.pool import Pool
from bon.records import PROMPT_FIELDS, Drop, Prompt


def pool_of(
    root: Path, rows: list[Prompt | Drop], part_size: int | None = 2, limit: int | None = None
) -> Pool:
    plan = PromptsPlan("in.jsonl", FakeSource(rows, limit), {}, None, limit, part_size)
    return prompts_pool(root, plan)


def table_of(prompts: PromptSet) -> pa.Table:
    return pa.concat_tables([prompts.schema.empty_table(), *prompts.tables()])


def test_rows_come_in_order_with_one_type_a_column_over_all_parts(tmp_path: Path) -> None:
    rows = [prompt(0, n=1), prompt(1, n=2.5), bad_row(2), bad_row(3), prompt(4, note="x", id=7)]
    prompts = PromptSet(pool_of(tmp_path / "p", rows), None)

    tables = list(prompts.tables())

    assert {table.schema for table in tables} == {prompts.schema}
    assert prompts.schema.names == ["prompt_id", "prompt", "n", "note", "id"]
    assert list(prompts.schema)[:2] == list(PROMPT_FIELDS)
    table = pa.concat_tables(tables)
    assert table["prompt_id"].to_pylist() == ["p0", "p1", "p4"]
    assert table["prompt"].to_pylist()[0] == [{"role": "user", "content": "question 0"}]
    assert table["n"].to_pylist() == [1.0, 2.5, None]
    assert table["id"].to_pylist() == [None, None, 7]
    books = prompts.accounting
    books.close()
    assert (books.input_rows, books.kept_rows, books.output_rows) == (5, 3, 3)
    assert books.drops == {"malformed_json": 2}
    assert [drop.where for drop in books.examples] == ["in.jsonl:3", "in.jsonl:4"]


def test_a_column_that_is_called_as_ours_is_kept_under_another_name(tmp_path: Path) -> None:
    table = table_of(PromptSet(pool_of(tmp_path / "p", [prompt(0, prompt_id="theirs")]), None))

    assert table["prompt_id"].to_pylist() == ["p0"]
    assert table["input_prompt_id"].to_pylist() == ["theirs"]


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 5, 10, 99])
def test_limit_counts_good_and_bad_rows(tmp_path: Path, limit: int) -> None:
    rows = input_rows(10, bad=[1, 4])
    prompts = PromptSet(pool_of(tmp_path / "p", rows, limit=limit), limit)

    table = table_of(prompts)

    good = [row for row in range(min(limit, 10)) if row not in (1, 4)]
    assert table["prompt_id"].to_pylist() == [f"p{row}" for row in good]
    books = prompts.accounting
    books.close()
    assert books.input_rows == min(limit, 10)
    assert books.num_drops == books.input_rows - len(good)


def test_a_limit_below_what_the_pool_has_cuts_it(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "p", [prompt(0), prompt(1, late="x"), bad_row(2), prompt(3)])
    prompts = PromptSet(pool, 1)

    assert table_of(prompts)["prompt_id"].to_pylist() == ["p0"]
    assert prompts.schema.names == ["prompt_id", "prompt"], "no column of rows that are cut off"
    prompts.accounting.close()


def test_only_bad_rows_are_an_empty_set(tmp_path: Path) -> None:
    prompts = PromptSet(pool_of(tmp_path / "p", [bad_row(0), bad_row(1), bad_row(2)]), None)

    assert table_of(prompts).num_rows == 0
    prompts.accounting.close()
    assert prompts.accounting.drops == {"malformed_json": 3}


def test_parts_do_not_change_the_rows(tmp_path: Path) -> None:
    rows = input_rows(7, bad=[2])
    tables = [
        table_of(PromptSet(pool_of(tmp_path / str(size), rows, size), None)).combine_chunks()
        for size in (1, 3, None)
    ]
    assert tables[0].equals(tables[1])
    assert tables[1].equals(tables[2])


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(PoolError):
        pool_of(tmp_path, [prompt(0)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
