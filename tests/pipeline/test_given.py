"""Responses that an input has become a pool that every later stage can read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import pool_files
from support.fakes import (
    FakeScorer,
    InlineEngine,
    Run,
    add_scores,
    bad_row,
    ignore,
    input_rows,
    prompt,
)
from support.ranked import ranked_prompts

from bon.config import InputSettings, RankingSettings, ResponseSettings
from bon.errors import PoolError, PoolIncompleteError, SettingsMismatchError
from bon.pipeline.frames import frames
from bon.pipeline.given import import_responses, refuse_other_responses
from bon.pipeline.given_parts import GIVEN_SCORER, LABEL_SCORER
from bon.pipeline.plans import GivenPlan, ScoringPlan
from bon.pipeline.ranked import count_sampled, open_books, pool_recipe
from bon.pipeline.rewards import Ranking
from bon.pipeline.run import score
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import Drop, GivenResponse, GivenResponses
from bon.sources.prompts import input_digest
from bon.sources.responses import ResponseReader

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k_candidates.jsonl"
needs_data = pytest.mark.skipif(not DATA.is_file(), reason=f"no real data at {DATA}")
Rows = list[GivenResponses | Drop]


@dataclass
class FakeGiven:
    """Rows from a list, cut off at a limit; counts how often it is read."""

    rows: Rows
    limit: int | None = None
    num_reads: int = 0
    kind: str | None = "responses"
    is_scattered: bool = False

    def gather(self, beside: Path) -> None:
        raise AssertionError(f"nothing to gather beside {beside}")

    def __iter__(self) -> Iterator[GivenResponses | Drop]:
        self.num_reads += 1
        for item in self.rows:
            if self.limit is None or row_of(item) < self.limit:
                yield item

    def describe(self) -> str:
        return "read as a list"


def row_of(item: GivenResponses | Drop) -> int:
    return item.row if isinstance(item, Drop) else item.prompt.row


def responses(row: int, *scores: float | None, **note: Any) -> GivenResponses:
    """The prompt of one row with a response for each score."""
    texts = enumerate(scores)
    return GivenResponses(
        prompt(row, k=row), tuple(GivenResponse(f"r{row}.{n}", s, **note) for n, s in texts)
    )


def plan(rows: Rows, limit: int | None = None, part_size: int | None = 4, **change: Any) -> Any:
    made = GivenPlan(
        "in.jsonl",
        FakeGiven(rows, limit),
        {"layout": None, "group": True},
        str(hash(repr(rows))),
        limit,
        part_size,
    )
    return replace(made, **change)


ROWS: Rows = [
    responses(0, None, None),
    bad_row(1),
    responses(2, 1.5, finish_reason="stop", num_tokens=3),
    Drop("missing_response", "it is null", "in.jsonl:3", "p2", 2, candidate=1),
    responses(3, None, is_correct=True),
    bad_row(4),
    responses(5, -0.25, 2.0, 0.5),
    responses(6, None),
    responses(7, 3.0, is_correct=False),
    responses(8, 4.0),
]


def test_rows_become_parts_with_scores_and_drops(tmp_path: Path) -> None:
    pool = import_responses(tmp_path, plan(ROWS))
    assert pool.manifest.part_size == 4
    assert [pool.covers(PROMPTS, part) for part in range(3)] == [4, 4, 1]
    assert [[p.row for p in pool.prompts(part)] for part in range(3)] == [[0, 2, 3], [5, 6, 7], [8]]
    assert pool.prompts(0)[1].extra == {"k": 2}
    assert [pool.covers(CANDIDATES, part) for part in range(3)] == [3, 3, 1]
    assert pool.drops(PROMPTS, 0) == [ROWS[1]]
    assert pool.drops(CANDIDATES, 0) == [ROWS[3]]
    first = pool.read(CANDIDATES, 0).to_pylist()
    assert [(row["prompt_id"], row["candidate"], row["response"]) for row in first] == [
        ("p0", 0, "r0.0"), ("p0", 1, "r0.1"), ("p2", 0, "r2.0"), ("p3", 0, "r3.0"),
    ]  # fmt: skip
    assert (first[2]["finish_reason"], first[2]["num_tokens"]) == ("stop", 3)
    unknown = ("finish_reason", "num_tokens", "logprob", "seed")
    assert [first[0][name] for name in unknown] == [None] * 4
    by_scorer = {
        name: [pool.read(scores_kind(name), p)["score"].to_pylist() for p in range(3)]
        for name in (GIVEN_SCORER, LABEL_SCORER)
    }
    assert by_scorer == {
        "given": [[None, None, 1.5, None], [-0.25, 2.0, 0.5, None, 3.0], [4.0]],
        "label": [[None, None, None, 1.0], [None, None, None, None, 0.0], [None]],
    }


def test_the_manifest_says_how_it_was_made(tmp_path: Path) -> None:
    made = plan(ROWS)
    import_responses(tmp_path, made)
    manifest = Pool.open(tmp_path).manifest
    assert manifest.generation == {"engine": "given", "layout": None, "group": True}
    assert sorted(manifest.scorers) == ["given", "label"]
    assert manifest.input == {
        "settings": {"layout": None, "group": True},
        "source": "in.jsonl",
        "description": "read as a list",
        "kind": "responses",
        "digest": made.digest,
        "rows": 9,
        "whole": True,
        "content": Pool.open(tmp_path).prompts_digest(),
    }


def test_without_scores_there_is_no_scorer(tmp_path: Path) -> None:
    pool = import_responses(tmp_path, plan([responses(0, None), bad_row(1)]))
    assert pool.layout.scorer_names() == []
    assert pool.manifest.scorers == {}
    assert not (tmp_path / "scores").exists()


def test_scores_that_begin_late_are_in_all_parts(tmp_path: Path) -> None:
    rows = [responses(row, 1.0 if row == 9 else None) for row in range(10)]
    pool = import_responses(tmp_path, plan(rows))
    assert pool.layout.numbers(scores_kind("given")) == [0, 1, 2]
    assert pool.pending(scores_kind("given")) == []
    values = np.concatenate([frame.scores["given"] for frame in frames(pool, scorers=["given"])])
    assert values[9] == 1.0
    assert np.isnan(values[:9]).all()


def test_later_stages_read_it(tmp_path: Path) -> None:
    pool = import_responses(tmp_path, plan(ROWS))
    books = open_books(pool, ["given"], None)
    assert (books.input_rows, dict(books.drops)) == (9, {"malformed_json": 2})
    assert dict(books.candidate_drops) == {"missing_response": 1}
    ranked = list(ranked_prompts(pool, Ranking.of("given"), None))
    books.kept_rows = len(ranked)
    books.close()
    assert ranked[3].rewards == (-0.25, 2.0, 0.5)
    assert pool_recipe(pool, RankingSettings(rank_by="label")).name == "label"

    (limited,) = frames(pool, scorers=["given", "label"], limit=6)
    assert limited.prompts["row"].to_pylist() == [0, 2, 3, 5]

    scorer = FakeScorer()
    score(pool, ScoringPlan("reward", scorer, {"spec": "x"}), InlineEngine(), None, ignore)
    scored = Pool.open(tmp_path)
    assert scored.layout.scorer_names() == ["given", "label", "reward"]
    assert [group.prompt_id for group in scorer.groups] == [
        "p0",
        "p2",
        "p3",
        "p5",
        "p6",
        "p7",
        "p8",
    ]
    frame = next(frames(scored, scorers=["reward", "given"]))
    assert frame.scores["reward"].tolist() == [4.0] * 10


def test_an_unchanged_input_is_not_read_again(tmp_path: Path) -> None:
    import_responses(tmp_path, plan(ROWS))
    before = pool_files(tmp_path)
    for again in (plan(ROWS), plan(ROWS, part_size=None), plan(ROWS, limit=5)):
        import_responses(tmp_path, again)
        assert again.rows.num_reads == 0
    assert pool_files(tmp_path) == before
    unknown = plan(ROWS, digest=None)
    import_responses(tmp_path, unknown)
    assert unknown.rows.num_reads == 1


@pytest.mark.parametrize(
    "other",
    [
        plan(ROWS[:4]),
        plan(ROWS, fingerprint={"layout": None, "group": False}),
        plan(ROWS, part_size=2),
        plan([responses(0, None), bad_row(1)]),
    ],
)
def test_another_input_starts_afresh_where_nothing_was_paid_for(tmp_path: Path, other: Any) -> None:
    import_responses(tmp_path / "pool", plan(ROWS))
    import_responses(tmp_path / "pool", other)
    import_responses(tmp_path / "fresh", other)
    assert pool_files(tmp_path / "pool") == pool_files(tmp_path / "fresh")


def test_a_larger_limit_reads_on(tmp_path: Path) -> None:
    pool = import_responses(tmp_path / "pool", plan(ROWS, limit=3))
    assert (pool.manifest.input["rows"], pool.manifest.input["whole"]) == (3, False)
    import_responses(tmp_path / "pool", plan(ROWS))
    import_responses(tmp_path / "fresh", plan(ROWS))
    assert pool_files(tmp_path / "pool") == pool_files(tmp_path / "fresh")


@pytest.fixture
def paid(tmp_path: Path) -> Path:
    """A pool that a reward model has scored."""
    pool = import_responses(tmp_path / "paid", plan(ROWS[:7]))
    score(pool, ScoringPlan("reward", FakeScorer(), {"spec": "x"}), InlineEngine(), None, ignore)
    return pool.layout.root


def test_paid_scores_survive_an_input_that_grew(paid: Path) -> None:
    reward = scores_kind("reward")
    untouched = Pool.open(paid).layout.part(reward, 0).read_bytes()
    pool = import_responses(paid, plan([*ROWS, responses(9, None, is_correct=True)]))
    assert pool.layout.part(reward, 0).read_bytes() == untouched
    assert pool.pending(reward) == [1, 2]
    assert pool.pending(CANDIDATES) == pool.pending(scores_kind("label")) == []
    assert sorted(pool.manifest.scorers) == ["given", "label", "reward"]
    score(pool, ScoringPlan("reward", FakeScorer(), {"spec": "x"}), InlineEngine(), None, ignore)
    assert sum(1 for _ in ranked_prompts(pool, Ranking.of("reward"), None)) == 8


def test_paid_scores_survive_a_smaller_limit_and_a_renamed_file(paid: Path) -> None:
    before = pool_files(paid)
    import_responses(paid, plan(ROWS[:7], limit=2, digest=None))
    renamed = [
        replace(row, prompt=replace(row.prompt, where="new.jsonl:1"))
        if isinstance(row, GivenResponses)
        else row
        for row in ROWS[:7]
    ]
    import_responses(paid, plan(renamed, digest="other"))
    after = pool_files(paid)
    del before["pool.json"], after["pool.json"]
    assert before == after


@pytest.mark.parametrize(
    "other",
    [
        plan(ROWS[:2]),
        plan(ROWS[:5]),
        plan([responses(0, None), *ROWS[1:7]]),
        plan([responses(0, None, 7.0), *ROWS[1:7]]),
        plan([replace(ROWS[0], prompt=prompt(0, "other")), *ROWS[1:7]]),
        plan(ROWS[:7], fingerprint={"layout": "x", "group": True}),
        plan(ROWS[:7], part_size=5),
    ],
)
def test_paid_scores_are_never_mixed_with_another_input(paid: Path, other: Any) -> None:
    before = pool_files(paid)
    with pytest.raises(SettingsMismatchError) as caught:
        import_responses(paid, replace(other, digest=None))
    assert str(paid) in caught.value.where
    assert pool_files(paid) == before


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:4],
        [*ROWS[:6], responses(5, -0.25, 2.0, 0.75)],
        [*ROWS[:6], responses(5, -0.25, 2.0)],
        [*ROWS[:6], replace(ROWS[6], prompt=prompt(5, "another question", k=5))],
    ],
    ids=["ends before", "other score", "one response less", "another prompt"],
)
@pytest.mark.parametrize("digest", [None, "same"])
def test_where_prompts_are_lost_another_input_takes_nothing_else_with_it(
    paid: Path, rows: Rows, digest: str | None
) -> None:
    (paid / PROMPTS / "part-00001.parquet").unlink()
    before = pool_files(paid)
    with pytest.raises(SettingsMismatchError, match="the input is not the one"):
        import_responses(paid, plan(rows, digest=digest))
    assert pool_files(paid) == before
    import_responses(paid, plan(ROWS[:7], limit=3))
    assert pool_files(paid).keys() == before.keys()


@pytest.mark.parametrize("rows", [[], [responses(7, 1.0)]], ids=["same", "grown"])
def test_where_candidates_are_lost_others_do_not_take_their_place(paid: Path, rows: Rows) -> None:
    (paid / CANDIDATES / "part-00001.parquet").unlink()
    before = pool_files(paid)
    first, *rest = responses(5, -0.25, 2.0, 0.5).responses
    other = replace(ROWS[6], responses=(replace(first, response="another"), *rest))
    with pytest.raises(SettingsMismatchError, match="the input is not the one") as caught:
        import_responses(paid, plan([*ROWS[:6], other, *rows]))
    assert "scores/reward of part 1" in caught.value.why
    assert pool_files(paid) == before


def test_a_lost_part_and_a_limit_within_it_is_told_as_that(tmp_path: Path) -> None:
    root = bought(tmp_path / "paid", BARE)
    whole = pool_files(root)
    (root / PROMPTS / "part-00001.parquet").unlink()
    before = pool_files(root)
    with pytest.raises(SettingsMismatchError, match="prompts of part 1 are lost") as caught:
        import_responses(root, plan(BARE, limit=5))
    assert "--limit 8" in caught.value.next_step
    assert pool_files(root) == before
    import_responses(root, plan(BARE, limit=8))
    del whole["pool.json"]
    assert whole.items() <= pool_files(root).items()


BARE: Rows = [responses(row, None) for row in range(6)]
LATE: Rows = [
    *BARE,
    responses(6, None, None),
    Drop("missing_response", "it is null", "in.jsonl:7", "p6", 6, candidate=2),
    responses(7, None),
    bad_row(8),
    responses(9, 2.0, is_correct=True),
]


def die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process die where it would write its step-th file, `pool.json` included."""
    rename, steps = Path.replace, []

    def die(self: Path, target: Path) -> Path:
        steps.append(target)
        if len(steps) == step:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", die)


def kills(root: Path, begun: Path | None, rows: Rows) -> Iterator[Path]:
    """Import rows into a new pool, or into copies of one begun, killed at every single step."""
    for step in range(1, 99):
        pool = root / str(step)
        if begun is not None:
            shutil.copytree(begun, pool)
        with pytest.MonkeyPatch.context() as monkeypatch:
            die_at(monkeypatch, step)
            try:
                import_responses(pool, plan(rows))
            except KeyboardInterrupt:
                pass
            else:
                return
        yield pool
    raise AssertionError("it never ended")


def bought(root: Path, rows: Rows) -> Path:
    """A pool of these rows that a reward model has scored."""
    pool = import_responses(root, plan(rows))
    score(pool, ScoringPlan("reward", FakeScorer(), {"spec": "x"}), InlineEngine(), None, ignore)
    return root


@pytest.mark.parametrize(
    ("old", "is_paid", "rows"),
    [
        (None, False, ROWS),
        (ROWS[:7], False, LATE),
        (ROWS[:7], True, [*ROWS, responses(9, None, is_correct=True)]),
        (BARE, True, LATE),
        (BARE[:4], True, LATE),
    ],
    ids=["new", "again", "grown", "grown with the first scores", "new parts"],
)
def test_an_import_killed_anywhere_ends_as_if_it_never_was(
    tmp_path: Path, old: Rows | None, is_paid: bool, rows: Rows
) -> None:
    begun = None
    if old is not None:
        begun = tmp_path / "begun"
        bought(begun, old) if is_paid else import_responses(begun, plan(old))
    whole = tmp_path / "whole"
    if begun is not None:
        shutil.copytree(begun, whole)
    expected = import_responses(whole, plan(rows))
    pools = list(kills(tmp_path / "killed", begun, rows))
    assert len(pools) >= 8
    for pool in pools:
        assert import_responses(pool, plan(rows)).manifest == expected.manifest
        assert pool_files(pool) == pool_files(whole)


def test_growth_that_was_killed_and_is_taken_back_leaves_the_pool_readable(tmp_path: Path) -> None:
    begun = bought(tmp_path / "begun", BARE)
    before = read_back(begun)
    refused = 0
    for pool in kills(tmp_path / "killed", begun, LATE):
        try:
            import_responses(pool, plan(BARE))
        except SettingsMismatchError as error:  # new rows are in the pool, whole
            assert "the pool has" in error.why
            refused += 1
        else:
            assert read_back(pool) == before
            names = [
                {n for n in pool_files(p) if not n.startswith("drops/")} for p in (pool, begun)
            ]
            assert names[0] == names[1]
        with pytest.raises(SettingsMismatchError):
            import_responses(pool, plan([responses(0, 1.0), *LATE[1:]]))
        import_responses(pool, plan(LATE))
        assert not Pool.open(pool).pending(scores_kind("given"))
    assert refused > 0


def read_back(root: Path) -> tuple[Any, ...]:
    pool = Pool.open(root)
    books = open_books(pool, ["reward"], None)
    return books.as_json(), list(ranked_prompts(pool, Ranking.of("reward"), None))


@pytest.mark.parametrize("begun", [None, BARE])
def test_a_pool_whose_import_was_killed_is_never_taken_for_a_whole_one(
    tmp_path: Path, begun: Rows | None
) -> None:
    root = None if begun is None else bought(tmp_path / "begun", begun)
    reasons = set()
    for path in kills(tmp_path / "killed", root, LATE):
        if not (path / "pool.json").exists():
            continue
        pool = Pool.open(path)
        try:
            books = open_books(pool, [], None)
        except PoolIncompleteError as error:
            assert "run the command that made the pool again" in error.next_step
            reasons.add(error.what)
        else:  # no row of the new input is in it yet
            assert begun is not None
            assert (books.input_rows, books.candidate_drops.total()) == (6, 0)
        if begun is not None:
            import_responses(path, plan(LATE, limit=5))
            limited = open_books(Pool.open(path), [], 5)
            assert (limited.input_rows, limited.num_drops) == (5, 0)
            assert count_sampled(pool, 5) == 5
    assert reasons == {"the reading of this pool's input was interrupted"}


def test_another_response_to_the_last_old_prompt_is_no_growth(tmp_path: Path) -> None:
    root = bought(tmp_path / "paid", BARE)
    before = pool_files(root)
    with pytest.raises(SettingsMismatchError) as caught:
        import_responses(root, plan([*BARE[:5], responses(5, None, None), *LATE[6:]]))
    assert caught.value.why == "in.jsonl:6 has other candidates now"
    assert pool_files(root) == before


@pytest.mark.parametrize("is_paid", [False, True])
def test_files_that_were_lost_come_back_and_nothing_else_is_written(
    tmp_path: Path, is_paid: bool
) -> None:
    whole = tmp_path / "whole"
    if is_paid:
        bought(whole, ROWS)
    else:
        import_responses(whole, plan(ROWS))
        add_scores(Pool.open(whole), "rule", {}, is_rule=True)
    names = [name for name in pool_files(whole) if name != "pool.json"]
    lost = [name for name in names if "/reward/" not in name and "/rule/" not in name]
    assert {name.rsplit("/", 1)[0] for name in lost} >= {
        "prompts", "candidates", "scores/given", "scores/label", "drops/prompts",
    }  # fmt: skip
    for number, name in enumerate(lost):
        root = Path(shutil.copytree(whole, tmp_path / str(number)))
        (root / name).unlink()
        if name.startswith("drops/"):  # which --repair moves with its part
            (root / name.removeprefix("drops/")).unlink()
        inodes = {one: (root / one).stat().st_ino for one in pool_files(root)}
        import_responses(root, plan(ROWS))
        assert pool_files(root) == pool_files(whole), name
        part = name.rsplit("/", 1)[1]
        again = {one for one in inodes if (root / one).stat().st_ino != inodes[one]}
        assert all(one.endswith(part) for one in again), "other parts are left alone"
        assert not any("/reward/" in one or "/rule/" in one for one in again)


def test_a_row_that_was_bad_and_is_mended_is_another_input(tmp_path: Path) -> None:
    """As the last row of its part it looks like one that was added."""
    root = bought(tmp_path / "paid", [*BARE[:3], bad_row(3), *BARE[4:]])
    before = pool_files(root)
    with pytest.raises(SettingsMismatchError) as caught:
        import_responses(root, plan(BARE))
    assert caught.value.why.startswith("in.jsonl:4 is another row now")
    assert pool_files(root) == before


def test_a_sampled_pool_and_a_strange_folder_are_refused(tmp_path: Path) -> None:
    Run(input_rows(3)).candidates(tmp_path / "sampled")
    before = pool_files(tmp_path / "sampled")
    with pytest.raises(SettingsMismatchError, match="sampled"):
        import_responses(tmp_path / "sampled", plan(ROWS))
    assert pool_files(tmp_path / "sampled") == before
    (tmp_path / "notes.txt").touch()
    with pytest.raises(PoolError, match="not a pool"):
        import_responses(tmp_path, plan(ROWS))


def file_plan(path: Path, *, group: bool) -> GivenPlan:
    inputs, given_settings = InputSettings(), ResponseSettings()
    reader = ResponseReader(str(path), inputs, given_settings, group=group)
    fingerprint = {**inputs.fingerprint(), **given_settings.fingerprint(), "group": group}
    return GivenPlan(path.name, reader, fingerprint, input_digest(str(path)), None, None)


@needs_data
def test_example_solutions(tmp_path: Path) -> None:
    pool = import_responses(tmp_path, file_plan(DATA, group=True))
    assert pool.manifest.input["kind"] == "responses"
    assert pool.layout.scorer_names() == [LABEL_SCORER]
    (frame,) = frames(pool, scorers=[LABEL_SCORER])
    assert len(frame.start_P) == 1000
    assert set(frame.count_P) == {4}
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    models = [[v["is_correct"] for v in row.values() if isinstance(v, dict)] for row in rows]
    assert np.array_equal(frame.padded(frame.scores[LABEL_SCORER]), np.array(models, float))


cells = st.none() | st.text(max_size=3) | st.floats(allow_nan=False) | st.integers() | st.booleans()
lines = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from(["a", "b", 1, None]),
            "prompt": st.sampled_from(["x", "y", "", None]),
            "response": cells | st.lists(cells, max_size=3),
            "score": cells | st.lists(cells, max_size=2),
            "correct": cells,
            "num_tokens": cells,
            "k": cells,
        },
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(lines, st.booleans())
def test_the_books_of_any_import_close(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], group: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / "in.jsonl"
    first = {"prompt": "x", "response": "r", "id": "first"}
    path.write_text("\n".join(json.dumps(row) for row in [first, *rows]))
    made = replace(file_plan(path, group=group), part_size=3)
    pool = import_responses(folder / "pool", made)
    scorers = pool.layout.scorer_names()
    books = open_books(pool, scorers, None)
    books.kept_rows = sum(len(frame.start_P) for frame in frames(pool, scorers=scorers))
    books.close()
    assert books.input_rows <= len(rows) + 1
    assert group or books.input_rows == len(rows) + 1
    again = replace(file_plan(path, group=group), part_size=3)
    before = pool_files(folder / "pool")
    import_responses(folder / "pool", again)
    assert pool_files(folder / "pool") == before


def test_a_rule_costs_nothing_so_a_changed_input_is_imported_again(tmp_path: Path) -> None:
    pool = import_responses(tmp_path, plan(ROWS))
    score(pool, ScoringPlan("rule-math", FakeScorer(), {"rule_version": 1}), InlineEngine(), None,
          ignore)  # fmt: skip
    changed = import_responses(tmp_path, plan([responses(0)], digest="other"))
    assert [one.prompt_id for one in changed.prompts(0)] == ["p0"]
    assert "rule-math" not in changed.layout.scorer_names()


def scattered_file(folder: Path, prompts: Iterable[int]) -> Path:
    """An input with one response a row, to these prompts."""
    path = folder / "in.jsonl"
    rows = [
        {"id": f"q{n}", "prompt": f"question {n}", "response": f"answer {place}", "score": place}
        for place, n in enumerate(prompts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def grouped_plan(path: Path, limit: int | None = None) -> GivenPlan:
    rows = ResponseReader(str(path), InputSettings(limit=limit), ResponseSettings(), group=True)
    return GivenPlan("in.jsonl", rows, {"group": True}, input_digest(str(path)), limit, 2)


def responses_of(pool: Pool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in pool.parts():
        for row in pool.read(CANDIDATES, part, ["prompt_id", "response"]).to_pylist():
            found.setdefault(row["prompt_id"], []).append(row["response"])
    return found


def test_responses_that_stand_apart_are_gathered(tmp_path: Path) -> None:
    order = [0, 1, 2, 3, 4, 0, 2, 0, 5, 4]
    path = scattered_file(tmp_path, order)
    pool = import_responses(tmp_path / "p", grouped_plan(path))
    expected: dict[str, list[str]] = {}
    for place, n in enumerate(order):
        expected.setdefault(f"q{n}", []).append(f"answer {place}")
    assert responses_of(pool) == expected
    assert list(responses_of(pool)) == list(expected), "prompts in the order of their first rows"
    assert [pool.covers(PROMPTS, part) for part in pool.parts()] == [2, 2, 2]
    assert pool.manifest.input["gathered"] is True
    assert sum(1 for _ in pool.read_drops(PROMPTS)) == 0
    # and again, from the same bytes or a limit that is a view
    assert import_responses(tmp_path / "p", grouped_plan(path)).manifest == pool.manifest
    limited = import_responses(tmp_path / "q", grouped_plan(path, limit=3))
    assert responses_of(limited) == {name: [f"answer {name[1]}"] for name in ("q0", "q1", "q2")}
    assert [one.name for one in (tmp_path / "p" / ".bon").iterdir() if "gathered" in one.name] == []


def test_a_paid_pool_is_read_as_it_was_begun(tmp_path: Path) -> None:
    gathered, plain = scattered_file(tmp_path, [0, 1, 0]), tmp_path / "plain.jsonl"
    add_scores(import_responses(tmp_path / "g", grouped_plan(gathered)), "reward", {})
    scattered_file(tmp_path, [0, 1, 0, 2])  # a prompt more
    pool = import_responses(tmp_path / "g", grouped_plan(gathered))
    expected = {"q0": ["answer 0", "answer 2"], "q1": ["answer 1"], "q2": ["answer 3"]}
    assert responses_of(pool) == expected
    refuse_other_responses(pool, grouped_plan(gathered))
    scattered_file(tmp_path, [0, 1, 0, 2, 1])  # one more response to a prompt that was scored
    with pytest.raises(SettingsMismatchError, match="is not the one"):
        import_responses(tmp_path / "g", grouped_plan(gathered))

    scattered_file(tmp_path, [0, 0, 1]).rename(plain)
    add_scores(import_responses(tmp_path / "n", grouped_plan(plain)), "reward", {})
    scattered_file(tmp_path, [0, 0, 1, 2, 0]).rename(plain)
    pool = import_responses(tmp_path / "n", grouped_plan(plain))
    assert responses_of(pool) == {
        "q0": ["answer 0", "answer 1"], "q1": ["answer 2"], "q2": ["answer 3"],
    }  # fmt: skip
    assert [drop.reason for drop in pool.read_drops(PROMPTS)] == ["duplicate_id"]
