"""The books of a command."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.errors import AccountingError, SettingsError
from bon.pipeline.accounting import Accounting, drops_allowed
from bon.records import Drop


@given(st.integers(0, 20), st.lists(st.sampled_from("abc"), max_size=20))
def test_books_close_exactly_when_every_row_is_kept_or_dropped(
    kept: int, reasons: list[str]
) -> None:
    for difference in (-1, 0, 1):
        books = Accounting(kept + len(reasons) + difference, kept_rows=kept)
        for row, reason in enumerate(reasons):
            books.add(Drop(reason, "why", row=row))
        if difference == 0:
            books.close()
            continue
        with pytest.raises(AccountingError, match=f"{kept} kept and {len(reasons)} dropped"):
            books.close()


def test_a_dropped_candidate_is_no_dropped_row() -> None:
    books = Accounting(1, kept_rows=1)
    books.add(Drop("non_finite_score", "nan", candidate=0))
    books.add(Drop("non_finite_score", "nan", candidate=3))
    books.close()
    assert books.num_drops == 0
    assert books.as_json()["candidate_drops"] == {"non_finite_score": 2}
    assert books.as_json()["drops"] == {}


def test_every_reason_has_an_example_where_there_is_room() -> None:
    books = Accounting(0)
    for number in range(7):
        books.add(Drop("no_reference", "why", id=f"c{number}", candidate=0))
    for number, reason in enumerate(("empty_prompt", "no_right", "no_reference", "no_right")):
        books.add(Drop(reason, "why", id=f"p{number}"))
    told = [drop.id for drop in books.examples]
    assert told == ["c0", "c1", "p0", "p1", "p2"], "a candidate's reason is not a row's"
    for reason in "abcdef":
        books.add(Drop(reason, "why", id=reason))
    assert [drop.id for drop in books.examples] == ["c0", "p0", "p1", "p2", "a"]


def test_json_is_sorted_with_the_first_five_examples() -> None:
    books = Accounting(7)
    for row, reason in enumerate("cabbacb"):
        books.add(Drop(reason, "why", f"f:{row}", f"p{row}", row))
    books.close()
    told = json.loads(json.dumps(books.as_json()))
    assert list(told["drops"].items()) == [("a", 2), ("b", 3), ("c", 2)]
    assert [drop["id"] for drop in told["drop_examples"]] == ["p0", "p1", "p2", "p3", "p4"]
    assert told["input_rows"] == 7


@pytest.mark.parametrize(
    ("said", "rows", "allowed"),
    [(None, 10, math.inf), ("0", 10, 0), ("20", 10, 20), ("1.5%", 200, 3), ("0%", 9, 0),
     ("100%", 9, 9)],
)  # fmt: skip
def test_drops_allowed(said: str | None, rows: int, allowed: float) -> None:
    assert drops_allowed(said, rows) == pytest.approx(allowed)


def test_a_fraction_of_a_row_is_refused() -> None:
    with pytest.raises(SettingsError, match="max-drops"):
        drops_allowed("1.5", 10)
