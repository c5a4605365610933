"""What `bon inspect` tells of a pool or a result, as plain facts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bon.errors import InputError, PoolIncompleteError, first_line
from bon.pipeline.ranked import ranked_prompts
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

__all__ = ["file_facts", "pool_facts", "prompt_facts"]

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def pool_facts(root: Path) -> dict[str, Any]:
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


def prompt_facts(root: Path, prompt_id: str) -> dict[str, Any]:
    """Return one prompt with its candidates, best first by the first scorer.

    Raises:
        InputError: no such prompt.
    """
    pool = Pool.open(root)
    names = pool.layout.scorer_names()
    if not names:
        raise PoolIncompleteError(
            "this pool has no scores", where=str(root), next_step=f"run `bon score {root}` first"
        )
    for ranked in ranked_prompts(pool, names[0], None):
        if ranked.prompt.prompt_id != prompt_id:
            continue
        pairs = sorted(
            zip(ranked.candidates, ranked.rewards, strict=True),
            key=lambda pair: (-(pair[1] if pair[1] is not None else -np.inf), pair[0].candidate),
        )
        return {
            "prompt_id": prompt_id,
            "where": ranked.prompt.where,
            "messages": list(ranked.prompt.messages),
            "columns": ranked.prompt.extra,
            "candidates": [
                {"candidate": c.candidate, names[0]: reward, "finish_reason": c.finish_reason,
                 "num_tokens": c.num_tokens, "response": c.response}
                for c, reward in pairs
            ],
        }  # fmt: skip
    raise InputError(
        f"the pool has no prompt {prompt_id!r} with candidates",
        where=str(root),
        next_step="see the ids with `bon inspect` on the result, or in prompts/",
    )


def file_facts(path: Path, num_rows: int) -> dict[str, Any]:
    """Return a Parquet file's columns, size and first rows.

    Raises:
        InputError: it is not a Parquet file.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
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
        raise InputError(
            "cannot read this as Parquet", where=str(path), why=first_line(error)
        ) from None


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
