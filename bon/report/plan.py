"""A planned run as tables, on stdout: the same facts as `--json`, for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bon.shown import shown

__all__ = ["duration", "show_plan", "size"]

_UNITS_S = ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min"))
_UNITS_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def show_plan(facts: dict[str, Any]) -> None:
    """Print what a run will cost."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=110)  # a file gets whole lines
    lead = (
        f"{_counted(facts['prompts'], 'prompt')} × "
        f"{_counted(facts['candidates_per_prompt'], 'candidate')}, "
        f"{_counted(facts['parts'], 'part')} of {facts['part_size']:,}, "
        f"{_counted(facts['workers'], 'worker')} with {_counted(facts['gpus_per_worker'], 'GPU')}"
        f"{' each' if facts['workers'] > 1 else ''}"
    )
    console.print(Text(lead), soft_wrap=True)
    console.print(_stages(facts))
    console.print(_placements(facts))
    console.print(_rest(facts))
    for note in facts["notes"]:
        console.print(Text(f"  {shown(note)}"), soft_wrap=True)


def duration(seconds: float) -> str:
    """Return seconds for a person: `12.3 s`, `45 min`, `8.2 h`, `3.1 days`."""
    for unit_s, unit in _UNITS_S:
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:,.1f} {unit}"
    return f"{seconds:.1f} s"


def size(num_bytes: float) -> str:
    """Return bytes for a person."""
    for unit_bytes, unit in _UNITS_BYTES:
        if num_bytes >= unit_bytes:
            return f"{num_bytes / unit_bytes:,.1f} {unit}"
    return f"{num_bytes:,.0f} bytes"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.3g}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return table


def _stages(facts: dict[str, Any]) -> Table:
    names = [stage["name"] for stage in facts["stages"]]
    table = _table("stages", "", *map(shown, names))
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "tokens": lambda one: f"{one['num_tokens']:,.0f}" if one["num_tokens"] else "none",
        "computed": _computed,
        "by one worker": lambda one: f"{one['units_per_s']:,.0f} {one['unit']}/s",
        "GPU-hours of work": lambda one: _hours(one["gpu_hours"]),
        "to start and end": lambda one: duration(one["setup_s"]),
        "work on all workers": lambda one: duration(one["run_s"]),
        "  of it the tail": lambda one: duration(one["tail_s"]),
        "a part": lambda one: duration(one["part_s"]),
        "a lost worker costs, at most": lambda one: duration(one["lost_worker_s"]),
    }
    for name, text in rows.items():
        table.add_row(name, *(Text(text(one)) for one in facts["stages"]))
    return table


def _computed(stage: dict[str, Any]) -> str:
    if not stage["num_tokens"]:
        return f"{stage['num_units']:,.0f} candidates"
    saved = round(100 * stage["share_saved"])
    return f"{stage['num_units']:,.0f}" + (f", saved {saved} %" if saved else "")


def _placements(facts: dict[str, Any]) -> Table:
    is_priced = any(one["price"] is not None for one in facts["placements"])
    columns = ["wall-clock", "GPU-hours held", *(["price"] if is_priced else []), "workers"]
    table = _table("placements", "", *columns)
    for one in facts["placements"]:
        counts = ", ".join(f"{name} {count:,}" for name, count in one["workers"].items())
        cells = [duration(one["wall_s"]), _hours(one["gpu_hours"])]
        cells += [f"{one['price']:,.2f}"] if is_priced else []
        workers = f"{facts['workers']:,} for each stage" if one["name"] == "in turn" else counts
        table.add_row(one["name"], *cells, Text(shown(workers)))
    return table


def _rest(facts: dict[str, Any]) -> Table:
    pool, driver = facts["pool"], facts["driver"]
    table = _table("pool and driver", "", "")
    table.add_row("pool on disk", f"{size(pool['num_bytes'])} ({pool['source']})")
    table.add_row("  footers of parts", size(pool["footer_bytes"]))
    table.add_row("files", f"{pool['num_files']:,}")
    table.add_row("  in one folder, at most", f"{pool['files_in_a_folder']:,}")
    table.add_row("driver: reading the input", duration(driver["read_s"]))
    table.add_row("  looking through the parts, each start", duration(driver["look_s"]))
    table.add_row("  peak memory", size(driver["peak_mib"] * 2**20))
    for stage, counts in facts["drops"].items():
        said = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
        table.add_row(Text(shown(f"drops, {stage}")), Text(shown(said)))
    return table
