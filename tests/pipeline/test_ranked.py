"""A pool read back as ranked prompts, and the books it opens with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.damage import as_older
from support.fakes import FakeGenerator, FakeScorer, InlineEngine, Run, input_rows
from support.ranked import ranked_prompts

import bon.pipeline.run
from bon.config import RankingSettings
from bon.errors import PoolCorruptError, PoolIncompleteError, SettingsError
from bon.pipeline.ingest import ingest
from bon.pipeline.ranked import open_books, pool_recipe
from bon.pipeline.rewards import Ranking
from bon.pool.pool import CANDIDATES, PROMPTS, Pool


def ranker(pool: Pool, rank_by: str | None) -> str:
    return pool_recipe(pool, RankingSettings(rank_by=rank_by)).name


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    run = Run(
        input_rows(10, bad=[5]),
        generator=FakeGenerator(too_long=frozenset({"p2", "p9"})),
        scorer=FakeScorer({"p0": [1.0, None, 3.0]}),
    )
    return run.scores(tmp_path / "p")


def test_prompts_come_in_input_order_with_their_rewards(pool: Pool) -> None:
    ranked = list(ranked_prompts(pool, Ranking.of("reward"), None))
    assert [r.prompt.row for r in ranked] == [0, 1, 3, 4, 6, 7, 8]
    assert ranked[0].rewards == (1.0, None, 3.0)
    for one in ranked[1:]:
        assert one.rewards == tuple(float(len(c.response)) for c in one.candidates)
        assert [c.candidate for c in one.candidates] == [0, 1, 2]


@pytest.mark.parametrize("limit", [None, *range(12)])
def test_books_close_for_every_limit(pool: Pool, limit: int | None) -> None:
    books = open_books(pool, ["reward"], limit)
    books.kept_rows = sum(1 for _ in ranked_prompts(pool, Ranking.of("reward"), limit))
    books.close()
    assert books.input_rows == min(10, 10 if limit is None else limit)
    assert books.candidate_drops.total() == (limit != 0)


def test_one_scorer_ranks_by_itself(pool: Pool) -> None:
    assert ranker(pool, None) == "reward"
    assert ranker(pool, "reward") == "reward"


def test_several_scorers_must_be_told_apart(pool: Pool) -> None:
    shutil.copytree(pool.layout.root / "scores/reward", pool.layout.root / "scores/second")
    with pytest.raises(SettingsError, match="several scorers") as caught:
        ranker(pool, None)
    assert caught.value.why == "reward, second"
    assert "--rank-by" in caught.value.next_step
    assert ranker(pool, "second") == "second"
    with pytest.raises(SettingsError, match="there is no scorer 'secnd'") as caught:
        ranker(pool, "secnd")
    assert caught.value.next_step == "did you mean 'second'?"


def test_no_scores(tmp_path: Path) -> None:
    pool = Run(input_rows(2)).candidates(tmp_path / "p")
    with pytest.raises(PoolIncompleteError, match="no scores") as caught:
        ranker(pool, None)
    assert "bon score" in caught.value.next_step


def test_folder_without_a_part_is_no_scorer(pool: Pool) -> None:
    (pool.layout.root / "scores/begun").mkdir()
    assert ranker(pool, None) == "reward"


def test_scorer_of_a_pool_without_rows(tmp_path: Path) -> None:
    pool = Run([]).scores(tmp_path / "p")
    assert ranker(pool, None) == "reward"
    books = open_books(pool, ["reward"], None)
    books.close()
    assert list(ranked_prompts(pool, Ranking.of("reward"), None)) == []


@pytest.mark.parametrize(("kind", "part"), [(CANDIDATES, 0), ("scores/reward", 2)])
def test_missing_part_is_named(pool: Pool, kind: str, part: int) -> None:
    pool.layout.part(kind, part).unlink()
    with pytest.raises(PoolIncompleteError, match=f"1 of 3 parts have no {kind} yet") as caught:
        open_books(pool, ["reward"], None)
    assert caught.value.why == f"the first is part {part}"
    if part == 2:
        assert open_books(pool, ["reward"], 8).input_rows == 8


def test_interrupted_scoring_is_incomplete(tmp_path: Path) -> None:
    Run(input_rows(10)).candidates(tmp_path / "p")
    pool = Run(input_rows(10), engine=InlineEngine(stop_after=1)).scores(tmp_path / "p")
    with pytest.raises(PoolIncompleteError, match="2 of 3 parts"):
        open_books(pool, ["reward"], None)


def test_a_pool_whose_prompts_were_being_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bon.pipeline.run, "ingest", stop)
        Run(input_rows(10)).prompts(tmp_path / "p")
    with pytest.raises(PoolIncompleteError, match="reading of this pool's input") as caught:
        open_books(Pool.open(tmp_path / "p"), [], None)
    assert "run the command that made the pool again" in caught.value.next_step


def test_rows_that_were_read_while_the_input_grew_are_used_by_a_limit_only(pool: Pool) -> None:
    longer = {**pool.manifest.input, "rows": 12}
    shorter = {**pool.manifest.input, "rows": 8}
    for said in (longer, shorter):
        changed = pool.save(pool.manifest.model_copy(update={"input": said}))
        for limit in (None, 11):
            with pytest.raises(PoolIncompleteError, match="was interrupted") as caught:
                open_books(changed, ["reward"], limit)
            assert caught.value.next_step.endswith("with --limit 10")
        assert open_books(changed, ["reward"], 10).input_rows == 10


@pytest.mark.parametrize("is_scored", [False, True])
def test_the_limit_that_is_told_can_be_used(tmp_path: Path, is_scored: bool) -> None:
    """Reading an input that grew was interrupted: its new rows are in the last part, unsampled."""
    rows = input_rows(11)
    pool = (Run(rows[:10]).scores if is_scored else Run(rows[:10]).candidates)(tmp_path)
    ingest(pool, rows, None)
    with pytest.raises(PoolIncompleteError, match="was interrupted") as caught:
        open_books(Pool.open(tmp_path), ["reward"], None)
    assert ("--limit" in caught.value.next_step) == is_scored
    if is_scored:
        limit = int(caught.value.next_step.rpartition(" ")[2])
        assert open_books(Pool.open(tmp_path), ["reward"], limit).input_rows == limit == 8
        assert sum(1 for _ in ranked_prompts(pool, Ranking.of("reward"), limit)) == 8


def test_a_missing_part_of_prompts_is_noticed(pool: Pool) -> None:
    pool.layout.part(PROMPTS, 1).unlink()
    with pytest.raises(PoolIncompleteError) as caught:
        open_books(pool, ["reward"], None)
    assert caught.value.why == "4 rows are there; the last complete reading had 10"
    assert open_books(pool, ["reward"], 4).input_rows == 4


def test_scores_of_other_candidates_are_corrupt(pool: Pool, tmp_path: Path) -> None:
    other = Run(input_rows(10, bad=[5]), num_candidates=2).scores(tmp_path / "other")
    shutil.copy(other.layout.part("scores/reward", 1), pool.layout.part("scores/reward", 1))
    with pytest.raises(PoolCorruptError, match="made of other candidates than"):
        list(ranked_prompts(pool, Ranking.of("reward"), None))
    as_older(pool.layout.part("scores/reward", 1))
    with pytest.raises(PoolCorruptError, match="belongs to other candidates") as caught:
        list(ranked_prompts(pool, Ranking.of("reward"), None))
    assert caught.value.where.endswith("scores/reward/part-00001.parquet")


def test_candidates_of_other_prompts_are_corrupt(pool: Pool, tmp_path: Path) -> None:
    shutil.copy(pool.layout.part(PROMPTS, 0), pool.layout.part(PROMPTS, 1))
    with pytest.raises(PoolCorruptError, match="part 0 of prompts"):
        list(ranked_prompts(pool, Ranking.of("reward"), None))
    as_older(pool.layout.part(PROMPTS, 1))
    with pytest.raises(PoolCorruptError, match="belongs to other prompts"):
        list(ranked_prompts(pool, Ranking.of("reward"), None))


def test_a_scorer_that_never_finished_a_part_is_no_scorer(pool: Pool) -> None:
    shutil.rmtree(pool.layout.root / "scores")

    with pytest.raises(PoolIncompleteError, match="has no scores"):
        ranker(pool, None)
