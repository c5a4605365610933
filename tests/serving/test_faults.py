"""How long a server asks to wait, and how bodies are quoted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.serving.faults import EXCERPT_CHARS, excerpt, retry_after_s


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *[("0", 0.0), ("7", 7.0), ("0.25", 0.25), ("-3", 0.0)],
        *[(header, None) for header in (None, "", "soon", "nan", "inf", "Mon, 99 Foo")],
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_retry_after_a_date() -> None:
    then = datetime.now(UTC) + timedelta(seconds=90)
    found = retry_after_s(format_datetime(then, usegmt=True))
    assert found is not None
    assert 88 <= found <= 90


@given(st.text(), st.text(min_size=8, alphabet="abcdefghijk"))
def test_an_excerpt_is_short_one_line_and_without_the_key(text: str, key: str) -> None:
    found = excerpt(text + key + text, key)
    assert key not in found
    assert "\n" not in found
    assert len(eval(found) if found != "nothing" else "") <= EXCERPT_CHARS


def test_an_empty_body_is_nothing() -> None:
    assert excerpt("  \n", None) == "nothing"
