"""Pools with a bit of everything that curation meets, made up from a seed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import (
    CANDIDATES_SCHEMA,
    GIVEN_ID,
    PROMPTS_SCHEMA,
    SCORES_SCHEMA,
    Drop,
)

_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "the", "a", "is"]
_SCORERS = ("reward", "other", "label")


def made_up_pool(
    root: Path,
    num_rows: int,
    *,
    part_size: int = 3,
    pairs: bool = False,
    response: str | None = None,
    seed: int = 0,
) -> Pool:
    """Write a scored pool of so many input rows; `response` is all that is ever said.

    Some rows are malformed, some prompts lack scores or tie, some texts stand twice or nearly so;
    of every five rows two have one id, as where an input has a response a row.
    """
    draw = random.Random(seed)
    manifest = Manifest(
        part_size=part_size,
        input={"settings": {}, "rows": num_rows, "whole": True, "kind": "pairs" if pairs else None},
        generation={"model": "made up", "seed": 0},
        scorers={name: {"spec": "made up"} for name in _SCORERS}
        | {"label": {"spec": "made up", "is_verdict": True}},
    )
    pool = Pool(PoolLayout(root), manifest).save(manifest)
    for part, start in enumerate(range(0, num_rows, part_size)):
        rows = range(start, min(start + part_size, num_rows))
        _commit(pool, part, rows, draw, pairs, response)
    return Pool.open(root)


def _commit(
    pool: Pool, part: int, rows: range, draw: random.Random, pairs: bool, response: str | None
) -> None:
    good = [row for row in rows if row % 7 != 5]
    drops = [
        Drop("malformed_json", "cut off", where=f"in.jsonl:{row + 1}", row=row)
        for row in rows
        if row not in good
    ]
    prompts = [
        {
            "prompt_id": f"p{row}",
            "prompt": [{"role": "user", "content": _text(draw, 6)}],
            "extra": json.dumps(_extra(row, draw)),
            "row": row,
            "where": f"in.jsonl:{row + 1}",
        }
        for row in good
    ]
    num_of = {row: 2 if pairs else draw.randint(1, 6) for row in good}
    keys = [
        {"prompt_id": f"p{row}", "candidate": number}
        for row in good
        for number in range(num_of[row])
    ]
    candidates = [
        {
            **key,
            "response": text,
            "finish_reason": draw.choice(["stop", "stop", "stop", "length"]),
            "num_tokens": len(text.split()),
            "logprob": -draw.random(),
        }
        for key in keys
        for text in [response or _text(draw, 12)]
    ]
    _write(pool, PROMPTS, part, prompts, PROMPTS_SCHEMA, len(rows), drops)
    _write(pool, CANDIDATES, part, candidates, CANDIDATES_SCHEMA, len(good))
    for name in _SCORERS:
        values = (0.0, 1.0) if name == "label" else (-1.5, 0.1, 0.1, 0.7, 2.3, None)
        scores = [{**key, "score": draw.choice(values)} for key in keys]
        _write(pool, scores_kind(name), part, scores, SCORES_SCHEMA, len(good))


def _write(
    pool: Pool,
    kind: str,
    part: int,
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    covers: int,
    drops: list[Drop] | None = None,
) -> None:
    pool.commit(kind, part, pa.Table.from_pylist(rows, schema), drops or [], covers)


def _text(draw: random.Random, num_words: int) -> str:
    if draw.random() < 0.3:
        return draw.choice(["So it is.", "so  it IS."])
    if draw.random() < 0.2:
        return "I cannot help " + "the " * draw.randint(0, 30)
    words = [draw.choice(_WORDS) for _ in range(draw.randint(1, num_words))]
    return " ".join(words) + draw.choice(["", " 7", " 8", " #### 7"])


def _extra(row: int, draw: random.Random) -> dict[str, Any]:
    extra: dict[str, Any] = {"answer": draw.choice([7, "8", "#### 7"]), "topic": row % 3}
    if row % 4 == 0:
        extra["late"] = [row, None] if row % 8 else [0.5]
    if row % 5 in (1, 3):
        extra[GIVEN_ID] = f"given {row // 5}"
    return extra
