"""What the benchmarks of curation share: a made-up pool, pyarrow doing the same, peak memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import CANDIDATES_SCHEMA, MESSAGES_TYPE, PROMPTS_SCHEMA, SCORES_SCHEMA

NUM_CANDIDATES = 16
PART_SIZE = 128
BON = str(Path(sys.executable).with_name("bon"))


def make_pool(
    root: Path,
    num_prompts: int,
    *,
    with_answers: bool = True,
    num_candidates: int = NUM_CANDIDATES,
    prompt_words: int = 20,
) -> Pool:
    """Write a scored pool through `Pool.commit`, in parts of the size `bon generate` makes.

    Responses have about 60 words; one in fifty stands twice. `with_answers` gives each prompt a
    reference answer, which `bon select` compares with every response.
    """
    rng = np.random.default_rng(0)
    words = np.array([f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"])
    manifest = Manifest(
        part_size=PART_SIZE,
        input={"settings": {}, "rows": num_prompts, "whole": True},
        generation={"model": "made up", "num_candidates": num_candidates, "seed": 0},
        scorers={"reward": {"spec": "made up"}},
    )
    pool = Pool(PoolLayout(root), manifest).save(manifest)
    for part, start in enumerate(range(0, num_prompts, PART_SIZE)):
        rows = range(start, min(start + PART_SIZE, num_prompts))
        _commit_part(pool, part, rows, words, rng, with_answers, num_candidates, prompt_words)
    return pool


def _commit_part(
    pool: Pool,
    part: int,
    rows: range,
    words: np.ndarray,
    rng: np.random.Generator,
    with_answers: bool,
    num_candidates: int,
    prompt_words: int,
) -> None:
    def text(num_words: int) -> str:
        return " ".join(words[rng.integers(len(words), size=num_words)])

    ids = [f"prompt-{row:06d}" for row in rows]
    prompts = {
        "prompt_id": ids,
        "prompt": [[{"role": "user", "content": text(prompt_words)}] for _ in rows],
        "extra": [
            json.dumps(({"answer": str(row)} if with_answers else {}) | {"source": "made up"})
            for row in rows
        ],
        "row": list(rows),
        "where": [f"made-up.jsonl:{row + 1}" for row in rows],
    }
    num = len(rows) * num_candidates
    lengths = rng.integers(20, 100, size=num)
    responses = [text(int(n)) for n in lengths]
    for copy in np.flatnonzero(rng.random(num) < 0.02):
        responses[copy] = responses[copy - copy % num_candidates]
    keys = {
        "prompt_id": np.repeat(ids, num_candidates).tolist(),
        "candidate": np.tile(np.arange(num_candidates), len(rows)),
    }
    candidates = {
        **keys,
        "response": responses,
        "finish_reason": np.where(rng.random(num) < 0.05, "length", "stop").tolist(),
        "num_tokens": lengths,
        "logprob": rng.normal(-60, 10, num),
        "seed": rng.integers(1 << 40, size=num),
        "token_ids": pa.ListArray.from_arrays(
            np.r_[0, np.cumsum(lengths)].astype(np.int32),
            rng.integers(1 << 15, size=lengths.sum(), dtype=np.int32),
        ),
    }
    scores = {
        **keys,
        "score": rng.normal(0, 2, num).round(3),
        "num_tokens": lengths + 20,
        "truncated": np.zeros(num, dtype=bool),
    }
    for kind, columns, schema in (
        (PROMPTS, prompts, PROMPTS_SCHEMA),
        (CANDIDATES, candidates, CANDIDATES_SCHEMA),
        (scores_kind("reward"), scores, SCORES_SCHEMA),
    ):
        arrays = [_array(columns[item.name], item.type) for item in schema]
        pool.commit(kind, part, pa.table(arrays, schema=schema), [], covers=len(rows))


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind) if kind == MESSAGES_TYPE else pa.array(values).cast(kind)


def read_columns(pool: Pool, columns: dict[str, list[str]]) -> int:
    """Read columns of every part with pyarrow alone."""
    num_rows = 0
    for kind, names in columns.items():
        for path in sorted((pool.layout.root / kind).glob("*.parquet")):
            table = pq.read_table(
                path, columns=names, page_checksum_verification=True, partitioning=None
            )
            num_rows += table.num_rows
    return num_rows


def compare(
    rounds: int, ours: Callable[[], None], baseline: Callable[[], None]
) -> dict[str, float]:
    """Alternate the two and return the medians and their ratio."""
    seconds: dict[str, list[float]] = {"bon_s": [], "pyarrow_s": []}
    for _ in range(rounds):
        for name, call in (("bon_s", ours), ("pyarrow_s", baseline)):
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    return {**medians, "ratio": round(medians["bon_s"] / medians["pyarrow_s"], 3)}


def peak_memory_mib(arguments: Sequence[str]) -> float:
    """Run `bon` in a process of its own and return its largest resident size."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, BON, *arguments], check=True, capture_output=True, text=True
    )
    return round(int(done.stdout.split()[-1]) / 1024, 1)


def seconds_and_peak(arguments: Sequence[str]) -> dict[str, float]:
    """Run `bon` in a process of its own; return its time, the computing of all its processes, and
    the largest resident size that one of them has had."""
    code = (
        "import resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, BON, *arguments, "-q"],
        check=True,
        capture_output=True,
        text=True,
    )
    names = ("seconds", "cpu_s", "peak_mib")
    return dict(zip(names, (round(float(one), 2) for one in done.stdout.split()), strict=True))


def run(*arguments: str) -> None:
    """Run `bon` in a process of its own, start-up included."""
    subprocess.run([BON, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)
