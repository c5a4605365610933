"""`bon plan` against what it predicts: a run of 400 rows, planned from one of 100 of them.

    .venv/bin/python benchmarks/bench_plan.py [--rows 100 400] [--rounds 3]

Runs are those of a user, in processes of their own, with the models of sample_data/: prompts that
are sampled with transformers and scored by the reward model and a rule, and given responses that
are scored by both. Rows are shuffled once (seeded), so that the first 100 are like the others.
Predicted and found: seconds from the lock to the end (run.log), tokens, bytes and files on disk;
the error is predicted / found - 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "plan.json"
MODELS = ROOT / "sample_data" / "models"
SCORERS = ("-r", f"reward={MODELS / 'reward'}", "-r", "length=rule:length?max=600")
SAMPLING = ("-m", str(MODELS / "generator"), "--max-tokens", "48")
SAMPLING += ("--generator-engine", "transformers")
PART_SIZE = 16


def bon(*arguments: object) -> str:
    """Run `bon` as a user does, and return what it printed."""
    command = [sys.executable, "-m", "bon", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def prompts(num_rows: int) -> list[dict[str, Any]]:
    """Return so many of the sample prompts, shuffled; what is asked twice has another id."""
    with (ROOT / "sample_data" / "prompts.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    random.Random(0).shuffle(rows)
    return [{**rows[n % len(rows)], "id": f"prompt-{n}"} for n in range(num_rows)]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def with_responses(pool: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with the responses that a pool has for them."""
    found: dict[str, list[str]] = {}
    for path in sorted((pool / "candidates").iterdir()):
        for row in pq.read_table(path).select(["prompt_id", "response"]).to_pylist():
            found.setdefault(row["prompt_id"], []).append(row["response"])
    return [{**row, "responses": found[row["id"]]} for row in rows if row["id"] in found]


def facts_of(pool: Path) -> dict[str, Any]:
    """Return what a run took: the end of its log, its totals, its files."""
    lines = [json.loads(line) for line in (pool / ".bon" / "run.log").read_text().splitlines()]
    stages = {line["name"]: line for line in lines if line["event"] == "stage"}
    files = [path for path in pool.rglob("part-*.parquet") if ".bon" not in path.parts]
    return {
        "wall_s": lines[-1]["elapsed_s"],
        "of it at work, s": round(
            sum(line["seconds"] for line in lines if line["event"] == "part"), 3
        ),
        **{
            f"{name}: tokens": stage["num_tokens"]
            for name, stage in stages.items()
            if stage["num_tokens"]
        },
        **{
            f"{name}: tokens computed": stage["num_tokens_computed"]
            for name, stage in stages.items()
            if stage["num_tokens_computed"]
        },
        "bytes": sum(path.stat().st_size for path in files),
        "files": len(files),
    }


def predicted(pool: Path, num_rows: int) -> dict[str, Any]:
    """Return what `bon plan` says of a larger run."""
    plan = json.loads(bon("plan", "--from", pool, "--prompts", num_rows, "--json"))
    stages = {stage["name"]: stage for stage in plan["stages"]}
    return {
        "wall_s": plan["placements"][0]["wall_s"],
        "of it at work, s": sum(stage["run_s"] for stage in plan["stages"]),
        **{
            f"{name}: tokens": stage["num_tokens"]
            for name, stage in stages.items()
            if stage["num_tokens"]
        },
        **{
            f"{name}: tokens computed": stage["num_units"]
            for name, stage in stages.items()
            if stage["num_tokens"] and name != "generate"
        },
        "bytes": plan["pool"]["num_bytes"],
        "files": plan["pool"]["num_files"] - 5,
    }


def compare(folder: Path, name: str, arguments: Sequence[object], sizes: list[int]) -> Any:
    """Run the small and the large input, and compare the plan of the one with the other."""
    small, large = sizes
    pools = {}
    for num_rows in sizes:
        pools[num_rows] = folder / f"{name}-{num_rows}.pool"
        source = folder / f"{name}-{num_rows}.jsonl"
        bon("score", source, *arguments, "--pool", pools[num_rows], "--part-size", PART_SIZE, "-q")
    plan, found = predicted(pools[small], large), facts_of(pools[large])
    return {
        key: {
            "predicted": round(plan[key], 2),
            "found": found[key],
            "error": round(plan[key] / found[key] - 1, 4),
        }
        for key in found
    }


def main() -> None:
    """Compare, print and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, nargs=2, default=[100, 400])
    parser.add_argument("--num-candidates", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sampling = (*SAMPLING, "-n", options.num_candidates, *SCORERS)
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            rows = prompts(options.rows[1])
            for num in options.rows:
                write(folder / f"sampled-{num}.jsonl", rows[:num])
            found = {"sampled": compare(folder, "sampled", sampling, options.rows)}
            given = with_responses(folder / f"sampled-{options.rows[1]}.pool", rows)
            for num in options.rows:
                write(folder / f"given-{num}.jsonl", given[:num])
            found["given"] = compare(folder, "given", SCORERS, options.rows)
            rounds.append(found)
            print(json.dumps(found, indent=2), flush=True)
    results = {
        "command": " ".join(["python benchmarks/bench_plan.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rows": options.rows,
        "num_candidates": options.num_candidates,
        "rounds": rounds,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
