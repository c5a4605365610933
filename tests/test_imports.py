"""Who may import whom (docs: the table below), and what may not be imported at all at start."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bon.cli.app import OVERVIEW, app

PACKAGE = Path(__file__).parent.parent / "bon"
HEAVY = ("torch", "transformers", "vllm", "datasets", "ray", "trl", "peft", "huggingface_hub")
HEAVY += ("datasketch", "py3langid", "math_verify", "scipy", "sympy", "pandas", "statsmodels")
HEAVY += ("httpx", "tenacity", "duckdb")

VOCABULARY = {"", "errors", "records", "config", "protocols", "durable"}
VOCABULARY |= {"heartbeat", "memory", "redaction", "shown", "signals"}
VOCABULARY |= {"holders", "object_lock", "object_store", "places", "store_faults", "store_listings"}
VOCABULARY |= {"standard_streams", "store_systems", "system_faults"}
PURE = {"chat", "selection", "answers", "aggregation", "pairs", "guards", "filters"}
PURE |= {"bradley_terry", "estimators", "kl", "margins", "repetition", "trie", "verification"}
PURE |= {"vllm_engine", "cost"}
SHARED = VOCABULARY | PURE
STORAGE = {"sources", "exports", "pool"}
ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    **dict.fromkeys(PURE, SHARED),
    **dict.fromkeys(STORAGE | {"serving"}, SHARED),
    **dict.fromkeys({"generators", "scorers"}, SHARED | {"serving"}),
    "engines": VOCABULARY,
    "pipeline": SHARED | STORAGE,
    "report": SHARED | STORAGE,
}
"""What each module or package directly below `bon` may import, itself aside. `""` is `bon`."""
ALLOWED["cli"] = ALLOWED["__main__"] = {*ALLOWED, "cli"}
ALLOWED["api"] = {*ALLOWED["cli"], "api"}
ALLOWED[""] = {*ALLOWED[""], "api"}  # `from bon import load_scorer`, when it is first named


def layer_of(module: str) -> str:
    """`bon.pool.lock` -> `pool`, `bon` -> ``."""
    return ([*module.split("."), ""])[1]


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yield the absolute names that one statement or `import_module` call imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = module.split(".")
        above = parents[: len(parents) - node.level + is_package] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        if base == "bon":
            yield from (f"bon.{alias.name}" for alias in node.names if alias.name[0] != "_")
        else:
            yield base
    elif isinstance(node, ast.Call) and node.args:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        target = node.args[0]
        if name in ("import_module", "__import__") and isinstance(target, ast.Constant):
            yield str(target.value)


def nodes_run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk what importing the module runs: not functions, not `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes_run_at_import(node)


def violations(package: Path) -> list[str]:
    """List `file:line: what` for every import that goes where it may not."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module, is_package = module_name(path, package), path.name == "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        layer = layer_of(module)
        if layer not in ALLOWED:
            found.append(f"{path}:1: {module} has no place in ALLOWED of {Path(__file__).name}")
            continue
        for node in ast.walk(tree):
            for target in imported_modules(node, module, is_package):
                other = layer_of(target)
                if target.split(".")[0] == "bon" and other not in ALLOWED[layer] | {layer}:
                    found.append(f"{path}:{node.lineno}: {module} may not import {target}")
        for node in nodes_run_at_import(tree):
            for target in imported_modules(node, module, is_package):
                if target.split(".")[0] in HEAVY:
                    found.append(f"{path}:{node.lineno}: {module} imports {target} at its import")
    return found


def test_imports_go_upward_only() -> None:
    assert list(PACKAGE.rglob("*.py"))
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("pool/lock.py", "from bon.sources import x", "bon.pool.lock may not import bon.sources"),
        ("pool/lock.py", "from bon import cli", "may not import bon.cli"),
        ("pool/lock.py", "from ..exports import x", "may not import bon.exports"),
        ("pool/__init__.py", "from ..exports.a import x", "may not import bon.exports.a"),
        ("pool/lock.py", "def f():\n import bon.scorers.hf", "may not import bon.scorers.hf"),
        ("generators/vllm.py", "import bon.scorers.hf", "may not import bon.scorers.hf"),
        ("pipeline/run.py", "from bon.scorers import x", "may not import bon.scorers"),
        ("pipeline/run.py", "import_module('bon.generators')", "may not import bon.generators"),
        ("engines/local.py", "from bon.pipeline import x", "may not import bon.pipeline"),
        ("engines/local.py", "from bon.generators import x", "may not import bon.generators"),
        ("trie.py", "from bon.pool import x", "bon.trie may not import bon.pool"),
        ("errors.py", "import bon.trie", "bon.errors may not import bon.trie"),
        ("helpers.py", "", "bon.helpers has no place"),
        ("scorers/hf.py", "import torch.nn", "imports torch.nn at its import"),
        ("scorers/hf.py", "try:\n from vllm import LLM\nexcept E:\n 1", "imports vllm at its"),
        ("cli/app.py", "class A:\n import datasets", "imports datasets at its import"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str, message: str) -> None:
    path = tmp_path / "bon" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    (found,) = violations(tmp_path / "bon")
    assert message in found
    assert found.startswith(str(path))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("cli/app.py", "from bon.scorers.hf import x\nfrom bon.pipeline import y"),
        ("__main__.py", "from bon.cli.app import main"),
        ("pipeline/run.py", "from bon.pool import x\nfrom bon.protocols import Scorer"),
        ("pool/pool.py", "from bon import __version__\nfrom .lock import x\nfrom . import y"),
        ("pool/__init__.py", "from .lock import x\nfrom bon.pool.files import y"),
        ("scorers/hf.py", "def f():\n import torch\nif TYPE_CHECKING:\n import torch"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / "bon" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert violations(tmp_path / "bon") == []


@pytest.mark.parametrize("command", ["", *OVERVIEW])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys\nsys.argv = 'bon {command} --help'.split()\nfrom bon.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    imported = set(result.stderr.splitlines()[-1].split())
    assert "bon" in imported
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("command", OVERVIEW)
def test_the_overview_says_what_a_command_says_of_itself(command: str) -> None:
    importlib.import_module(f"bon.cli.{command.replace('-', '_')}")
    found = next(one for one in app.registered_commands if one.name == command)
    text = found.help or inspect.getdoc(found.callback) or ""
    assert OVERVIEW[command] == (found.rich_help_panel, text.split("\n\n")[0])


def test_help_is_quick() -> None:
    command = [str(Path(sys.executable).with_name("bon")), "--help"]
    seconds = []
    for _ in range(7):  # the quickest of a few: a busy machine slows each, never speeds one up
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 0.4:
            return
    pytest.fail(f"`bon --help` took {min(seconds):.2f} s at best, 0.4 s is the limit")
