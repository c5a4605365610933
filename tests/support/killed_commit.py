"""A process that commits part 0 of a pool's candidates with a drop, and is killed on the way.

    python -m support.killed_commit ROOT STEP

STEP: `before` anything is staged, while `half` of the part is written, `staged` before the first
rename, `between` the renames of drops and part, `committed` after both.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

import bon.pool.files
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest
from bon.pool.pool import CANDIDATES, Pool
from bon.records import CANDIDATES_SCHEMA, Drop

STEPS = ("before", "half", "staged", "between", "committed")
ROWS = [
    {"prompt_id": f"p{n}", "candidate": 0, "response": f"answer {n}", "finish_reason": "stop",
     "num_tokens": 2, "logprob": -1.25, "seed": n, "token_ids": [n, 2]}
    for n in range(50)
]  # fmt: skip
DROP = Drop("prompt_too_long", "too long", "in.jsonl:51", "p50", 50)


def pool_at(root: Path) -> Pool:
    manifest = Manifest(part_size=64, input={})
    return Pool(PoolLayout(root), manifest).save(manifest)


def commit(pool: Pool) -> None:
    pool.commit(CANDIDATES, 0, pa.Table.from_pylist(ROWS, CANDIDATES_SCHEMA), [DROP], covers=51)


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(step: str) -> None:
    rename, write = Path.replace, bon.pool.files.pq.write_table
    left = {"staged": 0, "between": 1}.get(step, 2)

    def replace(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            die()
        left -= 1
        return rename(self, target)

    def half(table: pa.Table, path: Path, **options: Any) -> None:
        write(table, path, **options)
        os.truncate(path, path.stat().st_size // 2)
        die()

    Path.replace = replace
    if step in ("before", "half"):
        bon.pool.files.pq.write_table = die if step == "before" else half


if __name__ == "__main__":
    pool = pool_at(Path(sys.argv[1]))
    arm(sys.argv[2])
    commit(pool)
    die()
