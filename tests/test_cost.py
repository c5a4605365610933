"""The model of cost: what it must obey whatever the numbers, and a few done by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.cost import (
    FILE_BYTES,
    StageCost,
    driver_cost,
    file_sizes,
    generation_tokens,
    in_turn,
    num_parts,
    redo_s,
    scoring_tokens,
    span_s,
    starting_later,
    streaming,
    tail_s,
)
from bon.engines.chain import workers_of

counts = st.integers(0, 10**9)
sizes = st.integers(1, 10**5)
workers = st.integers(1, 1024)
speeds = st.floats(1e-2, 1e6)
seconds = st.floats(0, 1e4)


def stages() -> st.SearchStrategy[list[StageCost]]:
    one = st.builds(
        StageCost,
        name=st.just(""),
        num_units=st.just(0.0) | st.floats(1e-9, 1e12),
        units_per_s=speeds,
        setup_s=seconds,
        has_model=st.booleans(),
    )
    some = st.lists(one, min_size=1, max_size=4)
    return some.map(lambda found: [_named(stage, n) for n, stage in enumerate(found)])


def _named(stage: StageCost, number: int) -> StageCost:
    return StageCost(
        f"stage {number}", stage.num_units, stage.units_per_s, setup_s=stage.setup_s,
        has_model=stage.has_model,
    )  # fmt: skip


def test_a_run_by_hand() -> None:
    """1,000 prompts × 8 × 500 tokens at 4,000 tokens/s are 1,000 s; two workers, 4 parts of 250."""
    assert generation_tokens(1000, 8, 500.0) == 4_000_000
    stage = StageCost("generate", 4_000_000, 4_000.0, setup_s=30.0)
    assert stage.work_s == 1000.0
    placed = in_turn([stage], 1000, 250, 2)
    assert placed.wall_s == 530.0
    assert placed.worker_hours == pytest.approx(2 * 530 / 3600)
    assert placed.busy_hours == pytest.approx((1000 + 2 * 30) / 3600)


def test_what_prompts_share_is_computed_once() -> None:
    given_tokens, computed = scoring_tokens(10, 4, given_tokens=150.0, shared_tokens=100.0)
    assert given_tokens == 10 * 4 * 150
    assert computed == 10 * (100 + 4 * 50)


def test_the_last_round_of_parts_is_the_tail() -> None:
    """Five parts of a second on two workers take three seconds, half a second more than ideal."""
    stage = StageCost("score", 5.0, 1.0)
    assert span_s(stage, 500, 100, 2) == pytest.approx(3.0)
    assert tail_s(stage, 500, 100, 2) == pytest.approx(0.5)


def test_a_small_last_part_that_comes_alone_takes_its_own_time() -> None:
    stage = StageCost("score", 4.5, 1.0)
    assert span_s(stage, 450, 100, 2) == pytest.approx(2.5)


def test_a_lost_worker_costs_its_start_and_the_parts_under_way() -> None:
    stage = StageCost("generate", 1000.0, 1.0, setup_s=60.0, parts_under_way=3.0)
    assert redo_s(stage, num_prompts=1000, part_size=10) == pytest.approx(60 + 30)
    assert redo_s(stage, num_prompts=20, part_size=10) == pytest.approx(60 + 1000)


def test_streaming_has_a_worker_that_scores_for_eight_that_sample() -> None:
    generate = StageCost("generate", 300.0, 1.0, setup_s=10.0)
    score = StageCost("score", 10.0, 1.0, setup_s=20.0)
    rule = StageCost("rule", 1.0, 1.0, has_model=False)
    placed = streaming([generate, score, rule], 100, 1, 4)
    assert placed is not None
    assert placed.workers == {"generate": 3, "score": 1, "rule": 1}
    # 34 rounds of parts of 3 s, and a part of each other stage before or after
    assert placed.wall_s == pytest.approx(20 + 34 * 3 + 0.1 + 0.01)
    larger = streaming([generate, score], 100, 1, 36)
    assert larger is not None
    assert larger.workers == {"generate": 32, "score": 4}


@given(st.integers(1, 4), st.integers(1, 2000))
def test_workers_of_a_streamed_run_are_those_of_the_engine(others: int, num: int) -> None:
    """As many as fit: with one more that samples there would be too few."""
    some = [StageCost(f"{n}", 1.0, 1.0) for n in range(1 + others)]
    placed = streaming(some, 10, 1, num)
    if placed is None:
        assert num < len(some)
        return
    first = placed.workers["0"]
    assert [*placed.workers.values()] == workers_of([True] * len(some), first)
    assert sum(placed.workers.values()) <= num
    assert sum(workers_of([True] * len(some), first + 1)) > num


def test_streaming_needs_a_worker_for_each_model_and_two_stages() -> None:
    one = StageCost("generate", 300.0, 1.0)
    other = StageCost("score", 300.0, 1.0)
    assert streaming([one, other], 10, 1, 1) is None
    assert streaming([one], 10, 1, 4) is None


def test_bytes_and_files_of_a_pool_by_hand() -> None:
    found = file_sizes(
        300, 100, prompt_bytes=10.0, candidates=600, candidate_bytes=20.0, score_bytes=[1.0, 2.0]
    )
    assert found.num_files == 4 * 3 + 5
    assert found.footer_bytes == 12 * FILE_BYTES
    assert found.num_bytes == 300 * 10 + 600 * 23 + 12 * FILE_BYTES


@given(counts, sizes)
def test_parts_hold_all_prompts_and_no_part_is_empty(prompts: int, size: int) -> None:
    parts = num_parts(prompts, size)
    assert parts * size >= prompts
    assert (parts - 1) * size < prompts or parts == 0


@given(stages(), sizes, workers)
def test_no_prompts_cost_only_the_start(found: list[StageCost], size: int, num: int) -> None:
    placed = in_turn(found, 0, size, num)
    assert placed.wall_s == pytest.approx(sum(stage.setup_s for stage in found))
    assert num_parts(0, size) == 0
    assert driver_cost(0, size).read_s == driver_cost(0, size).look_s == 0


@given(stages(), st.integers(1, 10**9), sizes, workers)
def test_work_is_never_done_faster_than_all_workers_can_nor_slower_than_one(
    found: list[StageCost], prompts: int, size: int, num: int
) -> None:
    for stage in found:
        span = span_s(stage, prompts, size, num)
        assert span >= stage.work_s / num * (1 - 1e-9)
        assert span <= stage.work_s * (1 + 1e-9)
        # at most one part more than the ideal
        part = stage.work_s * min(1.0, size / prompts)
        assert tail_s(stage, prompts, size, num) <= part * (1 + 1e-6) + 1e-6 * stage.work_s


@given(stages(), st.integers(1, 10**9), sizes, workers)
def test_twice_the_workers_take_no_longer(
    found: list[StageCost], prompts: int, size: int, num: int
) -> None:
    fewer, more = (in_turn(found, prompts, size, k).wall_s for k in (num, 2 * num))
    assert more <= fewer * (1 + 1e-9)


@given(stages(), st.integers(1, 10**9), sizes, workers, st.floats(1.0, 1e3))
def test_more_to_do_at_the_same_speed_takes_no_less(
    found: list[StageCost], prompts: int, size: int, num: int, factor: float
) -> None:
    more = [
        StageCost(one.name, one.num_units * factor, one.units_per_s, setup_s=one.setup_s)
        for one in found
    ]
    less_s, more_s = (in_turn(some, prompts, size, num).wall_s for some in (found, more))
    assert more_s >= less_s * (1 - 1e-9)


@given(stages(), st.integers(1, 10**9), sizes, workers)
def test_streaming_shares_out_all_workers_and_holds_them_no_longer_than_it_takes(
    found: list[StageCost], prompts: int, size: int, num: int
) -> None:
    placed = streaming(found, prompts, size, num)
    models = [stage.name for stage in found if stage.has_model]
    if placed is None:
        assert len(found) < 2 or num < len(models)
        return
    assert sum(placed.workers[name] for name in models) <= num
    assert placed.worker_hours == pytest.approx(num * placed.wall_s / 3600)
    slowest_s = max(stage.work_s / num for stage in found)
    assert all(count >= 1 for count in placed.workers.values())
    assert placed.wall_s >= slowest_s * (1 - 1e-9)


@given(stages(), st.integers(1, 10**6), sizes, workers, seconds)
def test_what_comes_first_is_added_to_time_and_hours_held(
    found: list[StageCost], prompts: int, size: int, num: int, later_s: float
) -> None:
    before = in_turn(found, prompts, size, num)
    after = starting_later(before, later_s, num)
    assert after.wall_s == pytest.approx(before.wall_s + later_s)
    assert after.worker_hours == pytest.approx(num * after.wall_s / 3600)
    assert after.busy_hours == before.busy_hours


@given(counts, st.integers(1, 100), st.floats(0, 1e4), st.floats(0, 1))
def test_sharing_never_computes_more_than_is_given(
    prompts: int, number: int, tokens: float, share: float
) -> None:
    whole, computed = scoring_tokens(prompts, number, tokens, tokens * share)
    assert 0 <= computed <= whole * (1 + 1e-12)
    assert number > 1 or math.isclose(computed, whole)


@given(counts, sizes, sizes)
def test_larger_parts_make_fewer_files_and_a_lighter_driver(
    prompts: int, size: int, more: int
) -> None:
    small, large = driver_cost(prompts, size), driver_cost(prompts, size + more)
    assert large.look_s <= small.look_s
    assert large.read_s <= small.read_s
    assert large.peak_mib <= small.peak_mib
