"""Native tables by hand: three pairs of two prompts, three responses, two prompts."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.native_rows import EXTRA, ONE, TWO, pair, response

from bon.records import PAIR_FIELDS, PROMPT_FIELDS, RESPONSE_FIELDS


@pytest.fixture
def pairs() -> pa.Table:
    rows = [
        pair("p1", ONE, (0, 1), 0.5),
        pair("p1", ONE, (0, 2), 0.25),
        pair("p2", TWO, (3, 2), 0.1),
    ]
    return pa.Table.from_pylist(rows, pa.schema([*EXTRA, *PAIR_FIELDS]))


@pytest.fixture
def responses() -> pa.Table:
    rows = [response("p1", ONE, 0), response("p1", ONE, 2), response("p2", TWO, 1)]
    return pa.Table.from_pylist(rows, pa.schema([*EXTRA, *RESPONSE_FIELDS]))


@pytest.fixture
def prompts() -> pa.Table:
    rows = [
        {"answer": "so #### 1", "topic": "maths", "prompt_id": "p1", "prompt": ONE},
        {"answer": None, "topic": None, "prompt_id": "p2", "prompt": TWO},
    ]
    return pa.Table.from_pylist(rows, pa.schema([*EXTRA, *PROMPT_FIELDS]))
