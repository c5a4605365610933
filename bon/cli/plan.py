"""`bon plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from bon.cli.app import app, guarded

_SPEEDS, _SIZES, _RESOURCES = "Speeds", "What is to be made", "Resources"


@app.command(
    "plan",
    rich_help_panel="Tools",
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]bon plan --from small.pool --prompts 1000000 --num-workers 8[/cyan]\n\n"
    "[cyan]bon plan prompts.jsonl -n 16 --mean-response-tokens 600 --generate-tokens-per-s 8000 "
    "--score-tokens-per-s 60000 --num-workers 8 --price-per-gpu-hour 3[/cyan]",
)
def plan(
    source: Annotated[
        str | None, typer.Argument(help="Prompt file whose rows are counted.")
    ] = None,
    from_pool: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Pool of a small run: its speeds, start-up, lengths, drops and bytes are taken.",
            rich_help_panel=_SPEEDS,
        ),
    ] = None,
    generate_tokens_per_s: Annotated[
        float | None,
        typer.Option(help="Tokens that one GPU samples a second.", rich_help_panel=_SPEEDS),
    ] = None,
    score_tokens_per_s: Annotated[
        float | None,
        typer.Option(
            help="Tokens that a reward model computes a second on one GPU.", rich_help_panel=_SPEEDS
        ),
    ] = None,
    load_s: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Seconds until a worker's model works (default 60, or as in the pool).",
            rich_help_panel=_SPEEDS,
        ),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=0, help="Rows of the input.", rich_help_panel=_SIZES),
    ] = None,
    num_candidates: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--num-candidates",
            min=1,
            help="Candidates per prompt (default 8, or as in the pool).",
            rich_help_panel=_SIZES,
        ),
    ] = None,
    prompt_tokens: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Tokens of a prompt, on average; by default its characters / 4, or by -m.",
            rich_help_panel=_SIZES,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="Model whose tokenizer counts the tokens of the first 1,000 prompts.",
            rich_help_panel=_SIZES,
        ),
    ] = None,
    mean_response_tokens: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Tokens of a response, on average; by default --max-tokens.",
            rich_help_panel=_SIZES,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Longest response, in tokens (default 1024).", rich_help_panel=_SIZES
        ),
    ] = None,
    part_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Input rows in one part (default 128, or as in the pool).",
            rich_help_panel=_SIZES,
        ),
    ] = None,
    num_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Workers, each with a copy of the model (default 1).",
            rich_help_panel=_RESOURCES,
        ),
    ] = None,
    gpus_per_worker: Annotated[
        int,
        typer.Option(min=0, help="GPUs of one worker; 0: it has none.", rich_help_panel=_RESOURCES),
    ] = 1,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=1, help="All GPUs, in place of --num-workers.", rich_help_panel=_RESOURCES
        ),
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None,
        typer.Option(min=0.0, help="Price of a GPU for an hour.", rich_help_panel=_RESOURCES),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Plan a run: prompts × N × tokens as GPU-hours, wall-clock, files, bytes and memory.

    Speeds come from a small run of the same command (--from its pool), or from flags.
    """

    def body() -> None:
        from bon.cli.planning import Wanted, fleet_of, plan_of
        from bon.report.plan import show_plan
        from bon.shown import json_text

        wanted = Wanted(
            source=source,
            from_pool=from_pool,
            generate_tokens_per_s=generate_tokens_per_s,
            score_tokens_per_s=score_tokens_per_s,
            load_s=load_s,
            num_rows=prompts,
            num_candidates=num_candidates,
            prompt_tokens=prompt_tokens,
            model=model,
            response_tokens=mean_response_tokens,
            max_tokens=max_tokens,
            part_size=part_size,
        )
        fleet = fleet_of(num_workers, gpus_per_worker, gpus, price_per_gpu_hour)
        facts = plan_of(wanted, fleet).facts(fleet)
        if as_json:
            print(json_text(facts))
        else:
            show_plan(facts)

    guarded(body, debug)
