"""Scoring on Ray that a test can hold, with a note of everything that was computed, and where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.commands import bon, pool_files
from support.datasets import write_lines
from support.ray_cluster import RayCluster
from support.started import Started, wait_until

__all__ = ["NUM_PARTS", "PART_SIZE", "Scoring", "parent"]

PART_SIZE, NUM_PARTS = 4, 10
FUNCTION = """
import os, time
from pathlib import Path

HERE = Path({here!r})

def score(prompts, responses, columns):
    for response in responses:
        with (HERE / "computed").open("a") as file:
            file.write(f"{{response}} {{os.getpid()}}\\n")
        if response.startswith({held!r}) and not (HERE / "go").exists():
            mine = HERE / f"held-{{os.getpid()}}"
            mine.write_text(str(os.getpid()))
            mine.replace(HERE / "held")  # whole, or not there
        while response.startswith({held!r}) and not (HERE / "go").exists():
            time.sleep(0.02)
        if not (HERE / "cured").exists():
            {trouble}
    return [len(one) for one in responses]
"""


@dataclass
class Scoring:
    """A command that scores 40 prompts with one response each, ten parts of four."""

    here: Path
    held: str = "answer-17"
    """The response, of part 4, that is not scored until `go` is there; or how responses begin."""

    def __post_init__(self) -> None:
        rows = [
            {"prompt": f"question {row}", "id": f"p{row}", "responses": [f"answer-{row}"]}
            for row in range(PART_SIZE * NUM_PARTS)
        ]
        write_lines(self.here / "in.jsonl", rows)
        self.set_trouble("pass")

    def set_trouble(self, code: str) -> None:
        """Say what is done with every `response` before the `cure`."""
        text = FUNCTION.format(here=str(self.here), held=self.held, trouble=code)
        (self.here / "my.py").write_text(text)

    def command(self, pool: str = "in.pool") -> tuple[object, ...]:
        """Return the command as the local engine runs it."""
        return ("score", "in.jsonl", "-r", "f=rule:my.py:score", "--part-size", PART_SIZE,
                "--pool", pool)  # fmt: skip

    def on(self, cluster: RayCluster | None, *more: object, workers: int = 2) -> tuple[object, ...]:
        """Return the command as Ray runs it; without a cluster bon starts one of its own."""
        address = () if cluster is None else ("--ray-address", cluster.address)
        return (*self.command(), "--engine", "ray", *address, "--num-workers", workers, *more)

    def start_held(self, cluster: RayCluster | None, *more: object, workers: int = 2) -> Started:
        """Start it, and wait until one worker is held and another has committed what it could."""
        run = Started(*self.on(cluster, *more, workers=workers), cwd=self.here)

        def is_held() -> bool:
            assert run.process.poll() is None, run.process.communicate()
            return (self.here / "held").exists() and bool(self.committed())

        wait_until(is_held)
        return run

    def holder(self) -> int:
        """Return the process of the model that is held."""
        return int((self.here / "held").read_text())

    def go(self) -> None:
        """Hold no more."""
        (self.here / "go").touch()

    def cure(self) -> None:
        """End the trouble; the function stays the same, so the pool does not begin anew."""
        (self.here / "cured").touch()

    def committed(self, pool: str = "in.pool") -> set[int]:
        """List the parts that are scored."""
        return {int(path.stem[-5:]) for path in (self.here / pool / "scores/f").glob("part-*")}

    def times_computed(self) -> Counter[int]:
        """Count how often each prompt was computed, by its row."""
        lines = (self.here / "computed").read_text().splitlines()
        return Counter(int(line.split()[0].removeprefix("answer-")) for line in lines)

    def models(self) -> set[int]:
        """List the processes that have computed something."""
        if not (self.here / "computed").exists():
            return set()
        return {int(line.split()[1]) for line in (self.here / "computed").read_text().splitlines()}

    def check_redone(self, committed: set[int]) -> None:
        """Assert that of the parts that were there none was computed again."""
        times = self.times_computed()
        assert set(times) == set(range(PART_SIZE * NUM_PARTS))
        for part in committed:
            rows = range(part * PART_SIZE, (part + 1) * PART_SIZE)
            assert [times[row] for row in rows] == [1] * PART_SIZE, part

    def check_as_local(self) -> None:
        """Compare the pool with that of the local engine, byte for byte."""
        self.go()
        done = bon(*self.command("whole.pool"), cwd=self.here)
        assert done.returncode == 0, done.stderr
        assert pool_files(self.here / "in.pool") == pool_files(self.here / "whole.pool")


def parent(pid: int) -> int:
    """Return the process that started one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
