"""Every form: what it can be made from, its schema, its rows by hand."""

from __future__ import annotations

import itertools
import time

import pyarrow as pa
import pytest

from bon.errors import SettingsError, UnknownChoiceError
from bon.exports.formats import FORMATS, Format, choose_format

PAIRS_OF_NAMES = [(one, kind) for one in FORMATS for kind in one.kinds]
IDS = [f"{one.name}-{kind}" for one, kind in PAIRS_OF_NAMES]


@pytest.mark.parametrize(("format", "kind"), PAIRS_OF_NAMES, ids=IDS)
def test_schema_is_the_same_for_any_batch(
    format: Format, kind: str, request: pytest.FixtureRequest
) -> None:
    table = request.getfixturevalue(kind)
    whole = format.convert(table, kind)
    for part in (table.slice(0, 0), table.slice(1), pa.concat_tables([table, table])):
        assert format.convert(part, kind).schema == whole.schema
    if kind == "pairs":
        unscored = table.set_column(
            table.schema.get_field_index("margin"), "margin", pa.nulls(len(table), pa.float32())
        )
        assert format.convert(unscored, kind).schema == whole.schema


@pytest.mark.parametrize(("format", "kind"), PAIRS_OF_NAMES, ids=IDS)
def test_batches_make_the_same_rows_as_the_whole(
    format: Format, kind: str, request: pytest.FixtureRequest
) -> None:
    table = request.getfixturevalue(kind)
    whole = format.convert(table, kind).to_pylist()
    parts = [format.convert(table.slice(i, 1), kind, start=i) for i in range(len(table))]
    assert list(itertools.chain(*(part.to_pylist() for part in parts))) == whole


@pytest.mark.parametrize(("format", "kind"), PAIRS_OF_NAMES, ids=IDS)
def test_sixty_thousand_rows_take_no_time(
    format: Format, kind: str, request: pytest.FixtureRequest
) -> None:
    table = pa.concat_tables([request.getfixturevalue(kind)] * (60_000 // 3)).combine_chunks()
    start = time.process_time()
    format.convert(table, kind)
    assert time.process_time() - start < 2.0


def test_native_form_changes_nothing(pairs: pa.Table) -> None:
    assert choose_format("bon", "pairs").convert(pairs, "pairs") is pairs


def test_unknown_name_and_wrong_kind_come_with_advice() -> None:
    with pytest.raises(UnknownChoiceError, match="did you mean 'trl-dpo'"):
        choose_format("trl-dop", "pairs")
    with pytest.raises(SettingsError, match="trl-sft") as caught:
        choose_format("trl-dpo", "responses")
    assert "from pairs" in caught.value.why
