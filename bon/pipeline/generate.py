"""The work of generating: requests from the pool's prompts, candidates committed part by part."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from bon.errors import AccountingError, PoolCorruptError
from bon.pipeline.accounting import count_reasons
from bon.pipeline.pool_work import (
    began_afresh,
    opened,
    part_done,
    prompts_elsewhere,
    refuse_other_settings,
)
from bon.places import Place
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.protocols import (
    Event,
    Generator,
    PartByPart,
    PartDone,
    Parts,
    Progress,
    Ready,
    Scope,
    retries_of,
)
from bon.records import (
    CANDIDATES_SCHEMA,
    Candidate,
    Drop,
    GenerationRequest,
    GenerationResult,
    Prompt,
)

__all__ = ["GenerateParts", "sampling_seed"]


def sampling_seed(run_seed: int, prompt_id: str) -> int:
    """Return candidate 0's sampling seed, 48 bits; candidate i's is this plus i."""
    digest = hashlib.sha256(f"{run_seed}\0{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


@dataclass
class _OpenPart:
    """A part whose prompts are being sampled."""

    number: int
    made_of: str | None
    """Digest of its prompts, as they were read."""
    prompts: list[Prompt]
    results: dict[str, GenerationResult] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def missing(self) -> list[Prompt]:
        return [prompt for prompt in self.prompts if prompt.prompt_id not in self.results]


class _Source:
    """Parts that come in spells, with nothing to take for now between them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = iter(parts)
        self.is_over = False

    def for_now(self) -> Iterator[int]:
        """Yield parts until there is none for now, or none any more."""
        for part in self._parts:
            if part is None:
                return
            yield part
        self.is_over = True


@dataclass(frozen=True, slots=True)
class GenerateParts:
    """`PartWork` that samples candidates; one stream of requests runs across all parts."""

    pool_root: Place
    generator: Generator
    num_candidates: int
    run_seed: int
    scope: Scope = field(default_factory=Scope)

    def within(self, scope: Scope) -> GenerateParts:
        """Return the same work for other prompts."""
        return replace(self, scope=scope)

    def prompt_ids(self, part: int) -> list[str]:
        """List the prompts of a part that have no candidates yet."""
        begun = self._begun(opened(self.pool_root), part)
        return [prompt.prompt_id for prompt in begun.missing]

    def others(self, part: int) -> Iterator[tuple[int, str]]:
        """Yield prompts of other parts, those first that were sampled before."""
        return prompts_elsewhere(opened(self.pool_root), part, (CANDIDATES, PROMPTS))

    def done(self, part: int) -> PartDone | None:
        """Return how a part was sampled, by whomever; none where it still has to be."""
        return part_done(opened(self.pool_root), CANDIDATES, part)

    def run(self, parts: Parts) -> Iterator[Event]:
        """Sample and commit the parts."""
        started_s = time.monotonic()
        pool = opened(self.pool_root)
        with self.generator as generator:
            yield Ready(time.monotonic() - started_s)
            source = _Source(parts)
            while not source.is_over:
                for_now = source.for_now()
                runs = ([n] for n in for_now) if isinstance(generator, PartByPart) else [for_now]
                for run in runs:
                    yield from self._sample(pool, generator, run)

    def _sample(self, pool: Pool, generator: Generator, parts: Iterable[int]) -> Iterator[Event]:
        """Sample and commit parts whose prompts may be sampled together."""
        owners: dict[str, _OpenPart] = {}
        complete: deque[_OpenPart] = deque()
        retries = Counter(retries_of(generator))
        for result in generator.stream(self._requests(pool, parts, owners, complete)):
            part = owners.pop(result.prompt_id)
            result = self._whole(result)
            part.results[result.prompt_id] = result
            if part.complete:
                complete.append(part)
            num_tokens = sum(candidate.num_tokens or 0 for candidate in result.candidates)
            before, retries = retries, Counter(retries_of(generator))
            yield Progress(1, len(result.candidates), num_tokens, retries=dict(retries - before))
            yield from self._commit_all(pool, complete)
        yield from self._commit_all(pool, complete)
        if owners:
            raise AccountingError(
                f"the generator gave no result for {len(owners)} prompts",
                where=f"the first is id={next(iter(owners))}",
                why="this is a bug in bon",
            )

    def _whole(self, result: GenerationResult) -> GenerationResult:
        """Return a result that has all candidates or says why it has none: no row may be lost."""
        found, wanted = len(result.candidates), self.num_candidates
        if result.drop is not None or found == wanted:
            return result
        drop = Drop("wrong_count", f"the generator gave {found} candidates of {wanted}")
        return GenerationResult(result.prompt_id, (), result.num_prompt_tokens, drop)

    def _requests(
        self,
        pool: Pool,
        parts: Iterable[int],
        owners: dict[str, _OpenPart],
        complete: deque[_OpenPart],
    ) -> Iterator[GenerationRequest]:
        for number in parts:
            part = self._begun(pool, number)
            if part.complete:
                complete.append(part)
            missing = part.missing
            owners.update((prompt.prompt_id, part) for prompt in missing)
            for prompt in missing:
                seed = sampling_seed(self.run_seed, prompt.prompt_id)
                yield GenerationRequest(
                    prompt.prompt_id, prompt.messages, self.num_candidates, seed
                )

    def _begun(self, pool: Pool, number: int) -> _OpenPart:
        """Return a part with what is known of it: sampled before, or not to be sampled."""
        made_of = pool.content(PROMPTS, number)  # before they are read: they may change meanwhile
        # what is tried is sampled, even where that was done before
        before = _sampled_before(pool, number) if self.scope.only is None else {}
        part = _OpenPart(number, made_of, pool.prompts(number), before)
        for prompt in part.missing:
            drop = self.scope.dropped.get(prompt.prompt_id)
            if drop is not None:
                part.results[prompt.prompt_id] = GenerationResult(prompt.prompt_id, (), drop=drop)
        part.prompts = [one for one in part.prompts if self.scope.takes(one.prompt_id)]
        return part

    def _commit_all(self, pool: Pool, complete: deque[_OpenPart]) -> Iterator[PartDone]:
        while complete:
            yield self._committed(pool, complete.popleft())

    def _committed(self, pool: Pool, part: _OpenPart) -> PartDone:
        if self.scope.only is not None:
            return PartDone(part.number)
        # whoever is taken for dead may live on and commit too: what is there stays as it is
        before = part_done(pool, CANDIDATES, part.number)
        if before is not None:
            return before
        refuse_other_settings(pool, CANDIDATES)
        if pool.content(PROMPTS, part.number) != part.made_of:
            raise began_afresh(pool)
        return PartDone(part.number, count_reasons(_commit(pool, part)))


def _sampled_before(pool: Pool, number: int) -> dict[str, GenerationResult]:
    """Return what a part that has grown since already holds: it is not sampled twice."""
    if not pool.layout.part(CANDIDATES, number).is_file():
        return {}
    candidates: dict[str, list[Candidate]] = {}
    for row in pool.read(CANDIDATES, number).to_pylist():
        sampled = row["token_ids"]
        row["token_ids"] = None if sampled is None else tuple(sampled)
        candidates.setdefault(row.pop("prompt_id"), []).append(Candidate(**row))
    results = {key: GenerationResult(key, tuple(rows)) for key, rows in candidates.items()}
    for drop in pool.drops(CANDIDATES, number):
        results[drop.id] = GenerationResult(drop.id, (), drop=drop)
    return results


def _commit(pool: Pool, part: _OpenPart) -> list[Drop]:
    candidates = [
        (prompt.prompt_id, candidate)
        for prompt in part.prompts
        for candidate in part.results[prompt.prompt_id].candidates
    ]
    drops = [
        replace(drop, where=prompt.where, id=prompt.prompt_id, row=prompt.row)
        for prompt in part.prompts
        if (drop := part.results[prompt.prompt_id].drop) is not None
    ]
    number = part.number
    if not pool.layout.part(CANDIDATES, number).is_file():
        _remove_scores(pool, number, lambda kind: not _says_what_it_scored(pool, kind, number))
    covers = len(part.prompts)
    pool.commit(CANDIDATES, number, _table(candidates), drops, covers, part.made_of)
    # on a GPU a part done again may hold other responses; until it is there, scores are not stale
    _remove_scores(pool, number, lambda kind: pool.is_stale(kind, number))
    return drops


def _remove_scores(pool: Pool, number: int, is_old: Callable[[str], bool]) -> None:
    for kind in map(scores_kind, pool.layout.scorer_folders()):
        path = pool.layout.part(kind, number)
        with suppress(PoolCorruptError):  # that is for --repair
            if path.is_file() and is_old(kind):
                path.unlink()


def _says_what_it_scored(pool: Pool, kind: str, number: int) -> bool:
    note = pool.note(kind, number)
    return note is not None and note.made_of is not None


def _table(rows: list[tuple[str, Candidate]]) -> pa.Table:
    """Build the part column by column; row by row costs several times as much."""
    columns: dict[str, list[Any]] = {"prompt_id": [prompt_id for prompt_id, _ in rows]}
    for name in CANDIDATES_SCHEMA.names[1:]:
        columns[name] = [getattr(candidate, name) for _, candidate in rows]
    return pa.table(columns, CANDIDATES_SCHEMA)
