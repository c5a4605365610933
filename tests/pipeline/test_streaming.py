"""Sampling and scoring side by side: the pool of one after the other, whatever happens."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commands import pool_files
from support.fakes import FakeGenerator, InlineEngine, Run, input_rows

from bon.engines.local import LocalEngine
from bon.errors import SettingsMismatchError
from bon.pool.pool import CANDIDATES, Pool
from bon.protocols import Event, PartDone
from bon.records import GenerationRequest, GenerationResult

ROWS = input_rows(14, bad=[5])
NAMES = ("reward", "second")
TIMEOUT_S = 60.0


def in_turn(root: Path, **settings: object) -> Path:
    """Make a pool, stage after stage."""
    for name in NAMES:
        Run(ROWS, scorer_name=name, **settings).scores(root)  # type: ignore[arg-type]
    return root


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of a pool that was made in turn."""
    return pool_files(in_turn(tmp_path / "whole"))


def test_the_pool_is_that_of_one_stage_after_the_other(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    done: list[tuple[str, int]] = []

    def observe(stage: str, num_parts: int, event: Event) -> None:
        assert num_parts == 4
        if isinstance(event, PartDone):
            done.append((stage, event.part))

    reports = Run(ROWS).streamed(tmp_path / "p", *NAMES, observe=observe)
    assert pool_files(tmp_path / "p") == whole
    assert done == [
        (stage, part) for part in range(4) for stage in ("generate", "score reward", "score second")
    ]
    assert [(one.name, one.num_parts, one.num_parts_done) for one in reports] == [
        ("generate", 4, 4), ("score reward", 4, 4), ("score second", 4, 4),
    ]  # fmt: skip
    assert [one.num_candidates for one in reports] == [13 * 3] * 3


@dataclass
class WaitingGenerator(FakeGenerator):
    """Samples no prompt of a part before all scores of the part before are there."""

    pool: Path = Path()

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        for request in requests:
            part = int(request.prompt_id[1:]) // 4
            before = [self.pool / f"scores/{name}/part-{part - 1:05}.parquet" for name in NAMES]
            deadline_s = time.monotonic() + TIMEOUT_S
            while part and not all(path.exists() for path in before):
                assert time.monotonic() < deadline_s, f"part {part - 1} is not scored"
                time.sleep(0.01)
            yield from super().stream([request])


def test_a_part_is_scored_while_others_are_to_be_sampled(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """With real workers: in turn it would wait for ever."""
    run = Run(ROWS, generator=WaitingGenerator(pool=tmp_path / "p"))
    run.engine = LocalEngine(tmp_path / "log")  # type: ignore[assignment]
    reports = run.streamed(tmp_path / "p", *NAMES)
    assert [one.num_parts_done for one in reports] == [4, 4, 4]
    assert pool_files(tmp_path / "p") == whole


@pytest.mark.parametrize("stop_after", range(1, 12))
def test_one_that_was_stopped_goes_on_either_way(
    tmp_path: Path, whole: dict[str, bytes], stop_after: int
) -> None:
    Run(ROWS, engine=InlineEngine(stop_after)).streamed(tmp_path / "p", *NAMES)
    assert pool_files(tmp_path / "p") != whole
    shutil.copytree(tmp_path / "p", tmp_path / "q")

    again = Run(ROWS)
    reports = again.streamed(tmp_path / "p", *NAMES)
    assert sum(one.num_parts_done for one in reports) == 12 - stop_after
    assert pool_files(tmp_path / "p") == whole
    assert pool_files(in_turn(tmp_path / "q")) == whole


@pytest.mark.parametrize("stop_after", [1, 3])
def test_one_in_turn_that_was_stopped_goes_on_as_a_stream(
    tmp_path: Path, whole: dict[str, bytes], stop_after: int
) -> None:
    Run(ROWS, engine=InlineEngine(stop_after)).candidates(tmp_path / "p")
    again = Run(ROWS)
    again.streamed(tmp_path / "p", *NAMES)
    assert len(again.generator.requests) < 13
    assert pool_files(tmp_path / "p") == whole


def test_what_grew_is_sampled_and_scored(tmp_path: Path) -> None:
    Run(ROWS, limit=6).streamed(tmp_path / "p", *NAMES)
    again = Run(ROWS, limit=10)
    again.streamed(tmp_path / "p", *NAMES)
    assert len(again.generator.requests) == 4
    assert len(again.scorer.groups) == 2 * 5, "a part that grew is scored whole"
    assert pool_files(tmp_path / "p") == pool_files(in_turn(tmp_path / "q", limit=10))


def test_scores_of_candidates_that_were_lost_and_come_back_are_kept(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    root = in_turn(tmp_path / "p")
    Pool.open(root).layout.part(CANDIDATES, 1).unlink()
    Pool.open(root).layout.part("scores/second", 2).unlink()
    again = Run(ROWS)
    reports = again.streamed(root, *NAMES)
    assert [one.num_parts_done for one in reports] == [1, 0, 1]
    assert pool_files(root) == whole


def test_scores_of_candidates_that_come_out_otherwise_are_made_again(tmp_path: Path) -> None:
    root = in_turn(tmp_path / "p")
    Pool.open(root).layout.part(CANDIDATES, 1).unlink()
    salted = {"generator": FakeGenerator(salt="other")}
    reports = Run(ROWS, **salted).streamed(root, *NAMES)  # type: ignore[arg-type]
    assert [one.num_parts_done for one in reports] == [1, 1, 1]
    assert not any(Pool.open(root).is_stale(f"scores/{name}", 1) for name in NAMES)


def test_where_all_is_sampled_the_scorers_have_the_whole_machine(tmp_path: Path) -> None:
    Run(ROWS).candidates(tmp_path / "p")
    run = Run(ROWS)
    run.engine.run_chain = None  # type: ignore[assignment,method-assign]
    run.streamed(tmp_path / "p", *NAMES)
    assert pool_files(tmp_path / "p") == pool_files(in_turn(tmp_path / "q"))


def test_a_scorer_with_other_settings_is_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    Run(ROWS, limit=4).streamed(tmp_path / "p", "reward")
    before = pool_files(tmp_path / "p")
    run = Run(ROWS, limit=4)
    pool = run.prompts(tmp_path / "p")
    pool.save(pool.manifest.with_scorer("reward", {"spec": "other"}, is_same=False))
    changed = pool_files(tmp_path / "p")
    with pytest.raises(SettingsMismatchError, match="scorer 'reward' has scored"):
        Run(ROWS).streamed(tmp_path / "p", "second", "reward")
    after = pool_files(tmp_path / "p")
    assert {k for k in after if k not in before} == {
        "prompts/part-00001.parquet", "prompts/part-00002.parquet", "prompts/part-00003.parquet",
        "drops/prompts/part-00001.parquet",
    }  # fmt: skip
    assert run.generator.requests == []
    assert set(changed) == set(before)
