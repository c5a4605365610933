"""kill -9 at many random moments of many runs; then every file is compared with a fault-free run's.

    PYTHONPATH=tests python tests/faults/soak.py --kills 100

A cycle starts a command in a fresh folder, kills it (the run, its worker, or both), repeats it,
perhaps kills that too, and lets it end. Moments are drawn over the whole time of a run, and
shortly after something was done to a file, where commits are. All is drawn from `--seed`. Prints a
table, writes JSON, and ends with 1 where any file differed or any run failed.

Files are compared byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.commands import GENERATOR, PROMPTS, REWARD, ROOT, bon
from support.given import PART, write_given
from support.started import Started, states
from support.steps import all_files, armed

_SIZE = ("--limit", 24, "--part-size", 4)
_SAMPLING = ("-m", GENERATOR, "-n", 4, "--max-tokens", 24, *_SIZE)
_SLOW = ("--generator-engine", "transformers")
_SCORER = ("-r", f"reward={REWARD}", "--scorer-engine", "transformers")
_GENERATE = ("generate", PROMPTS, *_SAMPLING, *_SLOW, "--pool", "p.pool")
_SCORE = ("score", "p.pool", *_SCORER)
_MOST_KILLS = 6
"""In one cycle."""
_AFTER_STEP_S = 0.004
_NAMES = ("run", "worker", "both")


@dataclass(frozen=True)
class Scenario:
    """A command, those that come before it, and how often it is drawn."""

    name: str
    command: tuple[object, ...]
    before: tuple[tuple[object, ...], ...] = ()
    weight: float = 1.0


SCENARIOS = (
    Scenario("generate", _GENERATE, weight=3),
    Scenario("score", _SCORE, (_GENERATE,), weight=3),
    Scenario("select, all at once", ("select", PROMPTS, *_SAMPLING, *_SLOW, *_SCORER,
             "-o", "best.parquet"), weight=2),
    Scenario("select from a pool", ("select", "p.pool", "-o", "best"), (_GENERATE, _SCORE)),
    Scenario("score given responses", ("score", "in.jsonl", "-r", "rule:exact", *PART)),
)  # fmt: skip
VLLM = Scenario(
    "generate with vLLM",
    ("generate", PROMPTS, *_SAMPLING, "--kv-cache-gib", 0.5, "--pool", "p.pool"),
)


@dataclass
class Whole:
    """A fault-free run of a scenario."""

    scenario: Scenario
    start: Path
    run_s: float
    num_steps: int
    files: dict[str, bytes]


@dataclass
class Kill:
    """One kill -9."""

    whom: str
    after_s: float
    after_step: int | None
    """None where the moment was drawn over the time of a run."""
    num_steps: int
    """Things done to files by then."""


@dataclass
class Cycle:
    """One command, killed until it is let through."""

    scenario: str
    kills: list[Kill] = field(default_factory=list)
    num_runs: int = 0
    codes: list[int] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill until the number is reached, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="kills to do at least (100)")
    parser.add_argument("--vllm-kills", type=int, default=5, help="more of them with vLLM (5)")
    parser.add_argument("--seed", type=int, default=0, help="decides scenarios and moments (0)")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "soak.json")
    said = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    draw, started_s = random.Random(said.seed), time.monotonic()
    print(f"seed {said.seed}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        cycles = soak(Path(place), SCENARIOS, said.kills, draw)
        if said.vllm_kills:
            cycles += soak(Path(place) / "vllm", (VLLM,), said.vllm_kills, draw)
    seconds = time.monotonic() - started_s
    is_same = not any(cycle.differences for cycle in cycles)
    report = {
        "seed": said.seed,
        "seconds": round(seconds, 1),
        "kills": sum(len(cycle.kills) for cycle in cycles),
        "differences": sum(len(cycle.differences) for cycle in cycles),
        "cycles": [asdict(cycle) for cycle in cycles],
    }
    said.output.parent.mkdir(parents=True, exist_ok=True)
    said.output.write_text(json.dumps(report, indent=1) + "\n")
    print_table(cycles)
    how = "no difference" if is_same else "DIFFERENCES"
    print(f"{report['kills']} kills in {seconds:.0f} s, {how}; {said.output}")
    return 0 if is_same else 1


def soak(
    place: Path, scenarios: Sequence[Scenario], num_kills: int, draw: random.Random
) -> list[Cycle]:
    """Do cycles until there were so many kills."""
    wholes: dict[str, Whole] = {}
    cycles: list[Cycle] = []
    while sum(len(cycle.kills) for cycle in cycles) < num_kills:
        (scenario,) = draw.choices(scenarios, [one.weight for one in scenarios])
        if scenario.name not in wholes:
            wholes[scenario.name] = run_whole(place / f"whole-{len(wholes)}", scenario)
        whole = wholes[scenario.name]
        cycle = run_cycle(place, whole, draw)
        cycles.append(cycle)
        kills = ", ".join(f"{kill.whom} after {kill.after_s:.2f} s" for kill in cycle.kills)
        print(f"{scenario.name}: {kills or 'none in time'}; {verdict(cycle)}", flush=True)
    return cycles


def run_whole(place: Path, scenario: Scenario) -> Whole:
    """Run a scenario where nothing happens, and measure it."""
    start = place / "start"
    start.mkdir(parents=True)
    write_given(start / "in.jsonl")
    for command in scenario.before:
        done = bon(*command, cwd=start)
        assert done.returncode == 0, done.stderr
    folder = Path(shutil.copytree(start, place / "run"))
    log = place / "steps"
    began_s = time.monotonic()
    run = Started(*scenario.command, cwd=folder, environment=counting(folder, log))
    code, err = run.end()
    assert code == 0, err
    return Whole(scenario, start, time.monotonic() - began_s, num_lines(log), all_files(folder))


def run_cycle(place: Path, whole: Whole, draw: random.Random) -> Cycle:
    """Run a command, kill it some times, let it end, and compare."""
    cycle, began_s = Cycle(whole.scenario.name), time.monotonic()
    # the same path as that of the fault-free run: some results name it
    folder, log = whole.start.with_name("run"), place / "steps"
    shutil.rmtree(folder)
    shutil.copytree(whole.start, folder)
    command, code = whole.scenario.command, -signal.SIGKILL
    num_wanted = draw.randint(1, _MOST_KILLS)
    while code != 0 and cycle.num_runs <= num_wanted + 1:
        log.unlink(missing_ok=True)
        run = Started(*command, cwd=folder, environment=counting(folder, log))
        try:
            kill = strike(run, whole, log, draw) if len(cycle.kills) < num_wanted else None
            code, err = run.end()
        except BaseException:  # the soak itself is stopped
            run.send(signal.SIGKILL, to_group=True)
            raise
        cycle.kills += [] if kill is None else [kill]
        cycle.num_runs += 1
        cycle.codes.append(code)
        # a worker whose run is killed while it starts has nothing to read: Python shows a trace
        is_traced = "Traceback" in err and code == 0
        if code not in (0, -signal.SIGKILL) or is_traced:
            cycle.differences.append(f"exit code {code}: {err[-2000:]}")
            break
    if not cycle.differences:
        cycle.differences = differing(folder, whole.files)
    cycle.seconds = round(time.monotonic() - began_s, 2)
    return cycle


def strike(run: Started, whole: Whole, log: Path, draw: random.Random) -> Kill | None:
    """Kill a run, its worker or both at a moment that is drawn; none where it ended before."""
    whom = draw.choice(_NAMES)
    began_s = time.monotonic()
    after_step = draw.randint(1, whole.num_steps) if draw.random() < 0.5 else None
    wait_s = draw.uniform(0, whole.run_s if after_step is None else _AFTER_STEP_S)
    while after_step is not None and num_lines(log) < after_step:
        if run.process.poll() is not None:
            return None
        time.sleep(0.0005)
    try:
        run.process.wait(wait_s)
        return None
    except subprocess.TimeoutExpired:
        pass
    after_s = time.monotonic() - began_s
    workers = [pid for pid in states(run.process.pid) if is_worker(pid)]
    if whom == "worker" and not workers:
        whom = "run"  # there is none yet, or no more
    pids = [*([run.process.pid] if whom != "worker" else []), *(workers if whom != "run" else [])]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it went with its parent
    return Kill(whom, round(after_s, 4), after_step, num_lines(log))


def is_worker(pid: int) -> bool:
    """Tell whether a process is the one that runs the model."""
    try:
        return b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def counting(folder: Path, log: Path) -> dict[str, str]:
    """Return the environment in which what is done to files is written down."""
    return armed({"log": str(log), "roots": [str(folder)]})


def num_lines(log: Path) -> int:
    """Count what was done to files so far."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def differing(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """Name the files that are not the same, and what no run may leave behind."""
    try:
        found = all_files(folder)
    except AssertionError as error:
        return [str(error)]
    names = sorted({*found, *expected})
    return [name for name in names if found.get(name) != expected.get(name)]


def verdict(cycle: Cycle) -> str:
    """Say how a cycle ended."""
    if cycle.differences:
        return f"DIFFERS: {cycle.differences}"
    return "the same bytes"


def print_table(cycles: Sequence[Cycle]) -> None:
    """Print one line a scenario."""
    names = list(dict.fromkeys(cycle.scenario for cycle in cycles))
    head = ("command", "cycles", "runs", *_NAMES, "near a commit", "differences")
    rows: list[tuple[Any, ...]] = [head]
    for name in names:
        its = [cycle for cycle in cycles if cycle.scenario == name]
        kills = [kill for cycle in its for kill in cycle.kills]
        by_whom = [sum(kill.whom == whom for kill in kills) for whom in _NAMES]
        near = sum(kill.after_step is not None for kill in kills)
        num_runs = sum(cycle.num_runs for cycle in its)
        num_different = sum(bool(cycle.differences) for cycle in its)
        rows.append((name, len(its), num_runs, *by_whom, near, num_different))
    for row in rows:
        print(f"{row[0]:<22}" + "".join(f"{value!s:>14}" for value in row[1:]))


if __name__ == "__main__":
    sys.exit(main())
