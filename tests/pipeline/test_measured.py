"""What is read from a pool's own log and files, and scaled up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.fakes import Run, input_rows

from bon.errors import PoolIncompleteError, PoolNotFoundError
from bon.object_store import ObjectPath
from bon.pipeline.measured import MeasuredPool, measured_pool
from bon.pipeline.planning import Fleet, RunPlan, measured_run
from bon.pool.pool import CANDIDATES, PROMPTS, Pool

START = ("start", 0.0)
READ = ("read", 1.0, {"rows": 12, "drops": {"malformed": 2}})
END = ("end", 30.0, {"status": "complete"})


def parts(
    stage: str, first_s: float, seconds: list[float], **counts: Any
) -> list[tuple[str, float, dict[str, Any]]]:
    lines, now_s = [], first_s
    for number, each_s in enumerate(seconds):
        now_s += each_s
        said = {"stage": stage, "part": number, "seconds": each_s, "drops": {}, **counts}
        lines.append(("part", now_s, said))
    return lines


SAMPLED = [
    ("ready", 5.0, {"stage": "generate", "parts": 3}),
    *parts("generate", 5.0, [2.0, 2.0, 2.0], candidates=12, tokens=120),
    ("stage", 11.5, {"name": "generate"}),
]
SCORED = [
    ("ready", 13.0, {"stage": "score reward", "parts": 3}),
    *parts("score reward", 13.0, [1.0] * 3, candidates=12, tokens=300, tokens_computed=180),
    ("stage", 16.5, {"name": "score reward"}),
]


def write_log(pool: Pool, *lines: tuple[Any, ...]) -> Pool:
    path = pool.layout.run_log
    path.parent.mkdir(exist_ok=True)
    objects = [
        {"event": event, "elapsed_s": elapsed_s, **(more[0] if more else {})}
        for event, elapsed_s, *more in lines
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))
    return pool


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """12 prompts with 3 candidates each, in parts of 4, scored."""
    return Run(input_rows(12)).scores(tmp_path / "a.pool")


def measured(pool: Pool, *lines: tuple[Any, ...]) -> MeasuredPool:
    return measured_pool(write_log(pool, *lines).layout.root)


def test_a_log_by_hand(pool: Pool) -> None:
    found = measured(pool, START, READ, *SAMPLED, *SCORED, END)
    generate, score = found.stages
    assert (generate.name, generate.num_tokens, generate.num_candidates) == ("generate", 360, 36)
    assert (score.num_tokens, score.num_tokens_computed) == (900, 540)
    assert (generate.run_s, score.run_s) == (6.0, 3.0)
    # from the line before a stage until it is ready, and from its last part to its end
    assert generate.setup_s == pytest.approx(4.0 + 0.5)
    assert score.setup_s == pytest.approx(1.5 + 0.5)
    assert found.other_s == pytest.approx(30.0 - 10.5 - 5.0)
    assert found.prompt_drops == {"malformed": 2}
    assert (found.num_prompts, found.num_candidates, found.part_size) == (12, 36, 4)
    assert not found.is_streaming


def test_files_are_counted_with_rows_and_bytes(pool: Pool) -> None:
    kinds = measured(pool, START, *SAMPLED).kinds
    assert {kind: (one.num_files, one.num_rows) for kind, one in kinds.items()} == {
        PROMPTS: (3, 12),
        CANDIDATES: (3, 36),
        "scores/reward": (3, 36),
    }
    size = sum(path.stat().st_size for path in (pool.layout.root / CANDIDATES).iterdir())
    assert kinds[CANDIDATES].num_bytes == size


def test_a_first_part_that_warms_up_belongs_to_the_start(pool: Pool) -> None:
    slow = [
        ("ready", 5.0, {"stage": "generate"}),
        *parts("generate", 5.0, [9.0, 1.0, 1.0, 1.0], candidates=9, tokens=10),
    ]
    (generate,) = measured(pool, START, READ, *slow).stages
    assert generate.run_s == pytest.approx(4.0)
    assert generate.setup_s == pytest.approx(4.0 + 8.0)


def test_workers_are_those_that_were_ready_less_those_that_were_lost(pool: Pool) -> None:
    ready = ("ready", 5.0, {"stage": "generate"})
    lost = ("restart", 6.0, {"stage": "generate", "cause": "killed", "doing": "again"})
    (generate,) = measured(pool, START, READ, ready, ready, lost, ready, *SAMPLED[1:]).stages
    assert (generate.num_workers, generate.num_restarts) == (2, 1)


def test_a_killed_run_counts_as_far_as_it_came(pool: Pool) -> None:
    found = measured(pool, START, READ, *SAMPLED[:2], START, READ, *SAMPLED[:1], *SAMPLED[2:])
    (generate,) = found.stages
    assert (generate.num_tokens, generate.run_s) == (360, 6.0)


def test_a_torn_line_and_lines_of_other_things_are_left_out(pool: Pool) -> None:
    write_log(pool, START, READ, ("verify", 2.0), *SAMPLED, *SCORED, END)
    with pool.layout.run_log.open("a") as file:
        file.write('{"event": "part", "stage": "gene\n[1]\n\n')
    assert measured_pool(pool.layout.root).stages[0].num_tokens == 360


def test_stages_side_by_side_are_seen(pool: Pool) -> None:
    score = [
        ("ready", 5.5, {"stage": "score reward"}),
        *parts("score reward", 5.5, [1.0], tokens=3, candidates=1),
    ]
    assert measured(pool, START, READ, *SAMPLED[:3], *score, *SAMPLED[3:]).is_streaming


def test_a_pool_without_a_log_of_parts_is_refused(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(PoolIncompleteError, match="tells of no part"):
        measured(pool, START, READ, END)
    pool.layout.run_log.unlink()
    with pytest.raises(PoolIncompleteError, match="tells of no part"):
        measured_pool(pool.layout.root)
    with pytest.raises(PoolNotFoundError):
        measured_pool(tmp_path / "none")


def stages_of(plan: RunPlan) -> dict[str, Any]:
    return {stage.name: stage for stage in plan.stages}


def test_the_run_itself_is_predicted_as_it_was(pool: Pool) -> None:
    found = measured(pool, START, READ, *SAMPLED, *SCORED, END)
    plan = measured_run(found)
    facts = plan.facts(Fleet())
    stages = stages_of(plan)
    assert stages["generate"].num_tokens == stages["generate"].num_units == 360
    assert stages["score reward"].num_tokens == 900
    assert stages["score reward"].num_units == pytest.approx(540)
    (in_turn,) = facts["placements"]
    assert in_turn["wall_s"] == pytest.approx(30.0)
    files = [path for path in pool.layout.root.rglob("part-*.parquet") if ".bon" not in path.parts]
    assert facts["pool"]["num_bytes"] == pytest.approx(sum(p.stat().st_size for p in files))
    assert facts["pool"]["num_files"] == len(files) + 5
    assert facts["drops"] == {"input": {"malformed": 2}}


def test_ten_times_the_prompts_are_ten_times_the_tokens_and_the_same_start(pool: Pool) -> None:
    found = measured(pool, START, READ, *SAMPLED, *SCORED, END)
    large = stages_of(measured_run(found, num_rows=120))
    assert large["generate"].num_tokens == 3600
    assert large["generate"].work_s == pytest.approx(60.0)
    assert large["generate"].setup_s == pytest.approx(4.5)
    assert large["score reward"].num_units == pytest.approx(5400)


def test_more_candidates_share_the_same_prompt(pool: Pool) -> None:
    """900 given and 540 computed with N = 3: 360 were saved, 15 a prompt and further candidate."""
    found = measured(pool, START, READ, *SAMPLED, *SCORED, END)
    more = stages_of(measured_run(found, num_candidates=6))
    assert more["generate"].num_tokens == 720
    assert more["score reward"].num_tokens == 1800
    assert more["score reward"].num_units == pytest.approx(1800 - 12 * 5 * 15)


def test_a_stage_without_tokens_is_counted_in_candidates(pool: Pool) -> None:
    rule = [
        ("ready", 2.0, {"stage": "score reward"}),
        *parts("score reward", 2.0, [0.5], candidates=36),
    ]
    (stage,) = measured_run(measured(pool, START, READ, *rule), num_rows=24).stages
    assert (stage.num_units, stage.units_per_s, stage.has_model) == (72, 72, False)


def test_no_rows_cost_only_the_start(pool: Pool) -> None:
    found = measured(pool, START, READ, *SAMPLED, *SCORED, END)
    facts = measured_run(found, num_rows=0).facts(Fleet(num_workers=3))
    assert facts["parts"] == 0
    assert all(stage["num_units"] == stage["run_s"] == 0 for stage in facts["stages"])
    assert facts["placements"][0]["wall_s"] == pytest.approx(30.0 - 9.0, abs=0.2)


def test_a_pool_on_a_store_has_its_log_in_objects(pool: Pool, bucket: str) -> None:
    write_log(pool, START, READ, *SAMPLED, *SCORED, END)
    here, there = Path(str(pool.layout.root)), ObjectPath("s3", f"{bucket[5:]}/a.pool")
    for path in here.rglob("*"):
        if path.is_file() and ".bon" not in path.parts:
            (there / path.relative_to(here)).write_file(path)
    with pytest.raises(PoolIncompleteError, match="tells of no part"):
        measured_pool(there)

    lines = (here / ".bon/run.log").read_text().splitlines(keepends=True)
    (there / ".bon/run-20260101T000000.0Z-7-00000.log").write_text("".join(lines[:4]))
    (there / ".bon/run-20260101T000000.0Z-7-00001.log").write_text("".join(lines[4:]))
    (there / ".bon/run-20250101T000000.0Z-9.log").write_text("".join(lines[:2]))  # an older bon's
    assert measured_pool(there) == measured_pool(here)
