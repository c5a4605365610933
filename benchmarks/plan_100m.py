"""What a pool of 100 million prompts costs the one process that drives 256 GPUs.

    .venv/bin/python benchmarks/plan_100m.py [--parts 10000 100000] [--rows 250000 1000000]

Pools are made up: `bon score` makes one, whose parts are then emptied of rows and copied, each with
a footer that names its own part, so that every file passes every check of the pool (`--parts` parts
of three files). What an empty part costs is what any part costs, its rows aside. What is asked of
them is what a command asks before its first part: the parts that there are, the parts that are
pending, the digest of all prompts, what was dropped, one snapshot for readers, and a whole
`bon score` that finds nothing to do and closes its books. Each in a process of its own, files in
the system's cache, with its peak memory. Prompt files of `--rows` rows are read, and written as
parts, in the same way.

From the largest sizes come constants (microseconds of CPU and bytes a part, a row), and from these
the table for 100 million prompts and several part sizes. What is no measurement stands under
`assumed`. 800,000 parts take 10 GB in --folder while it runs, which are removed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bon.pool.layout import PoolLayout
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind

RESULTS = Path(__file__).parent / "results" / "plan_100m.json"
SCORER = "rule:length?max=600"
KINDS = (PROMPTS, CANDIDATES, scores_kind("length"))
NUM_PROMPTS, NUM_GPUS, NUM_CANDIDATES = 100_000_000, 256, 8
PART_SIZES = (128, 1_024, 4_096, 16_384)
COMMAND = "bon score, nothing to do"
_ID_BYTES = 30
"""Of an input row's id in bon/sources/digests.py, at most: 19 to 29 for 1 to 12 million."""
ASSUMED = {
    "shared_folder_open_s": 0.001,
    "object_store_request_s": 0.03,
    "object_store_keys_a_listing": 1_000,
    "object_store_requests_a_footer": 2,
    "object_store_requests_at_once": 16,
}
"""Latency of one small file of a shared folder, and of one request to an object store, as
bon/pool/footers.py asks for them."""


def bon(*arguments: object) -> list[str]:
    """Return a command of this environment's `bon`."""
    return [sys.executable, "-m", "bon", *map(str, arguments)]


def make_pool(folder: Path, num_parts: int) -> Pool:
    """Make a pool of so many empty parts, scored by a rule."""
    source, root = folder / "answers.jsonl", folder / f"{num_parts}.pool"
    source.write_text('{"id": "p", "prompt": "What is 2 + 2?", "response": "It is 4."}\n')
    command = bon("score", source, "-r", f"length={SCORER}", "--pool", root, "--part-size", 1)
    subprocess.run([*command, "-q"], check=True, stdout=subprocess.DEVNULL)
    pool = Pool.open(root)
    tables = {kind: pool.read(kind, 0).slice(0, 0) for kind in KINDS}
    for digits in range(1, len(str(num_parts - 1)) + 1):
        first = 10 ** (digits - 1) if digits > 1 else 0
        for kind in KINDS:
            pool.commit(kind, first, tables[kind], [], covers=0)
            _copy(pool.layout, kind, first, range(first + 1, min(10**digits, num_parts)))
    whole = {**pool.manifest.input, "rows": 0, "content": pool.prompts_digest()}
    return pool.save(pool.manifest.model_copy(update={"input": whole}))


def _copy(layout: PoolLayout, kind: str, first: int, others: range) -> None:
    """Write copies of a part, each with its own number in a footer whose checksum fits."""
    data = layout.part(kind, first).read_bytes()
    (length,) = struct.unpack("<I", data[-8:-4])
    tail_at = len(data) - length - 8
    said = f'"part": {first}'.encode()
    at = data.rindex(said) + len(said) - len(str(first))
    assert at > tail_at and data[tail_at - 12 : tail_at - 8] == b"bon1"
    for part in others:
        number = str(part).encode()
        tail = data[tail_at:at] + number + data[at + len(number) :]
        content = data[: tail_at - 4] + struct.pack("<I", zlib.crc32(tail)) + tail
        descriptor = os.open(str(layout.part(kind, part)), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, content)
        os.close(descriptor)


def _list(pool: Pool) -> int:
    return len(pool.layout.numbers(PROMPTS))


def _pending_candidates(pool: Pool) -> int:
    return len(pool.pending(CANDIDATES))


def _pending_scores(pool: Pool) -> int:
    return len(pool.pending(KINDS[2]))


def _digest(pool: Pool) -> int:
    return len(pool.prompts_digest() or "")


def _drops(pool: Pool) -> int:
    return sum(1 for _ in pool.read_drops(PROMPTS))


def _snapshot(pool: Pool) -> int:
    from bon.pool.snapshot import Snapshot

    return len(Snapshot.of(pool).stamps)


def _nothing(pool: Pool) -> int:
    return 0


STEPS: dict[str, Callable[[Pool], int]] = {
    "nothing": _nothing,
    "list": _list,
    "pending_candidates": _pending_candidates,
    "pending_scores": _pending_scores,
    "prompts_digest": _digest,
    "read_drops": _drops,
    "snapshot": _snapshot,
}


def measure_pool(root: Path, num_parts: int, *, with_command: bool) -> dict[str, Any]:
    """Time and peak memory of every step, and of a command that has nothing to do."""
    found = {name: _in_child("step", root, name) for name in STEPS}
    if with_command:
        found[COMMAND] = _timed(bon("score", root, "-r", f"length={SCORER}", "-q"))
    files = sum(sum(1 for _ in (root / kind).iterdir()) for kind in KINDS)
    if files != 3 * num_parts or found["pending_scores"]["value"]:
        raise SystemExit(f"the made-up pool is wrong: {files} files, {found}")
    layout = PoolLayout(root)
    sizes = {kind: layout.part(kind, num_parts - 1).stat().st_size for kind in KINDS}
    return {**found, "bytes_an_empty_file": sizes}


def measure_rows(folder: Path, num_rows: int) -> dict[str, Any]:
    """Read a prompt file of so many rows of 200 characters, and write it as parts."""
    source = folder / f"{num_rows}.jsonl"
    with source.open("w") as file:
        for row in range(num_rows):
            file.write(json.dumps({"id": f"prompt-{row:09d}", "prompt": "word " * 40}) + "\n")
    found = {
        "read": _in_child("read", source, "-"),
        "read and write parts of 128": _in_child("ingest", source, folder / "128.pool"),
    }
    found["bytes_of_prompts"] = _size(folder / "128.pool" / PROMPTS)
    shutil.rmtree(folder / "128.pool")
    source.unlink()
    return found


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def _in_child(what: str, source: Path, name: str | Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, str(source), str(name)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _timed(command: list[str]) -> dict[str, Any]:
    code = (
        "import resource, subprocess, sys, time, json\n"
        "start = time.perf_counter()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "seconds = time.perf_counter() - start\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps({'seconds': round(seconds, 3), 'cpu_s': "
        "round(used.ru_utime + used.ru_stime, 3), 'peak_mib': round(used.ru_maxrss / 1024, 1)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def child(what: str, source: Path, name: str) -> dict[str, Any]:
    """Do one thing in this process, and say how long it took and its peak memory."""
    start, cpu = time.perf_counter(), time.process_time()
    if what == "step":
        value = STEPS[name](Pool.open(source))
    else:
        value = _ingest(source, Path(name) if what == "ingest" else None)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": round(seconds, 3),
        "cpu_s": round(cpu, 3),
        "peak_mib": _peak_mib(),
        "value": value,
    }


def _peak_mib() -> float:
    """Return this process's largest resident size; `ru_maxrss` would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def _ingest(source: Path, root: Path | None) -> int:
    from bon.config import InputSettings
    from bon.pipeline.ingest import ingest
    from bon.pool.manifest import Manifest
    from bon.sources.prompts import PromptReader

    reader = PromptReader(str(source), InputSettings())
    if root is None:
        return sum(1 for _ in reader)
    manifest = Manifest(part_size=128, input={"settings": {}})
    return ingest(Pool(PoolLayout(root), manifest).save(manifest), reader, None)


def constants(pools: dict[str, Any], rows: dict[str, Any]) -> dict[str, float]:
    """Return what one more part and one more row cost, between the smallest and largest sizes."""
    steps = [name for name in STEPS if name != "nothing"] + [COMMAND]
    told, ends = {name: row["read"] for name, row in rows.items()}, sorted(map(int, rows))
    ingested = {name: row["read and write parts of 128"] for name, row in rows.items()}
    written_s = ingested[str(ends[-1])]["seconds"] - told[str(ends[-1])]["seconds"]
    return {
        "base_mib": pools[min(pools, key=int)]["nothing"]["peak_mib"],
        **{f"{name}, us a part": 1e6 * _slope(pools, name, "cpu_s") for name in steps},
        **{f"{name}, bytes a part": 2**20 * _slope(pools, name, "peak_mib") for name in steps},
        "read, us a row": 1e6 * _slope(rows, "read", "cpu_s"),
        "read, bytes a row": 2**20 * _slope(rows, "read", "peak_mib"),
        "write, us a part": 1e6 * written_s / (ends[-1] / 128),
        "prompts, bytes a row on disk": rows[str(ends[-1])]["bytes_of_prompts"] / ends[-1],
    }


def _slope(sizes: dict[str, Any], name: str, what: str) -> float:
    """Return how much more a part or row takes, from the sizes for which it was measured."""
    measured = sorted(
        (int(size), found[name][what]) for size, found in sizes.items() if name in found
    )
    (small, less), (large, more) = measured[0], measured[-1]
    return float((more - less) / (large - small)) if large > small else float(more / large)


def extrapolate(one: dict[str, float], part_size: int) -> dict[str, float]:
    """Return what 100 million prompts cost the driver with one part size."""
    parts = -(-NUM_PROMPTS // part_size)
    footers = 3 * parts  # prompts, candidates, scores, each read once when a run goes on
    resume_s = one[f"{COMMAND}, us a part"] * parts / 1e6
    at_once = ASSUMED["object_store_requests_at_once"]
    requests = footers * ASSUMED["object_store_requests_a_footer"] / at_once
    requests += footers / ASSUMED["object_store_keys_a_listing"]
    rows_mib = _ID_BYTES * NUM_PROMPTS / 2**20
    parts_mib = one[f"{COMMAND}, bytes a part"] * parts / 2**20
    return {
        "parts": parts,
        "files": footers,
        "files_a_folder": parts,
        "parts_a_gpu": round(parts / NUM_GPUS, 1),
        "list_a_folder_s": round(one["list, us a part"] * parts / 1e6, 2),
        "resume_local_s": round(resume_s, 1),
        "resume_shared_folder_s": round(resume_s + footers * ASSUMED["shared_folder_open_s"], 1),
        "resume_object_store_s": round(resume_s + requests * ASSUMED["object_store_request_s"], 1),
        "driver_going_on_mib": round(one["base_mib"] + parts_mib, 1),
        "driver_first_reading_mib": round(one["base_mib"] + rows_mib, 1),
        "first_reading_s": round(
            (one["read, us a row"] * NUM_PROMPTS + one["write, us a part"] * parts) / 1e6, 1
        ),
    }


def main() -> None:
    """Measure, extrapolate, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--parts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument(
        "--command-up-to", type=int, default=100_000, help="parts up to which `bon score` is run"
    )
    parser.add_argument("--folder", type=Path, help="where pools are made (800,000 parts: 10 GB)")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child[0], Path(options.child[1]), options.child[2])))
        return
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    pools, rows = before.get("pools_by_parts", {}), before.get("inputs_by_rows", {})
    for num in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows[str(num)] = measure_rows(Path(folder), num)
        print(json.dumps({num: rows[str(num)]}), flush=True)
    for num in options.parts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            root = make_pool(Path(folder), num).layout.root
            pools[str(num)] = measure_pool(root, num, with_command=num <= options.command_up_to)
        print(json.dumps({num: pools[str(num)]}), flush=True)
    write(pools, rows)


def write(pools: dict[str, Any], rows: dict[str, Any]) -> None:
    """Write what was measured, and what follows from it."""
    found = constants(pools, rows)
    results = {
        "command": "python benchmarks/plan_100m.py",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "pools_by_parts": pools,
        "inputs_by_rows": rows,
        "constants": {name: round(value, 2) for name, value in found.items()},
        "assumed": ASSUMED,
        "plan": {
            "prompts": NUM_PROMPTS,
            "gpus": NUM_GPUS,
            "by_part_size": {str(size): extrapolate(found, size) for size in PART_SIZES},
        },
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
