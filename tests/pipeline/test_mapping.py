"""Curation by several processes: the same rows, reports and errors as in one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.commands import pool_files
from support.curated import made_up_pool

from bon.config import PairSettings, RankingSettings, SelectSettings
from bon.config.filters import parse_filter
from bon.engines.mapping import LocalMapper
from bon.errors import BonError, InputError, PoolCorruptError
from bon.object_store import ObjectPath
from bon.pipeline.build_dpo import PairBuilder
from bon.pipeline.filtering.output import OutputColumns, dropped_tables, kept_tables
from bon.pipeline.filtering.plan import run_filters
from bon.pipeline.filtering.units import Kind
from bon.pipeline.ranked import pool_recipe
from bon.pipeline.rewards import Ranking, fit_ranking
from bon.pipeline.select import Selector
from bon.places import place
from bon.pool.pool import CANDIDATES, Pool
from bon.protocols import Mapper

Outcome = tuple[dict[str, Any], bytes]
"""A report as JSON, and the rows."""


@pytest.fixture(autouse=True, scope="module")
def frame_for_every_part() -> Iterator[None]:
    """Cut pools into as many groups as they have parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bon.pipeline.frames._FRAME_ROWS", 1)
        yield


@pytest.fixture(scope="module")
def mappers() -> Iterator[list[Mapper]]:
    """One process, two and three."""
    with ExitStack() as stack:
        yield [stack.enter_context(LocalMapper(number)) for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return made_up_pool(tmp_path_factory.mktemp("pool") / "p", 40)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return made_up_pool(tmp_path_factory.mktemp("pairs") / "p", 40, pairs=True)


def as_outcome(report: dict[str, Any], tables: Iterable[pa.Table], schema: pa.Schema) -> Outcome:
    """Return both so that any difference shows; how rows are cut into tables does as well."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table.combine_chunks())
    return json.loads(json.dumps(report)), sink.getvalue().to_pybytes()


def ranking_of(pool: Pool, mapper: Mapper | None, **said: Any) -> Ranking:
    said = said or {"rank_by": "reward"}
    return fit_ranking(pool, pool_recipe(pool, RankingSettings(**said)), None, mapper)


def selected(
    pool: Pool, mapper: Mapper | None, ranking: dict[str, Any], limit: int | None, **said: Any
) -> Outcome:
    selector = Selector(
        pool,
        SelectSettings(**said),
        ranking=ranking_of(pool, mapper, **ranking),
        seed=3,
        limit=limit,
        mapper=mapper,
    )
    tables = list(selector.tables())
    return as_outcome(selector.report.as_json(), tables, selector.schema)


def paired(pool: Pool, mapper: Mapper | None, ranking: dict[str, Any], **said: Any) -> Outcome:
    rule = "label" if said.get("rule") or said["strategy"] == "verified" else None
    builder = PairBuilder(
        pool,
        PairSettings(**said),
        ranking=ranking_of(pool, mapper, **ranking),
        rule=rule,
        seed=3,
        limit=None,
        tokenize=by_words if said.get("max_length") else None,
        mapper=mapper,
    )
    tables = list(builder.tables())
    return as_outcome(builder.report.as_json(), tables, builder.schema)


def by_words(conversations: Iterable[Iterable[dict[str, str]]]) -> list[list[int]]:
    """A tokenizer: each word is its length."""
    return [[len(w) for m in one for w in m["content"].split()] for one in conversations]


def filtered(
    pool: Pool, mapper: Mapper | None, kind: Kind, specs: Iterable[str], limit: int | None = None
) -> tuple[Outcome, Outcome]:
    """What stays, and what does not, with its reasons."""
    decision = run_filters(
        pool,
        [parse_filter(spec) for spec in specs],
        kind=kind,
        ranking=Ranking.of("reward"),
        limit=limit,
        seed=0,
        mapper=mapper,
    )
    columns = OutputColumns(pool, decision, mapper)
    kept = list(kept_tables(pool, decision, columns, mapper))
    reasons = columns.with_reasons()
    dropped = list(dropped_tables(pool, decision, reasons, mapper))
    assert sum(map(len, [*kept, *dropped])) == len(decision.units.alive_U)
    report = decision.report.as_json()
    return as_outcome(report, kept, columns.schema), as_outcome({}, dropped, reasons.schema)


def assert_same(mappers: list[Mapper], run: Callable[[Mapper | None], Any]) -> Any:
    """One process, two and three make what this one does, which is returned."""
    here = run(None)
    for mapper in mappers:
        assert run(mapper) == here
    return here


@pytest.mark.parametrize(
    "said",
    [
        {"strategy": "best"},
        {"strategy": "top-k", "k": 3},
        {"strategy": "threshold", "threshold": 0.5},
        {"strategy": "majority"},
        {"strategy": "weighted-majority"},
        {"strategy": "soft", "soft_lambda": 0.5},
    ],
    ids=lambda said: said["strategy"],
)
def test_selections_are_the_same(mappers: list[Mapper], pool: Pool, said: dict[str, Any]) -> None:
    report, _ = assert_same(mappers, lambda mapper: selected(pool, mapper, {}, None, **said))
    assert report["output_rows"] > 5
    assert report["drops"]
    assert report["accuracy_random"] is not None


@pytest.mark.parametrize(
    "said",
    [
        {"aggregate": "mean", "normalize": ("global-z",)},
        {"aggregate": "lexicographic", "rank_by": "label,reward"},
        {"rank_by": "reward", "length_debias": ("linear",)},
        {"rank_by": "reward", "gate": ("label>=1",)},
    ],
    ids=["global-z", "lexicographic", "length", "gate"],
)
def test_fitted_rankings_are_the_same(
    mappers: list[Mapper], pool: Pool, said: dict[str, Any]
) -> None:
    told = assert_same(mappers, lambda mapper: ranking_of(pool, mapper, **said).as_json())
    assert told
    assert_same(mappers, lambda mapper: selected(pool, mapper, said, None))


@pytest.mark.parametrize(
    "said",
    [
        {"strategy": "best-worst", "min_margin": "20%"},
        {"strategy": "best-random", "max_length_ratio": 1.5},
        {"strategy": "best-second", "rule": "label"},
        {"strategy": "best-median", "match_length": 0.5},
        {"strategy": "max-margin", "max_pairs": 2, "min_preference_prob": 0.6},
        {"strategy": "sigma", "num_sigmas": 0.5},
        {"strategy": "quantile", "chosen_quantile": 0.8, "rejected_quantile": 0.3},
        {"strategy": "verified"},
        {"strategy": "k-vs-k", "max_length": 6, "tokenizer": "words"},
    ],
    ids=lambda said: said["strategy"],
)
def test_pairs_are_the_same(mappers: list[Mapper], pool: Pool, said: dict[str, Any]) -> None:
    report, _ = assert_same(mappers, lambda mapper: paired(pool, mapper, {}, **said))
    assert report["output_rows"] > 2
    assert report["drops"]


CANDIDATE_FILTERS = [
    ["length:min_words=3", "finish_reason:keep=stop"],
    ["repetition:min_words=5", "refusal:", "regex:pattern=seven,keep=false"],
    [
        "length:min_words=4",
        "reward:min_quantile=0.3,by=topic",
        "exact_dedup:on=prompt,ignore_case=true",
    ],
    ["reward:top_k=2,by=prompt", "difficulty:min=0.1,max=0.9", "length:max_words=9"],
    ["exact_dedup:on=response,scope=prompt", "near_dedup:threshold=0.5,ngram=2,num_perm=32"],
    ["near_dedup:on=prompt,threshold=0.4,ngram=1,num_perm=32", "reward:min=0"],
    ["exact_dedup:on=both", "diversity:threshold=0.5,ngram=1,num_perm=32,max_rows=30"],
    [],
]


@pytest.mark.parametrize("specs", CANDIDATE_FILTERS, ids=lambda s: "-".join(x[:6] for x in s))
def test_filters_are_the_same(mappers: list[Mapper], pool: Pool, specs: list[str]) -> None:
    (report, _), _ = assert_same(
        mappers, lambda mapper: filtered(pool, mapper, "candidates", specs)
    )
    assert all(one["num_dropped"] for one in report["filters"])


def test_filters_of_pairs_are_the_same(mappers: list[Mapper], pairs: Pool) -> None:
    specs = [
        "agreement:action=flip,min_prob=0.5,scorer=other",
        "margin:min=30%",
        "length:min_words=2",
    ]
    (report, _), _ = assert_same(mappers, lambda mapper: filtered(pairs, mapper, "pairs", specs))
    assert report["filters"][0]["num_flipped"] > 2


@pytest.mark.parametrize("on", ["prompt", "both"])
def test_matches_with_evaluation_data_are_the_same(
    mappers: list[Mapper], pool: Pool, tmp_path: Path, on: str
) -> None:
    for name, text in (("one", "seven eight nine the"), ("two", "so it is")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": text}) + "\n")
    files = json.dumps([str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")])
    spec = {"name": "decontaminate", "files": json.loads(files), "on": on, "ngram": 2}
    spec |= {"max_share": 0.3, "share_of": "either"}
    (report, _), _ = assert_same(
        mappers,
        lambda mapper: filtered(pool, mapper, "candidates", [spec, "length:min_words=3"]),  # type: ignore[list-item]
    )
    assert len(report["filters"][0]["dropped_by_file"]) == 2


@given(
    num_rows=st.integers(0, 25), part_size=st.integers(1, 7), limit=st.none() | st.integers(0, 30)
)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_cut_and_limit_is_the_same(
    mappers: list[Mapper],
    tmp_path_factory: pytest.TempPathFactory,
    num_rows: int,
    part_size: int,
    limit: int | None,
) -> None:
    pool = made_up_pool(tmp_path_factory.mktemp("any") / "p", num_rows, part_size=part_size)
    specs = ["length:min_words=2", "exact_dedup:on=prompt", "reward:min=0"]
    assert_same(mappers[1:2], lambda mapper: selected(pool, mapper, {}, limit))
    assert_same(mappers[1:2], lambda mapper: filtered(pool, mapper, "candidates", specs, limit))


def test_a_damaged_part_is_the_same_error(mappers: list[Mapper], tmp_path: Path) -> None:
    pool = made_up_pool(tmp_path / "p", 40)
    path = pool.layout.part(CANDIDATES, 7)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(bytes(data))
    assert_same(
        mappers[1:2], lambda mapper: error_of(PoolCorruptError, selected, pool, mapper, {}, None)
    )


def test_rows_that_are_no_pairs_are_the_same_error(mappers: list[Mapper], pool: Pool) -> None:
    said = assert_same(
        mappers[1:2], lambda mapper: error_of(InputError, filtered, pool, mapper, "pairs", [])
    )
    assert "a pair has 2" in said


def error_of(kind: type[BonError], run: Callable[..., Any], *arguments: Any, **said: Any) -> str:
    """Say what went wrong."""
    with pytest.raises(kind) as caught:
        run(*arguments, **said)
    return str(caught.value)


@pytest.mark.slow
def test_a_pool_on_a_store_is_curated_the_same(tmp_path: Path, bucket: str) -> None:
    pool = made_up_pool(tmp_path / "p", 12)
    root = place(f"{bucket}/a.pool")
    assert isinstance(root, ObjectPath)
    for name, content in pool_files(tmp_path / "p").items():
        (root / name).write_bytes(content)
    with LocalMapper(2) as mapper:  # begun here, where the store's address is known
        assert selected(Pool.open(root), mapper, {}, None) == selected(pool, None, {}, None)
        specs = ["exact_dedup:on=prompt", "length:min_words=2"]
        here = filtered(pool, None, "candidates", specs)
        assert filtered(Pool.open(root), mapper, "candidates", specs) == here
