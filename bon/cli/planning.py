"""What `bon plan` is asked, made into a plan: speeds from flags or a pool, rows from a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from bon.config import GenerateSettings, InputSettings
from bon.errors import InputError, SettingsError
from bon.pipeline.measured import GENERATE, MeasuredPool, measured_pool
from bon.pipeline.planning import Fleet, RunPlan, given_run, measured_run
from bon.pipeline.run import DEFAULT_PART_SIZE
from bon.places import Place, place
from bon.records import Prompt

__all__ = ["CHARACTERS_A_TOKEN", "LOAD_S", "Wanted", "fleet_of", "plan_of"]

CHARACTERS_A_TOKEN = 4.0
"""Of a prompt where no tokenizer was given: a rule of thumb for English."""
LOAD_S = 60.0
"""Until a worker's model works, where nobody says: from its start, kernels compiled."""
_TOKENIZED_PROMPTS = 1_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was typed; none where it was not."""

    source: str | None = None
    from_pool: str | None = None
    generate_tokens_per_s: float | None = None
    """Of one GPU, as is the next."""
    score_tokens_per_s: float | None = None
    load_s: float | None = None
    num_rows: int | None = None
    num_candidates: int | None = None
    prompt_tokens: float | None = None
    model: str | None = None
    response_tokens: float | None = None
    max_tokens: int | None = None
    part_size: int | None = None


def fleet_of(
    num_workers: int | None, gpus_per_worker: int, gpus: int | None, price: float | None
) -> Fleet:
    """Return the workers: so many, or as many as the GPUs make.

    Raises:
        SettingsError: GPUs that do not make whole workers, or both numbers.
    """
    if gpus is None:
        return Fleet(num_workers or 1, gpus_per_worker, price)
    if num_workers is not None:
        raise SettingsError("give --gpus or --num-workers, not both")
    if not gpus_per_worker or gpus % gpus_per_worker:
        raise SettingsError(
            f"--gpus {gpus} makes no whole workers of --gpus-per-worker {gpus_per_worker}",
            next_step="give a multiple of it, or --num-workers",
        )
    return Fleet(gpus // gpus_per_worker, gpus_per_worker, price)


def plan_of(wanted: Wanted, fleet: Fleet) -> RunPlan:
    """Plan the run.

    Raises:
        SettingsError: flags that exclude each other, or too few of them.
        BonError: the prompt file or the pool cannot be read.
    """
    if wanted.source is not None and wanted.num_rows is not None:
        raise SettingsError(
            "give a prompt file or --prompts, not both",
            where=wanted.source,
            next_step="its rows are counted: leave --prompts out",
        )
    if wanted.model is not None and wanted.source is None:
        raise SettingsError("-m counts the tokens of a prompt file's prompts: give the file too")
    if wanted.from_pool is not None:
        return _from_pool(wanted, place(wanted.from_pool))
    return _from_flags(wanted, fleet)


def _from_pool(wanted: Wanted, root: Place) -> RunPlan:
    idle = {
        "--generate-tokens-per-s": wanted.generate_tokens_per_s,
        "--score-tokens-per-s": wanted.score_tokens_per_s,
        "--prompt-tokens": wanted.prompt_tokens,
        "-m": wanted.model,
        "--mean-response-tokens": wanted.response_tokens,
        "--max-tokens": wanted.max_tokens,
    }
    typed = [name for name, value in idle.items() if value is not None]
    if typed:
        raise SettingsError(
            f"{', '.join(typed)} cannot be given with --from",
            where=str(root),
            why="speeds and lengths are those of the pool",
        )
    measured = measured_pool(root)
    _refuse_other_number(wanted, measured, root)
    rows = wanted.num_rows if wanted.source is None else _Prompts.of(wanted.source, None).num_rows
    return measured_run(
        measured,
        num_rows=rows,
        num_candidates=wanted.num_candidates,
        part_size=wanted.part_size,
        load_s=wanted.load_s,
        notes=tuple(_measured_notes(measured, root)),
    )


def _refuse_other_number(wanted: Wanted, measured: MeasuredPool, root: Place) -> None:
    if wanted.num_candidates is not None and all(s.name != GENERATE for s in measured.stages):
        raise SettingsError(
            "-n cannot be given: the pool's responses were given, not sampled", where=str(root)
        )


def _measured_notes(measured: MeasuredPool, root: Place) -> Iterator[str]:
    workers = ", ".join(f"{one.name} on {one.num_workers}" for one in measured.stages)
    yield (
        f"measured in {root}: {measured.num_rows:,} rows, {measured.num_candidates:,} candidates; "
        f"workers: {workers}"
    )
    if measured.is_streaming:
        yield (
            "its stages ran side by side, so their seconds hold waiting: for speeds of their own, "
            "make the small pool with --placement in-turn"
        )


def _from_flags(wanted: Wanted, fleet: Fleet) -> RunPlan:
    if wanted.generate_tokens_per_s is None and wanted.score_tokens_per_s is None:
        raise SettingsError(
            "a plan needs speeds",
            next_step="give --from POOL of a small run, or --generate-tokens-per-s and "
            "--score-tokens-per-s of one GPU",
        )
    notes = []
    if wanted.source is not None:
        prompts = _Prompts.of(wanted.source, wanted.model)
        num_rows, notes = prompts.num_rows, [prompts.said]
        said = wanted.prompt_tokens
        prompt_tokens = prompts.mean_tokens if said is None else said
    elif wanted.num_rows is None:
        raise SettingsError(
            "a plan needs a number of prompts", next_step="give a prompt file, or --prompts"
        )
    else:
        num_rows, prompt_tokens = wanted.num_rows, wanted.prompt_tokens or 0.0
        if wanted.prompt_tokens is None:
            notes.append("prompts count as empty: --prompt-tokens says how long they are")
    response_tokens = wanted.response_tokens
    defaults = GenerateSettings()
    if response_tokens is None:
        response_tokens = float(wanted.max_tokens or defaults.max_tokens)
        notes.append(
            f"responses of {response_tokens:,.0f} tokens each, the most there can be: "
            "--mean-response-tokens says how many there are"
        )
    gpus = max(1, fleet.gpus_per_worker)
    return given_run(
        num_rows=num_rows,
        num_candidates=wanted.num_candidates or defaults.num_candidates,
        prompt_tokens=prompt_tokens,
        response_tokens=response_tokens,
        part_size=wanted.part_size or DEFAULT_PART_SIZE,
        generate_tokens_per_s=_of_worker(wanted.generate_tokens_per_s, gpus),
        score_tokens_per_s=_of_worker(wanted.score_tokens_per_s, gpus),
        load_s=LOAD_S if wanted.load_s is None else wanted.load_s,
        notes=notes,
    )


def _of_worker(speed: float | None, gpus: int) -> float | None:
    if speed is not None and not speed > 0:
        raise SettingsError(f"a speed of {speed:g} tokens/s: nothing would ever be done")
    return None if speed is None else speed * gpus


@dataclass(frozen=True, slots=True)
class _Prompts:
    """What was counted in a prompt file."""

    num_rows: int
    mean_tokens: float
    said: str

    @classmethod
    def of(cls, source: str, model: str | None) -> _Prompts:
        """Read all rows; tokens are those of the first prompts, or a share of the characters."""
        from bon.sources.prompts import PromptReader

        rows = iter(PromptReader(source, InputSettings()))
        first = list(islice(rows, _TOKENIZED_PROMPTS))
        if not first:
            raise InputError("there are no rows to plan for", where=source)
        prompts = [row for row in first if isinstance(row, Prompt)]
        texts = [sum(len(turn["content"]) for turn in one.messages) for one in prompts]
        num_rows = len(first) + sum(1 for _ in rows)
        if model is None:
            mean = sum(texts) / max(1, len(texts)) / CHARACTERS_A_TOKEN
            how = f"{CHARACTERS_A_TOKEN:g} characters a token; -m counts them"
        else:
            mean, how = _counted(prompts, model), f"by the tokenizer of {model}"
        said = f"{source}: {num_rows:,} rows, prompts of {mean:,.0f} tokens on average ({how})"
        return cls(num_rows, mean, said)


def _counted(prompts: list[Prompt], model: str) -> float:
    """Return the mean of the prompts' tokens with the model's template."""
    from bon.chat import ChatTemplate, prompt_tokens
    from bon.cli.validation.silence import silenced
    from bon.pipeline.models import resolve_tokenizer
    from bon.records import Drop

    path = resolve_tokenizer(model, None).path
    with silenced(is_loud=False):
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        chat = ChatTemplate(tokenizer, None, "generator", "--chat-template")
        chat.check(path)
        found = [prompt_tokens(chat, one.messages) for one in prompts]
    counts = [len(one) for one in found if not isinstance(one, Drop)]
    return sum(counts) / max(1, len(counts))
