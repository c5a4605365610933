"""What `generate`, `score` and `select` share: from a source to a pool brought up to date."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import typer

from bon.cli.build import generation_plan, prompts_plan, scorer_settings, scoring_plans
from bon.cli.console import StageProgress, note
from bon.cli.flags import Invocation
from bon.config import (
    GenerateSettings,
    InputSettings,
    RunSettings,
    ScorerSettings,
    ScoreSettings,
    Settings,
)
from bon.engines.local import LocalEngine
from bon.errors import SettingsError
from bon.pipeline.accounting import Accounting, drops_allowed
from bon.pipeline.ranked import count_sampled, open_books
from bon.pipeline.run import (
    PromptsPlan,
    ScoringPlan,
    StageReport,
    check_scorer,
    generate,
    open_pool,
    read_prompts,
    refuse_foreign,
    score,
)
from bon.pool.layout import PoolLayout
from bon.pool.lock import PoolLock
from bon.pool.pool import Pool
from bon.report.tables import closing_table
from bon.sources.locate import COMPRESSIONS, FORMATS, find_files

__all__ = [
    "Made",
    "check_places",
    "default_pool",
    "describe",
    "finish",
    "input_stem",
    "is_pool",
    "make_pool",
    "score_pool",
]


@dataclass
class Made:
    """A pool that is up to date, and what that took."""

    pool: Pool
    stages: list[StageReport] = field(default_factory=list)


def is_pool(source: str) -> bool:
    """Tell whether a source is a pool rather than a prompt file."""
    return PoolLayout(Path(source)).manifest.is_file()


def default_pool(source: str, output: Path | None) -> Path:
    """Return the pool's folder where none was given: beside the output, named after the input."""
    return (output.parent if output else Path()) / f"{input_stem(source)}.pool"


def input_stem(source: str) -> str:
    """Return the name that outputs take after their input."""
    name = Path(source.rstrip("/")).name
    while Path(name).suffix.lower() in (*FORMATS, *COMPRESSIONS):
        name = Path(name).stem
    return re.sub(r"[*?\[\]:]+", "", name).strip("-_. ") or "prompts"


def check_places(source: str, *written: Path) -> None:
    """Refuse to write where the input is read from: the next run would read its own result.

    Raises:
        InputError: the input is not there.
        SettingsError: a place to write is the input, or would be a part of it.
    """
    files = {file.path.resolve() for file in find_files(source) or ()}
    for path in (path.resolve() for path in written):
        in_folder = Path(source).is_dir() and path.is_relative_to(Path(source).resolve())
        if path in files or in_folder or fnmatch(str(path), str(Path(source).absolute())):
            raise SettingsError(
                "the output would lie in the input",
                where=str(path),
                why=f"{source} would be read with it the next time",
                next_step="give -o (and --pool) a place outside the input",
            )


def make_pool(call: Invocation, root: Path, *, with_scores: bool) -> Made:
    """Read prompts, generate and score what is missing; a run that stopped goes on here."""
    run = call.settings(RunSettings)
    inputs = call.settings(InputSettings)
    prompts = prompts_plan(call.source, inputs, run.part_size)
    refuse_foreign(root)
    sampling = call.settings(GenerateSettings)
    if sampling.temperature == 0 and sampling.num_candidates > 1:
        note("temperature 0: all candidates of a prompt are the same", quiet=call.quiet)
    generation = generation_plan(sampling)
    scorings = scoring_plans(call.settings(ScoreSettings)) if with_scores else []
    with PoolLock(PoolLayout(root).lock), StageProgress(quiet=call.quiet) as progress:
        pool = open_pool(root, prompts, generation)
        for scoring in scorings:
            check_scorer(pool, scoring)
        pool = _read(pool, prompts, call)
        engine = LocalEngine(None if call.verbose else pool.layout.log)
        made = Made(pool, [generate(pool, generation, engine, inputs.limit, progress)])
        return _score(made, scorings, engine, inputs.limit, progress)


def score_pool(call: Invocation, root: Path) -> Made:
    """Score what is missing in an existing pool."""
    scorings = scoring_plans(call.settings(ScoreSettings))
    limit = call.settings(InputSettings).limit
    with PoolLock(PoolLayout(root).lock), StageProgress(quiet=call.quiet) as progress:
        made = Made(Pool.open(root))
        for scoring in scorings:
            check_scorer(made.pool, scoring)
        engine = LocalEngine(None if call.verbose else made.pool.layout.log)
        return _score(made, scorings, engine, limit, progress)


def _score(
    made: Made,
    scorings: list[ScoringPlan],
    engine: LocalEngine,
    limit: int | None,
    progress: StageProgress,
) -> Made:
    for scoring in scorings:
        made.stages.append(score(made.pool, scoring, engine, limit, progress))
        made.pool = Pool.open(made.pool.layout.root)
    return made


def _read(pool: Pool, plan: PromptsPlan, call: Invocation) -> Pool:
    pool = read_prompts(pool, plan)
    known = pool.manifest.input
    note(f"{plan.name}: {known['rows']:,} rows, {known['description']}", quiet=call.quiet)
    return pool


def making_steps(call: Invocation, root: Path) -> list[str]:
    """Say what reading and generating would do."""
    generation = call.settings(GenerateSettings)
    return [
        f"read prompts from {call.source} into {root}",
        f"generate {generation.num_candidates} candidates per prompt with {generation.model}",
    ]


def describe(call: Invocation, root: Path, groups: list[type[Settings]], steps: list[str]) -> None:
    """Answer `--dry-run`: the steps, the resolved settings, and what the pool holds already."""
    settings: dict[str, Any] = {}
    for group in groups:
        resolved = call.settings(group)
        if isinstance(resolved, ScoreSettings):
            settings["scorers"] = [_described(one) for one in scorer_settings(resolved)]
        else:
            settings |= resolved.model_dump(mode="json")
    settings["pool"] = str(root)
    layout = PoolLayout(root)
    state = {
        kind: len(layout.numbers(kind))
        for kind in ("prompts", "candidates", *(f"scores/{n}" for n in layout.scorer_names()))
    }
    if call.as_json:
        print(json.dumps({"steps": steps, "settings": settings, "parts": state}, indent=2))
        return
    print("Would do:")
    print("\n".join(f"  {number}. {step}" for number, step in enumerate(steps, 1)))
    print("Parts there already: " + ", ".join(f"{k} {v}" for k, v in state.items()))
    print("Settings:")
    print("\n".join(f"  {key} = {json.dumps(value)}" for key, value in settings.items()))


def _described(scorer: ScorerSettings) -> dict[str, Any]:
    return scorer.model_dump(mode="json", exclude_none=True)


def finish(
    call: Invocation, made: Made, title: str, books: Accounting, result: dict[str, Any]
) -> None:
    """Close the books, show the result, and end with 3 where too many rows were dropped."""
    books.close()
    result = {
        **result,
        "pool": str(made.pool.layout.root),
        "stages": [stage.as_json() for stage in made.stages],
    }
    if not call.quiet:
        closing_table(title, result)
    print(json.dumps(result, indent=2) if call.as_json else result.get("output", result["pool"]))
    sys.stdout.flush()
    allowed = drops_allowed(call.settings(RunSettings).max_drops, books.input_rows)
    if books.num_drops > allowed:
        note(f"{books.num_drops} rows dropped, more than --max-drops allows")
        raise typer.Exit(3)


def finish_pool(call: Invocation, made: Made, scorers: Sequence[str]) -> None:
    """Finish a command whose result is the pool itself."""
    limit = call.settings(InputSettings).limit
    books = open_books(made.pool, scorers, limit)
    books.kept_rows = books.output_rows = count_sampled(made.pool, limit)
    finish(call, made, f"pool {made.pool.layout.root.name}", books, books.as_json())
