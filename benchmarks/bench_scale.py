"""`bon select` and its kin over pools of one, four and sixteen million candidates.

    .venv/bin/python benchmarks/bench_scale.py [--candidates 1000000 4000000] [--rounds 3]
    .venv/bin/python benchmarks/bench_scale.py --candidates 16000000 --only select

Pools are made up (texts of random words, seeded) by the real writer, in parts of the size that
`bon generate` makes. Two questions are asked. Does memory stay flat: the peak of each command, for
every size. Is the time that of the data: `bon select` as a user runs it, in a process of its own
with its start-up, against pyarrow reading the same columns of the same files, checksums verified,
and writing the same output with the same options, in this process, all imported, deciding nothing.
They alternate, and the ratio of the medians is the figure. `select-long-prompts` has prompts of 60
KB with one response each. `gather` scores a shuffled file of responses by their length, which
brings together the responses to each prompt, and says the peak. `workers` has `bon select` and a
filter by wording done with one process and with two: the files must be the same.

Every figure has the command that made it: a call with --only replaces its own. It ends with 1 where
what was measured breaks a limit: selections take at most 2.5 times pyarrow's time; they and
`build-dpo` take at most 20 % more memory for the largest size than for the smallest; they and
`gather` stay below 1 GiB. What `filter` takes is written down, and grows with dedup (docs/pool.md).
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from made_up_pool import (
    NUM_CANDIDATES,
    compare,
    make_pool,
    peak_memory_mib,
    read_columns,
    run,
    seconds_and_peak,
)

from bon.durable import PARQUET_OPTIONS
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

RESULTS = Path(__file__).parent / "results" / "scale.json"
MOST_RATIO, MOST_GROWTH, MOST_MIB = 2.5, 0.2, 1024
LONG, GATHER, WORKERS = "select-long-prompts", "gather", "workers"
LONG_PROMPT_WORDS = 15_000
"""Of four letters with the space: 60 KB."""
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
SHARED = {
    "select": (),
    "filter": (
        *("--filter", "repetition:", "--filter", "near_dedup:num_perm=64"),
        *("--limit", "20000"),
    ),
}
"""What `workers` measures; of the filter 320,000 candidates are enough."""


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


def bench_long_prompts(folder: Path, num_prompts: int) -> dict[str, object]:
    """Peak memory of a selection where prompts are long and have a response each."""
    pool = make_pool(
        folder / f"long-{num_prompts}.pool",
        num_prompts,
        with_answers=False,
        num_candidates=1,
        prompt_words=LONG_PROMPT_WORDS,
    )
    output = pool.layout.root.with_suffix(".out.parquet")
    peak_mib = peak_memory_mib(("select", str(pool.layout.root), "-o", str(output)))
    rows = pq.read_metadata(output).num_rows
    return {"rows": rows, "peak_mib": peak_mib}


def bench_memory(pool: Pool, command: str) -> dict[str, object]:
    """Peak memory of another command over the same pool."""
    output = pool.layout.root.with_suffix(".out.parquet")
    arguments = (command, str(pool.layout.root), *OTHERS[command], "-o", str(output))
    peak_mib = peak_memory_mib(arguments)
    rows = pq.read_metadata(output).num_rows
    output.unlink()
    return {"rows": rows, "peak_mib": peak_mib}


def bench_workers(pool: Pool, rounds: int) -> dict[str, object]:
    """Time, computing and peak of commands with one process and with two, in turn."""
    figures: dict[str, object] = {}
    peaks = []
    for command, flags in SHARED.items():
        output = {number: pool.layout.root.with_suffix(f".{number}.parquet") for number in (1, 2)}
        seen: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for _ in range(rounds):
            for number, path in output.items():
                arguments = (command, str(pool.layout.root), *flags, "-o", str(path))
                seen[number].append(seconds_and_peak((*arguments, "--num-workers", str(number))))
        if output[1].read_bytes() != output[2].read_bytes():
            raise SystemExit(f"{command} by two processes is not what it is by one")
        best = {number: min(of, key=lambda one: one["seconds"]) for number, of in seen.items()}
        peaks += [one["peak_mib"] for one in best.values()]
        gain = round(best[1]["seconds"] / best[2]["seconds"], 2)
        figures[command] = {"one": best[1], "two": best[2], "gain": gain}
        for path in output.values():
            path.unlink()
    return {**figures, "peak_mib": max(peaks)}


def bench_gather(folder: Path, num_rows: int) -> dict[str, object]:
    """Peak memory of scoring a file whose rows, one response each, stand in no order."""
    path = folder / f"shuffled-{num_rows}.jsonl"
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
    pool = folder / f"gathered-{num_rows}.pool"
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


def broken_limits(results: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Say which limits the figures break."""
    broken = []
    for name, sizes in results.items():
        if name in ("filter", WORKERS):
            continue
        for size, figures in sizes.items():
            if figures["peak_mib"] >= MOST_MIB:
                broken.append(f"{name} of {size} takes {figures['peak_mib']} MiB, not {MOST_MIB}")
            if figures.get("ratio", 0) > MOST_RATIO:
                broken.append(f"{name} of {size} takes {figures['ratio']} times pyarrow's time")
        growth = flatness({name: sizes})[name]
        if name != GATHER and growth > MOST_GROWTH:
            broken.append(f"{name} grows by {growth:.0%} from size to size")
    return broken


def benches(
    folder: Path, options: argparse.Namespace
) -> Iterator[tuple[str, int, Callable[[], dict[str, object]]]]:
    """Yield what is to be measured: name, size and what measures it."""
    wanted = {options.only} if options.only else {*SELECTIONS, *OTHERS, LONG, GATHER, WORKERS}
    for size in options.candidates if wanted - {LONG, GATHER} else []:
        pool = make_pool(folder / f"{size}.pool", size // NUM_CANDIDATES, with_answers=False)
        for name, flags in SELECTIONS.items():
            if name in wanted:
                yield name, size, partial(bench_select, pool, flags, options.rounds)
        for name in OTHERS:
            if name in wanted:
                yield name, size, partial(bench_memory, pool, name)
        if WORKERS in wanted:
            yield WORKERS, size, partial(bench_workers, pool, options.rounds)
    for size in options.long_prompts if LONG in wanted else []:
        yield LONG, size, partial(bench_long_prompts, folder, size)
    for size in options.gather_rows if GATHER in wanted else []:
        yield GATHER, size, partial(bench_gather, folder, size)


def main() -> None:
    """Run all, write the results, and end with 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--candidates", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--gather-rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--long-prompts", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[*SELECTIONS, *OTHERS, LONG, GATHER, WORKERS])
    parser.add_argument("--folder", type=Path, help="where pools are made (16 million take 15 GB)")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    commands = results.get("commands", {})
    command = "python " + " ".join(["benchmarks/bench_scale.py", *sys.argv[1:]])
    measured = set()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for name, size, bench in benches(Path(temporary), options):
            figures = {**bench(), "command": command}
            commands.setdefault(name, {})[str(size)] = figures
            measured.add(name)
            print(json.dumps({name: {size: figures}}), flush=True)
    results = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "candidates_per_prompt": NUM_CANDIDATES,
        "commands": commands,
        "peak_growth": flatness(commands),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    broken = broken_limits({name: commands[name] for name in commands if name in measured})
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
