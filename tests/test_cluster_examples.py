"""The files that start bon on clusters: they parse, and say flags that bon has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bon.cli import select  # noqa: F401  (registers the command)
from bon.cli.app import app

EXAMPLES = Path(__file__).parent.parent / "examples"


def unknown_flags(text: str) -> set[str]:
    """Return flags of a `bon select` that it does not have."""
    said = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    shown = CliRunner().invoke(app, ["select", "--help"], env={"COLUMNS": "300"}).stdout
    return {flag for flag in said if flag not in shown}


def test_flags_that_bon_lacks_are_found() -> None:
    assert unknown_flags("bon select --engine ray --num-helpers 4") == {"--num-helpers"}


def test_the_job_for_kubernetes_parses_and_says_flags_of_bon() -> None:
    yaml = pytest.importorskip("yaml")
    job: dict[str, Any] = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    command = job["spec"]["entrypoint"]
    assert "--engine ray --ray-address auto" in command
    assert unknown_flags(command) == set()
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        volumes = {volume["name"] for volume in pod["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


def test_the_job_for_slurm_parses_and_says_flags_of_bon() -> None:
    path = EXAMPLES / "slurm_ray.sbatch"
    subprocess.run(["bash", "-n", str(path)], check=True)
    (line,) = [one for one in path.read_text().splitlines() if '"$VENV/bin/bon"' in one]
    assert unknown_flags(line) == set()
    assert "--ray-address" in line
