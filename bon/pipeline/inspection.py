"""What `bon inspect` tells of a pool or a result, as plain facts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bon.errors import InputError, first_line
from bon.places import Place, arrow_source
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import Drop, Prompt
from bon.system_faults import refuse_system_fault

__all__ = ["file_facts", "pool_facts", "prompt_facts"]

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def pool_facts(root: Place) -> dict[str, Any]:
    """Return a pool's settings, parts, rows, drops and reward quantiles."""
    pool = Pool.open(root)
    names = pool.layout.scorer_names()
    kinds = [PROMPTS, CANDIDATES, *(scores_kind(name) for name in names)]
    return {
        "pool": str(root),
        "input": pool.manifest.input,
        "part_size": pool.manifest.part_size,
        "generation": pool.manifest.generation,
        "parts": {
            kind: {
                "done": len(pool.layout.numbers(kind)),
                "to_do": 0 if kind == PROMPTS else len(pool.pending(kind)),
                "rows": _num_rows(pool, kind),
            }
            for kind in kinds
        },
        "drops": {
            kind: dict(Counter(drop.reason for drop in pool.read_drops(kind))) for kind in kinds
        },
        "rewards": {name: _quantiles(pool, name) for name in names},
    }


def prompt_facts(root: Place, prompt_id: str) -> dict[str, Any]:
    """Return one prompt with the candidates and scores it has so far, and what was dropped.

    Candidates are best first by the first scorer, those without its score last.

    Raises:
        InputError: the pool knows no such prompt.
    """
    pool = Pool.open(root)
    for part in pool.layout.numbers(PROMPTS):
        for prompt in pool.prompts(part):
            if prompt.prompt_id == prompt_id:
                return _prompt_in_part(pool, part, prompt)
    drops = [drop for drop in pool.read_drops(PROMPTS) if drop.id and drop.id == prompt_id]
    if drops:
        return {
            "prompt_id": prompt_id,
            "where": drops[0].where,
            "candidates": [],
            "drops": [_drop_facts(PROMPTS, drop) for drop in drops],
        }
    raise InputError(
        f"the pool has no prompt {prompt_id!r}",
        where=str(root),
        next_step="see the ids with `bon inspect` on the result, or in prompts/",
    )


def file_facts(path: Place, num_rows: int) -> dict[str, Any]:
    """Return a Parquet file's columns, size and first rows.

    Raises:
        InputError: it is not a Parquet file.
    """
    try:
        with pq.ParquetFile(arrow_source(path), page_checksum_verification=True) as file:
            first = next(file.iter_batches(max(1, num_rows)), None) if num_rows else None
            rewards = (
                file.read(["reward"]).column("reward").to_pylist()
                if "reward" in file.schema_arrow.names
                else []
            )
            numbers = [r for r in rewards if isinstance(r, int | float)]  # votes keep unscored too
            return {
                "file": str(path),
                "num_rows": file.metadata.num_rows,
                "bytes": path.stat().st_size,
                "columns": {field.name: str(field.type) for field in file.schema_arrow},
                "mean_reward": float(np.mean(numbers)) if numbers else None,
                "rows": first.to_pylist()[:num_rows] if first is not None else [],
            }
    except (pa.ArrowException, OSError) as error:
        refuse_system_fault(error, path)
        raise InputError(
            "cannot read this as Parquet", where=str(path), why=first_line(error)
        ) from None


def _prompt_in_part(pool: Pool, part: int, prompt: Prompt) -> dict[str, Any]:
    kinds = [CANDIDATES, *(scores_kind(name) for name in pool.layout.scorer_names())]
    return {
        "prompt_id": prompt.prompt_id,
        "where": prompt.where,
        "messages": list(prompt.messages),
        "columns": prompt.extra,
        "candidates": _candidates(pool, part, prompt.prompt_id),
        "drops": [
            _drop_facts(kind, drop)
            for kind in kinds
            if pool.layout.part(kind, part).exists()
            for drop in pool.drops(kind, part)
            if drop.id == prompt.prompt_id
        ],
    }


def _candidates(pool: Pool, part: int, prompt_id: str) -> list[dict[str, Any]]:
    names = pool.layout.scorer_names()
    scores = {
        name: {row["candidate"]: row["score"] for row in _rows(pool, scores_kind(name), part)
               if row["prompt_id"] == prompt_id}
        for name in names
    }  # fmt: skip
    rows = [row for row in _rows(pool, CANDIDATES, part) if row["prompt_id"] == prompt_id]

    def rank(row: dict[str, Any]) -> tuple[bool, float, int]:
        score = scores[names[0]].get(row["candidate"]) if names else None
        return score is None, -(score or 0.0), row["candidate"]

    return [
        {"candidate": row["candidate"],
         **{name: scores[name].get(row["candidate"]) for name in names},
         "finish_reason": row["finish_reason"], "num_tokens": row["num_tokens"],
         "response": row["response"]}
        for row in sorted(rows, key=rank)
    ]  # fmt: skip


def _rows(pool: Pool, kind: str, part: int) -> list[dict[str, Any]]:
    """Return a part's rows, none where it is still to be made."""
    if not pool.layout.part(kind, part).exists():
        return []
    return list(pool.read(kind, part).to_pylist())


def _drop_facts(kind: str, drop: Drop) -> dict[str, Any]:
    facts = {"of": kind, "reason": drop.reason, "detail": drop.detail, "where": drop.where}
    return facts if drop.candidate is None else {**facts, "candidate": drop.candidate}


def _num_rows(pool: Pool, kind: str) -> int:
    return sum(pool.num_rows(kind, part) for part in pool.layout.numbers(kind))


def _quantiles(pool: Pool, name: str) -> dict[str, float]:
    kind = scores_kind(name)
    columns = [
        pool.read(kind, part, ["score"]).column("score") for part in pool.layout.numbers(kind)
    ]
    scores = (
        np.concatenate([c.drop_null().to_numpy() for c in columns]) if columns else np.array([])
    )
    if not scores.size:
        return {}
    return {f"{q:.0%}": float(np.quantile(scores, q)) for q in _QUANTILES}
