"""The run that is looked at, as far as the checks have planned it, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from bon.cli.flags import Invocation
from bon.cli.output import OutputPlan
from bon.cli.places import SourceKind
from bon.config import GenerateSettings, ScorerSettings
from bon.errors import BonError, SettingsError
from bon.generators.prompting import PromptEncoder
from bon.pipeline.accounting import Accounting
from bon.pipeline.plans import GenerationPlan, GivenPlan, PromptsPlan, ScoringPlan
from bon.pipeline.recipes import Recipe
from bon.places import Place
from bon.pool.pool import Pool
from bon.redaction import redacted
from bon.scorers.conversations import Encoder

__all__ = ["Check", "Finding", "Note", "PlannedRun", "Status", "ok", "skipped", "warning"]

Status: TypeAlias = Literal["ok", "warning", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Note:
    """What a check says: one line."""

    status: Status
    text: str


def ok(text: str) -> Note:
    """Say what is as it should be."""
    return Note("ok", text)


def warning(text: str) -> Note:
    """Say what the run would do that may not be wanted."""
    return Note("warning", text)


def skipped(text: str) -> Note:
    """Say what could not be checked, and why."""
    return Note("skipped", text)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    status: Status
    text: str
    error: BonError | None = None
    """What the run would end with."""

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        found: dict[str, Any] = {
            "check": self.check,
            "status": self.status,
            "text": redacted(self.text),
        }
        if self.error is not None:
            for key in ("where", "why", "next_step"):
                found[key] = redacted(getattr(self.error, key))
            found["exit_code"] = self.error.exit_code
        return found


@dataclass
class PlannedRun:
    """What the checks have found out so far; what one could not plan, the next ones do without."""

    call: Invocation
    kind: SourceKind | None = None
    root: Place | None = None
    """Folder of the pool."""
    output: OutputPlan | None = None
    prompts: PromptsPlan | None = None
    given: GivenPlan | None = None
    generation: GenerationPlan | None = None
    encoder: PromptEncoder | None = None
    """What makes prompts tokens; none where a server does."""
    scorers: list[ScorerSettings] = field(default_factory=list)
    scorings: list[ScoringPlan] = field(default_factory=list)
    encoders: dict[str, Encoder] = field(default_factory=dict)
    """What makes conversations tokens, by scorer."""
    recipe: Recipe | None = None
    """What will rank, where a set is to be written."""
    pool: Pool | None = None
    """The one that the run would go on with."""
    books: Accounting | None = None
    is_gathered: bool = False
    """Whether rows of one prompt stand apart: the run sorts them on disk first."""
    num_given: int = 0
    """Responses that the input brings."""
    num_bytes: int = 0
    """Of the texts that were read."""

    @property
    def sampling(self) -> GenerateSettings:
        """Return how candidates would be sampled; where a value cannot be, the defaults."""
        try:
            return self.call.settings(GenerateSettings)
        except SettingsError:
            return GenerateSettings()

    @property
    def has_sampling(self) -> bool:
        """Tell whether candidates would be sampled."""
        return self.kind == "prompts" or (self.kind is None and self.call.given("model"))

    @property
    def has_scoring(self) -> bool:
        """Tell whether scorers would run: for given responses only those that were asked for."""
        asked = self.call.given("reward") or self.call.given("ref_model")
        return asked or self.kind == "prompts"


Check: TypeAlias = Callable[[PlannedRun], Iterator[Note | BonError]]
"""Yields what it finds; an error that it raises is its last finding."""
