"""Pools of which every text and score is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bon.config.filters import parse_filter
from bon.pipeline.filtering.output import OutputColumns, dropped_tables, kept_tables
from bon.pipeline.filtering.plan import Decision, run_filters
from bon.pipeline.filtering.units import Kind
from bon.pipeline.rewards import Ranking
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import CANDIDATES_SCHEMA, PROMPTS_SCHEMA, SCORES_SCHEMA


@dataclass
class Row:
    """One prompt with its responses and scores; `given` scores are of the scorer `reward`."""

    responses: Sequence[str]
    scores: Sequence[float | None] | None = None
    prompt: str = "Why?"
    finish: Sequence[str | None] | None = None
    num_tokens: Sequence[int | None] | None = None
    label: Sequence[float | None] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Filtered:
    """What a run left."""

    pool: Pool
    decision: Decision

    def table(self, *, dropped: bool = False) -> pa.Table:
        columns = OutputColumns(self.pool, self.decision)
        columns = columns.with_reasons() if dropped else columns
        tables = (dropped_tables if dropped else kept_tables)(self.pool, self.decision, columns)
        return pa.concat_tables([columns.schema.empty_table(), *tables])

    @property
    def kept(self) -> list[str]:
        """Texts that stay, in order: responses, or `chosen|rejected`."""
        return self._texts(self.table())

    @property
    def dropped(self) -> list[tuple[str, str]]:
        """Texts that do not, with the filter that dropped them."""
        table = self.table(dropped=True)
        return list(zip(self._texts(table), table["dropped_by"].to_pylist(), strict=True))

    @property
    def details(self) -> list[str]:
        return self.table(dropped=True)["detail"].to_pylist()

    @property
    def report(self) -> dict[str, Any]:
        return self.decision.report.as_json()

    def _texts(self, table: pa.Table) -> list[str]:
        if self.decision.kind == "candidates":
            return table["response"].to_pylist()
        sides = [
            [one[0]["content"] for one in table[s].to_pylist()] for s in ("chosen", "rejected")
        ]
        return [f"{chosen}|{rejected}" for chosen, rejected in zip(*sides, strict=True)]


def commit_rows(root: Path, rows: Sequence[Row], part_size: int = 2) -> Pool:
    """Write rows as a pool; a scorer is there where any row has scores of it."""
    layout = PoolLayout(root)
    pool = Pool(layout, Manifest(part_size=part_size, input={"rows": len(rows)}))
    pool.save(pool.manifest)
    scorers = {
        name: [getattr(row, attribute) for row in rows]
        for name, attribute in (("reward", "scores"), ("label", "label"))
        if any(getattr(row, attribute) is not None for row in rows)
    }
    for part, start in enumerate(range(0, len(rows), part_size)):
        numbers = range(start, min(start + part_size, len(rows)))
        keys = [(f"p{n}", c) for n in numbers for c in range(len(rows[n].responses))]
        prompts = [
            {
                "prompt_id": f"p{n}",
                "prompt": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": rows[n].prompt},
                ],
                "extra": json.dumps(rows[n].extra),
                "row": n,
                "where": f"in.jsonl:{n + 1}",
            }
            for n in numbers
        ]
        candidates = [
            {
                "prompt_id": prompt_id,
                "candidate": c,
                "response": rows[int(prompt_id[1:])].responses[c],
                "finish_reason": _at(rows[int(prompt_id[1:])].finish, c),
                "num_tokens": _at(rows[int(prompt_id[1:])].num_tokens, c),
            }
            for prompt_id, c in keys
        ]
        pool.commit(PROMPTS, part, pa.Table.from_pylist(prompts, PROMPTS_SCHEMA), [], len(numbers))
        table = pa.Table.from_pylist(candidates, CANDIDATES_SCHEMA)
        pool.commit(CANDIDATES, part, table, [], len(numbers))
        for name, values in scorers.items():
            scores = [
                {"prompt_id": i, "candidate": c, "score": _at(values[int(i[1:])], c)}
                for i, c in keys
            ]
            table = pa.Table.from_pylist(scores, SCORES_SCHEMA)
            pool.commit(scores_kind(name), part, table, [], len(numbers))
    return Pool.open(root)


def _at(values: Sequence[Any] | None, place: int) -> Any:
    return None if values is None else values[place]


Filter = Callable[..., Filtered]


@pytest.fixture(autouse=True, scope="module")
def frame_for_every_part() -> Iterator[None]:
    """Cut pools into as many frames as they have parts, so that frames' borders are tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bon.pipeline.frames._FRAME_ROWS", 1)
        yield


@pytest.fixture
def filtered(tmp_path: Path) -> Filter:
    """Run filters over rows: strings on the command line's form, or tables."""
    count = iter(range(1000))

    def run(
        rows: Sequence[Row],
        *specs: str | dict[str, Any],
        kind: Kind = "candidates",
        scorer: str | None = "auto",
        limit: int | None = None,
        part_size: int = 2,
    ) -> Filtered:
        pool = commit_rows(tmp_path / f"{next(count)}.pool", rows, part_size)
        if scorer == "auto":
            scorer = "reward" if "reward" in pool.layout.scorer_names() else None
        ranking = None if scorer is None else Ranking.of(scorer)
        filters = [parse_filter(spec) for spec in specs]
        decision = run_filters(pool, filters, kind=kind, ranking=ranking, limit=limit, seed=0)
        result = Filtered(pool, decision)
        assert len(result.kept) + len(result.dropped) == len(decision.units.alive_U)
        return result

    return run


@pytest.fixture
def row() -> type[Row]:
    return Row
