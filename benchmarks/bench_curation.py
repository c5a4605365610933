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
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from made_up_pool import NUM_CANDIDATES, compare, make_pool, peak_memory_mib, read_columns, run

from bon.durable import PARQUET_OPTIONS
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

RESULTS = Path(__file__).parent / "results" / "curation.json"


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
