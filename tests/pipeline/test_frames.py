"""A pool read back as columns agrees with the same pool read back row by row."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.damage import as_older
from support.fakes import FakeGenerator, FakeScorer, Run, input_rows, prompt
from support.ranked import ranked_prompts

import bon.pipeline.frames as module
from bon.errors import PoolCorruptError
from bon.pipeline.frames import Frame, frames
from bon.pipeline.rewards import Ranking
from bon.pool.pool import Pool
from bon.records import Drop, Prompt


@pytest.fixture(params=[1, 20, 16_384], autouse=True)
def frame_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Frames of one part, of two, and of all."""
    monkeypatch.setattr(module, "_FRAME_ROWS", request.param)
    return int(request.param)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    run = Run(
        input_rows(10, bad=[5]),
        generator=FakeGenerator(too_long=frozenset({"p2", "p9"})),
        scorer=FakeScorer({"p0": [1.0, None, 3.0]}),
    )
    return run.scores(tmp_path / "p")


def rows(frame: Frame) -> list[tuple[str, list[str], list[float]]]:
    """Each prompt's id, responses and rewards."""
    texts = frame.candidates.column("response").to_pylist()
    ends = frame.start_P + frame.count_P
    return [
        (prompt_id, texts[start:end], frame.scores["reward"][start:end].tolist())
        for prompt_id, start, end in zip(
            frame.prompts.column("prompt_id").to_pylist(), frame.start_P, ends, strict=True
        )
    ]


@pytest.mark.parametrize("frame_bytes", [1, 300, 64 << 20])
@pytest.mark.parametrize("limit", [None, *range(12)])
def test_columns_hold_what_rows_hold(
    pool: Pool, limit: int | None, frame_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a frame holds one prompt, a few, or all that there are."""
    monkeypatch.setattr(module, "_FRAME_BYTES", frame_bytes)
    found = [
        row
        for frame in frames(pool, scorers=["reward"], limit=limit, candidate_columns=["response"])
        for row in rows(frame)
    ]
    wanted = [
        (
            one.prompt.prompt_id,
            [candidate.response for candidate in one.candidates],
            [np.nan if reward is None else reward for reward in one.rewards],
        )
        for one in ranked_prompts(pool, Ranking.of("reward"), limit)
    ]
    assert repr(found) == repr(wanted), "repr: NaN differs from itself"


def test_only_the_columns_asked_for_are_there(pool: Pool) -> None:
    (first, *_) = frames(pool, prompt_columns=["prompt"], candidate_columns=["num_tokens"])
    assert first.prompts.column_names == ["prompt_id", "row", "prompt"]
    assert first.candidates.column_names == ["prompt_id", "candidate", "num_tokens"]
    assert first.scores == {}


def test_padded_and_prompt_of_each_candidate(pool: Pool) -> None:
    (first, *_) = frames(pool, scorers=["reward"])
    matrix = first.padded(first.scores["reward"])[:3]
    assert matrix.shape == (3, 3), "p2 of the first part was too long"
    assert np.isnan(matrix[0, 1])
    assert matrix[0, [0, 2]].tolist() == [1.0, 3.0]
    assert first.prompt_C.tolist()[:9] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_prompts_with_fewer_candidates_are_padded_at_the_end() -> None:
    frame = Frame((0,), None, None, {}, np.array([0, 1, 4]), np.array([1, 3, 2]))
    matrix = frame.padded(np.arange(6, dtype=np.float32))
    assert np.array_equal(matrix, [[0, np.nan, np.nan], [1, 2, 3], [4, 5, np.nan]], equal_nan=True)


def test_infinite_scores_are_missing(tmp_path: Path) -> None:
    scorer = FakeScorer({"p0": [float("inf"), float("-inf"), 2.0]})
    pool = Run(input_rows(1), scorer=scorer).scores(tmp_path / "p")
    (frame,) = frames(pool, scorers=["reward"])
    assert np.isnan(frame.scores["reward"][:2]).all()
    assert frame.scores["reward"][2] == 2.0


def test_pool_without_rows_or_candidates(tmp_path: Path) -> None:
    assert list(frames(Run([]).scores(tmp_path / "none"))) == []
    nothing = FakeGenerator(too_long=frozenset({"p0", "p1"}))
    pool = Run(input_rows(2), generator=nothing).scores(tmp_path / "long")
    (frame,) = frames(pool, scorers=["reward"])
    assert frame.prompts.num_rows == frame.candidates.num_rows == len(frame.start_P) == 0
    assert frame.padded(frame.scores["reward"]).shape == (0, 0)


@pytest.mark.parametrize("kind", ["candidates", "scores/reward", "prompts"])
def test_part_of_another_place_is_named(pool: Pool, kind: str) -> None:
    folder = pool.layout.root / kind
    shutil.copy(folder / "part-00002.parquet", folder / "part-00000.parquet")
    with pytest.raises(PoolCorruptError, match=r"is not the one that belongs here") as caught:
        list(frames(pool, scorers=["reward"]))
    assert f"part 2 of {kind}" in caught.value.why

    as_older(folder / "part-00000.parquet")  # which has no number in it

    with pytest.raises(PoolCorruptError, match=r"part 0 of .* belongs to other") as caught:
        list(frames(pool, scorers=["reward"]))
    assert "part-00000.parquet" in caught.value.where
    assert "--repair" in caught.value.next_step


def test_error_in_a_later_part_comes_after_the_earlier_ones(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRAME_ROWS", 1)
    folder = pool.layout.root / "scores/reward"
    shutil.copy(folder / "part-00000.parquet", folder / "part-00001.parquet")
    as_older(folder / "part-00001.parquet")
    reader = frames(pool, scorers=["reward"])
    assert next(reader).parts == (0,)
    with pytest.raises(PoolCorruptError, match="part 1 of scores/reward"):
        next(reader)


def test_large_parts_are_cut_between_prompts(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FRAME_BYTES", 1)
    cut = list(frames(pool, scorers=["reward"], candidate_columns=["response"]))
    assert [len(frame.start_P) for frame in cut] == [1] * 7
    assert all(frame.start_P.tolist() == [0] for frame in cut)
    assert {frame.candidates["response"].num_chunks for frame in cut} == {1}


def test_first_part_without_candidates_says_nothing_of_the_others(tmp_path: Path) -> None:
    gone = FakeGenerator(too_long=frozenset(f"p{n}" for n in range(4)))
    pool = Run(input_rows(400), generator=gone).scores(tmp_path / "p")
    largest = max(frame.candidates.num_rows for frame in frames(pool))
    assert largest <= max(12, module._FRAME_ROWS)


def test_long_prompts_with_few_candidates_fill_frames_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all of a pool with one response to each long prompt is one frame."""
    monkeypatch.setattr(module, "_FRAME_ROWS", 16_384)
    monkeypatch.setattr(module, "_FRAME_BYTES", 40_000)
    long: list[Prompt | Drop] = [prompt(n, page=f"{n:02}" * 2_500) for n in range(40)]
    pool = Run(long, part_size=8).scores(tmp_path / "p")
    found = list(frames(pool, scorers=["reward"], prompt_columns=["extra"]))
    assert {len(set(frame.parts)) for frame in found} == {1}
    assert sum(len(frame.start_P) for frame in found) == 40
    assert max(frame.prompts.nbytes for frame in found) < 80_000
    assert found[0].prompts.nbytes > 10_000, "prompts that are this long"


def test_small_parts_come_together(pool: Pool, frame_rows: int) -> None:
    together = {1: [(0,), (1,), (2,)], 20: [(0, 1), (2,)], 16_384: [(0, 1, 2)]}
    assert [frame.parts for frame in frames(pool)] == together[frame_rows]
