"""Curation of a pool of a million candidates against pyarrow doing the same reading and writing.

    .venv/bin/python benchmarks/bench_curation.py [--prompts 62500] [--rounds 3]

The pool is made up (texts of random words, seeded), in parts of the size `bon generate` makes.
The baseline reads the same columns of the same files, checksums verified, and writes the same
output with the same options; it decides nothing. `bon` runs as a user runs it, in a process of its
own with its start-up; the baseline in this one, all imported. They alternate, and the ratio of the
medians is the figure. Peak memory is that of the command.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bon.durable import PARQUET_OPTIONS
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import CANDIDATES_SCHEMA, MESSAGES_TYPE, PROMPTS_SCHEMA, SCORES_SCHEMA

NUM_CANDIDATES = 16
PART_SIZE = 128
RESULTS = Path(__file__).parent / "results" / "curation.json"
BON = str(Path(sys.executable).with_name("bon"))


def make_pool(root: Path, num_prompts: int) -> Pool:
    """Write a scored pool whose responses have about 60 words; one in fifty stands twice."""
    rng = np.random.default_rng(0)
    words = np.array([f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"])
    manifest = Manifest(
        part_size=PART_SIZE,
        input={"settings": {}, "rows": num_prompts, "whole": True},
        generation={"model": "made up", "num_candidates": NUM_CANDIDATES, "seed": 0},
        scorers={"reward": {"spec": "made up"}},
    )
    pool = Pool(PoolLayout(root), manifest).save(manifest)
    for part, start in enumerate(range(0, num_prompts, PART_SIZE)):
        _commit_part(pool, part, range(start, min(start + PART_SIZE, num_prompts)), words, rng)
    return pool


def _commit_part(
    pool: Pool, part: int, rows: range, words: np.ndarray, rng: np.random.Generator
) -> None:
    def text(num_words: int) -> str:
        return " ".join(words[rng.integers(len(words), size=num_words)])

    ids = [f"prompt-{row:06d}" for row in rows]
    prompts = {
        "prompt_id": ids,
        "prompt": [[{"role": "user", "content": text(20)}] for _ in rows],
        "extra": [json.dumps({"answer": str(row), "source": "made up"}) for row in rows],
        "row": list(rows),
        "where": [f"made-up.jsonl:{row + 1}" for row in rows],
    }
    num = len(rows) * NUM_CANDIDATES
    lengths = rng.integers(20, 100, size=num)
    responses = [text(int(n)) for n in lengths]
    for copy in np.flatnonzero(rng.random(num) < 0.02):
        responses[copy] = responses[copy - copy % NUM_CANDIDATES]
    keys = {
        "prompt_id": np.repeat(ids, NUM_CANDIDATES).tolist(),
        "candidate": np.tile(np.arange(NUM_CANDIDATES), len(rows)),
    }
    candidates = {
        **keys,
        "response": responses,
        "finish_reason": np.where(rng.random(num) < 0.05, "length", "stop").tolist(),
        "num_tokens": lengths,
        "logprob": rng.normal(-60, 10, num),
        "seed": rng.integers(1 << 40, size=num),
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
        arrays = [pa.array(columns[f.name]).cast(f.type) if f.name != "prompt"
                  else pa.array(columns[f.name], MESSAGES_TYPE) for f in schema]  # fmt: skip
        pool.commit(kind, part, pa.table(arrays, schema=schema), [], covers=len(rows))


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


def run(*arguments: str) -> None:
    """Run `bon` in a process of its own, start-up included."""
    subprocess.run([BON, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def bench_build_dpo(pool: Pool, folder: Path, rounds: int) -> dict[str, object]:
    """`bon build-dpo` against reading its columns and writing its output."""
    ours, theirs = folder / "pairs.parquet", folder / "pairs.pyarrow.parquet"
    arguments = ("build-dpo", str(pool.layout.root), "-o", str(ours))
    peak_mib = peak_memory_mib(arguments)
    output = pq.read_table(ours)
    columns = {
        PROMPTS: ["prompt_id", "row", "prompt", "extra", "where"],
        CANDIDATES: ["prompt_id", "candidate", "response", "finish_reason", "num_tokens"],
        scores_kind("reward"): ["prompt_id", "candidate", "score"],
    }

    def baseline() -> None:
        read_columns(pool, columns)
        pq.write_table(output, theirs, **PARQUET_OPTIONS)

    figures = compare(rounds, lambda: run(*arguments), baseline)
    return {**figures, "rows": output.num_rows, "peak_mib": peak_mib}


def bench_filter(pool: Pool, folder: Path, rounds: int) -> dict[str, object]:
    """Exact dedup and length of `bon filter` against reading its columns and writing its output."""
    ours, theirs = folder / "kept.parquet", folder / "kept.pyarrow.parquet"
    filters = ("--filter", "length:min_chars=100", "--filter", "exact_dedup:")
    arguments = ("filter", str(pool.layout.root), *filters, "-o", str(ours))
    peak_mib = peak_memory_mib(arguments)
    output = pq.read_table(ours)
    columns = {
        PROMPTS: ["prompt_id", "row", "prompt", "extra"],
        CANDIDATES: ["prompt_id", "candidate", "response", "finish_reason", "num_tokens"],
        scores_kind("reward"): ["prompt_id", "candidate", "score"],
    }

    def baseline() -> None:
        read_columns(pool, columns)
        pq.write_table(output, theirs, **PARQUET_OPTIONS)

    figures = compare(rounds, lambda: run(*arguments), baseline)
    return {**figures, "rows": output.num_rows, "peak_mib": peak_mib}


def bench_near_dedup(pool: Pool, folder: Path) -> dict[str, object]:
    """Rows a second of near_dedup, and of datasketch alone on the same texts."""
    from datasketch import MinHash, MinHashLSH

    texts: list[str] = []
    for path in sorted((pool.layout.root / CANDIDATES).glob("*.parquet")):
        texts += pq.read_table(path, columns=["response"])["response"].to_pylist()
    start = time.perf_counter()
    run("filter", str(pool.layout.root), "--filter", "near_dedup:", "-o", str(folder / "n.parquet"))
    ours_s = time.perf_counter() - start
    start = time.perf_counter()
    index = MinHashLSH(threshold=0.8, num_perm=128)
    for number, text in enumerate(texts):
        parts = text.lower().split()
        grams = {" ".join(parts[i : i + 5]) for i in range(max(1, len(parts) - 4))}
        sketch = MinHash(num_perm=128)
        sketch.update_batch([gram.encode() for gram in grams])
        index.query(sketch)
        index.insert(number, sketch)
    bare_s = time.perf_counter() - start
    return {
        "rows": len(texts),
        "bon_rows_per_s": round(len(texts) / ours_s),
        "datasketch_rows_per_s": round(len(texts) / bare_s),
    }


def main() -> None:
    """Run all and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prompts", type=int, default=62_500)
    parser.add_argument("--near-prompts", type=int, default=1_250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["build-dpo", "filter", "near-dedup"])
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pool = make_pool(folder / "large.pool", options.prompts)
        small = make_pool(folder / "small.pool", options.near_prompts)
        benches: dict[str, Callable[[], dict[str, object]]] = {
            "build-dpo": lambda: bench_build_dpo(pool, folder, options.rounds),
            "filter": lambda: bench_filter(pool, folder, options.rounds),
            "near-dedup": lambda: bench_near_dedup(small, folder),
        }
        said = {
            "command": "python " + " ".join(["benchmarks/bench_curation.py", *sys.argv[1:]]),
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "candidates": options.prompts * NUM_CANDIDATES,
        }
        for name, bench in benches.items():
            if options.only in (None, name):
                results[name] = {**bench(), **said}
                print(json.dumps({name: results[name]}), flush=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
