"""The closing tables, on stderr."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from bon.pipeline.accounting import Accounting
from bon.pipeline.run import StageReport
from bon.pipeline.select import SelectReport

__all__ = ["select_table", "stages_table"]


def select_table(report: SelectReport, stages: list[StageReport], output: Path) -> None:
    """Print what `bon select` did."""
    table = _table(f"{report.strategy} by {report.scorer}")
    _rows_of(table, report.accounting)
    table.add_row("candidates", f"{report.num_candidates:,}")
    for reason, count in sorted(report.accounting.candidate_drops.items()):
        table.add_row(f"  without score: {reason}", f"{count:,}")
    if report.num_ties:
        table.add_row("prompts with a tie", f"{report.num_ties:,}")
    table.add_section()
    _stage_rows(table, stages)
    reward_all, reward_chosen = report.reward_all.value, report.reward_chosen.value
    if reward_all is not None and reward_chosen is not None:
        table.add_section()
        table.add_row("mean reward, all", f"{reward_all:.4f}")
        table.add_row("mean reward, chosen", f"{reward_chosen:.4f}")
        table.add_row("lift", f"{reward_chosen - reward_all:+.4f}")
    right_random, right_chosen = report.accuracy_random.value, report.accuracy_chosen.value
    if right_random is not None and right_chosen is not None:
        table.add_section()
        table.add_row("right, a random candidate", f"{right_random:.1%}")
        table.add_row("right, the chosen", f"{right_chosen:.1%}")
        table.add_row("gain", f"{100 * (right_chosen - right_random):+.1f} points")
    table.add_section()
    table.add_row("written", f"{report.accounting.output_rows:,} rows")
    _print(table)
    Console(stderr=True, soft_wrap=True).print(f"  to {output}", highlight=False)


def stages_table(books: Accounting, stages: list[StageReport], pool: Path) -> None:
    """Print what `bon generate` or `bon score` did."""
    table = _table(f"pool {pool.name}")
    _rows_of(table, books)
    for reason, count in sorted(books.candidate_drops.items()):
        table.add_row(f"  candidates without score: {reason}", f"{count:,}")
    table.add_section()
    _stage_rows(table, stages)
    _print(table)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    return table


def _rows_of(table: Table, books: Accounting) -> None:
    table.add_row("input rows", f"{books.input_rows:,}")
    table.add_row("prompts kept", f"{books.kept_rows:,}")
    table.add_row("dropped", f"{books.num_drops:,}")
    for reason, count in sorted(books.drops.items()):
        table.add_row(f"  {reason}", f"{count:,}")


def _stage_rows(table: Table, stages: list[StageReport]) -> None:
    for stage in stages:
        if stage.num_parts_done == 0:
            table.add_row(stage.name, "nothing to do")
            continue
        rate = stage.num_tokens / stage.run_s if stage.run_s else 0.0
        table.add_row(
            stage.name,
            f"{stage.num_tokens:,} tokens in {stage.run_s:.1f} s, {rate:,.0f} tokens/s",
        )


def _print(table: Table) -> None:
    # a narrow terminal folds, a pipe or file gets whole lines
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=100)
    console.print(table)
