"""The input, every row, through the run's own readers and encoders."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bon.cli.validation.plan import Note, PlannedRun, ok, skipped, warning
from bon.config import GenerateSettings
from bon.errors import BonError, OutputError
from bon.generators.prompting import PromptEncoder
from bon.pipeline.accounting import Accounting
from bon.pipeline.given import has_paid_scores, refuse_other_responses
from bon.pipeline.ingest import ingest
from bon.records import CandidateGroup, Drop, GenerationRequest, GivenResponses, Prompt
from bon.scorers.conversations import Encoder
from bon.scorers.encoding import Encoded
from bon.sources.responses import ResponseReader

__all__ = ["check_rows"]

_MOST_EXAMPLES = 5
"""As many as the books of a run show."""

_PROBE = "?"
"""Stands for the response of a prompt that has none yet: about the shortest there is."""


def check_rows(run: PlannedRun) -> Iterator[Note | BonError]:
    """Read all rows once, count what the run would drop, and compare them with a begun pool."""
    if run.kind == "pool":
        return
    if run.prompts is None and run.given is None:
        yield skipped("the source cannot be read")
        return
    rows = _Rows(run)
    try:
        yield from _read(run, rows)
    except OutputError as error:
        yield skipped(
            "the rows of one prompt stand apart, and there is no room to bring them together in "
            f"{tempfile.gettempdir()} ({error.why}): the run does it beside its pool, here TMPDIR "
            "names another place"
        )
        return
    rows.close()
    run.is_gathered = rows.is_gathered
    run.books, run.num_bytes, run.num_given = rows.books, rows.num_bytes, rows.num_given
    yield from _counted(run, rows)


def _read(run: PlannedRun, rows: _Rows) -> Iterator[BonError]:
    """Read all rows.

    Raises:
        OutputError: those of one prompt have no room to be brought together.
    """
    try:
        _compare(run, rows)
    except OutputError:
        raise
    except BonError as error:
        yield error
    rows.drain()  # what a refusal left unread
    if run.given is not None and rows.is_scattered and not rows.is_gathered:
        rows.gather(Path())
        rows.drain()


def _compare(run: PlannedRun, rows: _Rows) -> None:
    """Let the pool that the run would go on with look at the rows, where it would do so."""
    pool = run.pool
    if pool is None:
        return
    plan = run.prompts or run.given
    assert plan is not None
    if plan.digest is not None and plan.digest == pool.manifest.input.get("digest"):
        return
    if run.prompts is not None:
        ingest(pool, rows, run.prompts.limit, writes=False)
    elif run.given is not None and has_paid_scores(pool):
        refuse_other_responses(pool, replace(run.given, rows=rows))


@dataclass
class _Stage:
    """What one stage of the run would drop; the run counts one stage after the other."""

    drops: Counter[str] = field(default_factory=Counter)
    """Rows, by reason."""
    candidate_drops: Counter[str] = field(default_factory=Counter)
    examples: list[Drop] = field(default_factory=list)
    """The first few, and the first of each reason."""
    num_cut: int = 0
    """Prompts whose conversations a scorer would cut."""

    def add(self, drop: Drop, prompt: Prompt | None = None, times: int = 1) -> None:
        """Count a drop, of a prompt where it does not say so itself."""
        if prompt is not None:
            drop = replace(drop, where=prompt.where, id=prompt.prompt_id, row=prompt.row)
        counts = self.drops if drop.candidate is None else self.candidate_drops
        if len(self.examples) < _MOST_EXAMPLES or not counts[drop.reason]:
            self.examples.append(drop)
        counts[drop.reason] += times


class _Rows:
    """The rows of the input, counted as they pass; a reader for the pipeline, read once."""

    def __init__(self, run: PlannedRun) -> None:
        plan = run.prompts or run.given
        assert plan is not None
        self._source = plan.rows
        self._encoder, self._encoders = run.encoder, run.encoders
        self._ranks = set(run.recipe.reads) if run.recipe else None
        """The scorers that a set would be chosen by; none where no set is written."""
        self._sampling = run.sampling
        self.is_gathered = False
        self._begin()

    def _begin(self) -> None:
        self.books = Accounting(0)
        self._read, self._sampled, self._selected = _Stage(), _Stage(), _Stage()
        self.scored = {name: _Stage() for name in self._encoders}
        self.num_tokens = self.longest = self.num_short = self.num_bytes = self.num_given = 0
        self._items = self._pass()

    @property
    def kind(self) -> str | None:
        """What a row is, as the reader says."""
        return getattr(self._source, "kind", None)

    @property
    def is_scattered(self) -> bool:
        """Whether rows of one prompt have turned out to stand apart."""
        return bool(getattr(self._source, "is_scattered", False))

    def gather(self, beside: Path) -> None:
        """Read again, and all rows of a prompt together; nothing is written into the pool."""
        # one name for all: so what a killed one left is found, and removed
        beside = Path(tempfile.gettempdir()) / "bon-validate"
        assert isinstance(self._source, ResponseReader)
        self._source.gather(beside)
        self.is_gathered = True
        self._begin()

    def __iter__(self) -> Iterator[Any]:
        return self._items

    def drain(self) -> None:
        """Read to the end."""
        for _ in self._items:
            pass

    def describe(self) -> str:
        """Say how the rows are read."""
        return self._source.describe()

    def close(self) -> None:
        """Bring the stages' drops into the books, in the order of the run, and close these."""
        ranks = self.scored.keys() if self._ranks is None else self._ranks
        counted = [stage for name, stage in self.scored.items() if name in ranks]
        drops, candidate_drops = Counter[str](), Counter[str]()
        for stage in (self._read, self._sampled, *counted, self._selected):
            for drop in stage.examples:
                self.books.add(drop)
            drops += stage.drops
            candidate_drops += stage.candidate_drops
        self.books.drops, self.books.candidate_drops = drops, candidate_drops
        self.books.kept_rows = self.books.input_rows - self.books.num_drops
        self.books.output_rows = self.books.kept_rows

    def _pass(self) -> Iterator[Prompt | Drop | GivenResponses]:
        source: Iterable[Prompt | Drop | GivenResponses] = self._source
        for item in source:
            self._count(item)
            yield item

    def _count(self, item: Prompt | Drop | GivenResponses) -> None:
        row = item.prompt.row if isinstance(item, GivenResponses) else item.row
        self.books.input_rows = row + 1
        if isinstance(item, Drop):
            (self._read if item.candidate is None else self._sampled).add(item)
            return
        prompt = item.prompt if isinstance(item, GivenResponses) else item
        self.num_bytes += sum(len(message["content"].encode()) for message in prompt.messages)
        self.num_bytes += len(repr(prompt.extra))
        if isinstance(item, GivenResponses):
            texts = tuple(one.response for one in item.responses)
            self.num_given += len(texts)
            self.num_bytes += sum(len(text.encode()) for text in texts)
            self._score(prompt, texts, 1)
        elif self._sample(prompt):
            self._score(prompt, (_PROBE,), self._sampling.num_candidates)

    def _sample(self, prompt: Prompt) -> bool:
        """Encode a prompt as its generator would, and tell whether it would be sampled from."""
        if self._encoder is None:
            return True
        encoded = _encode(self._encoder, prompt, self._sampling)
        if isinstance(encoded, Drop):
            self._sampled.add(encoded, prompt)
            return False
        self.num_tokens += len(encoded)
        self.longest = max(self.longest, len(encoded))
        room = self._encoder.context_tokens - len(encoded)
        self.num_short += room < self._sampling.max_tokens
        return True

    def _score(self, prompt: Prompt, texts: tuple[str, ...], num_each: int) -> None:
        """Encode a prompt's conversations as the scorers would.

        Where a scorer that ranks takes none of them, no candidate is left to choose.
        """
        group = CandidateGroup(prompt.prompt_id, prompt.messages, texts, prompt.extra)
        for name, encoder in self._encoders.items():
            stage, items = self.scored[name], encoder.encode(group)
            stage.num_cut += any(isinstance(one, Encoded) and one.truncated for one in items)
            for number, item in enumerate(items):
                if isinstance(item, Drop):
                    stage.add(replace(item, candidate=number), prompt, num_each)
            ranks = self._ranks is not None and name in self._ranks
            if ranks and items and all(isinstance(item, Drop) for item in items):
                detail = f"none of {len(texts) * num_each} candidates has a reward"
                self._selected.add(Drop("no_scored_candidate", detail), prompt)
                return


def _encode(encoder: PromptEncoder, prompt: Prompt, settings: GenerateSettings) -> list[int] | Drop:
    request = GenerationRequest(
        prompt.prompt_id, prompt.messages, settings.num_candidates, settings.seed
    )
    return encoder.encode(request)


def _counted(run: PlannedRun, rows: _Rows) -> Iterator[Note]:
    books = rows.books
    text = f"{books.input_rows:,} rows, {books.kept_rows:,} prompts kept"
    if rows.num_given:
        text += f" with {rows.num_given:,} responses"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(books.drops.items()))
    yield warning(f"{text}, {books.num_drops:,} dropped: {reasons}") if reasons else ok(text)
    if run.encoder is not None and rows.longest:
        yield from _lengths(run.encoder, rows, run.sampling.max_tokens)
    for name, one in rows.scored.items():
        yield from _scored_notes(name, one, run.encoders[name], is_given=bool(rows.num_given))


def _lengths(encoder: PromptEncoder, rows: _Rows, max_tokens: int) -> Iterator[Note]:
    num_encoded = max(1, rows.books.input_rows - rows.books.num_drops)
    mean = rows.num_tokens / num_encoded
    text = f"prompts have {mean:,.0f} tokens on average, the longest {rows.longest:,}"
    if rows.num_short:
        yield warning(
            f"{text}; {rows.num_short:,} leave less than --max-tokens {max_tokens:,} in a context "
            f"of {encoder.context_tokens:,}: their responses may be cut"
        )
    else:
        yield ok(text)


def _scored_notes(name: str, one: _Stage, encoder: Encoder, *, is_given: bool) -> Iterator[Note]:
    longest = getattr(encoder, "max_length", 0)
    if one.num_cut:
        what = "prompts with responses" if is_given else "prompts alone"
        yield warning(
            f"{name}: {one.num_cut:,} {what} are longer than the {longest:,} tokens that it reads: "
            "their conversations are cut"
        )
    for reason, count in sorted(one.candidate_drops.items()):
        what = "responses" if is_given else "prompts' candidates"
        yield warning(f"{name}: no score for {count:,} {what}: {reason}")
    if not one.num_cut and not one.candidate_drops:
        yield ok(f"{name}: every conversation can be read")
