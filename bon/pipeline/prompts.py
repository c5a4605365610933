"""A prompt file as a set of prompts: for trainers that sample themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from bon.pipeline.accounting import Accounting
from bon.pipeline.passthrough import PassThrough
from bon.pipeline.plans import PromptsPlan
from bon.pipeline.run import read_prompts, refuse_foreign
from bon.places import Place
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest
from bon.pool.pool import PROMPTS, Pool
from bon.records import PROMPT_FIELDS

__all__ = ["PromptSet", "prompts_pool"]

_PART_SIZE = 8192


def prompts_pool(root: Place, plan: PromptsPlan) -> Pool:
    """Read prompts into a pool of their own, without candidates.

    Raises:
        PoolError: the folder holds something else.
    """
    refuse_foreign(root)
    manifest = Manifest(
        part_size=plan.part_size or _PART_SIZE, input={"settings": plan.fingerprint}
    )
    return read_prompts(Pool(PoolLayout(root), manifest).save(manifest), plan)


class PromptSet:
    """The prompts of a pool as native tables, and the books of reading them."""

    def __init__(self, pool: Pool, limit: int | None) -> None:
        self._pool, self._limit = pool, limit
        rows = sum(pool.covers(PROMPTS, part) for part in pool.parts(limit))
        self.accounting = Accounting(rows if limit is None else min(rows, limit))
        for drop in pool.read_drops(PROMPTS):
            if limit is None or drop.row < limit:
                self.accounting.add(drop)
        self._others = PassThrough(pool, limit, [item.name for item in PROMPT_FIELDS])

    @property
    def schema(self) -> pa.Schema:
        """The columns of the prompts, then the input's own."""
        return pa.schema([*PROMPT_FIELDS, *self._others.fields])

    def tables(self) -> Iterator[pa.Table]:
        """Yield the prompts in input order, a table for each part, and keep the books."""
        for part in self._pool.parts(self._limit):
            table = self._pool.read(PROMPTS, part)
            if self._limit is not None:
                table = table.filter(pa.array(table["row"].to_numpy() < self._limit))
            self.accounting.kept_rows += table.num_rows
            self.accounting.output_rows += table.num_rows
            ours = [table[item.name] for item in PROMPT_FIELDS]
            others = self._others.arrays(self._others.read(table))
            yield pa.table([*ours, *others], schema=self.schema)
