"""`bon validate`: the checks of a run, each a small function; nothing is written or computed."""

from bon.cli.validation.checks import CHECKS, run_checks
from bon.cli.validation.plan import Finding, PlannedRun

__all__ = ["CHECKS", "Finding", "PlannedRun", "run_checks"]
