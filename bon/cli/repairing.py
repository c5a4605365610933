"""`--repair`: what is damaged in a pool is named, set aside and made again."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from typing import Any

from bon.cli.console import note
from bon.cli.flags import Invocation
from bon.cli.writing import PoolRun
from bon.config import (
    GenerateSettings,
    InputSettings,
    ResponseSettings,
    RunSettings,
    Settings,
)
from bon.errors import PoolCorruptError
from bon.pipeline.given import GIVEN_SCORER, LABEL_SCORER
from bon.pipeline.repair import Damage, restore_manifest, set_damaged_aside
from bon.places import Place
from bon.pool.layout import PoolLayout
from bon.pool.lock import pool_lock
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.protocols import PartDone

__all__ = ["MADE_FROM_INPUT", "repair_pool", "restore_pool"]

MADE_FROM_INPUT = (PROMPTS, CANDIDATES, *map(scores_kind, (GIVEN_SCORER, LABEL_SCORER)))
"""What the commands that read an input make, besides the scores of their scorers."""


def restore_pool(call: Invocation, root: Place) -> None:
    """Put back the copy of a damaged `pool.json`, where `--repair` is given.

    Raises:
        PoolCorruptError: there is no good copy.
    """
    layout = PoolLayout(root)
    if not call.settings(RunSettings).repair or call.dry_run or not layout.is_pool:
        return
    with pool_lock(layout.lock):
        found = restore_manifest(layout)
    if found is not None:
        note(f"{found}; its copy was put back", quiet=call.quiet)


def repair_pool(
    call: Invocation, pool: Pool, redone: Collection[str], run: PoolRun
) -> list[Damage] | None:
    """Check every file of a pool, where `--repair` is given, and set damaged parts aside.

    `redone` are the kinds of parts that the run makes where they are missing.

    Raises:
        PoolCorruptError: prompts or candidates are damaged, and the run makes none.
        OutputError: a damaged file cannot be moved.
        SystemFaultError: the system does not let files be read.
    """
    if not call.settings(RunSettings).repair:
        return None

    def examined(num_parts: int, number: int) -> None:
        run.show("check", num_parts, PartDone(number))

    limit = call.settings(InputSettings).limit
    found = set_damaged_aside(pool, redone, limit, examined)
    for damage in found:
        end = f"moved to {damage.moved_to}" if damage.moved_to else "left in its place"
        run.note(f"damaged: {damage.file} ({damage.why}); {end}")
    left = [damage for damage in found if damage.moved_to is None]
    inputs = [damage for damage in left if damage.kind in MADE_FROM_INPUT]
    if inputs:
        raise PoolCorruptError(
            f"{len(inputs)} of the pool's parts are damaged that this command does not make",
            where=str(pool.layout.root / inputs[0].file),
            why=inputs[0].why,
            next_step=f"run `{_making_command(pool)}`, then this command again",
        )
    for kind in dict.fromkeys(damage.kind for damage in left):
        run.note(f"{kind} are made again by {_scoring_command(pool, kind)}")
    _note_lost_scores(pool, found, redone, run)
    if not found:
        run.note("no file of the pool is damaged")
    return found


def _note_lost_scores(
    pool: Pool, found: list[Damage], redone: Collection[str], run: PoolRun
) -> None:
    """Say which scores may go with candidates sampled again, and are not made by this run."""
    again = {damage.part for damage in found if damage.kind == CANDIDATES and damage.moved_to}
    if (pool.manifest.generation or {}).get("engine") == "given":
        return  # the same candidates come back
    for kind in map(scores_kind, pool.layout.scorer_names()):
        if kind not in redone and again & set(pool.layout.numbers(kind)):
            run.note(
                f"{kind} of candidates that come out otherwise are made again by "
                f"{_scoring_command(pool, kind)}"
            )


def _scoring_command(pool: Pool, kind: str) -> str:
    name = kind.removeprefix("scores/")
    spec = pool.manifest.scorers.get(name, {}).get("spec", "SPEC")
    said = ["bon", "score", str(pool.layout.root), "-r", f"{name}={spec}", "--repair"]
    options = " with the options that pool.json tells" if ":" in spec else ""
    return f"`{shlex.join(said)}`{options}"


def _making_command(pool: Pool) -> str:
    """Spell the command that reads the pool's input again, with the settings of `pool.json`."""
    said, source = pool.manifest.input, str(pool.manifest.input.get("source", "INPUT"))
    generation = pool.manifest.generation or {}
    flags = _flags(InputSettings, said.get("settings", {}))
    if generation.get("engine") == "given":
        command = "score" if generation.get("group") else "filter"
        flags += _flags(ResponseSettings, said.get("settings", {}))
    else:
        command = "generate"
        if generation.get("engine") == "server":  # which of them is not written down
            generation = {**generation, "model": "server:URL"}
        flags += _flags(GenerateSettings, generation)
        if generation.get("engine") in ("vllm", "transformers"):
            flags += ["--generator-engine", generation["engine"]]
    where = ["--pool", str(pool.layout.root)]
    if command == "score":
        where += ["-r", "NAME=SPEC"]  # else it would take the default, and load a model
    return shlex.join(["bon", command, source, *where, *flags, "--repair"])


def _flags(group: type[Settings], said: dict[str, Any]) -> list[str]:
    """Spell settings that are not the default as flags."""
    default = group().model_dump(mode="json")
    flags: list[str] = []
    for name, value in said.items():
        if name not in default or value == default[name] or value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags += [flag if value else f"--no-{name.replace('_', '-')}"]
        elif isinstance(value, list):
            flags += [part for one in value for part in (flag, str(one))]
        elif isinstance(value, dict):
            flags += [part for key, one in value.items() for part in (flag, f"{key}={one}")]
        else:
            flags += [flag, str(value)]
    return flags
