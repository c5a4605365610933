"""What the Ray engine costs: the driver's memory, its overhead for each part, and how it scales.

    python benchmarks/bench_ray.py [--prompts 1000,10000,100000] [-o FILE]
                                   [--scaling PROMPTS] [--part-size 64]

Work of fixed output: each part of 128 prompts is made up and committed, so what is measured is the
engine, as the command line has it: the run in one process (`peak_mib`), what talks to Ray in
another (`ray_peak_mib`, as /proc tells it before that process ends). Ray is started on this
machine. Scaling runs `bon score` on the sample models in parts of `--part-size`, one core for each
worker, and tells candidates per second once the models are loaded.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bon.engines.local import LocalEngine
from bon.protocols import Engine, Event, PartDone, Parts, Progress, Ready, Scope

ROOT = Path(__file__).resolve().parents[1]
PART_SIZE, BYTES_A_PART = 128, 1 << 18
NUM_WORKERS = 2
_BY_NAME = "import bench_ray; bench_ray.main()"
"""Workers import the work: it must not be of `__main__`."""


@dataclass(frozen=True)
class MadeUp:
    """Commits each part as a file of fixed size."""

    folder: Path
    scope: Scope = field(default_factory=Scope)

    def within(self, scope: Scope) -> MadeUp:
        """Return the same work for other prompts."""
        return replace(self, scope=scope)

    def prompt_ids(self, part: int) -> list[str]:
        """List the prompts of a part."""
        return [f"{part}-{number}" for number in range(PART_SIZE)]

    def run(self, parts: Parts) -> Iterator[Event]:
        """Commit the parts."""
        yield Ready(0.0)
        for part in parts:
            if part is None:
                continue
            (self.folder / f"part-{part:06d}").write_bytes(bytes(BYTES_A_PART))
            yield Progress(PART_SIZE, PART_SIZE * 8, PART_SIZE * 800)
            yield PartDone(part, {"too_long": 1})


def drive(engine_name: str, num_prompts: int) -> dict[str, Any]:
    """Run the made-up work; the peak is this process's, and that of the one that talks to Ray."""
    num_parts = -(-num_prompts // PART_SIZE)
    ray: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch, _engine(engine_name, Path(scratch)) as engine:
        load_s = last_s = 0.0
        start_s, num_done = time.perf_counter(), 0
        for event in engine.run(MadeUp(Path(scratch)), range(num_parts)):
            if isinstance(event, Ready) and not load_s:
                load_s = time.perf_counter() - start_s
            if isinstance(event, PartDone):
                num_done, last_s = num_done + 1, time.perf_counter() - start_s
        if engine_name == "ray":
            ray = {"ray_peak_mib": _peak_mib_of(_only_worker())}
    assert num_done == num_parts
    return {
        "prompts": num_prompts,
        "parts": num_parts,
        "start_s": round(load_s, 2),
        "ms_a_part": round((last_s - load_s) / num_parts * 1000, 2),
        "peak_mib": _peak_mib_of(os.getpid()),
        **ray,
    }


def _engine(name: str, folder: Path) -> AbstractContextManager[Engine]:
    if name == "local":
        return closing(LocalEngine(folder / "log"))
    from bon.engines.ray import RayEngine
    from bon.engines.ray_apart import RayApart
    from bon.engines.ray_cluster import RayWorkers

    workers = RayWorkers(NUM_WORKERS, NUM_WORKERS, 0, 1)
    return closing(RayApart(RayEngine(None, workers, folder / "log")))


def _only_worker() -> int:
    """Return the process that multiprocessing has started, which talks to Ray."""
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    return child.pid


def _peak_mib_of(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def measure_driver(sizes: list[int]) -> dict[str, list[dict[str, Any]]]:
    """Measure each engine and size in a process of its own."""
    found: dict[str, list[dict[str, Any]]] = {"local": [], "ray": []}
    for name, results in found.items():
        for size in sizes:
            said = subprocess.run(
                [sys.executable, "-c", _BY_NAME, "--drive", name, "--prompts", str(size)],
                check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT / "benchmarks",
            )  # fmt: skip
            results.append(json.loads(said.stdout))
            print(name, results[-1], file=sys.stderr)
    return found


def measure_scaling(num_prompts: int, engine: str, part_size: int) -> dict[str, Any]:
    """Run sampling and scoring with one and two workers of one core each."""
    generator, reward = (ROOT / "sample_data" / "models" / name for name in ("generator", "reward"))
    rates: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch) / "prompts.jsonl"
        rows = ({"id": f"p{n}", "prompt": f"Say {n} in other words."} for n in range(num_prompts))
        prompts.write_text("\n".join(map(json.dumps, rows)))
        for num_workers in (1, NUM_WORKERS):
            said = subprocess.run(
                [sys.executable, "-m", "bon", "score", str(prompts), "-m", str(generator),
                 "--generator-engine", "transformers", "-r", f"reward={reward}", "-n", "4",
                 "--max-tokens", "64", "--part-size", str(part_size), "--engine", engine,
                 "--num-workers", str(num_workers), "--cpus-per-worker", "1", "--pool",
                 f"{num_workers}.pool",
                 "--placement", "in-turn", "--json", "-q"],
                check=True, capture_output=True, text=True, cwd=scratch,
            )  # fmt: skip
            stages = json.loads(said.stdout)["stages"]
            rates[str(num_workers)] = {
                stage["name"]: round(stage["num_candidates"] / stage["run_s"], 2)
                for stage in stages
            }
            print(engine, num_workers, rates[str(num_workers)], file=sys.stderr)
    one, two = rates["1"], rates[str(NUM_WORKERS)]
    times = {name: round(two[name] / one[name], 2) for name in one}
    return {
        "prompts": num_prompts,
        "part_size": part_size,
        "candidates_per_s": rates,
        "times": times,
    }


def main() -> None:
    """Measure, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", default="1000,10000,100000")
    parser.add_argument("--drive", choices=["local", "ray"])
    parser.add_argument("--scaling", type=int, default=0, metavar="PROMPTS")
    parser.add_argument("--part-size", type=int, default=64, help="of --scaling")
    parser.add_argument("-o", "--output", type=Path)
    said = parser.parse_args()
    sizes = [int(size) for size in said.prompts.split(",")]
    if said.drive:
        print(json.dumps(drive(said.drive, sizes[0])))
        return
    command = shlex.join(["python", "benchmarks/bench_ray.py", *sys.argv[1:]])
    result: dict[str, Any] = {"command": command, "driver": measure_driver(sizes)}
    if said.scaling:
        result["scaling"] = {
            engine: measure_scaling(said.scaling, engine, said.part_size)
            for engine in ("local", "ray")
        }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if said.output is not None:
        said.output.write_text(text)


if __name__ == "__main__":
    main()
