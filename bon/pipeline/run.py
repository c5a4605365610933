"""Making a pool: prompts read, candidates generated, scores added, each where still missing."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from bon.config import GenerateSettings, InputSettings, ScorerSettings
from bon.durable import remove_tree
from bon.errors import PoolError, PoolIncompleteError, SettingsMismatchError
from bon.pipeline.generate import GenerateParts
from bon.pipeline.ingest import ingest
from bon.pipeline.jobs import Job, Observer, StageReport, run_alone, run_side_by_side
from bon.pipeline.lookout import Lookout
from bon.pipeline.plans import GenerationPlan, PromptsPlan, ScoringPlan
from bon.pipeline.score import ScoreParts
from bon.places import Place
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest, read_manifest, refuse_differences
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.protocols import Engine, PartWork

__all__ = [
    "begun_pool",
    "check_scorer",
    "generate",
    "generate_and_score",
    "open_pool",
    "read_prompts",
    "refuse_foreign",
    "refuse_incomplete",
    "score",
]

_log = logging.getLogger(__name__)
DEFAULT_PART_SIZE = 128


def open_pool(root: Place, prompts: PromptsPlan, generation: GenerationPlan) -> Pool:
    """Open the pool for writing, or start one; the caller holds its lock.

    As long as it has neither candidates nor scores nothing has been paid for, and it is started
    afresh.

    Raises:
        SettingsMismatchError: it was made with other settings.
        PoolError: the folder holds something else.
    """
    layout = PoolLayout(root)
    pool = begun_pool(root, prompts, generation)
    if pool is not None:
        _log.info("resuming %s: its settings are the same", root)
        return pool
    _log.info("starting %s: it has neither candidates nor scores", root)
    for name in (PROMPTS, "drops", "scores"):
        remove_tree(root / name)
    new = Manifest(
        part_size=prompts.part_size or DEFAULT_PART_SIZE,
        input={"settings": prompts.fingerprint},
        generation=generation.fingerprint,
    )
    return Pool(layout, new).save(new)


def begun_pool(root: Place, prompts: PromptsPlan, generation: GenerationPlan | None) -> Pool | None:
    """Return the pool that a run with these settings would go on with, none where it would start.

    Nothing is written. Without `generation` only the settings of the input are compared.

    Raises:
        SettingsMismatchError: it was made with other settings.
        PoolError: the folder holds something else.
    """
    layout = PoolLayout(root)
    manifest = read_manifest(layout.manifest) if layout.manifest.exists() else None
    # where candidates were lost, their scores may still be theirs once they come back
    if manifest is None or not (layout.numbers(CANDIDATES) or layout.scorer_names()):
        refuse_foreign(root)
        return None
    size = prompts.part_size or manifest.part_size
    old = {**manifest.input["settings"], "part_size": manifest.part_size}
    wanted = {**prompts.fingerprint, "part_size": size}
    refuse_differences("input settings", root, old, wanted, InputSettings().fingerprint())
    if manifest.generation is not None and generation is not None:
        old, wanted = manifest.generation, generation.fingerprint
        refuse_differences("settings", root, old, wanted, GenerateSettings().fingerprint())
    return Pool(layout, manifest)


def refuse_foreign(root: Place) -> None:
    """Refuse a folder that holds something else, before anything is written to it.

    Raises:
        PoolError: it is neither a pool nor empty, or it is a file.
    """
    if root.exists() and not root.is_dir():
        raise PoolError(
            "the pool is a folder", where=str(root), why="this is a file", next_step="name another"
        )
    strangers = [p.name for p in root.iterdir() if p.name != ".bon"] if root.is_dir() else []
    layout = PoolLayout(root)
    if strangers and not layout.manifest.exists():
        if layout.is_pool:
            read_manifest(layout.manifest)  # raises: it says how pool.json comes back
        raise PoolError(
            "this folder is not a pool and not empty",
            where=str(root),
            why=f"it holds {', '.join(sorted(strangers)[:3])}",
            next_step="give --pool a folder of its own",
        )


def read_prompts(pool: Pool, plan: PromptsPlan) -> Pool:
    """Bring the pool's prompts up to date with the input; skipped where its bytes are the same."""
    known = pool.manifest.input
    if _is_read(pool, plan):
        _log.info("not reading %s: its bytes are those that the pool was made from", plan.name)
        return pool
    _log.info("reading %s: the pool lacks rows of it, or its bytes have changed", plan.name)
    rows = ingest(pool, plan.rows, plan.limit)
    if rows < known.get("rows", 0):
        return pool  # a smaller --limit: the pool's own rows stay
    new = {
        "settings": plan.fingerprint,
        "source": plan.name,
        "description": plan.rows.describe(),
        "digest": plan.digest,
        "rows": rows,
        "whole": plan.limit is None or rows < plan.limit,
        "content": pool.prompts_digest(),
    }
    return pool.save(pool.manifest.model_copy(update={"input": new}))


def _is_read(pool: Pool, plan: PromptsPlan) -> bool:
    known = pool.manifest.input
    rows = known.get("rows")
    if rows is None or plan.digest is None or known.get("digest") != plan.digest:
        return False
    enough = known["whole"] or (plan.limit is not None and plan.limit <= rows)
    num_parts = -(-rows // pool.manifest.part_size)
    present = pool.parts() == list(range(num_parts))
    # pools of older versions do not say what they hold
    as_read = known.get("content") in (None, pool.prompts_digest())
    return bool(enough and present and as_read)


def generate(
    pool: Pool, plan: GenerationPlan, engine: Engine, limit: int | None, observe: Observer
) -> StageReport:
    """Sample the candidates that are missing."""
    return run_alone(_generating(pool, plan, limit), engine, observe)


def score(
    pool: Pool, plan: ScoringPlan, engine: Engine, limit: int | None, observe: Observer
) -> StageReport:
    """Add the scores that are missing.

    Raises:
        SettingsMismatchError: a scorer of this name has scored parts with other settings.
        PoolIncompleteError: parts have no candidates yet.
    """
    refuse_incomplete(pool, CANDIDATES, limit)
    check_scorer(pool, plan)
    return run_alone(_scoring(_with_scorer(pool, plan), plan, limit), engine, observe)


def generate_and_score(
    pool: Pool,
    generation: GenerationPlan,
    scorings: Sequence[ScoringPlan],
    engine: Engine,
    limit: int | None,
    observe: Observer,
) -> list[StageReport]:
    """Sample the candidates that are missing and score each part as soon as it is there.

    The engine must be able to: see `Engine.why_in_turn`. The pool is that of one stage after the
    other, byte for byte.

    Raises:
        SettingsMismatchError: a scorer of this name has scored parts with other settings.
    """
    for plan in scorings:
        check_scorer(pool, plan)
    sampling = _generating(pool, generation, limit)
    kinds = [scores_kind(plan.name) for plan in scorings]
    why = _why_in_turn(pool, sampling.parts, kinds)
    if why is not None:
        _log.info("stage after stage: %s", why)
        reports = [run_alone(sampling, engine, observe)]
        for plan in scorings:
            pool = Pool.open(pool.layout.root)  # it names one scorer more each time
            reports.append(score(pool, plan, engine, limit, observe))
        return reports
    for plan in scorings:
        pool = _with_scorer(pool, plan)
    jobs = [sampling, *(_scoring(pool, plan, limit) for plan in scorings)]
    return run_side_by_side(jobs, engine, observe)


def refuse_incomplete(pool: Pool, kind: str, limit: int | None) -> None:
    """Stop where parts of a kind are still to be made.

    Raises:
        PoolIncompleteError: with their number and the first one.
    """
    missing = pool.pending(kind, limit)
    if missing:
        raise PoolIncompleteError(
            f"{len(missing)} of {len(pool.parts(limit))} parts have no {kind} yet",
            where=str(pool.layout.root),
            why=f"the first is part {missing[0]}",
            next_step="run the command that makes the pool again: it goes on where it stopped",
        )


def check_scorer(pool: Pool, plan: ScoringPlan) -> None:
    """Refuse a scorer whose name stands for other settings in this pool, or that cannot score it.

    Nothing need be sampled yet: the pool knows its settings.
    """
    if plan.check_sampling is not None:
        plan.check_sampling(pool.manifest.generation or {})
    if not pool.layout.numbers(scores_kind(plan.name)):
        return
    old = pool.manifest.scorers.get(plan.name, {})
    # pools of the first days have settings of steps for models too that read none
    idle = ScorerSettings.step_fields - plan.fingerprint.keys()
    old = {key: value for key, value in old.items() if key not in idle}
    old |= {key: plan.fingerprint[key] for key, said in plan.typed.items() if old.get(key) == said}
    defaults = ScorerSettings(name=plan.name, spec="").fingerprint()
    if "encoder_version" in plan.fingerprint and "encoder_version" not in old:
        version = 1 if _has_cut(pool, plan.name) else plan.fingerprint["encoder_version"]
        defaults |= {"encoder_version": version, "family_version": 1}
    try:
        refuse_differences("settings", pool.layout.root, old, plan.fingerprint, defaults)
    except SettingsMismatchError as error:
        raise SettingsMismatchError(
            f"scorer {plan.name!r} has scored this pool with other settings",
            where=error.where,
            why=error.why,
            next_step="repeat the old settings, or give it another name: -r NEWNAME=SPEC",
        ) from None


def _has_cut(pool: Pool, name: str) -> bool:
    """Tell whether a scorer has cut a conversation: only these were read otherwise before."""
    kind = scores_kind(name)
    parts = (pool.read(kind, part, ["truncated"]) for part in pool.layout.numbers(kind))
    return any(any(part["truncated"].to_pylist()) for part in parts)


def _with_scorer(pool: Pool, plan: ScoringPlan) -> Pool:
    """Write a scorer's settings into the pool, before any of its scores."""
    has_parts = bool(pool.layout.numbers(scores_kind(plan.name)))
    return pool.save(pool.manifest.with_scorer(plan.name, plan.fingerprint, is_same=has_parts))


def _why_in_turn(pool: Pool, unsampled: Collection[int], kinds: Sequence[str]) -> str | None:
    """Say why parts cannot be scored while others are sampled; none: they can."""
    if not unsampled:
        return "all candidates are there"
    for kind in kinds:
        kept = set(pool.layout.numbers(kind)) & set(unsampled)
        kept -= set(pool.pending(kind)) if kept else set()
        if kept:  # they may be those of what is sampled now, which would be scored twice
            return f"{kind} has scores of candidates that are not there, as in part {min(kept)}"
    return None


def _generating(pool: Pool, plan: GenerationPlan, limit: int | None) -> Job:
    work = GenerateParts(pool.layout.root, plan.generator, plan.num_candidates, plan.seed)
    return _job("generate", pool, CANDIDATES, plan, work, limit)


def _scoring(pool: Pool, plan: ScoringPlan, limit: int | None) -> Job:
    work = ScoreParts(pool.layout.root, plan.scorer, plan.name, plan.reads_candidates)
    return _job(f"score {plan.name}", pool, scores_kind(plan.name), plan, work, limit)


def _job(
    name: str,
    pool: Pool,
    kind: str,
    plan: GenerationPlan | ScoringPlan,
    work: PartWork,
    limit: int | None,
) -> Job:
    parts, report = pool.pending(kind, limit), StageReport(name, len(pool.parts(limit)))
    _log.info("%s: %d of %d parts are to be made", name, len(parts), report.num_parts)
    return Job(plan, work, parts, report, Lookout(pool.layout, kind))
