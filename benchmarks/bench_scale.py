"""`bon select` and its kin over pools of one, four and sixteen million candidates.

    .venv/bin/python benchmarks/bench_scale.py [--candidates 1000000 4000000] [--rounds 3]
    .venv/bin/python benchmarks/bench_scale.py --candidates 16000000 --only select

Pools are made up (texts of random words, seeded) by the real writer, in parts of the size that
`bon generate` makes. Two questions are asked. Does memory stay flat: the peak of each command, for
every size. Is the time that of the data: `bon select` as a user runs it, in a process of its own
with its start-up, against pyarrow reading the same columns of the same files, checksums verified,
and writing the same output with the same options, in this process, all imported, deciding nothing.
They alternate, and the ratio of the medians is the figure. `gather` scores a shuffled file of
responses by their length, which brings together the responses to each prompt, and says the peak.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from made_up_pool import NUM_CANDIDATES, compare, make_pool, peak_memory_mib, read_columns, run

from bon.durable import PARQUET_OPTIONS
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

RESULTS = Path(__file__).parent / "results" / "scale.json"
SELECT_COLUMNS = {
    PROMPTS: ["prompt_id", "row", "prompt", "extra", "where"],
    CANDIDATES: ["prompt_id", "candidate", "response", "finish_reason", "num_tokens"],
    scores_kind("reward"): ["prompt_id", "candidate", "score"],
}
SELECTIONS = {
    "select": ("--strategy", "best"),
    "select-top-k": ("--strategy", "top-k", "--k", "4"),
}
OTHERS = {
    "build-dpo": (),
    "filter": ("--filter", "length:min_chars=100", "--filter", "exact_dedup:"),
}


def bench_select(pool: Pool, flags: tuple[str, ...], rounds: int) -> dict[str, object]:
    """Time and peak memory of a selection, and pyarrow's time for the same reading and writing."""
    root = pool.layout.root
    ours, theirs = root.with_suffix(".best.parquet"), root.with_suffix(".pyarrow.parquet")
    arguments = ("select", str(root), *flags, "-o", str(ours))
    peak_mib = peak_memory_mib(arguments)
    output = pq.read_table(ours)

    def baseline() -> None:
        read_columns(pool, SELECT_COLUMNS)
        pq.write_table(output, theirs, **PARQUET_OPTIONS)

    figures = compare(rounds, lambda: run(*arguments), baseline)
    num_rows = output.num_rows
    for path in (ours, theirs):
        path.unlink()
    return {**figures, "rows": num_rows, "peak_mib": peak_mib}


def bench_memory(pool: Pool, command: str) -> dict[str, object]:
    """Peak memory of another command over the same pool."""
    output = pool.layout.root.with_suffix(".out.parquet")
    arguments = (command, str(pool.layout.root), *OTHERS[command], "-o", str(output))
    peak_mib = peak_memory_mib(arguments)
    rows = pq.read_metadata(output).num_rows
    output.unlink()
    return {"rows": rows, "peak_mib": peak_mib}


def bench_gather(folder: Path, num_rows: int) -> dict[str, object]:
    """Peak memory of scoring a file whose rows, one response each, stand in no order."""
    path = folder / "shuffled.jsonl"
    order = list(range(num_rows))
    draw = random.Random(0)
    draw.shuffle(order)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]
    with path.open("w") as file:
        for place in order:
            number = place // NUM_CANDIDATES
            text = " ".join(draw.choices(words, k=60))
            row = {"id": f"prompt-{number}", "prompt": f"question {number}", "response": text}
            file.write(json.dumps({**row, "score": place % 97}) + "\n")
    pool = folder / "gathered.pool"
    arguments = ("score", str(path), "-r", "rule:length?max=500", "--pool", str(pool))
    peak_mib = peak_memory_mib(arguments)
    made = Pool.open(pool)
    prompts = sum(made.num_prompts(part) for part in made.parts())
    candidates = sum(made.num_rows(CANDIDATES, part) for part in made.parts())
    if (prompts, candidates) != (-(-num_rows // NUM_CANDIDATES), num_rows):
        raise SystemExit(f"{candidates} responses to {prompts} prompts came of {num_rows} rows")
    return {"rows": num_rows, "prompts": prompts, "peak_mib": peak_mib}


def flatness(results: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return each command's largest peak over its smallest, less one."""
    peaks = {
        name: [of_size["peak_mib"] for of_size in sizes.values()] for name, sizes in results.items()
    }
    return {name: round(max(seen) / min(seen) - 1, 3) for name, seen in peaks.items()}


def main() -> None:
    """Run all and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--candidates", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--gather-rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[*SELECTIONS, *OTHERS, "gather"])
    parser.add_argument("--folder", type=Path, help="where pools are made (16 million take 15 GB)")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    commands: dict[str, dict[str, dict[str, object]]] = results.get("commands", {})

    def keep(name: str, size: int, figures: dict[str, object]) -> None:
        commands.setdefault(name, {})[str(size)] = figures
        print(json.dumps({name: {size: figures}}), flush=True)

    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        for size in options.candidates if options.only != "gather" else []:
            pool = make_pool(folder / f"{size}.pool", size // NUM_CANDIDATES, with_answers=False)
            benches: dict[str, Callable[[], dict[str, object]]] = {
                **{
                    name: lambda pool=pool, flags=flags: bench_select(pool, flags, options.rounds)
                    for name, flags in SELECTIONS.items()
                },
                **{name: lambda pool=pool, name=name: bench_memory(pool, name) for name in OTHERS},
            }
            for name, bench in benches.items():
                if options.only in (None, name):
                    keep(name, size, bench())
        if options.only in (None, "gather"):
            keep("gather", options.gather_rows, bench_gather(folder, options.gather_rows))
    results = {
        "command": "python " + " ".join(["benchmarks/bench_scale.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "candidates_per_prompt": NUM_CANDIDATES,
        "commands": commands,
        "peak_growth": flatness(commands),
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
